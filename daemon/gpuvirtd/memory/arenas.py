# SPDX-License-Identifier: Apache-2.0
"""Arenas:

One unnamed file per client in /dev/shm, sparse, that its extents are swapped into. Gone with its last holder.
"""

from __future__ import annotations

import os

from gpuvirt.errors import GpuvirtError

FOLDER = "/dev/shm"
ARENA_DEVICES = 4  # sizes of the device: what a client may have swapped and in slots kept for later


class Arena:
    """The daemon's hold on one arena: it sees how much is really in it."""

    def __init__(self, size: int) -> None:
        self.size = size
        try:
            self.fd = os.open(FOLDER, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise GpuvirtError(f"no arena in {FOLDER}: {error.strerror}", "mount a tmpfs there") from None
        try:
            os.ftruncate(self.fd, size)
        except OSError as error:
            os.close(self.fd)
            raise GpuvirtError(f"an arena of {size} bytes in {FOLDER}: {error.strerror}") from None

    @property
    def used(self) -> int:
        """Bytes of host memory in it."""
        return os.fstat(self.fd).st_blocks * 512 if self.fd >= 0 else 0

    def moved(self) -> Arena:
        """The same file under a new owner; this object lets go of it."""
        other = object.__new__(Arena)
        other.size, other.fd = self.size, self.fd
        self.fd = -1
        return other

    def close(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


def arena_size(budget: int, device_total: int) -> int:
    """Nominal bytes of an arena; whole pages."""
    size = min(budget, ARENA_DEVICES * device_total)
    return max(1 << 20, size & ~4095)


def host_memory() -> int:
    """Bytes that are available on this host now (MemAvailable)."""
    with open("/proc/meminfo") as file:
        for line in file:
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    return 0
