# SPDX-License-Identifier: Apache-2.0
"""What a plan changes in what is written down, and what hosts say changes in it. PURE.

decided(job, action)   the phase that is commanded: written down before anything is sent
settled(job)           the hosts have done all of it

PENDING -> STARTING -> RUNNING <-> SUSPENDING -> SUSPENDED -> RESUMING -> RUNNING
                          any -> STOPPING -> PENDING | FAILED | CANCELLED
"""

from __future__ import annotations

from dataclasses import replace

from gpuvirt.scheduler.actions import Action, Grow, Move, Requeue, Resume, Shrink, Start, Suspend
from gpuvirt.scheduler.decide.promise import counted
from gpuvirt.scheduler.state import Job, Member, MemberState, Phase, Rules

DONE = {Phase.STARTING: Phase.RUNNING, Phase.SUSPENDING: Phase.SUSPENDED, Phase.RESUMING: Phase.RUNNING}


def decided(job: Job, action: Action, now: float, rules: Rules) -> Job:
    """The job as it is written down when an action for it has been decided."""
    job = replace(job, served=counted(job, now, rules))
    match action:
        case Start(_, members):
            return _now(job, Phase.STARTING, now, members=members, attempts=_attempts(members), reason="")
        case Grow(_, members):
            return replace(job, members=(*_without(job, members), *members), attempts=_attempts(members))
        case Shrink(_, ranks, why):
            stay = tuple(replace(one, state=MemberState.STOPPING) if one.rank in ranks else one for one in job.members)
            return replace(job, members=stay, reason=why)
        case Suspend(_, why):
            return _now(job, Phase.SUSPENDING, now, reason=why, suspensions=job.suspensions + 1)
        case Resume():
            return _now(job, Phase.RESUMING, now, reason="")
        case Move(_, members, why):
            return _now(job, Phase.RESUMING, now, members=members, attempts=_attempts(members), reason=why)
        case Requeue(_, why, fail):
            then = Phase.FAILED if fail else Phase.PENDING
            return _now(job, Phase.STOPPING, now, then=then, reason=why)


def settled(job: Job, now: float, rules: Rules) -> Job:
    """The job when all that was commanded for it has been done."""
    job = replace(job, served=counted(job, now, rules))
    members = tuple(one for one in job.members if one.state is not MemberState.STOPPING)
    if job.phase is Phase.STOPPING:
        ended = None if job.then is Phase.PENDING else now
        return _now(job, job.then, now, members=(), ended=ended, then=Phase.PENDING)
    if job.phase not in DONE:
        return replace(job, members=members)
    phase = DONE[job.phase]
    state = MemberState.SUSPENDED if phase is Phase.SUSPENDED else MemberState.RUNNING
    members = tuple(replace(one, state=state) for one in members)
    started = now if job.started is None and phase is Phase.RUNNING else job.started
    return _now(job, phase, now, members=members, started=started)


def ended(job: Job, now: float, rules: Rules, exit_code: int) -> Job:
    """All its members have ended by themselves."""
    job = replace(job, served=counted(job, now, rules))
    phase = Phase.SUCCEEDED if exit_code == 0 else Phase.FAILED
    return _now(job, phase, now, members=(), ended=now, exit=exit_code)


def _now(job: Job, phase: Phase, now: float, **fields: object) -> Job:
    return replace(job, phase=phase, changed=now, **fields)  # type: ignore[arg-type]


def _attempts(members: tuple[Member, ...]) -> int:
    return max(member.attempt for member in members)


def _without(job: Job, members: tuple[Member, ...]) -> tuple[Member, ...]:
    """Those of its members that no new one takes the rank of."""
    ranks = {member.rank for member in members}
    return tuple(one for one in job.members if one.rank not in ranks)
