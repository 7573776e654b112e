# SPDX-License-Identifier: Apache-2.0
"""The accounts that are open, in a file that is mapped: to write one is to store into memory (about a microsecond, no
system call, no disk), and what was stored is there after a kill -9 of the daemon. After a crash of the machine the
database has what counts.

    header  4096 bytes: magic; boot id; the last beat: CLOCK_MONOTONIC and wall clock, ns
    slots   1024 bytes each: length of the owner (0: free), two copies of the figures, the owner as JSON

A slot is written by turns into one and the other copy. Both ends of a copy carry its serial number: one that was being
written when the daemon died differs at its ends, and the other, one change older, counts.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
from dataclasses import asdict
from pathlib import Path

from gpuvirt.errors import ConfigError
from gpuvirtd.accounts.account import Account, Mode, Owner, Sums
from gpuvirtd.identity import boot_id

MAGIC = b"gpuvirt accounts 1\n"
HEADER, SLOT = 4096, 1024
BOOT_AT, BEAT_AT = 64, 128
COPIES_AT = (64, 192)
OWNER_AT = 320
FIRST = 64  # slots of a new file; doubled when they are taken
NOT_WAITING = -1
FIGURES = struct.Struct("<14q")  # serial, Sums, mode, since, busy_from, wait_since, serial
LENGTH = struct.Struct("<q")
BEAT = struct.Struct("<qq")


class Live:
    """The file, open and mapped. Raises ConfigError where it cannot be had."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            size = os.fstat(self._fd).st_size
            known = size >= HEADER and size % SLOT == 0 and os.pread(self._fd, len(MAGIC), 0) == MAGIC
            if not known:  # new, or of another version
                os.ftruncate(self._fd, 0)
                size = HEADER + FIRST * SLOT
            os.posix_fallocate(self._fd, 0, size)  # a full file system says so here, not by a signal when it is written
            self._map = mmap.mmap(self._fd, size)
        except OSError as error:
            raise ConfigError(f"accounts {path} cannot be kept: {error.strerror}", "free space there") from None
        self.boot, self.last_beat = self._header() if known else ("", (0, 0))
        self._serials = [0] * self._count()
        self._free = [slot for slot in reversed(range(self._count())) if not self._length(slot)]

    def begin(self, now: int, wall: int) -> None:
        """From now on it is of this boot; what was in it has been read."""
        self._map[BOOT_AT : BOOT_AT + 64] = boot_id().encode().ljust(64, b"\0")
        self.beat(now, wall)
        self._map[: len(MAGIC)] = MAGIC

    def beat(self, now: int, wall: int) -> None:
        """The daemon lives (ns of both clocks)."""
        BEAT.pack_into(self._map, BEAT_AT, now, wall)

    def accounts(self) -> list[Account]:
        """What the daemon before us had open. What makes no sense is freed."""
        found = []
        for slot in range(self._count()):
            if self._length(slot):
                account = self._read(slot)
                if account is None:
                    self.free(slot)
                else:
                    found.append(account)
        return found

    def take(self, account: Account) -> None:
        """A slot for an account; it stays without one where there is no room."""
        owner = json.dumps(asdict(account.owner)).encode()
        if len(owner) > SLOT - OWNER_AT or not (self._free or self._grow()):
            return
        slot = self._free.pop()
        at = HEADER + slot * SLOT
        self._map[at + OWNER_AT : at + OWNER_AT + len(owner)] = owner
        account.slot = slot
        self.put(account)
        self.put(account)  # both copies: neither is of somebody else
        LENGTH.pack_into(self._map, at, len(owner))  # last: from now on it counts

    def put(self, account: Account) -> None:
        """Its figures as they are now."""
        slot = account.slot
        if slot < 0:
            return
        serial = self._serials[slot] = self._serials[slot] + 1
        wait = NOT_WAITING if account.wait_since is None else account.wait_since
        FIGURES.pack_into(
            self._map,
            HEADER + slot * SLOT + COPIES_AT[serial & 1],
            serial,
            account.held,
            account.alone,
            account.busy,
            account.wait,
            account.overrun,
            account.overruns,
            account.switches,
            account.waits,
            account.mode,
            account.since,
            account.busy_from,
            wait,
            serial,
        )

    def free(self, slot: int) -> None:
        """Nobody's any more."""
        if slot >= 0:
            LENGTH.pack_into(self._map, HEADER + slot * SLOT, 0)
            self._free.append(slot)

    def close(self) -> None:
        self._map.close()
        os.close(self._fd)

    def _count(self) -> int:
        return (len(self._map) - HEADER) // SLOT

    def _length(self, slot: int) -> int:
        return int(LENGTH.unpack_from(self._map, HEADER + slot * SLOT)[0])

    def _header(self) -> tuple[str, tuple[int, int]]:
        boot = self._map[BOOT_AT : BOOT_AT + 64].rstrip(b"\0").decode(errors="replace")
        now, wall = BEAT.unpack_from(self._map, BEAT_AT)
        return boot, (now, wall)

    def _read(self, slot: int) -> Account | None:
        at = HEADER + slot * SLOT
        copies = [FIGURES.unpack_from(self._map, at + copy) for copy in COPIES_AT]
        whole = [figures for figures in copies if figures[0] == figures[-1]]
        if not whole:
            return None
        serial, *figures, mode, since, busy_from, wait, _ = max(whole)
        try:
            text = self._map[at + OWNER_AT : at + OWNER_AT + self._length(slot)]
            sums = dict(zip(Sums._fields, figures, strict=True))
            account = Account(Owner(**json.loads(text)), **sums, mode=Mode(mode), since=since, busy_from=busy_from)
        except (ValueError, TypeError):
            return None
        account.wait_since = None if wait == NOT_WAITING else wait
        account.slot = slot
        self._serials[slot] = serial
        return account

    def _grow(self) -> bool:
        before = self._count()
        size = HEADER + 2 * before * SLOT
        try:
            os.posix_fallocate(self._fd, 0, size)
            self._map.resize(size)
        except OSError:
            return False
        self._serials += [0] * before
        self._free = list(reversed(range(before, 2 * before)))
        return True
