# SPDX-License-Identifier: Apache-2.0
"""Runs a file of conformance cases against one driver, chosen as users choose it: by the environment."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from gpuvirt import paths
from support.host import host

CASES = Path(__file__).resolve().parents[1] / "conformance" / "cases"
FILES = sorted(path.name for path in CASES.glob("case_*.py"))
TARGETS = ("soft", "shim-over-soft", "real")
KEPT = ("GPUVIRT_SOFTGPU_CACHE", "GPUVIRT_SOFTGPU_CC")  # where this machine has the soft GPU's tools
LIMIT = 240.0  # seconds for one file
DEVICES = "2"  # of the soft GPU: what needs two devices can be shown without hardware


@dataclass
class Outcome:
    """What the cases of one file came to. Each entry is (name of the case, reason or message)."""

    target: str
    file: str
    passed: int = 0
    skipped: list[tuple[str, str]] = field(default_factory=list)
    differs: list[tuple[str, str]] = field(default_factory=list)  # as expected, with a reason
    failed: list[tuple[str, str]] = field(default_factory=list)
    seconds: float = 0.0  # that the process took
    output: str = ""
    called: list[str] = field(default_factory=list)  # driver functions, as support/driver_calls.py noted them


def real_gpu() -> bool:
    """An NVIDIA GPU whose driver is loaded."""
    return Path("/dev/nvidiactl").exists()


def command(target: str, file: str, report: Path) -> list[str]:
    """pytest on one file of cases; an outer pytest does not collect them because of their names."""
    options = ["-q", "-p", "no:cacheprovider", "-o", "python_files=case_*.py", "--tb=short"]
    own = [f"--target={target}", f"--report={report}"]
    # -P: the source folder gpuvirt/ must not stand before an installed package.
    return [sys.executable, "-P", "-m", "pytest", *options, *own, str(CASES / file)]


def clean_environment() -> dict[str, str]:
    """Without what would lead to another driver, daemon or shim."""
    return {k: v for k, v in os.environ.items() if k in KEPT or not k.startswith(("GPUVIRT_", "LD_"))}


@contextlib.contextmanager
def soft_environment() -> Iterator[dict[str, str]]:
    """Soft GPUs of 256 MiB for one file of cases alone. The cache of compiled modules is the user's."""
    libraries = os.environ.get("GPUVIRT_TEST_SOFTGPU") or str(paths.library("softgpu/libcuda.so.1").parent)
    with tempfile.TemporaryDirectory(prefix="gpuvirt-test-", dir="/dev/shm") as folder:
        yield {
            **clean_environment(),
            "LD_LIBRARY_PATH": libraries,
            "GPUVIRT_SOFTGPU_BOARD": f"{folder}/board",
            "GPUVIRT_SOFTGPU_DEVICES": DEVICES,
            "GPUVIRT_SOFTGPU_MEMORY": "256M",
            "GPUVIRT_SOFTGPU_PYTHON": sys.executable,
        }


def run_plain(arguments: list[str], environ: dict[str, str]) -> tuple[int | None, str]:
    """(exit code, output); the code is None when it did not end in time."""
    try:
        done = subprocess.run(
            arguments, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
            errors="replace", timeout=LIMIT,
        )  # fmt: skip
    except subprocess.TimeoutExpired as error:
        return None, (error.stdout or b"").decode(errors="replace")
    return done.returncode, done.stdout


def run_under_shim(arguments: list[str], variables: dict[str, str]) -> tuple[int | None, str]:
    """As a job of a daemon of its own."""
    with host() as machine:
        job = machine.run(*arguments, **variables)
        return job.wait(LIMIT), job.text


def run_file(target: str, file: str) -> Outcome:
    """Runs it and reads its report. A process that dies, or does not end, is one more failure."""
    outcome = Outcome(target, file)
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="gpuvirt-report-") as folder:
        report, calls = Path(folder) / "report.json", Path(folder) / "calls"
        noted = {"GPUVIRT_CONFORMANCE_CALLS": str(calls)}
        arguments = command(target, file, report)
        try:
            if target == "soft":
                with soft_environment() as environ:
                    code, outcome.output = run_plain(arguments, environ | noted)
            elif target == "shim-over-soft":
                code, outcome.output = run_under_shim(arguments, noted)
            else:
                # The driver is found as any program finds it; LD_LIBRARY_PATH may lead to NVRTC.
                path = os.environ.get("LD_LIBRARY_PATH")
                environ = clean_environment() | ({"LD_LIBRARY_PATH": path} if path else {})
                code, outcome.output = run_plain(arguments, environ | noted)
        except AssertionError as error:  # of the host: the daemon did not start, the job did not end
            code, outcome.output = None, str(error)
        outcome.called = sorted(set(calls.read_text().split())) if calls.exists() else []
        if report.exists():
            for kind, name, reason in json.loads(report.read_text()):
                if kind == "passed":
                    outcome.passed += 1
                else:
                    getattr(outcome, kind).append((name, reason))
        if code != 0 and not outcome.failed:
            reason = "did not end in time" if code is None else f"ended with exit code {code}"
            outcome.failed.append((file, reason))
    outcome.seconds = round(time.monotonic() - began, 2)
    return outcome
