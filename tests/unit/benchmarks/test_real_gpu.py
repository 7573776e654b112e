# SPDX-License-Identifier: Apache-2.0
"""The steps of real_gpu.sh: a failure is an answer, nothing that was measured is lost, time is kept."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import train_torch
from real_gpu.steps import StepFailed, Steps

from harness.interrupts import Interrupted

ROOT = Path(__file__).resolve().parents[3]


def fail(limit: float) -> Any:
    """A step that cannot."""
    raise StepFailed("the driver said no")


def test_every_step_is_written_at_once(tmp_path: Path) -> None:
    file = tmp_path / "results" / "x.json"
    steps = Steps(file, {"gpu": "soft"}, 60.0)
    assert steps.run("first", 1.0, lambda limit: {"limit": limit > 50}) == {"limit": True}
    assert json.loads(file.read_text())["steps"]["first"]["answer"] == {"limit": True}
    assert steps.run("second", 1.0, fail) is None
    steps.skip("third", "no torch")
    document = json.loads(file.read_text())
    assert document["gpu"] == "soft"
    assert document["steps"]["second"]["error"] == "StepFailed: the driver said no"
    assert document["steps"]["third"]["skipped"] == "no torch"
    assert steps.failed == ["second"]


def test_no_step_begins_without_its_time(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "x.json", {}, 5.0)
    assert steps.run("long", 10.0, fail) is None
    assert "needs 10 s" in json.loads((tmp_path / "x.json").read_text())["steps"]["long"]["skipped"]
    assert steps.failed == []


def test_only_some_steps(tmp_path: Path) -> None:
    steps = Steps(tmp_path / "x.json", {}, 5.0, ["quota_*", "demo"])
    assert steps.run("quota_vmm", 0.0, lambda limit: 1) == 1 and steps.run("demo", 0.0, lambda limit: 2) == 2
    assert steps.run("jax", 0.0, fail) is None
    steps.skip("torch_eager", "no torch")
    assert list(json.loads((tmp_path / "x.json").read_text())["steps"]) == ["quota_vmm", "demo"]
    assert steps.failed == []


def test_an_interruption_is_no_answer(tmp_path: Path) -> None:
    def interrupted(limit: float) -> Any:
        raise Interrupted

    steps = Steps(tmp_path / "x.json", {}, 5.0)
    with pytest.raises(Interrupted):
        steps.run("one", 1.0, interrupted)


def test_collected_wheels_are_those_of_the_project(tmp_path: Path) -> None:
    """The script asks pip for what pyproject.toml says, and for nothing that it says again."""
    document = tomllib.loads((ROOT / "pyproject.toml").read_text())
    wanted = document["build-system"]["requires"] + document["project"]["dependencies"]
    pip = tmp_path / "python"
    log = tmp_path / "log"
    pip.write_text(f'#!/bin/sh\ncase "$1" in -m) echo "$@" >> {log} ;; *) exec {sys.executable} "$@" ;; esac\n')
    pip.chmod(0o755)
    command = [str(ROOT / "benchmarks" / "real_gpu.sh"), "--collect-wheels", str(tmp_path / "wheels")]
    subprocess.run(command, env={"PATH": "/usr/bin:/bin", "PYTHON": str(pip)}, check=True, capture_output=True)
    asked = log.read_text()
    assert " pytest>=" in asked  # for the conformance cases
    assert all(f" {entry}" in asked for entry in wanted)
    assert "--python-version 3.12" in asked


def test_missing_wheels_folder_is_one_line(tmp_path: Path) -> None:
    environ = {"PATH": "/usr/bin:/bin", "PYTHON": sys.executable, "WHEELS": str(tmp_path / "none")}
    done = subprocess.run(
        [ROOT / "benchmarks" / "real_gpu.sh"], env=environ, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert done.stderr == f"real_gpu.sh: no folder {tmp_path / 'none'} (WHEELS)\n"


def test_only_work_of_the_gpu_is_counted() -> None:
    """CUPTI's records hold the calls of the host too; with them the hooks would seem to miss half of all launches."""

    def event(name: str, device: str = "DeviceType.CUDA", annotation: bool = False) -> SimpleNamespace:
        return SimpleNamespace(name=name, device_type=device, is_user_annotation=annotation)

    events = [
        event("sgemm"),
        event("Memcpy HtoD (Pageable -> Device)"),
        event("Memset (Device)"),
        event("cudaLaunchKernel", "DeviceType.CPU"),
        event("cudaMemcpyAsync", "DeviceType.CPU"),
        event("Optimizer.step#Adam.step", annotation=True),
    ]
    counted = train_torch.totals(SimpleNamespace(events=lambda: events))
    assert counted == {"kernels": 1, "copies": 1, "memsets": 1}
