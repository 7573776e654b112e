# SPDX-License-Identifier: Apache-2.0
"""Everything that a GPU machine can tell us, in one JSON file. Without a GPU the soft GPU answers what it can."""

from __future__ import annotations

import argparse
import datetime
import functools
import importlib.util
import json
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from harness import record
from harness.interrupts import EXIT_INTERRUPTED, Interrupted, Interrupts
from harness.processes import Child, Children
from harness.real import NoRealGpu, RealGpu, describe
from harness.softgpu import Device, Scratch, soft_gpu
from real_gpu.frameworks import CASES, QUOTAS, Frameworks
from real_gpu.probe import NEED_TORCH, PROBES
from real_gpu.steps import StepFailed, Steps
from real_gpu.switching import Switching
from real_gpu.torch_jobs import TorchJobs

ROOT = Path(__file__).resolve().parents[1]
PROBE_LIMIT = 60.0  # seconds for any probe
SOFT_MEMORY = 1 << 30
HOST_ROOM = 1 << 33  # bytes that swapped memory may need in /dev/shm


def show(who: str, line: str) -> None:
    """A line of a child."""
    print(f"  {who[:10]:10} | {line}", flush=True)


class Session:
    """One call of real_gpu.sh: the device, and a fresh set of children for every step."""

    def __init__(self, device: Device, gpu: RealGpu | None, scratch: Path, interrupts: Interrupts) -> None:
        self.device, self.gpu, self.scratch, self.interrupts = device, gpu, scratch, interrupts

    def children(self) -> Children:
        """Children whose lines are shown."""
        return Children(self.interrupts, show)

    def probe(self, name: str, limit: float) -> Any:
        """The answer of a probe in its own process. Raises StepFailed."""
        with Children(self.interrupts) as children:
            child = children.start(name, [sys.executable, "-P", "-m", "real_gpu.probe", name], self.device.environ())
            children.wait(child, min(limit, PROBE_LIMIT))
            document = last_document(child)
        if "error" in document:
            raise StepFailed(document["error"])
        return document["answer"]

    def demo(self, limit: float) -> Any:
        """The two example programs, by demo.py. Raises StepFailed."""
        file = self.scratch / "demo.json"
        real = ["--real"] if self.gpu is not None else []
        with self.children() as children:
            command = [sys.executable, "-P", str(ROOT / "demo.py"), "--json", str(file), *real]
            child = children.start("demo", command, self.device.environ())
            children.wait(child, limit)
            code = child.exit_code
        results = json.loads(file.read_text())["results"] if file.exists() else None
        if code != 0:
            raise StepFailed(f"{child.lines[-1] if child.lines else 'no output'} (exit code {code}); so far: {results}")
        return results

    def conformance(self, limit: float) -> Any:
        """How the cases of tests/conformance go on this driver; each failure by name. Raises StepFailed."""
        file = self.scratch / "conformance.json"
        target = "real" if self.gpu is not None else "soft"
        with self.children() as children:
            script = str(ROOT.parent / "tests" / "conformance" / "run.py")
            command = [sys.executable, "-P", script, "--target", target, "--json", str(file)]
            child = children.start("conformance", command, self.device.environ())
            children.wait(child, limit)
            if child.exit_code is None:
                raise StepFailed("did not end in time")
        if not file.exists():
            raise StepFailed(f"exit code {child.exit_code}: {' / '.join(list(child.lines)[-3:])}")
        return conformance_answer(json.loads(file.read_text()))


def conformance_answer(outcomes: list[dict[str, Any]]) -> dict[str, Any]:
    """One table of what all files of cases came to: a count, and names with reasons."""
    kinds = ("skipped", "differs", "failed")
    listed = {kind: [entry for outcome in outcomes for entry in outcome[kind]] for kind in kinds}
    return {"passed": sum(outcome["passed"] for outcome in outcomes), **listed}


def last_document(child: Child) -> dict[str, Any]:
    """The JSON line that a probe printed. Raises StepFailed."""
    for line in reversed(child.lines):
        if line.startswith(('{"answer"', '{"error"')):
            document: dict[str, Any] = json.loads(line)
            return document
    if child.exit_code is None:
        raise StepFailed("did not end in time")
    raise StepFailed(f"exit code {child.exit_code}: {' / '.join(list(child.lines)[-3:])}")


def commit() -> str:
    """Of this source tree, empty outside of git."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()
    except OSError:
        return ""


def header(gpu: RealGpu | None, device: Device) -> dict[str, Any]:
    """Date, GPU, driver, command, versions."""
    soft = {"name": device.name, "driver": "gpuvirt soft GPU", "real": False, "memory_bytes": device.memory}
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "gpu": soft
        if gpu is None
        else {"name": gpu.name, "driver": gpu.driver, "real": True, "memory_bytes": gpu.total, "free_bytes": gpu.free},
        "command": shlex.join(["benchmarks/real_gpu.sh", *sys.argv[1:]]),
        "commit": commit(),
        "machine": record.machine(),
        "versions": record.versions(),
    }


def run_steps(session: Session, steps: Steps, torch: str) -> None:
    """All of them, the questions first; `torch` says why there is no PyTorch, or is empty."""
    for name in PROBES:
        if name in NEED_TORCH and torch:
            steps.skip(name, torch)
        else:
            steps.run(name, 5.0, functools.partial(session.probe, name))
    switching = Switching(session.device, session.gpu is not None, session.scratch, session.children)
    steps.run("vmm_two_processes", 10.0, switching.beside_each_other)
    steps.run("checkpoint", 20.0, switching.checkpoint)
    steps.run("switch", 60.0, switching.swap)
    run_frameworks(session, steps)
    steps.run("demo", 60.0, session.demo)
    jobs = TorchJobs(session.device, session.scratch, session.children)
    torch_steps: dict[str, tuple[float, Callable[[float], Any]]] = {
        "torch_hooks": (30.0, jobs.hooks),
        "torch_conv_alone": (30.0, lambda limit: jobs.alone("conv", limit).fields),
        "torch_mlp_alone": (30.0, lambda limit: jobs.alone("mlp", limit).fields),
        "torch_together": (60.0, jobs.together),
        "torch_overhead": (60.0, jobs.overhead),
    }
    answers = {}
    for name, (needs, body) in torch_steps.items():
        if torch:
            steps.skip(name, torch)
        else:
            answers[name] = steps.run(name, needs, body)
    together = answers.get("torch_together")
    if together is not None:
        pairs = {model: answers.get(f"torch_{model}_alone") for model in ("conv", "mlp")}
        same = {
            model: alone["result"] == together["outcomes"][model]["result"]
            for model, alone in pairs.items()
            if alone is not None
        }
        steps.run("torch_same_bits", 0.0, lambda limit: same)
    if importlib.util.find_spec("pytest"):
        steps.run("conformance", 60.0, session.conformance)
    else:
        steps.skip("conformance", "pytest is not installed")


def run_frameworks(session: Session, steps: Steps) -> None:
    """Programs of several frameworks with and without gpuvirt, and with a limit on their memory."""
    frameworks = Frameworks(session.device, session.scratch, session.children)
    real = session.gpu is not None
    for cases, body in ((CASES, frameworks.compare), (QUOTAS, frameworks.quota)):
        for name, case in cases.items():
            reason = case.missing(real)
            if reason:
                steps.skip(name, reason)
            else:
                steps.run(name, 20.0, functools.partial(body, case))


def main() -> int:
    """Exit code 0 when every step that was tried gave an answer."""
    parser = argparse.ArgumentParser(prog="benchmarks/real_gpu.sh", description=__doc__)
    parser.add_argument("--output", type=Path, metavar="FILE", help="default benchmarks/results/DATE-GPU.json")
    parser.add_argument("--limit", type=float, default=450.0, metavar="S", help="seconds for all steps (default 450)")
    parser.add_argument(
        "--only", nargs="+", default=["*"], metavar="STEP", help="only these steps, for example 'torch_*'"
    )
    parser.add_argument("--soft", action="store_true", help="use the soft GPU although there is a real one")
    options = parser.parse_args()
    interrupts = Interrupts()
    gpu = None
    try:
        gpu = None if options.soft else describe()
    except NoRealGpu as error:
        print(f"{error}; going on with the soft GPU", flush=True)
    try:
        with Scratch("gpuvirt-real-", room=HOST_ROOM if gpu else 0) as scratch:
            device = Device(gpu.name, gpu.free, {}) if gpu else soft_gpu(scratch, SOFT_MEMORY)
            document = header(gpu, device)
            slug = re.sub(r"[^a-z0-9]+", "-", (gpu.name if gpu else "soft-gpu").lower()).strip("-")
            file = options.output or ROOT / "results" / f"{document['date'][:10]}-{slug}.json"
            torch = "" if importlib.util.find_spec("torch") else "torch is not installed"
            if gpu is None:
                torch = "no real GPU: torch needs NVIDIA's driver"
            steps = Steps(file, document, options.limit, options.only)
            run_steps(Session(device, gpu, scratch, interrupts), steps, torch)
    except Interrupted:
        return EXIT_INTERRUPTED
    print(f"\nwritten: {file}")
    if steps.failed:
        print(f"without an answer: {', '.join(steps.failed)}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
