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
from support.host import host

CASES = Path(__file__).parent / "cases"
FILES = sorted(path.name for path in CASES.glob("case_*.py"))


def inner_command(name: str) -> list[str]:
    """pytest on one file of cases; they are not collected by the outer run because of their names."""
    options = ["-q", "-p", "no:cacheprovider", "-o", "python_files=case_*.py", "--tb=short"]
    return [sys.executable, "-m", "pytest", *options, str(CASES / name)]


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
    with host() as machine:
        job = machine.run(*inner_command(name))
        if job.wait(240.0) != 0:
            pytest.fail(job.text[-6000:], pytrace=False)


@pytest.mark.gpu
@pytest.mark.parametrize("name", FILES)
def test_real_gpu(name: str) -> None:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("GPUVIRT_", "LD_"))}
    check(
        subprocess.run(inner_command(name), env=environment, capture_output=True, text=True, timeout=240, check=False)
    )
