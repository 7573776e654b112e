# SPDX-License-Identifier: Apache-2.0
"""Carries out what a scheduler commands. Who may command is the service's question; here every call is meant.

An attempt goes on when the daemon is replaced: its supervisor and the book (book.py) tell the next one what it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from gpuvirt.arbitration import events
from gpuvirt.arbitration.limits import Limits
from gpuvirt.arbitration.standing import Standing
from gpuvirt.arbitration.standing import check as check_standing
from gpuvirt.arbitration.suspension import is_away
from gpuvirt.proto.gpuvirt.v1 import agent_pb2 as agent
from gpuvirtd.agent import launch, processes
from gpuvirtd.agent.book import Attempt, Book
from gpuvirtd.agent.problems import Problem, Reason, invalid
from gpuvirtd.creation import change_limits, check_limits
from gpuvirtd.host import Host
from gpuvirtd.identity import Process, ProcessGone, boot_id, open_process, start_time
from gpuvirtd.job_events import Kind
from gpuvirtd.jobs import Job
from gpuvirtd.turns import notes, weight_answer

KEPT = 1024  # attempts that have ended
LOOK_S = 0.02  # how often somebody who waits for the arbiters looks
PATIENCE_S, GRACE_S, LONGEST_S = 30.0, 10.0, 3600.0


class Work:
    """The attempts of this host."""

    def __init__(self, host: Host, book: Book, runtime: Path, logs: Path, users: list[str]) -> None:
        self.host, self.book, self.runtime, self.logs, self.users = host, book, runtime, logs, users
        self.log = host.log
        self.attempts: dict[str, Attempt] = {}  # the last one of each job, the oldest first
        self.stopped: set[str] = set()  # jobs of the scheduler whose processes are all stopped
        self.stopping: set[str] = set()
        self.draining = book.draining()
        self._supervisors: dict[str, Process] = {}
        self._children: dict[str, subprocess.Popen[bytes]] = {}  # those that this daemon has started
        self._busy: dict[str, asyncio.Lock] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self.changes = 0  # so far: who is busy while one comes sees it later
        self._waiters: set[asyncio.Future[None]] = set()

    # ---- start and end of the daemon

    def begin(self) -> None:
        """Take over what the daemon before us had started."""
        self.host.job_changed = self._job_changed
        for attempt in self.book.attempts():
            self.attempts[attempt.job] = attempt
            if attempt.ended:
                continue
            try:
                if attempt.boot != boot_id() or not attempt.pid:
                    raise ProcessGone
                self._watch(attempt, open_process(attempt.pid, start=attempt.start))
            except ProcessGone:
                self._maybe_ended(attempt)
                if attempt.ended and attempt.boot != boot_id():
                    attempt.reason = "the host was booted again"
        for job in list(self.host.jobs):
            attempt_of = self._attempt_of(job)
            if attempt_of is not None and job.suspended:
                pids = processes.session(attempt_of.pid)
                if pids and not processes.running(pids):
                    self.stopped.add(attempt_of.job)
                else:  # the daemon before us died in between: the command will come again
                    self._set_suspended(job, False)
                    processes.continue_all(attempt_of.pid, ())

    def close(self) -> None:
        """Jobs run on."""
        for task in self._tasks:
            task.cancel()
        for process in self._supervisors.values():
            self.host.unwatch(process.pidfd)
            process.close()

    # ---- what happens

    def _watch(self, attempt: Attempt, process: Process) -> None:
        self._supervisors[attempt.job] = process
        self.host.origins[process.pid, process.start] = attempt.origin
        self.host.watch(process.pidfd, self._supervisor_died, attempt)

    def _supervisor_died(self, attempt: Attempt) -> None:
        process = self._supervisors.pop(attempt.job)
        self.host.unwatch(process.pidfd)
        self.host.origins.pop((process.pid, process.start), None)
        process.close()
        child = self._children.pop(attempt.job, None)
        if child is not None:
            attempt.exit = child.wait()
        self._maybe_ended(attempt)

    def _attempt_of(self, job: Job) -> Attempt | None:
        attempt = self.attempts.get(job.origin.rpartition("/")[0])
        return attempt if attempt is not None and attempt.origin == job.origin else None

    def _job_changed(self, job: Job) -> None:
        attempt = self._attempt_of(job)
        if attempt is None:
            return
        if not attempt.local:
            attempt.local = job.id
            self._record(attempt)
        if job.id not in self.host.jobs.by_id:
            self._maybe_ended(attempt)
        self.tell()

    def _maybe_ended(self, attempt: Attempt) -> None:
        if attempt.ended or attempt.job in self._supervisors or attempt.local in self.host.jobs.by_id:
            return
        row = next((row for row in self.host.jobs.ended if attempt.local and row["job"] == attempt.local), None)
        attempt.ended = True
        if row is not None:
            attempt.exit = attempt.exit if attempt.exit is not None else row["exit"]
            attempt.reason, attempt.held_s, attempt.waited_s = row["reason"], row["held_s"], row["wait_s"]
        elif not attempt.pid:
            attempt.reason = "it was never started"
        elif not attempt.local:
            attempt.reason = launch.last_line(attempt.log) or "its supervisor ended before it had asked for a job"
        self.stopped.discard(attempt.job)
        self._record(attempt)
        self.log.info("attempt_ended", job=attempt.local, origin=attempt.origin, exit=attempt.exit)
        self.tell()

    def _record(self, attempt: Attempt) -> None:
        """Later: what depends on it is found again by who looks."""

        async def write() -> None:
            try:
                await self._write(attempt)
            except sqlite3.Error as error:
                self.log.error("agent_state_not_written", job=attempt.job, error=str(error))

        task = self.host.loop.create_task(write())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _write(self, attempt: Attempt) -> None:
        ended = [job for job, other in self.attempts.items() if other.ended]
        forgotten = ended[: max(0, len(ended) - KEPT)]
        for job in forgotten:
            del self.attempts[job]
        await self.book.put_attempt(attempt, forgotten)

    def tell(self) -> None:
        """Something changed that heartbeats say."""
        self.changes += 1
        for waiter in self._waiters:
            if not waiter.done():
                waiter.set_result(None)

    async def change(self) -> None:
        """Returns when something has changed."""
        waiter = self.host.loop.create_future()
        self._waiters.add(waiter)
        try:
            await waiter
        finally:
            self._waiters.discard(waiter)

    async def _until(self, holds: Callable[[], bool]) -> None:
        while not holds():
            await self.change()

    # ---- commands

    def busy(self, job: str) -> asyncio.Lock:
        """One command of a job after the other."""
        if len(self._busy) > 2 * KEPT:
            self._busy = {name: lock for name, lock in self._busy.items() if lock.locked()}
        return self._busy.setdefault(job, asyncio.Lock())

    async def start(self, request: agent.StartRequest) -> Attempt:
        """Start an attempt. Raises Problem."""
        launch.check(request, [arbiter.device.uuid for arbiter in self.host.arbiters.values()])
        last = self.attempts.get(request.job)
        if last is not None and (last.command, last.attempt) == (request.order.command, request.attempt) and last.pid:
            return last  # it was started, and its outcome not written down any more
        if last is not None and (not last.ended or last.attempt >= request.attempt) and last.pid:
            what = "has ended here" if last.ended else "runs here"
            raise Problem(Reason.JOB_EXISTS, f"attempt {last.attempt} of job '{last.job}' {what}", "count attempts up")
        if self.draining is not None:
            reason = f": {self.draining}" if self.draining else ""
            raise Problem(Reason.DRAINING, f"this host takes no new jobs{reason}", "start it on another one")
        user = launch.user_of(request.user, self.users)
        asked = Limits(
            request.limits.memory_bytes or None, request.limits.soft_bytes or None, request.limits.reserve_bytes
        )
        check_limits(self.host, asked)
        check_standing(Standing(request.standing.weight or 1, tier=request.standing.tier), self.host.policy.rules)
        if request.program.folder and not os.path.isdir(request.program.folder):
            raise invalid(f"folder '{request.program.folder}' does not exist on this host")
        try:
            path, log = await asyncio.to_thread(launch.open_log, self.logs, request, user)
        except OSError as error:
            raise Problem(Reason.REFUSED, f"no log can be written in {self.logs}: {error.strerror}") from None
        attempt = Attempt(
            request.job,
            request.attempt,
            request.order.command,
            user.pw_uid,
            str(path),
            time.time(),
            boot_id(),
            limits={field.name: value for field, value in request.limits.ListFields()},
            standing={field.name: value for field, value in request.standing.ListFields()},
        )
        try:
            started = await asyncio.to_thread(launch.start, request, user, self.runtime, log)
        except OSError as error:
            raise Problem(Reason.REFUSED, f"no process can be started: {error.strerror}") from None
        finally:
            os.close(log)
        attempt.pid, attempt.start = started.process.pid, start_time(started.process.pid) or 0
        self.attempts.pop(request.job, None)
        self.attempts[request.job] = attempt
        try:
            await self._write(attempt)
        except sqlite3.Error:
            self.attempts.pop(request.job)
            if last is not None:
                self.attempts[request.job] = last
            await asyncio.to_thread(started.abandon)
            raise
        self._children[attempt.job] = started.process
        try:
            self._watch(attempt, open_process(attempt.pid, start=attempt.start))
        except ProcessGone:
            attempt.exit = self._children.pop(attempt.job).wait()
            self._maybe_ended(attempt)
        await asyncio.to_thread(started.release)
        self.log.info("attempt_started", origin=attempt.origin, pid=attempt.pid, uid=attempt.uid)
        self.tell()
        return attempt

    def resize(self, request: agent.ResizeRequest) -> tuple[Attempt, list[str]]:
        """Another weight. Raises Problem."""
        attempt, job = self._job(request.job)
        if not 1 <= request.weight <= 1000:
            raise invalid(f"weight {request.weight} is not 1 to 1000")
        weight_answer(self.host, job, request.weight)
        return attempt, notes(self.host, job)

    def limit(self, request: agent.LimitRequest) -> tuple[Attempt, list[str]]:
        """Other limits. Raises Problem, RefusedError."""
        attempt, job = self._job(request.job)
        now = job.limits
        limits = Limits(
            (request.memory_bytes or None) if request.HasField("memory_bytes") else now.memory,
            (request.soft_bytes or None) if request.HasField("soft_bytes") else now.soft,
            request.reserve_bytes if request.HasField("reserve_bytes") else now.reserve,
        )
        return attempt, change_limits(self.host, job, limits)

    async def suspend(self, name: str, patience: float) -> Attempt:
        """No lease, no memory on the device, no process that runs. Raises Problem."""
        attempt, job = self._job(name)
        seconds = _seconds(patience, PATIENCE_S, "patience")
        if job.queued is not None:
            raise Problem(Reason.WRONG_STATE, f"job '{name}' waits in line and has not begun", "stop it instead")
        if name in self.stopped:
            return attempt
        self._set_suspended(job, True)
        try:
            async with asyncio.timeout(seconds):
                while not all(is_away(arbiter.gpu, job.id) for arbiter in self.host.arbiters.values()):
                    await asyncio.sleep(LOOK_S)
                    self._alive(attempt, job)
                others = {member.process.pid for member in job.members.values()}
                while not await asyncio.to_thread(processes.stop_all, attempt.pid, others):
                    await asyncio.sleep(LOOK_S)
                self._alive(attempt, job)
        except BaseException as error:
            if job.id in self.host.jobs.by_id:
                self._continue(attempt, job)
            if isinstance(error, TimeoutError):
                raise Problem(
                    Reason.TIMED_OUT,
                    f"job '{name}' did not give its GPU back within {seconds:g} s; it goes on",
                    "give it more patience, or stop it",
                ) from None
            raise
        self.stopped.add(name)
        self.host.record(job)
        job.events.add(Kind.TIME, "suspended")
        self.log.info("suspended", job=job.id, origin=attempt.origin)
        self.tell()
        return attempt

    def resume(self, name: str) -> Attempt:
        """It goes on; nothing if it does already. Raises Problem."""
        attempt, job = self._job(name)
        if job.suspended:
            self._continue(attempt, job)
            self.host.record(job)
            job.events.add(Kind.TIME, "resumed")
            self.log.info("resumed", job=job.id, origin=attempt.origin)
        return attempt

    async def stop(self, name: str, grace: float) -> Attempt:
        """SIGTERM to the program, later SIGKILL to all of its session; nothing if it has ended. Raises Problem."""
        attempt = self.attempt(name)
        seconds = _seconds(grace, GRACE_S, "grace")
        if attempt.ended:
            return attempt
        self.stopping.add(name)
        self.tell()
        try:
            job = self.host.jobs.by_id.get(attempt.local)
            if job is not None and job.suspended:
                self._continue(attempt, job)
            supervisor = self._supervisors.get(name)
            if supervisor is not None:  # passes it on; one that has not come to its program yet dies of it
                processes.send([supervisor.pid], signal.SIGTERM)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._until(lambda: attempt.ended)
            while not attempt.ended:
                job = self.host.jobs.by_id.get(attempt.local)
                members = {member.process.pid for member in job.members.values()} if job is not None else set()
                await asyncio.to_thread(processes.kill_all, processes.leader(attempt.pid, attempt.start), members)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(1.0):
                        await self._until(lambda: attempt.ended)
        finally:
            self.stopping.discard(name)
        return attempt

    async def drain(self, draining: bool, reason: str) -> None:
        """Take no new jobs, or take them again."""
        kept = reason[:200] if draining else None
        await self.book.put_draining(kept)
        self.draining = kept
        self.log.info("draining" if draining else "takes_jobs", reason=reason[:200])
        self.tell()

    # ---- helpers

    def attempt(self, name: str) -> Attempt:
        """Raises Problem."""
        attempt = self.attempts.get(name)
        if attempt is None:
            raise Problem(Reason.JOB_UNKNOWN, f"no scheduler has started a job '{name[:80]}' on this host")
        return attempt

    def _job(self, name: str) -> tuple[Attempt, Job]:
        attempt = self.attempt(name)
        job = self.host.jobs.by_id.get(attempt.local)
        if attempt.ended or (job is None and attempt.local):
            raise Problem(Reason.JOB_ENDED, f"attempt {attempt.attempt} of job '{name}' has ended")
        if job is None:
            raise Problem(Reason.WRONG_STATE, f"job '{name}' is being started", "wait until it runs")
        return attempt, job

    def _alive(self, attempt: Attempt, job: Job) -> None:
        if job.id not in self.host.jobs.by_id or attempt.job in self.stopping:
            raise Problem(Reason.JOB_ENDED, f"attempt {attempt.attempt} of job '{attempt.job}' has ended meanwhile")

    def _set_suspended(self, job: Job, suspended: bool) -> None:
        job.suspended = suspended
        for arbiter in self.host.arbiters.values():
            events.set_suspended(arbiter.gpu, job.id, suspended)
            arbiter.turn()

    def _continue(self, attempt: Attempt, job: Job) -> None:
        self.stopped.discard(attempt.job)
        leader = processes.leader(attempt.pid, attempt.start)
        processes.continue_all(leader, {member.process.pid for member in job.members.values()})
        self._set_suspended(job, False)
        self.tell()


def _seconds(given: float, usual: float, what: str) -> float:
    if not 0 <= given <= LONGEST_S:
        raise invalid(f"a {what} of {given:g} s is not between 0 and {LONGEST_S:g}")
    return given or usual
