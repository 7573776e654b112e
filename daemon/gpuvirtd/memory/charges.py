# SPDX-License-Identifier: Apache-2.0
"""What the processes of a job may charge of its quota, exactly, and what they were refused.

One process alone reads the quota in the lease page. Several that share it could each find room for the same bytes, and
the job would have more than ever fits on the device: it would wait for ever. So each of them charges only what it was
granted here (CHARGE); the sum of the grants never passes the quota. What a process reports is what it keeps.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import TYPE_CHECKING

from gpuvirt.control import messages
from gpuvirtd.job_events import Kind
from gpuvirtd.jobs import Job, Member
from gpuvirtd.memory.quotas import quota_of, refusal

if TYPE_CHECKING:
    from gpuvirtd.host import Host

SUCCESS, OUT_OF_MEMORY = 0, 2
PATIENCE_S = 0.2  # for processes of the job to say that they have given back what another one of them wants
PENDING_MAX = 64  # questions of one process that wait for that; who asks more hears at once what there is now


@dataclass(slots=True, eq=False)
class Pending:
    """A CHARGE that may be granted when others have reported."""

    member: Member
    message: messages.Charge
    timer: asyncio.TimerHandle


class Charges:
    """Answers CHARGE."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._pending: list[Pending] = []

    def reported(self, member: Member, charged: int) -> None:
        """Another message of a process said what it has charged: what it was granted beyond that it has given back."""
        member.granted = charged
        for pending in [one for one in self._pending if one.member.job is member.job]:
            if self._grant(pending.member, pending.message):
                self._settle(pending)

    def ask(self, member: Member, message: messages.Charge) -> None:
        """A process wants to charge more."""
        if self._grant(member, message):
            self._answer(member, message, SUCCESS)
            return
        slack = [other for other in self._others(member) if self._slack(other) > 0]
        if not slack or sum(one.member is member for one in self._pending) >= PENDING_MAX:
            self._refuse(member, message)
            return
        timer = self.host.loop.call_later(PATIENCE_S, self._late, member, message)
        self._pending.append(Pending(member, message, timer))
        for other in slack:
            if other.session is not None:
                other.session.send(messages.Wake())

    def gone(self, member: Member) -> None:
        """A process ended: it waits no more, and others may have what it had."""
        for pending in [one for one in self._pending if one.member is member]:
            pending.timer.cancel()
            self._pending.remove(pending)
        for pending in [one for one in self._pending if one.member.job is member.job]:
            if self._grant(pending.member, pending.message):
                self._settle(pending)

    def _settle(self, pending: Pending) -> None:
        pending.timer.cancel()
        self._pending.remove(pending)
        self._answer(pending.member, pending.message, SUCCESS)

    def _late(self, member: Member, message: messages.Charge) -> None:
        self._pending = [one for one in self._pending if one.message is not message]
        if self._grant(member, message):
            self._answer(member, message, SUCCESS)
        else:
            self._refuse(member, message)

    def _grant(self, member: Member, message: messages.Charge) -> bool:
        others = sum(max(other.granted, other.facts.charged) for other in self._others(member))
        host = self.host
        quota = quota_of(host.jobs, member.job, member.arbiter, host.policy.budget).bytes
        if message.charged_bytes > quota - others:
            return False
        member.granted = max(member.granted, message.charged_bytes)
        return True

    def _others(self, member: Member) -> list[Member]:
        job: Job = member.job
        return [other for other in job.members.values() if other is not member and other.arbiter is member.arbiter]

    def _slack(self, other: Member) -> int:
        report = other.refresh(self.host.clock.now())
        return max(other.granted, other.facts.charged) - report.charged_bytes

    def _refuse(self, member: Member, message: messages.Charge) -> None:
        if message.asked_bytes > 0:  # else it tries something else before the program hears of it
            host = self.host
            text = refusal(host.jobs, member.job, member.arbiter, host.policy.budget, message.asked_bytes)
            if member.job.events.add(Kind.REFUSED, text, member.process.pid):
                host.log.info("allocation_refused", job=member.job.id, pid=member.process.pid, reason=text)
        self._answer(member, message, OUT_OF_MEMORY)

    @staticmethod
    def _answer(member: Member, message: messages.Charge, status: int) -> None:
        if member.session is not None and message.request:
            member.session.send(messages.Shared(message.request, status, ""))
