# SPDX-License-Identifier: Apache-2.0
"""What a fake shim does with the files that the daemon gave it: the arena of its job, the lease page."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
from typing import Any

from gpuvirt.control import messages, store

PUNCH = 3  # FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE
_libc = ctypes.CDLL(None, use_errno=True)
_libc.fallocate.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)


class ArenaUser:
    """Part of a FakeShim."""

    arena = -1
    owner = 0
    send: Any

    def __init__(self) -> None:
        self.answers: list[messages.Backed] = []

    def arena_view(self) -> dict[str, Any]:
        """The file, and what the daemon has written into it."""
        found = os.fstat(self.arena)
        slots, alive, deaths = store.parse_header(os.pread(self.arena, store.HEADER_BYTES, 0))
        return {
            "file": found.st_ino,
            "links": found.st_nlink,
            "mode": found.st_mode & 0o777,
            "size": found.st_size,
            "blocks": found.st_blocks * 512,
            "owner": self.owner,
            "alive": [number for number in range(store.OWNERS) if alive >> number & 1],
            "deaths": deaths,
            "segment": slots * store.PAGE_BYTES,
            "answers": [(answer.status, answer.missing, answer.reason) for answer in self.answers],
        }

    def back(self, segment: int, count: int) -> None:
        """Ask for host memory; the answer is in arena_view()."""
        self.send(messages.Back(len(self.answers) + 1, segment, count))

    def fill(self, segment: int, data: bytes) -> None:
        """Write into the first bytes of a segment."""
        os.pwrite(self.arena, data, self._at(segment)[0])

    def read(self, segment: int, size: int) -> bytes:
        """What is there."""
        return os.pread(self.arena, size, self._at(segment)[0])

    def punch(self, segment: int) -> None:
        """Give the memory of a segment back."""
        assert _libc.fallocate(self.arena, PUNCH, *self._at(segment)) == 0

    def _at(self, segment: int) -> tuple[int, int]:
        slots, _, _ = store.parse_header(os.pread(self.arena, store.HEADER_BYTES, 0))
        layout = store.layout_of(os.fstat(self.arena).st_size, slots)
        return layout.data_at + segment * layout.segment_bytes, layout.segment_bytes

    def spoil(self) -> None:
        """Truncate the file under everybody."""
        os.ftruncate(self.arena, 0)

    def try_to_write_lease(self, fd_bytes: int = 4096) -> str:
        """What happens when a client maps its lease page writable."""
        for name in os.listdir("/proc/self/fd"):
            with contextlib.suppress(OSError):
                if "gpuvirt-lease" in os.readlink(f"/proc/self/fd/{name}"):
                    try:
                        mmap.mmap(int(name), fd_bytes)
                    except OSError as error:
                        return type(error).__name__
                    return "written"
        return "not found"
