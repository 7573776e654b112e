# SPDX-License-Identifier: Apache-2.0
"""Runs every file of cases/ against each driver there is: soft GPU, shim over soft GPU, real GPU.

A case that differs on a real GPU is a bug of the soft GPU. Each file runs in a process of its own with the driver
chosen by the environment alone, as users choose it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuvirt import paths

CASES = Path(__file__).parent / "cases"
FILES = sorted(path.name for path in CASES.glob("case_*.py"))


# Where the shim still differs from the driver beneath it: (file, test, what it should do). Each must fail; delete it
# when it does not.
SHIM_DIFFERS = [
    ("case_kernels.py", "test_failure_is_sticky", "cuMemAlloc in a failed context answers with that failure"),
    ("case_memory.py", "test_pool_keeps_what_the_threshold_says", "pools report what they reserve"),
]


def inner_command(name: str, *more: str) -> list[str]:
    """pytest on one file of cases; they are not collected by the outer run because of their names."""
    options = ["-q", "-p", "no:cacheprovider", "-o", "python_files=case_*.py", "--tb=short"]
    return [sys.executable, "-m", "pytest", *options, *more, str(CASES / name)]


def check(done: subprocess.CompletedProcess[str]) -> None:
    if done.returncode != 0:
        pytest.fail((done.stdout + done.stderr)[-6000:], pytrace=False)


@pytest.fixture(scope="module")
def soft_environment() -> Iterator[dict[str, str]]:
    """A soft GPU of 256 MiB for this file of tests alone. The cache of compiled modules is the user's."""
    folder = Path(tempfile.mkdtemp(prefix="gpuvirt-test-", dir="/dev/shm"))
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("GPUVIRT_", "LD_"))}
    libraries = os.environ.get("GPUVIRT_TEST_SOFTGPU") or str(paths.library("softgpu/libcuda.so.1").parent)
    yield {
        **kept,
        "LD_LIBRARY_PATH": libraries,
        "GPUVIRT_SOFTGPU_BOARD": str(folder / "board"),
        "GPUVIRT_SOFTGPU_MEMORY": "256M",
        "GPUVIRT_SOFTGPU_PYTHON": sys.executable,
    }
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("name", FILES)
def test_soft_gpu(name: str, soft_environment: dict[str, str]) -> None:
    check(
        subprocess.run(
            inner_command(name), env=soft_environment, capture_output=True, text=True, timeout=240, check=False
        )
    )


@pytest.mark.parametrize("name", FILES)
def test_shim_over_soft_gpu(name: str) -> None:
    host = pytest.importorskip("support.host", reason="no test host")
    known = [test for file, test, _ in SHIM_DIFFERS if file == name]
    with host.host() as machine:
        job = machine.run(*inner_command(name, "-k", " and ".join(f"not {test}" for test in known) or "test"))
        if job.wait(240.0) != 0:
            pytest.fail(job.text[-6000:], pytrace=False)


@pytest.mark.parametrize(
    ("name", "test"),
    [
        pytest.param(name, test, marks=pytest.mark.xfail(reason=what, strict=True), id=test)
        for name, test, what in SHIM_DIFFERS
    ],
)
def test_shim_differs(name: str, test: str) -> None:
    host = pytest.importorskip("support.host", reason="no test host")
    with host.host() as machine:
        job = machine.run(*inner_command(name, "-k", test))
        assert job.wait(240.0) == 0


@pytest.mark.gpu
@pytest.mark.parametrize("name", FILES)
def test_real_gpu(name: str) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("GPUVIRT_", "LD_"))}
    check(
        subprocess.run(inner_command(name), env=environment, capture_output=True, text=True, timeout=240, check=False)
    )
