# SPDX-License-Identifier: Apache-2.0
"""Builds all C alone with CMake, plainly or with sanitizers; one build at a time, whoever asks."""

from __future__ import annotations

import fcntl
import functools
import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def tool(name: str) -> str:
    """cmake or ctest: of the environment, else of the system."""
    own = Path(sysconfig.get_path("scripts")) / name
    found = str(own) if own.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}: pip install cmake")
    return found


def call(*command: str | Path) -> str:
    """Output of a command that must succeed."""
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        env={**os.environ, "CTEST_OUTPUT_ON_FAILURE": "1", "CTEST_PARALLEL_LEVEL": "2"},
    )  # fmt: skip
    if done.returncode != 0:
        pytest.fail(f"{' '.join(map(str, command))}\n{done.stdout[-8000:]}", pytrace=False)
    return done.stdout


FOLDERS = {"": "native-tests", "address,undefined": "native-sanitized", "thread": "native-thread-sanitized"}


@functools.cache
def build(sanitizers: str, *targets: str) -> Path:
    """The folder of a finished build with its tests, or of some targets; `sanitizers` as for -fsanitize, or empty.

    Once in a process: even when nothing is to be done it takes seconds on a busy machine.
    """
    folder = ROOT / "build" / FOLDERS[sanitizers]
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        call(
            tool("cmake"), "-S", ROOT / "native", "-B", folder, "-G", "Unix Makefiles", "-DGPUVIRT_TESTS=ON",
            f"-DGPUVIRT_SANITIZE={sanitizers}", f"-DPython_EXECUTABLE={sys.executable}",
        )  # fmt: skip
        named = ("--target", *targets) if targets else ()
        call(tool("cmake"), "--build", folder, "--parallel", "2", *named)
    return folder
