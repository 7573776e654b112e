# SPDX-License-Identifier: Apache-2.0
"""The two example programs as jobs of the demo."""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

PROGRAMS = Path(__file__).resolve().parents[1] / "programs"
EXIT_CUDA = 3  # of the programs, when a CUDA call failed (programs/console.py)


@dataclass(frozen=True)
class Job:
    """A program with its options. `memory` is in bytes."""

    name: str
    script: Path
    memory: int
    options: tuple[str, ...] = ()

    def command(self, file: Path, *extra: str) -> list[str]:
        """Its command line; it writes its report to `file`."""
        memory = ("--memory", f"{self.memory >> 20}M", "--json", str(file))
        return [sys.executable, str(self.script), *memory, *self.options, *extra]


def demo_jobs(memory: int, train: tuple[str, ...] = (), heat: tuple[str, ...] = ()) -> tuple[Job, Job]:
    """Training and heat conduction, each with `memory` bytes and further options."""
    return Job("train", PROGRAMS / "train_mlp.py", memory, train), Job("heat", PROGRAMS / "heat.py", memory, heat)


@dataclass(frozen=True)
class Outcome:
    """What a program reported, and its wall time in seconds as seen from outside."""

    result: str
    seconds: float
    fields: dict[str, Any]

    @classmethod
    def read(cls, file: Path, seconds: float) -> Outcome:
        """Of the report that a program wrote with --json. Raises OSError, ValueError or KeyError."""
        fields: dict[str, Any] = json.loads(file.read_text())
        return cls(str(fields["result"]), seconds, {**fields, "wall_s": round(seconds, 3)})
