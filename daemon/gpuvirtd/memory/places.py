# SPDX-License-Identifier: Apache-2.0
"""Which arena, and which number in it, each client has; also after a restart, when only the clients know it."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gpuvirt.control import messages, store
from gpuvirtd.job_events import Kind
from gpuvirtd.jobs import Job, Member
from gpuvirtd.memory.arenas import Arena
from gpuvirtd.memory.backing import Arenas
from gpuvirtd.memory.folder import TrustError
from gpuvirtd.sessions import NOT_PERMITTED, NOT_READY, NotYet, Refusal, Session

if TYPE_CHECKING:
    from gpuvirtd.host import Host


class Places:
    """The arenas of all jobs and their owners."""

    def __init__(self, host: Host, arenas: Arenas) -> None:
        self.host = host
        self.arenas = arenas
        self._gone: dict[str, set[int]] = {}  # by job: numbers whose process ended before its arena was known here
        self._tasks: set[asyncio.Task[None]] = set()

    # ---- who comes

    def choose(self, session: Session, job: Job, hello: messages.Hello, old: Member | None) -> tuple[Arena, int]:
        """The arena of a client that says HELLO, and its number there. Raises Refusal, GpuvirtError, OSError."""
        if hello.reattach and old is not None and not session.handed:
            return old.arena, old.owner
        if hello.reattach and session.handed:
            return self._again(session, job, hello, old)
        if not self.arenas.known(job.id) and self.host.recovery.holds_back(job):
            raise NotYet(f"process {session.process.pid} waits for its job's arena, which the others have")
        devices = sum(arbiter.device.memory_total for arbiter in self.host.arbiters.values())
        arena = self.arenas.of(job.id, job.uid, devices, hello.granularity)
        return arena, self._free_number(job)

    def _again(self, session: Session, job: Job, hello: messages.Hello, old: Member | None) -> tuple[Arena, int]:
        """It has an arena already, with what it has swapped: no other will do."""
        known = list(self.arenas.known(job.id))
        try:
            arena = self.arenas.adopt(job.id, job.uid, session.handed.pop(0))
        except TrustError as error:
            raise Refusal(NOT_PERMITTED, f"the arena of process {session.process.pid}: {error.message}") from None
        if arena not in known:  # later, a number that was free may have a new owner
            for owner in self._gone.get(job.id, ()):
                arena.died(owner)
        owner = old.owner if old is not None and old.arena is arena else hello.owner
        others = (member for member in job.members.values() if member is not old and member.arena is arena)
        if owner >= store.OWNERS or any(member.owner == owner for member in others):
            raise Refusal(NOT_PERMITTED, f"number {owner} of job {job.id}'s arena belongs to another process")
        return arena, owner

    def _free_number(self, job: Job) -> int:
        used = sum({1 << owner for owner in self.host.recovery.owners_of(job)})
        for arena in self.arenas.known(job.id):
            used |= arena.alive
        number = (~used & (used + 1)).bit_length() - 1
        if number >= store.OWNERS:
            raise Refusal(
                NOT_READY, f"job {job.id} has {store.OWNERS} processes on GPUs", "start the rest as a job of its own"
            )
        return number

    # ---- who leaves

    def left(self, member: Member) -> None:
        """The process is gone, or is another program now: nothing in the arena is its own any more."""
        member.arena.died(member.owner)

    def drop_unused(self, job: Job) -> None:
        """A process of the job has ended. After the last one nobody needs the arena: who comes later gets a new one."""
        if not job.members and not self.host.recovery.waits_for(job):
            self.arenas.drop(job.id)

    def gone_before(self, job: str, owner: int) -> None:
        """A process of before the restart has ended without coming back."""
        if owner < 0:
            return
        self._gone.setdefault(job, set()).add(owner)
        for arena in self.arenas.known(job):
            if arena.adopted:
                arena.died(owner)

    def ended(self, job: Job) -> None:
        """The job is over."""
        self.arenas.drop(job.id)
        self._gone.pop(job.id, None)

    # ---- host memory

    def back(self, member: Member, asked: messages.Back) -> None:
        """A process wants host memory; it hears when it is there. Raises ProtocolError."""
        self.arenas.check(member.number, member.arena, asked)
        task = self.host.loop.create_task(self._back(member, asked))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _back(self, member: Member, asked: messages.Back) -> None:
        session = member.session
        answer = await self.arenas.back(member.number, member.job.uid, member.arena, asked)
        if answer.status:
            text = f"no host memory for swapping: {answer.reason}"
            if member.job.events.add(Kind.MEMORY, text, member.process.pid):
                self.host.log.warning("arena_refused", job=member.job.id, client=member.number, reason=answer.reason)
        if session is not None and session is member.session:
            session.send(answer)

    def close(self) -> None:
        """Let go of everything; jobs keep what they have mapped."""
        for task in self._tasks:
            task.cancel()
        self.arenas.close()
