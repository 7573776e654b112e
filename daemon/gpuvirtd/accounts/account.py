# SPDX-License-Identifier: Apache-2.0
"""One account: one job on one GPU. Pure; nanoseconds of CLOCK_MONOTONIC.

Time with the lease is *held* while others want the GPU too, else *alone*. Both are of the daemon's clock and no client
can change them. *busy* is what the job's processes say they were busy for while it was alone, and never more than that.
A bill is held + busy: who shares pays for what it keeps from others, who is alone for what it uses.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import NamedTuple

from gpuvirt.arbitration.facts import Contender, Word


class Mode(enum.IntEnum):
    """Which time runs. The numbers are in files."""

    NONE = 0
    HELD = 1
    ALONE = 2


class Sums(NamedTuple):
    """What an account adds up; never less than before. The order is that of files and tables."""

    held: int = 0
    alone: int = 0
    busy: int = 0  # of alone
    wait: int = 0
    overrun: int = 0
    overruns: int = 0
    switches: int = 0  # grants
    waits: int = 0  # of them, those that it had to wait for


NOTHING = Sums()
Counts = tuple[int, int, int, int]  # of the arbiter: overrun (ns), overruns, switches, waits


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose account it is. The job's number may come again, with another `since`."""

    job: str
    since: float  # wall clock of the job's start
    name: str
    uid: int
    user: str
    gpu: str  # UUID
    opened: int  # wall clock, ns: tells it from an earlier account of the same job, should that have been lost


@dataclass(slots=True, eq=False)
class Account:
    """Sums up to the last change, and what goes on since then."""

    owner: Owner
    # As in Sums.
    held: int = 0
    alone: int = 0
    busy: int = 0
    wait: int = 0
    overrun: int = 0
    overruns: int = 0
    switches: int = 0
    waits: int = 0
    mode: Mode = Mode.NONE
    since: int = 0  # of the mode
    busy_from: int = 0  # ALONE: what the processes had been busy for in all when it began
    wait_since: int | None = None
    seen: Counts = (0, 0, 0, 0)  # what of them has been taken over
    settling: bool = False  # of before a restart: goes on as it was until its processes are back and have drained
    ended: bool = False
    slot: int = -1  # its place in the live file; -1: none
    reported: Sums = NOTHING  # up to the end of the last minute
    entered: Sums = NOTHING  # what the database has

    @property
    def sums(self) -> Sums:
        """Up to the last change."""
        return Sums(self.held, self.alone, self.busy, self.wait, self.overrun, self.overruns, self.switches, self.waits)

    def until(self, now: int, busy: int) -> Sums:
        """The sums at `now`, what goes on included. busy: what its processes have been busy for in all (ALONE)."""
        held, alone, used, wait, *others = self.sums
        passed = max(0, now - self.since)
        if self.mode is Mode.HELD:
            held += passed
        elif self.mode is Mode.ALONE:
            alone += passed
            used += max(0, min(busy - self.busy_from, passed))
        if self.wait_since is not None:
            wait += max(0, now - self.wait_since)
        return Sums(held, alone, used, wait, *others)

    def change(self, mode: Mode, now: int, busy: int) -> None:
        """Another mode from now on; busy: as in `until`, for both modes."""
        passed = max(0, now - self.since)
        if self.mode is Mode.HELD:
            self.held += passed
        elif self.mode is Mode.ALONE:
            self.alone += passed
            self.busy += max(0, min(busy - self.busy_from, passed))
        self.mode, self.since, self.busy_from = mode, now, busy

    def waits_since(self, since: int | None, now: int) -> None:
        """It waits since then; None: it does not."""
        if self.wait_since is not None:
            self.wait += max(0, (now if since is None else min(since, now)) - self.wait_since)
        self.wait_since = since

    def count(self, counts: Counts) -> None:
        """Take over what the contender has counted since the last time."""
        overrun, overruns, switches, waits = self.seen
        self.overrun += counts[0] - overrun
        self.overruns += counts[1] - overruns
        self.switches += counts[2] - switches
        self.waits += counts[3] - waits
        self.seen = counts

    def close(self, now: int, busy: int) -> None:
        """Nothing goes on any more."""
        self.change(Mode.NONE, now, busy)
        self.waits_since(None, now)


def mode_of(contender: Contender) -> Mode:
    """Which time of a job runs, as the arbiter has it."""
    if contender.charge_from is None:
        return Mode.NONE
    return Mode.ALONE if contender.word is Word.OPEN else Mode.HELD


def counted(contender: Contender) -> Counts:
    """What the arbiter counts by itself."""
    return contender.overrun_ns, contender.overruns, contender.switches, contender.waits
