# SPDX-License-Identifier: Apache-2.0
"""What a switch costs on this GPU: swap.py, and the driver's own way to take a process off the device."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import probes
from harness.processes import Child, Children
from harness.softgpu import Device
from real_gpu.steps import StepFailed

ROOT = Path(__file__).resolve().parents[1]
SWITCHES = "3"  # of each kind
LARGEST = 40_000_000_000  # bytes that the process has which is suspended, if the device has them
FORGET = 60.0  # seconds for which it would run


def document_of(child: Child) -> Any:
    """The answer that a program printed in the form of a probe. Raises StepFailed."""
    for line in reversed(child.lines):
        if line.startswith('{"answer"'):
            return json.loads(line)["answer"]
        if line.startswith('{"error"'):
            raise StepFailed(str(json.loads(line)["error"]))
    raise StepFailed(f"exit code {child.exit_code}: {' / '.join(list(child.lines)[-3:])}")


class Switching:
    """Steps on one device. Files go to `scratch`; `show` is given every line of the programs."""

    def __init__(self, device: Device, real: bool, scratch: Path, children: Callable[[], Children]) -> None:
        self._device, self._real, self._scratch, self._children = device, real, scratch, children

    def swap(self, limit: float) -> Any:
        """Switches of two jobs, by kind of memory, against what plain copies reach here. Raises StepFailed."""
        file = self._scratch / "swap.json"
        options = ["--real", "--switches", SWITCHES] if self._real else ["--quick", "--measured"]
        with self._children() as children:
            command = [sys.executable, "-P", str(ROOT / "swap.py"), "--json", str(file), *options]
            child = children.start("swap", command, self._device.environ())
            children.wait(child, limit)
            said = " / ".join(list(child.lines)[-3:])
            if child.exit_code != 0:
                raise StepFailed(f"exit code {child.exit_code}: {said}")
        return json.loads(file.read_text())["results"]

    def checkpoint(self, limit: float) -> dict[str, Any]:
        """A process with much memory, suspended and resumed by the driver, without gpuvirt. Raises StepFailed."""
        size = min(LARGEST, self._device.memory // 2)
        program = probes.build("pages", self._scratch)
        with self._children() as children:
            words = [str(program), str(size >> 20), str(FORGET), "1000000000", "clean"]
            victim = children.start("victim", words, self._device.environ())
            if not children.wait(victim, limit / 2, until="ready"):
                raise StepFailed(f"the process did not get ready: {' / '.join(list(victim.lines)[-3:])}")
            command = [sys.executable, "-P", "-m", "real_gpu.checkpoint", str(victim.pid)]
            child = children.start("checkpoint", command, self._device.environ())
            children.wait(child, limit / 2)
            answer: dict[str, Any] = document_of(child)
        out, back = answer["lock_s"] + answer["checkpoint_s"], answer["restore_s"] + answer["unlock_s"]
        return {
            **answer,
            "bytes": size,
            "out_gb_per_s": round(size / max(out, 1e-9) / 1e9, 3),
            "in_gb_per_s": round(size / max(back, 1e-9) / 1e9, 3),
        }

    def beside_each_other(self, limit: float) -> dict[str, Any]:
        """The probe `vmm` in two processes at the same time: what the driver's lock makes of it. Raises StepFailed."""
        with self._children() as children:
            command = [sys.executable, "-P", "-m", "real_gpu.probe", "vmm"]
            both = [children.start(f"vmm {number}", command, self._device.environ()) for number in (1, 2)]
            for child in both:
                children.wait(child, limit)
            first, second = (document_of(child) for child in both)
        return {"first": first, "second": second}
