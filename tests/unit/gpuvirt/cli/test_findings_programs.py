# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt doctor` on versions, on doors, on calls that pass and on processes past gpuvirt."""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from gpuvirt.cli import findings_programs as programs
from gpuvirt.cli.environment import Attachment
from gpuvirt.cli.findings import FAIL, OK, WARN, Patient
from gpuvirt.control.versions import HEADER_VERSION

SHIM, NVML_SHIM = Path("/g/libgpuvirt-shim.so"), Path("/g/libgpuvirt-nvml.so")


@pytest.mark.parametrize(
    ("driver", "state", "words"),
    [
        (HEADER_VERSION, OK, "gpuvirt was built for"),
        (12000, OK, "has CUDA 12.0"),
        (HEADER_VERSION + 10, WARN, "newer functions pass ungoverned"),
        (11080, FAIL, "has CUDA 11.8"),
        (None, WARN, "did not say"),
    ],
)
def test_versions(driver: int | None, state: str, words: str) -> None:
    found = programs.versions(Patient(cuda_version=driver, driver_version="1.2"))
    assert found is not None
    assert (found.state, words in found.message) == (state, True), found
    assert found.facts["headers"] == HEADER_VERSION and (state == OK or found.fix)


def test_cuda_versions_are_read_as_nvidia_writes_them() -> None:
    assert [programs.cuda(version) for version in (11080, 12000, 13050, 13100)] == ["11.8", "12.0", "13.5", "13.10"]


def status(*jobs: dict[str, Any]) -> dict[str, Any]:
    return {"gpus": [{"index": 0}], "jobs": list(jobs)}


def test_who_is_past_gpuvirt() -> None:
    job = {"job": "j1", "pids": [5]}
    mine = os.getpid()
    assert programs.strangers(Patient(status=None, on_gpu={mine: 0})) is None
    good = programs.strangers(Patient(status=status(job), on_gpu={5: 0, 6: 1}))
    assert good is not None and good.state == OK, "GPU 1 is not served by gpuvirtd"
    found = programs.strangers(Patient(status=status(job), on_gpu={5: 0, mine: 0, (1 << 22) + 1: 0}))
    assert found is not None and found.state == WARN
    comm = Path("/proc/self/comm").read_text().strip()
    assert f"{mine} ({comm}) on GPU 0" in found.message and "not visible here" in found.message


def test_names_that_jobs_asked_for() -> None:
    assert programs.calls(Patient()) is None
    fine = programs.calls(Patient(status=status({"job": "j1", "passed_calls": 4, "unknown_names": 0})))
    assert fine is not None and fine.state == OK and fine.facts["passed_calls"] == 4
    found = programs.calls(Patient(status=status({"job": "j1", "unknown_names": 2}, {"job": "j2"})))
    assert found is not None and found.state == WARN and "j1 (2)" in found.message


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ({"dlopen libcuda.so.1": str(SHIM), "NVML": str(NVML_SHIM)}, ""),
        ({"dlopen libcuda.so.1": "/usr/lib/libcuda.so.1"}, "leads to /usr/lib/libcuda.so.1, not to libgpuvirt-shim.so"),
        ({"dlopen libcuda.so.1": "error: no such file"}, "error: no such file"),
        ({"NVML": str(SHIM)}, "not to libgpuvirt-nvml.so"),
        ({"NVML": ""}, "leads to nothing"),
    ],
)
def test_doors(answers: dict[str, str], words: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(command: list[str], **options: Any) -> subprocess.CompletedProcess[str]:
        assert str(SHIM) in options["env"]["LD_PRELOAD"]
        return subprocess.CompletedProcess(command, 0, json.dumps(answers), "")

    monkeypatch.setattr(subprocess, "run", run)
    found = programs.doors_in(Attachment(SHIM, Path("/run/lib"), None, {}, NVML_SHIM))
    assert (found.state, words in found.message) == (FAIL if words else OK, True), found


def test_an_old_daemon_has_no_shim_of_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    done = subprocess.CompletedProcess([], 0, json.dumps({"NVML": "/usr/lib/libnvidia-ml.so.1"}), "")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: done)
    assert programs.doors_in(Attachment(SHIM, Path("/run/lib"), None, {}, None)).state == OK
