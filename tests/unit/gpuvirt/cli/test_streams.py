# SPDX-License-Identifier: Apache-2.0
"""Standard streams that are closed or full: one line or nothing, never a trace, and the right exit code."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest


def shell(command: str, runtime: Path) -> subprocess.CompletedProcess[str]:
    line = command.replace("gpuvirt ", f"{sys.executable} -m gpuvirt.cli.main ", 1)
    environ = os.environ | {"GPUVIRT_RUNTIME": str(runtime)}
    return subprocess.run(["sh", "-c", line], env=environ, capture_output=True, text=True, timeout=30)


@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-", "<&- >&- 2>&-"])
def test_closed_streams(tmp_path: Path, closed: str) -> None:
    done = shell(f"gpuvirt completion bash {closed}", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    done = shell(f"gpuvirt ps {closed}", tmp_path)
    assert done.returncode == 1
    assert done.stdout == "", "an error line went to the output"
    assert len(done.stderr.splitlines()) == (0 if "2>" in closed else 1)


def test_ungoverned_program_with_closed_streams_ends_as_it_ends(tmp_path: Path) -> None:
    done = shell("gpuvirt run --unmanaged-ok -- sh -c 'exit 7' >&- 2>&-", tmp_path)
    assert done.returncode == 7


def test_full_output(tmp_path: Path) -> None:
    done = shell("gpuvirt completion bash > /dev/full", tmp_path)
    assert done.returncode == 1
    assert done.stderr == "gpuvirt completion: error: output: No space left on device\n"
