# SPDX-License-Identifier: Apache-2.0
"""A few files of numba-cuda's own tests, directly and under gpuvirt. All of them: `make numba-tests`."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SUITE = Path(__file__).resolve().parents[1] / "suites" / "numba_suite.py"


@pytest.mark.timeout(900)  # with nothing in the cache of compiled modules
@pytest.mark.parametrize(
    ("mode", "files"),
    [
        ("soft", ["cudapy/test_sync.py", "cudapy/test_device_func.py", "cudadrv/test_linker.py"]),
        ("both", ["cudapy/test_cooperative_groups.py", "cudapy/test_print.py"]),
    ],
)
def test_files(mode: str, files: list[str]) -> None:
    only = [word for file in files for word in ("--only", file)]
    command = [sys.executable, str(SUITE), "--mode", mode, "--jobs", "1", *only]
    done = subprocess.run(command, capture_output=True, text=True, timeout=880, check=False)
    if done.returncode != 0:
        pytest.fail((done.stdout + done.stderr)[-6000:], pytrace=False)
    closing = [line for line in done.stdout.splitlines() if "numba-cuda: ran" in line]
    assert len(closing) == (2 if mode == "both" else 1)
    assert all(line.endswith("failed 0") for line in closing)
