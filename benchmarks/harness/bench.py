# SPDX-License-Identifier: Apache-2.0
"""The frame of a benchmark: a private soft GPU, children that are stopped at the end, one line when it fails."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpuvirt.errors import GpuvirtError
from harness import record
from harness.interrupts import EXIT_INTERRUPTED, Interrupted, Interrupts
from harness.probes import ProbeFailed
from harness.processes import Children
from harness.real import NoRealGpu
from harness.softgpu import Device, Scratch, soft_gpu


@dataclass(frozen=True)
class Bench:
    """What a benchmark works with."""

    device: Device
    scratch: Path
    children: Children
    options: argparse.Namespace

    def say(self, line: str) -> None:
        """Progress on standard error, so that standard output holds the table alone."""
        print(line, file=sys.stderr, flush=True)


def run(
    name: str,
    parser: argparse.ArgumentParser,
    memory: int,
    body: Callable[[Bench], Any],
    headline: Sequence[str] = (),
) -> int:
    """Runs `body` on a soft GPU of `memory` bytes; what it returns goes to the JSON file. Returns the exit code.

    `headline`: which of the results also stand at the top level of the file.
    """
    options = parser.parse_args()
    interrupts = Interrupts()
    try:
        with Scratch(f"gpuvirt-{name}-", room=3 * memory) as scratch, Children(interrupts) as children:
            bench = Bench(soft_gpu(scratch, memory), scratch, children, options)
            results = body(bench)
            record.write(options.json, name, bench.device.name, results, [key for key in headline if key in results])
    except Interrupted:
        return EXIT_INTERRUPTED
    except (ProbeFailed, NoRealGpu, GpuvirtError, FileNotFoundError) as error:
        print(f"{name}: {error}", file=sys.stderr)
        return 1
    return 0
