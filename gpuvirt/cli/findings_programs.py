# SPDX-License-Identifier: Apache-2.0
"""What `gpuvirt doctor` says about programs: the ways by which they reach the driver, and who is on the GPUs."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from gpuvirt.cli import environment
from gpuvirt.cli.findings import FAIL, OK, PROBE_TIMEOUT_S, WARN, Finding, Patient, trial_job
from gpuvirt.errors import GpuvirtError

_OLDEST_CUDA = 12000


def doors(patient: Patient) -> Finding:
    """Does each way that programs bind to the driver and to NVML lead to the shims?"""
    try:
        with trial_job(patient) as job:
            return doors_in(job)
    except FileNotFoundError as error:
        return Finding("doors", FAIL, str(error), "install gpuvirt with pip, which builds it")
    except GpuvirtError as error:
        return Finding("doors", FAIL, error.message, error.hint)


def doors_in(attachment: environment.Attachment) -> Finding:
    """Runs the probe as a program with this attachment."""
    environ = environment.governed(os.environ, attachment, environment.system_folders())
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "gpuvirt.cli.doors_probe"],
            env=environ, capture_output=True, text=True, timeout=PROBE_TIMEOUT_S, check=True,
        )  # fmt: skip
        answers: dict[str, str] = json.loads(done.stdout)
    except (subprocess.SubprocessError, ValueError) as error:
        return Finding("doors", FAIL, f"a test program under the shim failed ({error})", "see 'preload' above")
    shim = attachment.preload.resolve()
    wanted = {door: attachment.nvml_preload if door == "NVML" else shim for door in answers}
    for door, found in answers.items():
        target = wanted[door]
        if target is not None and (
            found.startswith("error:") or not found or Path(found).resolve() != target.resolve()
        ):
            return Finding("doors", FAIL, f"{door}: leads to {found or 'nothing'}, not to {target.name}",
                           "see 'libraries' and 'driver' above", answers)  # fmt: skip
    return Finding("doors", OK, f"all {len(answers)} ways to the driver and to NVML lead to the shims", facts=answers)


def versions(patient: Patient) -> Finding:
    """The driver's CUDA version against that of the headers that the shim was built from."""
    from gpuvirt.control._control_block import lib

    built = int(lib.GV_HEADER_VERSION)
    facts: dict[str, Any] = {"headers": built, "driver": patient.cuda_version, "driver_version": patient.driver_version}
    if patient.cuda_version is None:
        return Finding("versions", WARN, f"built for CUDA {cuda(built)}; the driver did not say what it has",
                       "see 'nvml' above", facts)  # fmt: skip
    theirs = f"the driver ({patient.driver_version}) has CUDA {cuda(patient.cuda_version)}"
    both = f"{theirs}, gpuvirt was built for {cuda(built)}"
    if patient.cuda_version < _OLDEST_CUDA:
        return Finding("versions", FAIL, both, f"install a driver for CUDA {cuda(_OLDEST_CUDA)} or newer", facts)
    if patient.cuda_version > built:
        return Finding("versions", WARN, f"{both}: newer functions pass ungoverned, and are counted (gpuvirt metrics)",
                       "build gpuvirt with newer headers: pip install -U nvidia-cuda-runtime", facts)  # fmt: skip
    return Finding("versions", OK, both, facts=facts)


def cuda(version: int) -> str:
    """13050 -> "13.5"."""
    return f"{version // 1000}.{version % 1000 // 10}"


def calls(patient: Patient) -> Finding | None:
    """What the jobs of now have asked for that the shim does not govern."""
    if patient.status is None:
        return None
    jobs = patient.status.get("jobs", [])
    passed = sum(int(job.get("passed_calls") or 0) for job in jobs)
    unknown = {job["job"]: int(job["unknown_names"]) for job in jobs if job.get("unknown_names")}
    facts = {"passed_calls": passed, "unknown_names": unknown}
    if unknown:
        names = ", ".join(f"{job} ({count})" for job, count in unknown.items())
        return Finding("calls", WARN, f"jobs have asked for functions that the shim does not know: {names}",
                       "they go to the driver ungoverned: install a gpuvirt built for this CUDA", facts)  # fmt: skip
    return Finding("calls", OK, f"no job has asked for a function that the shim does not know ({len(jobs)} jobs)",
                   facts=facts)  # fmt: skip


def strangers(patient: Patient) -> Finding | None:
    """Who uses a GPU without being a job of the daemon?"""
    if patient.status is None or not patient.status.get("gpus"):
        return None
    served = {gpu["index"] for gpu in patient.status["gpus"]}
    ours = {pid for job in patient.status.get("jobs", []) for pid in job.get("pids", [])}
    others = {pid: gpu for pid, gpu in patient.on_gpu.items() if gpu in served and pid not in ours}
    if not others:
        return Finding("strangers", OK, "nobody uses a GPU past gpuvirt")
    names = ", ".join(f"{pid} ({_command_of(pid)}) on GPU {gpu}" for pid, gpu in list(others.items())[:5])
    more = f" and {len(others) - 5} more" if len(others) > 5 else ""
    return Finding("strangers", WARN, f"{names}{more}: not of gpuvirt, takes memory and time from jobs",
                   "start it with 'gpuvirt run'", {"pids": sorted(others)})  # fmt: skip


def _command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:
        return "not visible here"
