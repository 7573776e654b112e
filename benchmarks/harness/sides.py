# SPDX-License-Identifier: Apache-2.0
"""The same jobs alone, side by side under the soft GPU's bare time slices, and under gpuvirt."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from harness.bench import Bench
from harness.daemon import Daemon
from harness.ledger import Ledger
from harness.loads import Group, Load, Page

ENVIRON = {"GPUVIRT_SOFTGPU_WORKERS": "1"}  # a kernel takes one core of the machine; the other is for the hosts' work


@dataclass(frozen=True)
class Job:
    """A program of probes/ with its arguments after the page's file, and how it is started under gpuvirt."""

    program: Path
    arguments: tuple[str, ...]
    options: tuple[str, ...] = ()
    arrivals: tuple[int, ...] = ()

    @classmethod
    def of(cls, program: Path, load: Load, weight: int = 1, options: Sequence[str] = ()) -> Job:
        """A job of share.c."""
        chosen = ("--weight", str(weight)) if weight != 1 else ()
        return cls(program, tuple(load.arguments()), (*chosen, *options))


@dataclass
class Stretch:
    """What jobs did within some time: ns of work of each, ns for which each had the engine, seconds.

    held_ns: for which each had the GPU by the daemon's accounts; without a daemon as engine_ns.
    """

    work: list[int]
    engine_ns: list[int]
    held_ns: list[int]
    seconds: float


@dataclass
class Sides:
    """Runs groups of jobs one way or the other; every group has pages, and a daemon, of its own."""

    work: Bench
    ledger: Ledger
    settings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # of gpuvirtd, by section
    _count: int = 0

    @contextmanager
    def group(self, jobs: Sequence[Job], gpuvirt: bool) -> Iterator[tuple[Group, Daemon | None]]:
        """The jobs, started at once; they end with the block. Raises ProbeFailed, GpuvirtError or Interrupted."""
        self._count += 1
        folder = self.work.scratch / f"group{self._count}"
        folder.mkdir()
        daemon = Daemon(folder / "run", self.work.device, None, self.settings) if gpuvirt else None
        serving = daemon.start(self.work.children) if daemon is not None else None
        pages, running = [], []
        for index, job in enumerate(jobs):
            page = Page(folder / f"page{index}", job.arrivals)
            command = [str(job.program), str(page.file), *job.arguments]
            environ = self.work.device.environ(ENVIRON)
            if daemon is not None:
                command = daemon.run_command(f"job{index}", command, *job.options)
                environ = {**daemon.environ(), **ENVIRON}
            running.append(self.work.children.start(f"job{index}", command, environ, quiet=True))
            pages.append(page)
        group = Group(self.work.children, pages, running)
        group.start()
        yield group, daemon
        group.stop()
        if serving is not None:
            serving.stop()

    def stretch(self, group: Group, daemon: Daemon | None, seconds: float) -> Stretch:
        """Lets a group work and says what it did. Raises ProbeFailed, GpuvirtError or Interrupted."""
        held_before, engine_before, before = _held(group, daemon), self._engine(group), group.sample()
        group.run(seconds)
        held_after, engine_after, after = _held(group, daemon), self._engine(group), group.sample()
        engine = _grown(engine_before, engine_after)
        held = _grown(held_before, held_after) if daemon is not None else engine
        return Stretch(_grown(before.done, after.done), engine, held, (after.at_ns - before.at_ns) / 1e9)

    def alone(self, job: Job, warm: float, seconds: float) -> float:
        """Work in ns that it does in a second with the GPU to itself, without gpuvirt."""
        with self.group([job], gpuvirt=False) as (group, _):
            group.run(warm)
            before = group.sample()
            group.run(seconds)
            group.progress()
            after = group.sample()
        return 1e9 * (after.done[0] - before.done[0]) / (after.at_ns - before.at_ns)

    def _engine(self, group: Group) -> list[int]:
        processes = self.ledger.read()["devices"][0]["processes"]
        had = {int(process["pid"]): int(process["engine_ns"]) for process in processes}
        return [had.get(pid, 0) for pid in group.pids]


def _held(group: Group, daemon: Daemon | None) -> list[int]:
    accounts = daemon.accounts() if daemon is not None else {}
    return [int(1e9 * accounts[child.name]["held_s"]) for child in group.running if accounts]


def _grown(before: Sequence[int], after: Sequence[int]) -> list[int]:
    return [now - then for now, then in zip(after, before, strict=True)]
