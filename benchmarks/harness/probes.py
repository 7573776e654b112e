# SPDX-License-Identifier: Apache-2.0
"""Builds and runs the small programs in probes/."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

from harness.processes import Child

FLAGS = ("-std=gnu11", "-O2")
FOLDER = Path(__file__).resolve().parents[1] / "probes"


class ProbeFailed(Exception):
    """A probe could not be built or ended with an error."""


def build(name: str, folder: Path) -> Path:
    """Compiles probes/NAME.c into `folder` with the system's C compiler at -O2. Raises ProbeFailed."""
    compiler = os.environ.get("CC", "cc")
    if shutil.which(compiler) is None:
        raise ProbeFailed(f"no C compiler '{compiler}'; install one, or name it in CC")
    program = folder / name
    command = [compiler, *FLAGS, "-o", str(program), str(FOLDER / f"{name}.c"), "-ldl", "-pthread"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ProbeFailed(f"{name}.c does not compile: {done.stderr.strip()}")
    return program


def answer(child: Child) -> Any:
    """The JSON document that an ended probe printed last. Raises ProbeFailed."""
    if child.exit_code is None:
        raise ProbeFailed(f"{child.name} did not end in time")
    if child.exit_code != 0:
        said = child.lines[-1] if child.lines else "it said nothing"
        raise ProbeFailed(f"{child.name} ended with exit code {child.exit_code}: {said}")
    for line in reversed(child.lines):
        if line.startswith("{"):
            return json.loads(line)
    raise ProbeFailed(f"{child.name} printed no result")


def plain_c(program: Path, work: str, repeats: int) -> list[int]:
    """Nanoseconds of each repetition of one work of loops.c. Raises ProbeFailed."""
    done = subprocess.run([str(program), work, str(repeats)], capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise ProbeFailed(f"loops {work}: {done.stderr.strip()}")
    return [int(line) for line in done.stdout.split()]
