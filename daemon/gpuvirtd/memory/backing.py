# SPDX-License-Identifier: Apache-2.0
"""Gives arenas host memory: within the budgets, and touched by threads, so that the event loop never waits for it."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from gpuvirt.control.messages import Back, Backed
from gpuvirt.errors import ProtocolError
from gpuvirt.units import format_size
from gpuvirtd.memory.arenas import ARENA_DEVICES, Arena, arena_size, host_memory
from gpuvirtd.memory.folder import Folder, TrustError

OUT_OF_MEMORY = 2  # CUresult
THREADS = min(8, os.cpu_count() or 1)
PART = 64 << 20  # bytes that a thread touches at once
ASKED_MAX = 4  # requests of one process under way

PROT_READ, PROT_WRITE, MAP_SHARED = 1, 2, 1
MAP_FAILED = ctypes.c_void_p(-1).value
MADV_POPULATE_WRITE = 23  # Linux 5.14; an error there, not a SIGBUS, when the job has truncated the file

_libc = ctypes.CDLL(None, use_errno=True)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *(ctypes.c_int,) * 3, ctypes.c_int64)
_libc.madvise.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)


@dataclass(frozen=True, slots=True)
class Budget:
    """Host memory that all arenas together, and those of one user, may have; bytes."""

    total: int
    per_user: int


@dataclass(frozen=True, slots=True)
class Missing:
    """Why there is no host memory."""

    size: int  # bytes that are missing
    reason: str


class Arenas:
    """All arenas, by job."""

    def __init__(self, folder: Folder, budget: Budget, *, verify: bool = False) -> None:
        self.folder = folder
        self.budget = budget
        self.verify = verify
        self._of: dict[str, list[Arena]] = {}  # by job; more than one only after a restart with stragglers
        self._user: dict[str, int] = {}  # uid of a job
        self._asked: Counter[int] = Counter()  # requests under way, by client
        self._threads = ThreadPoolExecutor(THREADS, "gpuvirtd-memory")

    # ---- which arena

    def of(self, job: str, uid: int, devices: int, segment: int) -> Arena:
        """The arena of a job, made if there is none. Raises GpuvirtError.

        devices: bytes of all GPUs; segment: bytes that its first process moves at once.
        """
        self._user[job] = uid
        arenas = self._of.setdefault(job, [])
        if not arenas:
            data = min(self.budget.total, self.budget.per_user, ARENA_DEVICES * devices)
            arenas.append(Arena.create(self.folder, *arena_size(data, segment), verify=self.verify))
        return arenas[0]

    def adopt(self, job: str, uid: int, fd: int) -> Arena:
        """The arena that a process of the job had before this daemon came. Takes the descriptor. Raises TrustError."""
        handed = Arena.adopt(fd)
        self._user[job] = uid
        arenas = self._of.setdefault(job, [])
        for arena in arenas:
            if arena.key == handed.key:
                handed.close()
                return arena
        if any(arena.key == handed.key for others in self._of.values() for arena in others):
            handed.close()
            raise TrustError("it is the arena of another job")
        arenas.append(handed)
        return handed

    def known(self, job: str) -> list[Arena]:
        """Arenas of a job."""
        return self._of.get(job, [])

    def drop(self, job: str) -> None:
        """The job has no process left that could have anything in its arena."""
        for arena in self._of.pop(job, ()):
            arena.close()
        self._user.pop(job, None)

    # ---- how much

    def used(self, job: str) -> int:
        """Bytes of host memory of one job."""
        return sum(arena.used for arena in self.known(job))

    def used_by(self, uid: int | None = None) -> int:
        """Bytes of host memory of all jobs of a user (None: of all users), with what they are being given."""
        return sum(
            arena.charged
            for job, arenas in self._of.items()
            if uid is None or self._user[job] == uid
            for arena in arenas
        )

    def missing(self, uid: int, size: int) -> Missing | None:
        """What stands against `size` bytes more for this user; None: nothing."""
        checks = (
            (self.budget.total, self.used_by(), "the host memory budget", "memory.host_budget"),
            (self.budget.per_user, self.used_by(uid), f"the share of uid {uid}", "memory.host_budget_per_user"),
        )
        for limit, used, name, key in checks:
            if used + size > limit:
                have = f"{name} ({format_size(limit)}, {key}) has room for {format_size(max(0, limit - used))}"
                return Missing(used + size - limit, f"{format_size(size)} wanted; {have}")
        # What is on its way to others is still counted as available: threads have not touched it yet.
        coming = sum(arena.charged - arena.used for arenas in self._of.values() for arena in arenas)
        there = max(0, host_memory() - coming)
        if size > there:
            return Missing(size - there, f"{format_size(size)} wanted; the host has {format_size(there)} available")
        return None

    # ---- give

    def check(self, client: int, arena: Arena, asked: Back) -> None:
        """Raises ProtocolError for what no shim of ours asks. Else it counts as under way until back() is done."""
        if asked.count == 0 or asked.segment + asked.count > arena.layout.segments:
            raise ProtocolError(f"BACK of segments {asked.segment} + {asked.count}, there are {arena.layout.segments}")
        if self._asked[client] >= ASKED_MAX:
            raise ProtocolError(f"more than {ASKED_MAX} BACKs at once")
        self._asked[client] += 1

    async def back(self, client: int, uid: int, arena: Arena, asked: Back) -> Backed:
        """The answer to a process that wants host memory for segments; check() has been asked."""
        layout = arena.layout
        size = asked.count * layout.segment_bytes
        try:
            missing = self.missing(uid, size)
            if missing is None:
                arena.begin_giving(size)
                try:
                    missing = await self._give(arena, layout.data_at + asked.segment * layout.segment_bytes, size)
                finally:
                    arena.end_giving()
        except OSError as error:  # no descriptors; whoever asks must hear it, whatever it is
            missing = Missing(size, f"{format_size(size)} wanted; gpuvirtd: {error.strerror}")
        finally:
            self._asked[client] -= 1
            if self._asked[client] <= 0:
                del self._asked[client]
        if missing is None:
            return Backed(asked.request, 0)
        return Backed(asked.request, OUT_OF_MEMORY, missing.size, missing.reason)

    async def _give(self, arena: Arena, offset: int, size: int) -> Missing | None:
        loop = asyncio.get_running_loop()
        fd = os.dup(arena.fd)  # the job may end meanwhile
        try:
            # All or nothing first: then it is there for certain. Touching is what takes time, and can be shared.
            await loop.run_in_executor(self._threads, os.posix_fallocate, fd, offset, size)
            parts = range(offset, offset + size, PART)
            await asyncio.gather(
                *(
                    loop.run_in_executor(self._threads, touch, fd, part, min(PART, offset + size - part))
                    for part in parts
                )
            )
        except OSError as error:
            return Missing(size, f"{format_size(size)} wanted; {self.folder.path}: {error.strerror}")
        finally:
            with contextlib.suppress(OSError):
                os.close(fd)
        return None

    def close(self) -> None:
        """Let go of all of them; jobs keep what they have mapped."""
        self._threads.shutdown(wait=False, cancel_futures=True)
        for job in list(self._of):
            self.drop(job)


def touch(fd: int, offset: int, size: int) -> None:
    """Have the kernel clear these bytes of a file now, by this thread; they are allocated already."""
    address = _libc.mmap(None, size, PROT_READ | PROT_WRITE, MAP_SHARED, fd, offset)
    if address in (None, MAP_FAILED):
        return  # no addresses: whoever uses them first clears them
    _libc.madvise(address, size, MADV_POPULATE_WRITE)
    _libc.munmap(address, size)
