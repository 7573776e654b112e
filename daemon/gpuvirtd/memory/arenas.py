# SPDX-License-Identifier: Apache-2.0
"""Arenas: host memory of jobs for what is not in device memory.

One unnamed file per job, shared by its processes (layout: native/include/gpuvirt/store.h). It is gone with its last
holder, whatever was killed. The daemon makes it, gives it host memory when a process asks (BACK), and says which of its
processes live. It believes nothing that is written in it, and takes no lock that a job could hold.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets

from gpuvirt.control import store
from gpuvirt.errors import GpuvirtError, ProtocolError
from gpuvirtd.memory.folder import Folder, TrustError, handed_over

ARENA_DEVICES = 4  # sizes of all devices: what a job may have swapped and in slots kept for later
SEGMENT_SLOTS = (1, 64)  # pages, least and most: 2 MiB to 128 MiB


def arena_size(data: int, segment: int) -> tuple[int, int]:
    """(bytes of the file, pages of a segment) of an arena that can hold `data` bytes, at least one segment.

    segment: bytes that are moved at once; a segment is as large, within limits.
    """
    slots = SEGMENT_SLOTS[0]
    while slots < SEGMENT_SLOTS[1] and slots * store.PAGE_BYTES < segment:
        slots *= 2
    segments = max(1, -(-data // (slots * store.PAGE_BYTES)))
    tables = 4 * 4096 + segments * (64 + slots * 64)
    return segments * slots * store.PAGE_BYTES + -(-tables // store.PAGE_BYTES) * store.PAGE_BYTES, slots


class Arena:
    """The daemon's hold on one arena."""

    def __init__(self, fd: int, size: int, segment_slots: int, key: tuple[int, int], *, plain: bool) -> None:
        self.fd = fd
        self.size = size
        self.key = key  # (device, inode) of the file
        self.layout = store.layout_of(size, segment_slots)
        self.alive = 0  # bits of the owners that live, or may
        self.deaths = 0  # of owners so far
        self.adopted = False  # a daemon before this one has made it
        self._giving = self._promised = 0  # requests that are being carried out; bytes when they are done
        self._plain = plain  # it has write(), which hugetlbfs has not

    @classmethod
    def create(cls, folder: Folder, size: int, segment_slots: int, *, verify: bool) -> Arena:
        """A new file, full of zeros but for its header. Raises GpuvirtError."""
        fd = folder.new_file()
        try:
            os.ftruncate(fd, size)
            found = os.fstat(fd)
            arena = cls(fd, size, segment_slots, (found.st_dev, found.st_ino), plain=not folder.huge)
            # The tables are there for certain: no process of the job may meet a SIGBUS in them.
            os.posix_fallocate(fd, 0, folder.rounded(arena.layout.tables))
            key = secrets.token_bytes(store.KEY_BYTES)
            arena._write(0, store.first_header(size, segment_slots, key, verify=verify))
        except OSError as error:
            os.close(fd)
            raise GpuvirtError(
                f"an arena of {size} bytes in {folder.path}: {error.strerror}", "free memory, or raise its size limit"
            ) from None
        except BaseException:
            os.close(fd)
            raise
        return arena

    @classmethod
    def adopt(cls, fd: int) -> Arena:
        """The arena behind a descriptor that a process has handed over; it is this object's, closed after an error.

        Raises TrustError if no daemon of ours can have made the file.
        """
        try:
            found = handed_over(fd)
            # What it says of its segments is the job's own affair: a wrong number hurts nobody else.
            segment_slots, alive, deaths = store.parse_header(os.pread(fd, store.HEADER_BYTES, 0))
            arena = cls(fd, found.size, segment_slots, found.key, plain=not found.huge)
        except (OSError, ProtocolError) as error:
            os.close(fd)
            raise TrustError(error.strerror or "" if isinstance(error, OSError) else error.message) from None
        except TrustError:
            os.close(fd)
            raise
        # Nobody is dead because this daemon does not know him. Who is known to be dead is taken out by the caller.
        arena.alive = alive
        arena.deaths = deaths
        arena.adopted = True
        return arena

    @property
    def used(self) -> int:
        """Bytes of host memory in it, as the kernel says, without its tables."""
        if self.fd < 0:
            return 0
        found = os.fstat(self.fd)
        return max(0, found.st_blocks * 512 - -(-self.layout.tables // found.st_blksize) * found.st_blksize)

    @property
    def charged(self) -> int:
        """The same, as it will be when what is under way is done: nothing of it is promised twice."""
        return max(self.used, self._promised)

    def begin_giving(self, size: int) -> None:
        """So many bytes are on their way to it."""
        self._promised = self.charged + size
        self._giving += 1

    def end_giving(self) -> None:
        """A request is done, well or not: when none is left, what is used is the truth."""
        self._giving -= 1
        if self._giving == 0:
            self._promised = 0

    # ---- who lives

    def lives(self, owner: int) -> None:
        """This number has a process from now on. Raises OSError."""
        self._tell(self.alive | 1 << owner)

    def died(self, owner: int) -> None:
        """The process of this number is gone for certain; the others may take its references away."""
        if self.fd >= 0 and self.alive >> owner & 1:
            with contextlib.suppress(OSError):  # of a file that the job has spoilt
                self._tell(self.alive & ~(1 << owner))
                self.deaths = (self.deaths + 1) % (1 << 64)
                self._write(store.DEATHS_AT, self.deaths.to_bytes(8, "little"))

    def _tell(self, alive: int) -> None:
        # Both words at once, or one byte after the other: each bit of them is either old or new.
        self._write(store.ALIVE_AT, alive.to_bytes(store.ALIVE_BYTES, "little"))
        self.alive = alive

    def _write(self, offset: int, data: bytes) -> None:
        """Write without mapping what a job can truncate: here that is an error, and no SIGBUS. Raises OSError."""
        if self._plain:
            os.pwrite(self.fd, data, offset)
        else:
            write_mapped(self.fd, data, offset)

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def write_mapped(fd: int, data: bytes, offset: int) -> None:
    """Write to a file without write() (hugetlbfs). The kernel copies: a missing page is EFAULT. Raises OSError."""
    with mmap.mmap(fd, store.PAGE_BYTES, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE) as mapping:
        reader, writer = os.pipe()
        try:
            os.write(writer, data)
            with memoryview(mapping) as view, view[offset : offset + len(data)] as target:
                os.readv(reader, [target])
        finally:
            os.close(reader)
            os.close(writer)


def host_memory() -> int:
    """Bytes that are available on this host now (MemAvailable)."""
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0
