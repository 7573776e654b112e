#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""SIGKILL of processes on the soft GPU at any moment: what is left on the board, and how soon the engine is free."""

from __future__ import annotations

import random
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gpuvirt.errors import GpuvirtError
from harness import bench, probes, record
from harness.ledger import Ledger

DEVICE = 128 << 20
BATCH = 20  # kills between two looks at the books
BOUND_MS = 20.0  # from the death of the engine's owner to the end of another's kernel of 10 us
SETTLE_S = 2.0


class Process:
    """One probe; its standard output is read as it comes."""

    def __init__(self, command: list[str], environ: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            command, env=dict(environ), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )
        self.pid = self._process.pid

    def line(self) -> str:
        """The next line; empty when it has ended."""
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()

    def tell(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write("\n")
        self._process.stdin.flush()

    def kill(self) -> None:
        self._process.kill()
        self.end()

    def end(self) -> None:
        self._process.communicate()


class Attack:
    """Kills one process after the other; one survivor asks for the engine."""

    def __init__(self, work: bench.Bench) -> None:
        self.work = work
        self.program = str(probes.build("victim", work.scratch))
        self.environ = work.device.environ({"GPUVIRT_SOFTGPU_WORKERS": "1"})
        self.ledger = Ledger(work.device)
        self.chance = random.Random(20)
        self.survivor = self.start("ask")
        if self.survivor.line() != "ready":
            raise probes.ProbeFailed("the survivor does not start")
        self.baseline = self.books()
        self.grants: list[float] = []
        self.counts: dict[str, int] = {}

    def start(self, mode: str, *arguments: str, environ: Mapping[str, str] | None = None) -> Process:
        return Process([self.program, mode, *arguments], environ or self.environ)

    def books(self) -> tuple[int, int, int, list[int]]:
        """What must be as before: bytes in use, records, shared allocations, processes."""
        books = self.ledger.read()
        gpu = books["devices"][0]
        return gpu["memory_used"], books["records"], books["shared"], [p["pid"] for p in gpu["processes"]]

    def storm(self) -> None:
        """Three threads at everything at once, killed within 60 ms of their start."""
        victim = self.start("storm", str(self.chance.randrange(1 << 20)))
        victim.line()
        time.sleep(self.chance.uniform(0, 0.06))
        victim.kill()

    def owner(self) -> None:
        """The owner of the engine, while another waits for it."""
        victim = self.start("hold")
        victim.line()
        self.survivor.tell()
        time.sleep(self.chance.uniform(0, 0.004))
        moment = time.monotonic_ns()
        victim.kill()
        self.grants.append(max(0.0, (int(self.survivor.line()) - moment) / 1e6))

    def birth(self) -> None:
        """A process that makes a board or comes to one: others must be able to, at once."""
        board = self.work.scratch / f"birth-{self.chance.randrange(4)}"
        environ = {**self.environ, "GPUVIRT_SOFTGPU_BOARD": str(board)}
        victim = self.start("storm", "1", environ=environ)
        time.sleep(self.chance.uniform(0, 0.012))
        victim.kill()
        other = self.start("hello", environ=environ)
        said = other.line().split()
        other.end()
        if len(said) != 2 or said[0] != said[1]:
            raise GpuvirtError(f"a board that was made or joined by a killed process is not usable: {said}")
        if self.chance.random() < 0.5:
            board.unlink()

    def settle(self, when: str) -> None:
        """Raises GpuvirtError when the board is not as it was before the kills."""
        deadline = time.monotonic() + SETTLE_S
        while (now := self.books()) != self.baseline:
            if time.monotonic() > deadline:
                raise GpuvirtError(f"{when}: bytes, records, shared, processes are {now}, were {self.baseline}")
            time.sleep(0.01)
        start = time.monotonic_ns()
        self.survivor.tell()
        took = (int(self.survivor.line()) - start) / 1e6
        if took > 1000:
            raise GpuvirtError(f"{when}: a kernel alone took {took:.0f} ms")

    def run(self, kills: int) -> None:
        modes = [self.storm] * 6 + [self.owner] * 2 + [self.birth] * 2
        for number in range(1, kills + 1):
            mode = self.chance.choice(modes)
            mode()
            self.counts[mode.__name__] = self.counts.get(mode.__name__, 0) + 1
            if number % BATCH == 0 or number == kills:
                self.settle(f"after {number} kills")
            if number % 200 == 0:
                self.work.say(f"{number} of {kills} killed")
        left = sorted(path.name for path in self.work.scratch.iterdir() if ".new" in path.name)
        if left:
            raise GpuvirtError(f"killed makers of boards left {', '.join(left)}")
        self.survivor.end()


def measure(work: bench.Bench) -> dict[str, Any]:
    """The kills that were asked for. Raises ProbeFailed or GpuvirtError."""
    attack = Attack(work)
    try:
        attack.run(work.options.kills)
    finally:
        attack.survivor.kill()
    grants = sorted(attack.grants) or [0.0]
    spread = record.spread(grants)
    late = sum(1 for grant in grants if grant > BOUND_MS)
    print(f"{work.options.kills} x SIGKILL on a {work.device.name}: memory, records and engine came back every time.")
    rows = [
        ("killed", " ".join(f"{mode} {count}" for mode, count in sorted(attack.counts.items())), ""),
        ("engine to the next, median", f"{spread['median']:.1f} ms", f"{len(attack.grants)} owners killed"),
        ("engine to the next, most", f"{grants[-1]:.1f} ms", f"{late} over {BOUND_MS:.0f} ms"),
    ]
    print(record.table(("", "measured", "note"), rows))
    return {"kills": work.options.kills, "modes": attack.counts, "grant_ms": spread, "grant_max_ms": grants[-1]}


def main() -> int:
    parser = record.parser(__doc__)
    parser.add_argument("--kills", type=int, default=1000, metavar="N")
    return bench.run(Path(__file__).stem, parser, DEVICE, measure)


if __name__ == "__main__":
    sys.exit(main())
