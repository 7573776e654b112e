# SPDX-License-Identifier: Apache-2.0
"""Two PyTorch trainings alone and together under gpuvirt, and whether the shim sees all that PyTorch does."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness.daemon import Daemon
from harness.jobs import PROGRAMS, Outcome
from harness.processes import Child, Children
from harness.softgpu import Device
from real_gpu.steps import StepFailed

PART = 0.55  # of the free memory, for each of two jobs: they do not fit, and neither asks for more than there is
QUANTUM_MS, STEPS = 2000, 4000
LINGER = 1.5  # seconds in which a program waits to be looked at


class TorchJobs:
    """The trainings on one device. Files go to `scratch`; `show` is given every line of the programs."""

    def __init__(self, device: Device, scratch: Path, children: Callable[[], Children]) -> None:
        self._device, self._scratch, self._children = device, scratch, children
        self._runs = 0

    def _command(self, file: Path, model: str, memory: int, steps: int, *extra: str) -> list[str]:
        options = ["--model", model, "--memory", f"{memory >> 20}M", "--steps", str(steps), "--json", str(file), *extra]
        return [sys.executable, str(PROGRAMS / "train_torch.py"), *options]

    def _new(self, name: str) -> Path:
        self._runs += 1
        return self._scratch / f"{name}-{self._runs}"

    def _outcome(self, child: Child, file: Path) -> Outcome:
        if child.exit_code != 0:
            said = " / ".join(list(child.lines)[-3:])
            raise StepFailed(f"{child.name} ended with exit code {child.exit_code}: {said}")
        return Outcome.read(file, child.seconds)

    def alone(self, model: str, limit: float, memory: int = 0, steps: int = STEPS) -> Outcome:
        """One training without gpuvirt. Raises StepFailed."""
        file = self._new(model)
        with self._children() as children:
            command = self._command(file, model, memory or int(self._device.memory * PART), steps)
            child = children.start(model, command, self._device.environ())
            children.wait(child, limit)
            return self._outcome(child, file)

    def together(self, limit: float) -> dict[str, Any]:
        """Both trainings under gpuvirt. Raises StepFailed or GpuvirtError."""
        models = ("conv", "mlp")
        files = {model: self._new(model) for model in models}
        with self._children() as children:
            daemon = Daemon(self._new("run"), self._device, QUANTUM_MS)
            daemon.start(children)
            began = time.monotonic()
            running = {}
            for model in models:
                command = self._command(files[model], model, int(self._device.memory * PART), STEPS)
                running[model] = children.start(model, daemon.run_command(model, command), daemon.environ())
            for child in running.values():
                children.wait(child, limit - (time.monotonic() - began))
            total = time.monotonic() - began
            accounts = daemon.accounts()
            outcomes = {model: self._outcome(child, files[model]).fields for model, child in running.items()}
        return {"seconds": round(total, 2), "outcomes": outcomes, "accounts": accounts}

    def governed(self, model: str, limit: float, memory: int, steps: int, *extra: str) -> dict[str, Any]:
        """One training alone under gpuvirt, with the daemon's accounts at the line "counting" and at the end."""
        file = self._new(model)
        with self._children() as children:
            daemon = Daemon(self._new("run"), self._device, QUANTUM_MS)
            daemon.start(children)
            command = self._command(file, model, memory, steps, *extra)
            child = children.start(model, daemon.run_command(model, command), daemon.environ())
            at_start: dict[str, Any] = {}
            last: dict[str, Any] = {}
            deadline = time.monotonic() + limit
            while child.exit_code is None and time.monotonic() < deadline:
                row = next(iter(daemon.jobs()), None)
                if row is not None and row.get("charged"):
                    last = row
                    if not child.said("counting"):
                        at_start = row
                children.wait(child, 0.1)
            outcome = self._outcome(child, file)
        return {"at_start": at_start, "last": last, "outcome": outcome.fields}

    def hooks(self, limit: float) -> dict[str, Any]:
        """Launches that the shim counted against those that CUPTI saw; bytes charged against torch's reserved bytes."""
        seen = self.governed("conv", limit, 1 << 30, 300, "--count", "--linger", str(LINGER))
        profiled, last = seen["outcome"]["profiled"], seen["last"]
        counted = None
        if "submitted" in last:
            counted = int(last["submitted"]) - int(seen["at_start"].get("submitted", 0))
        total = sum(profiled.values())
        return {
            "seen_by_cupti": profiled,
            "counted_by_shim": counted,
            "equal": counted == total,
            "missing": None if counted is None else total - counted,
            "charged_bytes": last.get("charged"),
            "torch_reserved_bytes": seen["outcome"]["torch_reserved_bytes"],
            "native_bytes": last.get("native"),
        }

    def overhead(self, limit: float) -> dict[str, Any]:
        """Seconds of the training loop with and without gpuvirt, nobody else on the GPU, by turns."""
        times: dict[str, list[float]] = {"without": [], "with": []}
        for _ in range(2):
            times["without"].append(self.alone("conv", limit / 4, 1 << 30, 2000).fields["run_s"])
            times["with"].append(self.governed("conv", limit / 4, 1 << 30, 2000)["outcome"]["run_s"])
        return {**times, "ratio": round(min(times["with"]) / min(times["without"]), 4)}
