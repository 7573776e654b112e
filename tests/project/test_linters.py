# SPDX-License-Identifier: Apache-2.0
"""Linters are tests: what `make lint` and `make format` know."""

from __future__ import annotations

import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
C_FOLDERS = ("native", "tests", "benchmarks")


def passes(*command: str | Path) -> None:
    """Runs a linter in the root folder; fails with what it prints."""
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        pytest.fail(f"{done.stdout}{done.stderr}", pytrace=False)


def test_ruff_check() -> None:
    passes(sys.executable, "-m", "ruff", "check", ".")


def test_ruff_format() -> None:
    passes(sys.executable, "-m", "ruff", "format", "--check", "--diff", ".")


def test_mypy_strict() -> None:
    passes(sys.executable, "-m", "mypy", "--strict", "gpuvirt", "daemon/gpuvirtd", "daemon/gpuvirt_scheduler")


def test_clang_format() -> None:
    files = [path for folder in C_FOLDERS for path in sorted((ROOT / folder).rglob("*.[ch]")) if path.is_file()]
    assert files
    passes(Path(sysconfig.get_path("scripts")) / "clang-format", "--dry-run", "-Werror", *files)


def test_shell_scripts_parse() -> None:
    scripts = [ROOT / ".ci" / "run", *sorted((ROOT / "benchmarks").rglob("*.sh"))]
    for script in scripts:
        passes("bash", "-n", script)
