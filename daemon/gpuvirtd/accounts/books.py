# SPDX-License-Identifier: Apache-2.0
"""The books of the daemon: every change is in the live file before anybody hears of it, and in the database soon after.

A stretch of time that began under the daemon before us goes on until the processes of its job are back and have
drained: they had the GPU until then. Of a job that died while no daemon looked, it ends with that daemon's last beat.
"""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from gpuvirt.arbitration.facts import SECOND
from gpuvirt.errors import RefusedError
from gpuvirtd.accounts.account import Account, Mode, Owner, Sums
from gpuvirtd.accounts.database import HOUR, MINUTE, By, Database, Entry
from gpuvirtd.accounts.live import Live
from gpuvirtd.accounts.meter import Meter
from gpuvirtd.identity import boot_id

if TYPE_CHECKING:
    from gpuvirtd.arbiter.arbiter import Arbiter
    from gpuvirtd.host import Host

MINUTE_NS = MINUTE * SECOND
ENTER_EVERY = 10 * SECOND  # what a crash of the machine costs at most
NEVER = 1 << 62
CUTS_KEPT = 1440  # minutes that are told apart after a long silence; what was before them goes to the first

Cut = tuple[int, list[tuple[Account, Sums]]]  # start of a minute that is over (s), sums at its end


class Books:
    """All accounts of this daemon."""

    def __init__(
        self, host: Host, live: Live, database: Database, retention_s: float, wall: Callable[[], int] = time.time_ns
    ) -> None:
        self.host = host
        self.live = live
        self.database = database
        self.retention_s = retention_s
        self.wall = wall
        self.arbiters: dict[str, Arbiter] = {arbiter.device.uuid: arbiter for arbiter in host.arbiters.values()}
        self.meters = {uuid: Meter(uuid, self) for uuid in self.arbiters}
        self._thread = ThreadPoolExecutor(1, "accounts")
        self._cuts: list[Cut] = []
        self._past: list[Account] = []  # ended, and not entered yet
        self._entered = 0  # when, ns
        self._entering: asyncio.Task[None] | None = None
        self._tidied = 0.0
        self._broken = ""
        self._offset, self._boundary = 0, NEVER
        for arbiter in self.arbiters.values():
            arbiter.account = self.look

    # ---- start, end, once a second

    def begin(self) -> None:
        """Take over what the daemon before us had open. Call it when the jobs of before are known."""
        now, wall = self.host.clock.now(), self.wall()
        same_boot = self.live.boot == boot_id()
        beat, beat_wall = self.live.last_beat
        before = self.live.accounts()
        self._past, self._offset = before, beat_wall - beat
        self._set_boundary(beat - MINUTE_NS)  # before that the database has it
        self._cut_all(beat)
        self._cut(beat, beat)
        self._past = []
        for account in before:
            self._take_over(account, beat, same_boot)
        self.live.begin(now, wall)  # what still runs is of this boot
        if not same_boot:
            self._offset, self._boundary = wall - now, NEVER
        self.tick(now)

    def _take_over(self, account: Account, beat: int, same_boot: bool) -> None:
        """An account of before: it goes on, waits for its job to come back to the GPU, or has ended."""
        owner = account.owner
        job = self.host.jobs.by_id.get(owner.job)
        known = same_boot and owner.gpu in self.meters and job is not None and job.since == owner.since
        account.settling = known and self.missing(owner.gpu, owner.job)
        if not account.settling:
            account.close(beat, account.busy_from)
            self.live.put(account)
        if known:
            self.meters[owner.gpu].accounts[owner.job] = account
        else:
            account.ended = True
            self._past.append(account)

    def tick(self, now: int) -> None:
        """About once a second."""
        wall = self.wall()
        self.live.beat(now, wall)
        if now >= self._boundary:
            self._cut_all(now)
        self._offset = wall - now
        self._set_boundary(now)
        for account in self._all():
            if account.mode is Mode.ALONE and not account.settling:  # what clients say does not outlive them
                account.change(Mode.ALONE, now, self.busy(account, now))
                self.live.put(account)
        self._find_ended()
        if self._cuts or self._past or now - self._entered >= ENTER_EVERY:
            self.enter()

    def close(self) -> None:
        """Write down what there is; jobs that go on are the next daemon's to settle."""
        now = self.host.clock.now()
        self.live.beat(now, self.wall())
        if self._entering is not None:
            self._entering.cancel()
        self._thread.shutdown(wait=True)
        try:
            self.database.enter([entry for _, entry in self._entries(now)])
        except sqlite3.Error as error:
            self._complain(error)
        self.database.close()
        self.live.close()

    # ---- what meters ask

    def look(self, arbiter: Arbiter, now: int) -> None:
        """The facts of a GPU have changed, and nobody has been told yet."""
        if now >= self._boundary:
            self._cut_all(now)
        self.meters[arbiter.device.uuid].look(arbiter.gpu, now)
        self.live.beat(now, now + self._offset)

    def open(self, gpu: str, job: str) -> Account:
        """A new account of a job on a GPU."""
        known = self.arbiters[gpu].jobs[job]
        account = Account(Owner(job, known.since, known.name, known.uid, known.user, gpu, self.wall()))
        self.live.take(account)
        return account

    def save(self, account: Account) -> None:
        """It has changed."""
        self.live.put(account)

    def busy(self, account: Account, now: int) -> int:
        """ns that the processes of its job have been busy for on its GPU, as they say."""
        gpu = account.owner.gpu
        job = self.arbiters[gpu].jobs.get(account.owner.job) if gpu in self.arbiters else None
        if job is None:
            return account.busy_from
        past = job.past.get(gpu, {}).get("busy_ns", 0)
        return past + sum(member.busy(now) for member in job.members.values() if member.arbiter.device.uuid == gpu)

    def missing(self, gpu: str, job: str) -> bool:
        """Is a process of before the restart not back yet, and may still have the GPU?"""
        return self.host.recovery.lacks(self.arbiters[gpu], job)

    # ---- minutes

    def _set_boundary(self, now: int) -> None:
        """The end of the present minute, as CLOCK_MONOTONIC."""
        self._boundary = ((now + self._offset) // MINUTE_NS + 1) * MINUTE_NS - self._offset

    def _cut_all(self, now: int) -> None:
        """Every minute that has ended since the last change gets its part. Nothing has changed in between."""
        too_many = (now - self._boundary) // MINUTE_NS - CUTS_KEPT
        if too_many > 0:
            self._boundary += too_many * MINUTE_NS
        while now >= self._boundary:
            self._cut(self._boundary, now)
            self._boundary += MINUTE_NS

    def _cut(self, end: int, now: int) -> None:
        changed = []
        for account in self._all():
            sums = account.until(end, self.busy(account, now) if account.mode is Mode.ALONE else 0)
            if sums != account.reported:
                account.reported = sums
                changed.append((account, sums))
        if changed:
            self._cuts.append((self._minute(end - 1), changed))

    def _minute(self, now: int) -> int:
        return (now + self._offset) // MINUTE_NS * MINUTE

    def _all(self) -> list[Account]:
        return [account for meter in self.meters.values() for account in meter.accounts.values()] + self._past

    def _find_ended(self) -> None:
        """Accounts of jobs that have ended."""
        for meter in self.meters.values():
            for key in [key for key in meter.accounts if key not in self.host.jobs.by_id]:
                account = meter.accounts[key]
                if account.mode is Mode.NONE and account.wait_since is None:
                    account.ended = True
                    self._past.append(meter.accounts.pop(key))

    # ---- the database

    def _entries(self, now: int) -> list[tuple[Account, Entry]]:
        """What the database does not have yet."""
        periods: dict[Account, list[tuple[int, Sums]]] = {account: [] for account in self._all()}
        for start, changed in self._cuts:
            for account, sums in changed:
                periods.setdefault(account, []).append((start, sums))
        found = []
        for account, ends in periods.items():
            sums = account.until(now, self.busy(account, now) if account.mode is Mode.ALONE else 0)
            if ends or sums != account.entered or account.ended:
                found.append((account, Entry(account.owner, [*ends, (self._minute(now), sums)], account.ended)))
        return found

    def enter(self) -> asyncio.Task[None]:
        """Bring the database up to date, in the background; the task ends when that is done."""
        if self._entering is None or self._entering.done():
            self._entering = self.host.loop.create_task(self._enter())
        return self._entering

    async def _enter(self) -> None:
        now = self._entered = self.host.clock.now()
        self._find_ended()
        found, past = self._entries(now), list(self._past)
        cuts, self._cuts = self._cuts, []
        tidies = self.wall() / SECOND - self._tidied > HOUR
        if not (found or tidies):
            return
        entries = [entry for _, entry in found]
        try:
            await self.host.loop.run_in_executor(self._thread, self._write, entries, tidies)
        except sqlite3.Error as error:
            self._cuts = (cuts + self._cuts)[-CUTS_KEPT:]
            self._complain(error)
            return
        for account, entry in found:
            account.entered = entry.periods[-1][1]
        self._broken = ""
        for account in past:
            self._past.remove(account)
            self.live.free(account.slot)

    def _write(self, entries: list[Entry], tidies: bool) -> None:
        self.database.enter(entries)
        if tidies:
            self._tidied = self.wall() / SECOND
            self.database.tidy(self._tidied, self.retention_s)

    def _complain(self, error: Exception) -> None:
        """Once for a row of failures. Nothing is lost but when the machine goes down: the live file has it."""
        if str(error) != self._broken:
            self._broken = str(error)
            self.host.log.error("accounts_not_written", path=str(self.database.path), error=self._broken)

    async def bills(self, since: float, until: float | None, by: By) -> dict[str, Any]:
        """What was used, by tenant, job or GPU. since, until: seconds since 1970. Raises RefusedError."""
        if self._entering is not None and not self._entering.done():
            await asyncio.shield(self._entering)  # it was begun before the question
        await asyncio.shield(self.enter())
        end = self.wall() / SECOND if until is None else until
        if self._broken:
            raise RefusedError(f"the accounts cannot be written: {self._broken}", "see the log of gpuvirtd")
        try:
            rows = await self.host.loop.run_in_executor(self._thread, self.database.bills, since, end, by)
        except sqlite3.Error as error:
            raise RefusedError(f"the accounts cannot be read: {error}", f"look at {self.database.path}") from None
        return {"since": since, "until": end, "rows": [self._row(row) for row in rows]}

    def _row(self, row: dict[str, Any]) -> dict[str, Any]:
        """Seconds for nanoseconds; the index of a GPU that is there."""
        bill = {"gpu_s": (row["held"] + row["busy"]) / SECOND}
        bill |= {f"{name}_s": row.pop(name) / SECOND for name in ("held", "alone", "busy", "wait", "overrun")}
        if "uuid" in row:
            arbiter = self.arbiters.get(row["uuid"])
            row = {"gpu": arbiter.device.index if arbiter is not None else None, **row}
        if "ended" in row:
            row["ended"] = bool(row["ended"])
        return row | bill
