# SPDX-License-Identifier: Apache-2.0
"""Who goes before whom. PURE.

    1  jobs whose promise is about to be broken
    2  by tier
    3  what is within the quota of its queue before what is not
    4  by level of GPU time that they had: below one hour, below four, above (order/attained.py)

Who is before another by this may have its GPUs. Among those that are equal by it nobody is taken off for another: the
queue that has had least goes first, then who was suspended last, then by arrival.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import NamedTuple

from gpuvirt.scheduler.decide.promise import SLICES, credit, margin, promised, tier_of
from gpuvirt.scheduler.order.attained import LEVELS
from gpuvirt.scheduler.state import TIERS, Job, Phase, Rules

URGENT, ORDINARY, SURPLUS = 0, 1, 2


class Rank(NamedTuple):
    """The smaller goes first."""

    urgency: int
    tier: int
    beyond: int  # 0: within its queue's quota
    level: int


def level_of(job: Job) -> int:
    """By the GPU time that it had."""
    return bisect_right(LEVELS, job.served.gpu_seconds)


def rank_of(job: Job, rules: Rules, entitled: bool) -> Rank:
    """Of a job that waits for GPUs, or has them; what it was served is counted up to now."""
    left = credit(job, rules)
    urgent = left <= margin(job, rules) + (_slack(rules) if job.phase in (Phase.RUNNING, Phase.RESUMING) else 0.0)
    return Rank(URGENT if urgent else ORDINARY, TIERS.index(tier_of(job)), 0 if entitled else 1, level_of(job))


def surplus(rank: Rank) -> Rank:
    """Of the members that a job has beyond the fewest that it needs: they go before anybody waits."""
    return rank._replace(urgency=SURPLUS)


def _slack(rules: Rules) -> float:
    """Who was brought back because its promise was at risk stays until it has some credit."""
    return rules.hysteresis / 4


def changes_in(job: Job, rules: Rules) -> float:
    """Seconds until its rank may be another, though nothing happens to it; never later than it is.

    What leaves the window is not foreseen: who has a promise is looked at once a slice.
    """
    part, left = promised(job, rules), credit(job, rules)
    slice_of = rules.window / SLICES
    if job.phase in (Phase.PENDING, Phase.SUSPENDED):
        over = left - margin(job, rules)
        return min(over / part, slice_of) if part > 0 and over > 0 else float("inf")
    if job.phase is not Phase.RUNNING:
        return float("inf")
    gpus = job.spec.demand.gpus * job.spec.demand.gpu_thousandths / 1000 * len(job.members)
    ahead = [limit for limit in LEVELS if limit > job.served.gpu_seconds]
    found = (ahead[0] - job.served.gpu_seconds) / gpus if ahead and gpus else float("inf")
    return min(found, slice_of) if part > 0 and left <= margin(job, rules) + _slack(rules) else found


def turn(job: Job) -> tuple[int, float, str]:
    """Among equals of one queue."""
    if job.phase is Phase.SUSPENDED:
        return (0, -job.changed, job.id)
    return (1, job.submitted, job.id)
