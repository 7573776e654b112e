# SPDX-License-Identifier: Apache-2.0
"""Jobs whose work is read from outside while they run: a page shared with probes/share.c and probes/serve.c."""

from __future__ import annotations

import contextlib
import mmap
import struct
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from harness.probes import ProbeFailed
from harness.processes import Child, Children

HEAD = 4096  # bytes before the requests; probes/page.h
DONE, READY, GO, STOP, COUNT = 0, 64, 72, 80, 88  # byte offsets
START_AFTER = 0.1  # seconds from "go" to the start, so that all have seen it
READY_LIMIT, STOP_LIMIT = 60.0, 60.0  # seconds


@dataclass(frozen=True)
class Load:
    """What a job of share.c does, see there."""

    block_ns: int
    blocks: int = 1
    streams: int = 1
    depth: int = 64
    mode: str = "queued"

    def arguments(self) -> list[str]:
        """For share.c, after the file."""
        return [*map(str, (self.block_ns, self.blocks, self.streams, self.depth)), self.mode]


class Page:
    """The page of one job, and room for the times of `arrivals` (ns after the start) if it is a service."""

    def __init__(self, file: Path, arrivals: Sequence[int] = ()) -> None:
        self.file, self._count = file, len(arrivals)
        with file.open("w+b") as opened:
            opened.truncate(HEAD + 24 * len(arrivals))
            self._memory = mmap.mmap(opened.fileno(), 0)
        self._set(COUNT, len(arrivals))
        struct.pack_into(f"={len(arrivals)}Q", self._memory, HEAD, *arrivals)

    def _get(self, offset: int) -> int:
        return int(struct.unpack_from("=Q", self._memory, offset)[0])

    def _set(self, offset: int, value: int) -> None:
        struct.pack_into("=Q", self._memory, offset, value)

    @property
    def done_ns(self) -> int:
        """Work of all blocks that have ended, ns."""
        return self._get(DONE)

    @property
    def ready(self) -> bool:
        """The job may be told to start."""
        return self._get(READY) != 0

    def go(self, when_ns: int) -> None:
        """Start at this CLOCK_MONOTONIC time."""
        self._set(GO, when_ns)

    def stop(self) -> None:
        """End soon."""
        self._set(STOP, 1)

    def latencies(self) -> list[int]:
        """Of each request, ns from arrival to answer."""
        return list(struct.unpack_from(f"={self._count}Q", self._memory, HEAD + 8 * self._count))

    def services(self) -> list[int]:
        """Of each request, ns from begin to answer."""
        return list(struct.unpack_from(f"={self._count}Q", self._memory, HEAD + 16 * self._count))


@dataclass(frozen=True)
class Sample:
    """Work in ns of each job up to one moment."""

    at_ns: int
    done: tuple[int, ...]


class Group:
    """Jobs that start together. `running`: their processes, in the order of `pages`."""

    def __init__(self, children: Children, pages: Sequence[Page], running: Sequence[Child]) -> None:
        self._children, self.pages, self.running = children, list(pages), list(running)

    @property
    def pids(self) -> list[int]:
        """Of the programs: `gpuvirt run` has its own as a child."""
        return [_innermost(child.pid) for child in self.running]

    def start(self) -> None:
        """Waits until all are ready and starts them at once. Raises ProbeFailed or Interrupted."""
        deadline = time.monotonic() + READY_LIMIT
        while not all(page.ready for page in self.pages):
            self._check()
            if time.monotonic() > deadline:
                raise ProbeFailed("a job does not get ready")
            self._children.interrupts.sleep(0.02)
        when = time.monotonic_ns() + int(START_AFTER * 1e9)
        for page in self.pages:
            page.go(when)
        self._children.interrupts.sleep(START_AFTER)

    def sample(self) -> Sample:
        """What all have done by now."""
        done = tuple(page.done_ns for page in self.pages)
        return Sample(time.monotonic_ns(), done)

    def run(self, seconds: float) -> None:
        """Lets them work. Raises ProbeFailed when one ends, or Interrupted."""
        self._children.interrupts.sleep(seconds)
        self._check()

    def progress(self, limit: float = 60.0) -> None:
        """Waits until every job has done something more. Raises ProbeFailed or Interrupted."""
        before, deadline = self.sample().done, time.monotonic() + limit
        while any(now == then for now, then in zip(self.sample().done, before, strict=True)):
            self.run(0.01)
            if time.monotonic() > deadline:
                raise ProbeFailed(f"a job got nothing done within {limit:.0f} s")

    def wait(self, index: int, limit: float) -> None:
        """Until one of them has ended by itself. Raises ProbeFailed when it failed or does not end."""
        child = self.running[index]
        if not self._children.wait(child, limit) or child.exit_code != 0:
            raise ProbeFailed(f"{child.name} ended with {child.exit_code}: {_said(child)}")

    def stop(self) -> None:
        """Ends all. Raises ProbeFailed when one failed or does not end."""
        for page in self.pages:
            page.stop()
        for child in self.running:
            if not self._children.wait(child, STOP_LIMIT):
                raise ProbeFailed(f"{child.name} does not stop")
            if child.exit_code != 0:
                raise ProbeFailed(f"{child.name} ended with {child.exit_code}: {_said(child)}")

    def _check(self) -> None:
        for child in self.running:
            if child.exit_code not in (None, 0):
                raise ProbeFailed(f"{child.name} ended with {child.exit_code}: {_said(child)}")


def _innermost(pid: int) -> int:
    """The last of a chain of children. A job of probes/ starts none."""
    with contextlib.suppress(psutil.NoSuchProcess):
        while children := psutil.Process(pid).children():
            pid = children[0].pid
    return pid


def _said(child: Child) -> str:
    return child.lines[-1] if child.lines else "it said nothing"
