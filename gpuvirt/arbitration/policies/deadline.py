# SPDX-License-Identifier: Apache-2.0
"""deadline: work that is to be done by a time goes first, the earliest time first; the rest shares as under `fair`.

A job says how long its bursts of work may take from when they are ready (`gpuvirt run --deadline`). How much GPU time
a burst needs is learned. A burst that can still be in time goes by its deadline (earliest first, which is optimal on
one machine); one that is too late, or a job that never pauses, is like the rest. What runs is interrupted only
when waiting any longer would make somebody late (least laxity), so that deadlines far away cost no switches; what is
idle, at once. The rest has a floor.
"""

from __future__ import annotations

from gpuvirt.arbitration.bursts import remaining_ns
from gpuvirt.arbitration.facts import Contender, Gpu, Grounds
from gpuvirt.arbitration.policies.base import Rank
from gpuvirt.arbitration.policies.fair import fair_rank
from gpuvirt.arbitration.policies.floor import neglected
from gpuvirt.arbitration.policies.words import counted
from gpuvirt.units import format_duration


class Deadline:
    """Earliest deadline first among those that can be met."""

    name = "deadline"
    summary = "what is due first goes first, while it can be in time; the rest shares and has a floor"
    heeds = frozenset({"weight", "deadline"})

    def admits(self, gpu: Gpu, contender: Contender) -> str:
        return ""

    def rank(self, gpu: Gpu, contender: Contender, now: int) -> Rank:
        due = due_at(contender, now)
        if due is not None:
            return (1, due, *fair_rank(gpu, contender))
        return (0 if _neglected(gpu, contender, now) else 2, 0, *fair_rank(gpu, contender))

    def grounds(self, gpu: Gpu, contender: Contender, now: int) -> Grounds:
        if due_at(contender, now) is not None:
            return Grounds.RIGHT
        return Grounds.FLOOR if _neglected(gpu, contender, now) else Grounds.SHARE

    def revoke_at(self, gpu: Gpu, holder: Contender, waiter: Contender, now: int) -> int | None:
        due, held_due = due_at(waiter, now), due_at(holder, now)
        if due is None or (held_due is not None and held_due <= due):
            return None
        return now if holder.idle else latest_start(gpu, now)

    def says(self, gpu: Gpu, contender: Contender, now: int) -> str:
        dues = [due_at(one, now) for one in gpu.contenders.values() if one is not contender and one.wants(gpu)]
        due, floor = due_at(contender, now), f"at least {gpu.rules.floor:.0%} of the time is for such jobs"
        if due is not None:
            before = sum(other is not None and other < due for other in dues)
            first = f"{counted(before)} before it, due earlier" if before else "nobody is due earlier"
            return f"deadline: its burst is due in {format_duration(due - now)}; {first}"
        late = contender.due_in > 0 and contender.ready_since is not None
        what = "deadline: its burst cannot be in time any more" if late else "no deadline"
        before = sum(other is not None for other in dues)
        return f"{what}: {counted(before)} with one before it; {floor}" if before else f"{what}: shares by weight"


def due_at(contender: Contender, now: int) -> int | None:
    """When its present burst must be done; None if it has no deadline, or cannot be in time any more."""
    if contender.due_in <= 0 or contender.ready_since is None:
        return None
    due = contender.ready_since + contender.due_in
    return due if now + remaining_ns(contender) <= due else None


def latest_start(gpu: Gpu, now: int) -> int:
    """When those that wait and can be in time must begin so that, one after the other, all of them are.

    One whose bursts are not known yet begins now.
    """
    waiting = [one for one in gpu.contenders.values() if one.waiting and one.key != gpu.holder]
    dues = sorted((due, one.key) for one in waiting if (due := due_at(one, now)) is not None)
    latest, work = None, 0
    for due, key in dues:
        one = gpu.contenders[key]
        if one.work_ns == 0:
            return now
        work += remaining_ns(one) + one.switch_cost
        latest = due - work if latest is None else min(latest, due - work)
    margin = gpu.rules.minimum_run + gpu.rules.quantum // 4  # for the drain
    return now if latest is None else latest - margin


def _neglected(gpu: Gpu, contender: Contender, now: int) -> bool:
    """The rest: those that have no deadline together, and each of those that missed theirs."""
    others = gpu.contenders.values()
    if not any(one.wants(gpu) and due_at(one, now) is not None for one in others):
        return False
    if contender.due_in <= 0:
        return neglected(gpu, contender, (one for one in others if one.due_in <= 0), gpu.rules.floor, now)
    late = sum(one.due_in > 0 and one.wants(gpu) and due_at(one, now) is None for one in others)
    return neglected(gpu, contender, [contender], gpu.rules.floor / max(1, late), now)
