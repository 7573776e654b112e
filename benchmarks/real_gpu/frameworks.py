# SPDX-License-Identifier: Apache-2.0
"""Programs of several frameworks without and with gpuvirt: equal results, nothing past the shim, the quota obeyed.

The run with gpuvirt is `gpuvirt doctor -- PROGRAM`, so that what it loads and what escapes is in the answer, too.
"""

from __future__ import annotations

import importlib.util
import json
import sys
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.daemon import Daemon, command
from harness.jobs import PROGRAMS
from harness.processes import Child, Children
from harness.softgpu import Device
from real_gpu.steps import StepFailed

QUANTUM_MS = 100
QUOTA = 1 << 28  # bytes that a program of the quota steps may have; on the soft GPU a quarter of its memory
WATCHED = ("loaded", "attached", "escapes", "passed", "told")  # findings of doctor that are kept


@dataclass(frozen=True)
class Case:
    """One program. `packages` are modules that it imports; `real`: it needs NVIDIA's driver."""

    program: str
    words: tuple[str, ...]
    packages: tuple[str, ...]
    real: bool = True
    variables: Mapping[str, str] = field(default_factory=dict)

    def missing(self, real_gpu: bool) -> str:
        """Why it cannot run here, or nothing."""
        if self.real and not real_gpu:
            return "no real GPU: the CUDA runtime needs NVIDIA's driver"
        absent = [name for name in self.packages if importlib.util.find_spec(name.split(".")[0]) is None]
        return f"{', '.join(absent)} is not installed" if absent else ""


def _torch(case: str, **variables: str) -> Case:
    return Case("framework_torch.py", (case,), ("torch",), variables=variables)


EXPANDABLE = "expandable_segments:True"
CASES: dict[str, Case] = {
    "torch_eager": _torch("eager"),
    "torch_compile": _torch("compile"),
    "torch_cuda_graphs": _torch("graphs"),
    "torch_expandable_segments": _torch("eager", PYTORCH_CUDA_ALLOC_CONF=EXPANDABLE),
    "torch_expandable_graphs": _torch("graphs", PYTORCH_CUDA_ALLOC_CONF=EXPANDABLE),
    "torch_async_allocator": _torch("eager", PYTORCH_CUDA_ALLOC_CONF="backend:cudaMallocAsync"),
    "torch_sharing": _torch("sharing"),
    "torch_expandable_sharing": _torch("sharing", PYTORCH_CUDA_ALLOC_CONF=EXPANDABLE),
    "nccl_one_rank": _torch("nccl"),
    "cupy": Case("framework_others.py", ("cupy",), ("cupy",)),
    "jax": Case("framework_others.py", ("jax",), ("jax",)),
    "triton": Case("framework_others.py", ("triton",), ("torch", "triton")),
    "numba": Case("framework_others.py", ("numba",), ("numba_cuda",), real=False),
    "cuda_core": Case("heat.py", ("--memory", "64M", "--steps", "6"), ("cuda.core",), real=False),
    "driver_api": Case("train_mlp.py", ("--memory", "64M", "--steps", "40"), ("cuda.bindings",), real=False),
}
QUOTAS: dict[str, Case] = {
    **{f"quota_{kind}": Case("quota.py", (kind,), ("cuda.bindings",), real=False)
       for kind in ("plain", "pool", "vmm", "managed", "array")},
    "quota_torch": _torch("quota"),
    "quota_torch_expandable": _torch("quota", PYTORCH_CUDA_ALLOC_CONF=EXPANDABLE),
    "quota_torch_async": _torch("quota", PYTORCH_CUDA_ALLOC_CONF="backend:cudaMallocAsync"),
}  # fmt: skip


class Frameworks:
    """Runs cases on one device. Files go to `scratch`."""

    def __init__(self, device: Device, scratch: Path, children: Callable[[], Children]) -> None:
        self._device, self._scratch, self._children = device, scratch, children
        self._runs = 0

    def _new(self, name: str) -> Path:
        self._runs += 1
        return self._scratch / f"{name}-{self._runs}"

    def _program(self, case: Case, file: Path) -> list[str]:
        return [sys.executable, str(PROGRAMS / case.program), *case.words, "--json", str(file)]

    def compare(self, case: Case, limit: float) -> dict[str, Any]:
        """The case without gpuvirt, then under it. Raises StepFailed when results differ or something escapes."""
        file, began = self._new("bare"), time.monotonic()
        with self._children() as children:
            environ = {**self._device.environ(), **case.variables}
            child = children.start("bare", self._program(case, file), environ)
            children.wait(child, limit)
            bare = self._report(child, file)
        left = limit - (time.monotonic() - began)
        governed, findings = self._governed(case, left)
        answer = {
            "equal": bare["result"] == governed["result"],
            "bare": bare,
            "governed": governed,
            **judged(findings, governed),
        }
        faults = [
            text for name in ("escapes", "doors") for state, text in answer["doctor"].get(name, []) if state == "fail"
        ]
        if not answer["equal"] or faults:
            raise StepFailed(f"{faults or 'results differ'}: {json.dumps(answer)[:2000]}")
        return answer

    def _governed(self, case: Case, limit: float) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        file, said = self._new("governed"), self._new("doctor")
        with self._children() as children:
            daemon = Daemon(self._new("run"), self._device, QUANTUM_MS)
            daemon.start(children)
            words = [command("gpuvirt"), "doctor", "-o", "json", "--seconds", f"{max(limit - 5, 5):.0f}", "--"]
            shell = ["sh", "-c", 'out=$1; shift; exec "$@" >"$out"', "sh", str(said), *words]
            environ = {**daemon.environ(), **case.variables}
            child = children.start("governed", [*shell, *self._program(case, file)], environ)
            children.wait(child, limit)
            findings: list[dict[str, Any]] = json.loads(said.read_text()) if said.exists() and said.read_text() else []
            if not file.exists():
                trial = [finding["message"] for finding in findings if finding["name"] in ("trial", "program")]
                raise StepFailed(f"no result under gpuvirt: {trial or list(child.lines)[-3:]}")
            return json.loads(file.read_text()), findings

    def quota(self, case: Case, limit: float) -> dict[str, Any]:
        """The case with a limit on its memory. Raises StepFailed when it got more, or much less, than that."""
        quota, file = min(QUOTA, self._device.memory // 4), self._new("quota")
        with self._children() as children:
            daemon = Daemon(self._new("run"), self._device, QUANTUM_MS)
            daemon.start(children)
            words = daemon.run_command("quota", self._program(case, file), "--memory", str(quota))
            child = children.start("quota", words, {**daemon.environ(), **case.variables})
            children.wait(child, limit)
            report = self._report(child, file)
        allocated = int(report["allocated_bytes"])
        answer = {"quota_bytes": quota, "part": round(allocated / quota, 3), **report}
        if allocated > quota or allocated < quota // 2 or int(report["total_bytes"]) > quota:
            raise StepFailed(f"not what a quota of {quota} bytes allows: {json.dumps(answer)}")
        return answer

    @staticmethod
    def _report(child: Child, file: Path) -> dict[str, Any]:
        if child.exit_code != 0 or not file.exists():
            raise StepFailed(f"{child.name}: exit code {child.exit_code}: {' / '.join(list(child.lines)[-3:])}")
        report: dict[str, Any] = json.loads(file.read_text())
        return report


def judged(findings: list[dict[str, Any]], report: Mapping[str, Any]) -> dict[str, Any]:
    """What doctor found, as (state, text) by name, and the counts of the shim beside those of the program itself."""
    found: dict[str, list[tuple[str, str]]] = {}
    counts: dict[str, Any] = {}
    for finding in findings:
        if finding["name"] in WATCHED or finding["state"] == "fail":
            found.setdefault(finding["name"], []).append((finding["state"], finding["message"]))
        if finding["name"] in ("attached", "passed"):
            counts |= finding.get("facts", {})
    if "given_to_the_gpu" in report and "submitted" in counts:
        counts["program_counts"] = report["given_to_the_gpu"]
    return {"doctor": found, "counts": counts}
