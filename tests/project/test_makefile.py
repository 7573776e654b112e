# SPDX-License-Identifier: Apache-2.0
"""The Makefile says what is missing on a machine, in one line, before it has changed anything."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def make(*arguments: str) -> subprocess.CompletedProcess[str]:
    if shutil.which("make") is None:
        pytest.skip("no make")
    environ = {key: value for key, value in os.environ.items() if not key.startswith(("MAKE", "MFLAGS"))}
    return subprocess.run(["make", *arguments], cwd=ROOT, env=environ, capture_output=True, text=True, check=False)


def test_help_lists_what_contributors_are_told() -> None:
    listed = set(re.findall(r"^  make (\w+)", make().stdout, re.M))
    assert {"demo", "test", "lint", "format", "bench", "clean"} <= listed
    told = set(re.findall(r"^\| `make (\w+)`", (ROOT / "CONTRIBUTING.md").read_text(), re.M))
    assert told <= listed


@pytest.mark.parametrize(
    ("variable", "words"),
    [
        ("PYTHON=no-such-python", "'no-such-python' is not installed"),
        ("PYTHON=false", "'false' does not run"),
        ("CC=no-such-compiler", "no working C compiler 'no-such-compiler'"),
    ],
)
def test_missing_tools(variable: str, words: str) -> None:
    done = make("--always-make", "environment", variable)
    assert done.returncode != 0
    lines = [line for line in done.stderr.splitlines() if line.startswith("make: error: ")]
    assert len(lines) == 1, done.stderr
    assert words in lines[0]


def test_old_python(tmp_path: Path) -> None:
    old = tmp_path / "python3"
    old.write_text('#!/bin/sh\ncase "$*" in *version_info*) exit 1;; *) echo "Python 3.9.2";; esac\n')
    old.chmod(0o755)
    done = make("--always-make", "environment", f"PYTHON={old}")
    assert done.returncode != 0
    assert "make: error: Python 3.9.2 is too old: 3.11 or newer is needed" in done.stderr
