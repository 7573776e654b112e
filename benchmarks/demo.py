#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The demo: two CUDA programs that do not fit on one GPU, first without gpuvirt, then together under it.

1. Both side by side without gpuvirt: the second gets CUDA_ERROR_OUT_OF_MEMORY.
2. Each alone: how long it takes and what it computes.
3. Both together under gpuvirt: they take turns, what does not fit waits in host memory, results are the same bits.

Needs no GPU: it brings a soft GPU of its own. With --real it uses the NVIDIA GPU of this machine.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from gpuvirt.cli.trace import encode
from gpuvirt.errors import GpuvirtError
from gpuvirt.units import format_size
from harness import record
from harness.daemon import Daemon
from harness.interrupts import EXIT_INTERRUPTED, Interrupted, Interrupts
from harness.jobs import EXIT_CUDA, Job, Outcome, demo_jobs
from harness.processes import Child, Children
from harness.real import NoRealGpu, real_gpu
from harness.screen import Screen
from harness.softgpu import SHARED_MEMORY, Device, Scratch, free_bytes, soft_gpu

SOFT_MEMORY = 512 << 20
PART, REAL_PART = (
    0.7,
    0.55,
)  # of the device's memory, for each program; a real one has more than host memory likes to swap
REAL_STEPS = ("--steps", "600")  # of heat.py, which is much faster there
QUANTUM_MS, QUICK_QUANTUM_MS, REAL_QUANTUM_MS = 1000, 250, 3000
QUICK_TRAIN, QUICK_HEAT = ("--steps", "35"), ("--steps", "20")
SWITCHES = 4  # at least so many, else the jobs did not share
LIMIT = 150.0  # seconds for any one phase


class Failed(Exception):
    """The demo did not show what it should."""


class Demo:
    """One run: the device, the two jobs and what they did."""

    def __init__(self, device: Device, scratch: Path, interrupts: Interrupts, screen: Screen, quick: bool) -> None:
        self.device, self.scratch = device, scratch
        self.interrupts, self.screen = interrupts, screen
        real = device.drivers is None
        self.quantum_ms = REAL_QUANTUM_MS if real else QUICK_QUANTUM_MS if quick else QUANTUM_MS
        memory = int(device.memory * (REAL_PART if real else PART))
        train, heat = ((), REAL_STEPS) if real else (QUICK_TRAIN, QUICK_HEAT) if quick else ((), ())
        self.jobs = demo_jobs(memory, train, heat)
        self.trace: Path | None = None
        self.results: dict[str, Any] = {"device_memory_bytes": device.memory, "job_memory_bytes": self.jobs[0].memory}

    def _start(self, children: Children, job: Job, file: Path, *extra: str) -> Child:
        return children.start(job.name, job.command(file, *extra), self.device.environ())

    def side_by_side(self) -> None:
        """Phase 1. Raises Failed when the second program finds enough memory."""
        first, second = self.jobs
        self.screen.title(f"1. Both without gpuvirt: 2 x {format_size(first.memory)} on {self.device.name}")
        with Children(self.interrupts, self.screen.line) as children:
            holder = self._start(children, first, self.scratch / "first.json")
            if not children.wait(holder, LIMIT, until="allocated:"):
                raise Failed(f"{first.name} alone did not get its memory: {self._last(holder)}")
            victim = self._start(children, second, self.scratch / "second.json")
            if not children.wait(victim, LIMIT):
                raise Failed(f"{second.name} did not end within {LIMIT:.0f} s")
            if victim.exit_code != EXIT_CUDA or not victim.said("CUDA_ERROR_OUT_OF_MEMORY"):
                raise Failed(f"{second.name} should have got CUDA_ERROR_OUT_OF_MEMORY beside {first.name}")
            self.screen.note(f"as expected: no memory for {second.name} while {first.name} runs; stopping {first.name}")
        self.results["side_by_side"] = {"first": "got its memory", "second": "CUDA_ERROR_OUT_OF_MEMORY"}

    def alone(self) -> dict[str, Outcome]:
        """Phase 2: the outcome of each job with the GPU to itself."""
        self.screen.title("2. Each alone, one after the other")
        outcomes = {}
        for job in self.jobs:
            file = self.scratch / f"{job.name}-alone.json"
            with Children(self.interrupts, self.screen.line) as children:
                child = self._start(children, job, file)
                outcomes[job.name] = self._finish(children, [child], [job], [file])[job.name]
            self.screen.note(f"{job.name} alone: {outcomes[job.name].seconds:.1f} s")
        return outcomes

    def together(self) -> tuple[dict[str, Outcome], dict[str, dict[str, Any]], float]:
        """Phase 3: outcomes and the daemon's accounts by job name, and the time in seconds until both had ended."""
        self.screen.title(f"3. Both together under gpuvirt, quantum {self.quantum_ms} ms")
        with Children(self.interrupts, self.screen.line) as children:
            daemon = Daemon(self.scratch / "run", self.device, self.quantum_ms)
            daemon.start(children)
            began = time.monotonic()
            files = [self.scratch / f"{job.name}-together.json" for job in self.jobs]
            running = [
                children.start(job.name, daemon.run_command(job.name, job.command(file)), daemon.environ())
                for job, file in zip(self.jobs, files, strict=True)
            ]
            outcomes = self._finish(children, running, list(self.jobs), files, watch=daemon)
            total = max(child.ended or 0.0 for child in running) - began
            accounts = daemon.accounts()
            if self.trace is not None:
                self.trace.write_bytes(encode(daemon.trace(total + 1.0)))
                self.screen.note(f"{self.trace}: what happened, to be opened at https://ui.perfetto.dev")
        missing = [job.name for job in self.jobs if job.name not in accounts]
        if missing:
            raise Failed(f"the daemon does not know {' and '.join(missing)}")
        return outcomes, accounts, total

    def _finish(
        self, children: Children, running: list[Child], jobs: list[Job], files: list[Path], watch: Daemon | None = None
    ) -> dict[str, Outcome]:
        deadline = time.monotonic() + LIMIT
        while any(child.exit_code is None for child in running):
            if time.monotonic() > deadline:
                names = " and ".join(child.name for child in running if child.exit_code is None)
                raise Failed(f"{names} did not end within {LIMIT:.0f} s")
            if watch is not None and self.screen.due():
                self.screen.status(watch.jobs())
            self.interrupts.sleep(0.1)
        outcomes = {}
        for child, job, file in zip(running, jobs, files, strict=True):
            if child.exit_code != 0:
                raise Failed(f"{job.name} ended with exit code {child.exit_code}: {self._last(child)}")
            outcomes[job.name] = Outcome.read(file, child.seconds)
        return outcomes

    def _last(self, child: Child) -> str:
        return child.lines[-1] if child.lines else "it said nothing"

    def check_room(self) -> None:
        """Raises Failed when /dev/shm cannot take what must be swapped out: then nothing would be, and that late."""
        wanted = sum(job.memory for job in self.jobs) - self.device.memory
        free = free_bytes(SHARED_MEMORY)
        if free < wanted:
            raise Failed(
                f"{SHARED_MEMORY} has {format_size(free)} free and {format_size(wanted)} are to be swapped out there; "
                "make it larger: --shm-size of the container, or mount -o remount,size=2G /dev/shm"
            )

    def run(self) -> None:
        """All phases, the table and the verdict. Raises Failed, Interrupted or GpuvirtError."""
        self.check_room()
        self.side_by_side()
        alone = self.alone()
        together, accounts, total = self.together()
        self.screen.title("Result")
        header = ("job", "alone", "together", "GPU time", "share", "waits", "switches", "out", "in", "same bits")
        rows = []
        for job in self.jobs:
            account, name = accounts[job.name], job.name
            figures = (
                f"{account['busy_s']:.1f} s",
                f"{account['share']:.0%}",
                f"{account['waits']}, {account['wait_s']:.1f} s",
            )
            moved = (format_size(account["out_bytes"]), format_size(account["in_bytes"]))
            same = "yes" if alone[name].result == together[name].result else "NO"
            times = (f"{alone[name].seconds:.1f} s", f"{together[name].seconds:.1f} s")
            rows.append((name, *times, *figures, str(account["switches"]), *moved, same))
        self.screen.raw(record.table(header, rows))
        serial = sum(outcome.seconds for outcome in alone.values())
        self.screen.raw(f"\none after the other {serial:.1f} s, together {total:.1f} s ({total / serial:.2f}x)")
        self.results |= {
            "alone": {name: outcome.fields for name, outcome in alone.items()},
            "together": {name: outcome.fields for name, outcome in together.items()},
            "accounts": accounts,
            "serial_s": round(serial, 3),
            "together_s": round(total, 3),
        }
        self._judge(alone, together, accounts)

    def _judge(
        self, alone: dict[str, Outcome], together: dict[str, Outcome], accounts: dict[str, dict[str, Any]]
    ) -> None:
        for name in alone:
            if alone[name].result != together[name].result:
                raise Failed(f"{name} computed {together[name].result} together and {alone[name].result} alone")
        switches = sum(int(account["switches"]) for account in accounts.values())
        if switches < SWITCHES:
            raise Failed(f"only {switches} switches: the jobs did not take turns")
        if not all(account["out_bytes"] + account["in_bytes"] for account in accounts.values()):
            raise Failed("a job was never swapped, though both do not fit")


def main() -> int:
    """Exit code 0 when everything was as it should be, 130 after an interruption, else 1."""
    parser = record.parser(__doc__)
    parser.add_argument(
        "--real", action="store_true", help="use the NVIDIA GPU of this machine instead of the soft GPU"
    )
    parser.add_argument("--quick", action="store_true", help="a fifth of the work and shorter turns, for tests")
    parser.add_argument(
        "--scratch", type=Path, metavar="DIR", help="where the temporary folder goes (default /dev/shm)"
    )
    parser.add_argument("--trace", type=Path, metavar="FILE", help="write a trace of phase 3 for Perfetto")
    options = parser.parse_args()
    interrupts = Interrupts()
    screen = Screen()
    try:
        with Scratch("gpuvirt-demo-", 3 * SOFT_MEMORY, options.scratch) as scratch:
            device = real_gpu() if options.real else soft_gpu(scratch, SOFT_MEMORY)
            demo = Demo(device, scratch, interrupts, screen, options.quick)
            demo.trace = options.trace
            try:
                demo.run()
                demo.results["verdict"] = "OK"
            except (Failed, GpuvirtError) as error:
                demo.results["verdict"] = f"FAILED: {error}"
                raise
            finally:
                record.write(options.json, "demo", device.name, demo.results)
    except Interrupted:
        screen.raw("demo: stopped, everything removed")
        return EXIT_INTERRUPTED
    except (Failed, GpuvirtError, NoRealGpu, FileNotFoundError) as error:
        screen.raw(f"demo: FAILED: {error}")
        return 1
    screen.raw("demo: OK")
    return 0


if __name__ == "__main__":
    sys.exit(main())
