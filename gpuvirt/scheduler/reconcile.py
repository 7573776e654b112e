# SPDX-License-Identifier: Apache-2.0
"""What hosts say, against what is written down: what changes, and what they are to be told. PURE.

Nothing here remembers what was sent: it is asked again after every word of a host, and whatever is not as it should be
is commanded (again). So a lost message, a restart of either side and a double answer all end the same way.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from enum import StrEnum

from gpuvirt.scheduler.changes import settled
from gpuvirt.scheduler.decide.promise import counted
from gpuvirt.scheduler.state import ENDED, Job, Member, MemberState, Phase, Rules

WORKS = frozenset({Phase.STARTING, Phase.RUNNING, Phase.RESUMING})
RESTS = frozenset({Phase.SUSPENDING, Phase.SUSPENDED})


class Seen(StrEnum):
    """How a host has a member."""

    RUNNING = "running"  # or about to, or waiting for host memory
    SUSPENDED = "suspended"
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Report:
    """What a host says of one member."""

    attempt: int
    seen: Seen
    exit: int | None = None
    reason: str = ""


class Verb(StrEnum):
    """What a host can be told."""

    START = "start"
    SUSPEND = "suspend"
    RESUME = "resume"
    STOP = "stop"


@dataclass(frozen=True, slots=True)
class Command:
    """For one host. `member` is None where it has something that nobody knows of."""

    verb: Verb
    name: str
    job: Job | None = None
    member: Member | None = None


def name_of(job: Job, member: Member) -> str:
    """As its host knows a member."""
    return f"{job.id}.{member.rank}"


def told(job: Job, node: str, reports: Mapping[str, Report]) -> Job:
    """The job with what one host says of its members there."""
    found = []
    for member in job.members:
        report = reports.get(name_of(job, member))
        now = _told(member, report, job.phase is Phase.STOPPING) if member.node == node else member
        if member.state is not MemberState.STOPPING or now.state is not MemberState.ENDED:
            found.append(now)  # else: it was taken out of the job, and has gone
    members = tuple(found)
    return job if members == job.members else replace(job, members=members)


def _told(member: Member, report: Report | None, stops: bool) -> Member:
    if report is None or report.attempt != member.attempt:
        if member.state is MemberState.ASSIGNED and not stops:
            return member  # not there yet
        return replace(member, state=MemberState.ENDED)  # its host does not have it, or not any more
    if member.state is MemberState.STOPPING and report.seen is not Seen.ENDED:
        return member
    state = {Seen.RUNNING: MemberState.RUNNING, Seen.SUSPENDED: MemberState.SUSPENDED, Seen.ENDED: MemberState.ENDED}
    return replace(member, state=state[report.seen], exit=report.exit)


def gone(job: Job, node: str) -> Job:
    """The job when a host is lost, and what it had there with it."""
    if not any(member.node == node and member.state is not MemberState.ENDED for member in job.members):
        return job
    members = tuple(replace(one, state=MemberState.ENDED) if one.node == node else one for one in job.members)
    return replace(job, members=members)


def advanced(job: Job, now: float, rules: Rules) -> Job:
    """The phase that follows from where its members are."""
    states = [member.state for member in job.members]
    if job.phase is Phase.STOPPING:
        return settled(job, now, rules) if all(one is MemberState.ENDED for one in states) else job
    if job.phase in ENDED or job.phase is Phase.PENDING:
        return job
    left = [one for one in job.members if one.state is MemberState.STOPPING]
    living = [one for one in job.members if one not in left]
    failed = [one for one in living if one.state is MemberState.ENDED and one.exit != 0]
    if failed:
        return _fails(job, failed[0], now, rules)
    if living and all(one.state is MemberState.ENDED for one in living):
        then = replace(job, phase=Phase.STOPPING, then=Phase.SUCCEEDED, reason="", changed=now, exit=0)
        return advanced(replace(then, served=counted(job, now, rules)), now, rules)
    working = [one.state for one in living if one.state is not MemberState.ENDED]
    if job.phase is Phase.SUSPENDING:
        done = all(one is MemberState.SUSPENDED for one in working)
    else:
        done = job.phase in WORKS - {Phase.RUNNING} and all(one is MemberState.RUNNING for one in working)
    if not done:
        return job
    here = settled(replace(job, members=tuple(living)), now, rules)
    return replace(here, members=(*here.members, *left))


def _fails(job: Job, member: Member, now: float, rules: Rules) -> Job:
    """One member has failed, or is lost: the others are stopped."""
    served = counted(job, now, rules)
    if member.exit is None and job.spec.restarts:
        why, then = f"member {member.rank} on {member.node} is lost", Phase.PENDING
    else:
        how = "was lost" if member.exit is None else f"ended with {member.exit}"
        why, then = f"member {member.rank} on {member.node} {how}", Phase.FAILED
    stops = replace(job, phase=Phase.STOPPING, then=then, reason=why, changed=now, served=served, exit=member.exit)
    return advanced(stops, now, rules)


def commands(jobs: Iterable[Job], node: str, reports: Mapping[str, Report]) -> list[Command]:
    """What a host is to be told now."""
    here = [(job, member) for job in jobs for member in job.members if member.node == node]
    known = {name_of(job, member): member for job, member in here}
    found = [
        Command(Verb.STOP, name)
        for name, report in reports.items()
        if report.seen is not Seen.ENDED and (name not in known or known[name].attempt != report.attempt)
    ]
    leaving = {command.name for command in found}
    taken: set[str] = set()  # GPUs that somebody must leave first
    for job, member in here:
        report = _of(member, reports.get(name_of(job, member)))
        stops = job.phase is Phase.STOPPING or member.state is MemberState.STOPPING
        if report is None or report.seen is Seen.ENDED:
            continue
        if stops:
            found.append(Command(Verb.STOP, name_of(job, member), job, member))
            taken.update(member.gpus)
        elif job.phase in RESTS and report.seen is Seen.RUNNING:
            found.append(Command(Verb.SUSPEND, name_of(job, member), job, member))
            taken.update(member.gpus)
    for job, member in here:
        name = name_of(job, member)
        report = _of(member, reports.get(name))
        if job.phase not in WORKS or member.state is MemberState.STOPPING or name in leaving:
            continue
        if taken & set(member.gpus):
            continue
        if report is None and member.state is MemberState.ASSIGNED:
            found.append(Command(Verb.START, name, job, member))
        elif report is not None and report.seen is Seen.SUSPENDED:
            found.append(Command(Verb.RESUME, name, job, member))
    return found


def _of(member: Member, report: Report | None) -> Report | None:
    return report if report is not None and report.attempt == member.attempt else None
