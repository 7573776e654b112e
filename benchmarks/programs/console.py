# SPDX-License-Identifier: Apache-2.0
"""What the example programs share: sizes on the command line, progress lines, the report. No dependency on gpuvirt."""

from __future__ import annotations

import argparse
import json
import re
import sys
import time
from collections.abc import Callable
from pathlib import Path

EXIT_CUDA = 3
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}


def size(text: str) -> int:
    """Bytes of "358M", "1.5G" or "4096", for argparse."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMG]?)(?:i?B)?", text.strip(), re.IGNORECASE)
    if match is None or float(match.group(1)) <= 0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a size such as 358M or 1.5G")
    return int(float(match.group(1)) * _UNITS[match.group(2).upper()])


def fraction(text: str) -> float:
    """A number in (0, 1], for argparse."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0.0 < value <= 1.0:
        raise argparse.ArgumentTypeError(f"'{text}' is not a fraction between 0 and 1")
    return value


def count(text: str) -> int:
    """A whole number of at least 1, for argparse."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"'{text}' is not a whole number of at least 1")
    return int(text)


def parser(description: str, memory: str) -> argparse.ArgumentParser:
    """The options that all programs have; `memory` is the default of --memory."""
    options = argparse.ArgumentParser(description=description)
    options.add_argument("--device", type=int, default=0, metavar="N", help="ordinal of the GPU (default 0)")
    group = options.add_mutually_exclusive_group()
    group.add_argument(
        "--memory", type=size, default=size(memory), metavar="SIZE", help=f"device memory to fill (default {memory})"
    )
    group.add_argument("--memory-fraction", type=fraction, metavar="F", help="the same as a part of the device's")
    options.add_argument("--seed", type=int, default=1, help="of data and weights (default 1)")
    options.add_argument("--json", type=Path, metavar="FILE", help="write timings and result to FILE")
    return options


class CudaFailure(Exception):
    """A CUDA call failed. `name` is the driver's, for example CUDA_ERROR_OUT_OF_MEMORY."""

    def __init__(self, name: str, doing: str) -> None:
        super().__init__(f"{name}: {doing}")
        self.name = name


class Report:
    """Progress lines on standard output, and at the end the result as lines and as JSON. Times are seconds."""

    def __init__(self, program: str, json_file: Path | None) -> None:
        self.program = program
        self._json_file = json_file
        self._start = time.perf_counter()
        self._fields: dict[str, object] = {"program": program}

    def say(self, line: str) -> None:
        """One line of progress, at once."""
        print(line, flush=True)

    def mark(self, name: str) -> float:
        """Keeps the time since the program began as `name` (seconds) and returns it."""
        elapsed = time.perf_counter() - self._start
        self._fields[name] = round(elapsed, 6)
        return elapsed

    def keep(self, **fields: object) -> None:
        """Fields for the JSON file only."""
        self._fields.update(fields)

    def finish(self, **fields: object) -> None:
        """Prints each field as `name: value` and writes the JSON file."""
        self.mark("total_s")
        self._fields.update(fields)
        for name, value in fields.items():
            self.say(f"{name}: {value}")
        if self._json_file is not None:
            self._json_file.write_text(json.dumps(self._fields, indent=2) + "\n")


def wait_for(file: Path, report: Report) -> None:
    """Says 'ready' and returns when `file` exists."""
    report.say("ready")
    while not file.exists():
        time.sleep(0.005)


def run(program: str, body: Callable[[], None]) -> int:
    """Runs `body`; a failure of CUDA becomes one line on standard error and the exit code."""
    try:
        body()
        return 0
    except CudaFailure as failure:
        line = str(failure)
    except Exception as error:
        # By name: of cuda.core, which does not export it, of what is below cuda.bindings, of torch.
        if type(error).__name__ not in ("CUDAError", "DynamicLibNotFoundError", "OutOfMemoryError", "AcceleratorError"):
            raise
        line = str(error).strip().split("\n")[0][:160]
    print(f"{program}: {line}", file=sys.stderr, flush=True)
    return EXIT_CUDA
