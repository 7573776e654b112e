# SPDX-License-Identifier: Apache-2.0
"""What tiers promise: a part of the GPU time that a job wanted, over a sliding window. PURE.

The credit of a job is what it had beyond its promise: while it waits it falls by the promised part of each second, and
when it is used up the job must run. A job that has credit can wait for others, so the tiers need no idle reserve.
"""

from __future__ import annotations

from dataclasses import replace

from gpuvirt.scheduler.state import TIERS, Job, Phase, Rules, Served

SLICES = 60  # into which a window is divided
BASIC = TIERS[-1]

WANTS = frozenset({Phase.PENDING, Phase.STARTING, Phase.RUNNING, Phase.SUSPENDING, Phase.SUSPENDED, Phase.RESUMING})


def tier_of(job: Job) -> str:
    """The tier that it is served by: basic while its guarantee has not been taken on."""
    return job.spec.tier if job.guaranteed else BASIC


def promised(job: Job, rules: Rules) -> float:
    """The part of its time that it is to have."""
    return rules.fractions.get(tier_of(job), 0.0)


def grown(served: Served, now: float, *, wanted: bool, had: bool, gpus: float, window: float) -> Served:
    """What it was served until `now`, if from `served.until` on it wanted GPUs, and had them, or not.

    gpus: how many (thousandths / 1000) it has or would have.
    """
    if now <= served.until:
        return served
    width = window / SLICES
    slices = [one for one in served.slices if one[0] + width > now - window]
    begin = max(served.until, now - window - width)
    while begin < now:
        first = (begin // width) * width  # they begin at multiples of their width
        end = min(now, first + width)
        end = end if end > begin else now  # so small a part that it makes no difference
        if not slices or slices[-1][0] < first:
            slices.append((first, 0.0, 0.0))
        since, want, have = slices[-1]
        slices[-1] = (since, want + (end - begin) * wanted, have + (end - begin) * (wanted and had))
        begin = end
    return replace(
        served,
        until=now,
        slices=tuple(slices),
        gpu_seconds=served.gpu_seconds + (now - served.until) * gpus * (wanted and had),
    )


def counted(job: Job, now: float, rules: Rules) -> Served:
    """What a job was served until now."""
    had = job.phase is Phase.RUNNING
    wanted = job.phase in WANTS and not job.held
    gpus = job.spec.demand.gpus * job.spec.demand.gpu_thousandths / 1000 * max(1, len(job.members))
    return grown(job.served, now, wanted=wanted, had=had, gpus=gpus, window=rules.window)


def with_guarantee(job: Job, taken: bool, now: float, rules: Rules) -> Job:
    """The job when its guarantee is taken on, or cannot be kept any more. A promise counts from when it is made."""
    served = counted(job, now, rules)
    return replace(job, guaranteed=taken, served=replace(served, slices=()) if taken else served)


def totals(served: Served) -> tuple[float, float]:
    """Seconds wanted and had in the window."""
    return sum(one[1] for one in served.slices), sum(one[2] for one in served.slices)


def fraction(served: Served) -> float:
    """The part of what it wanted that it had, in the window; 1 for who wanted nothing."""
    wanted, had = totals(served)
    return had / wanted if wanted > 0 else 1.0


def credit(job: Job, rules: Rules) -> float:
    """Seconds that it had beyond its promise, up to where it is counted; infinite for who was promised nothing."""
    part = promised(job, rules)
    if part <= 0:
        return float("inf")
    wanted, had = totals(job.served)
    return had - part * wanted


def margin(job: Job, rules: Rules) -> float:
    """The credit at which it must be served: what it loses until it has GPUs, should another be on them in its right.

    At most half of what it can have.
    """
    part = promised(job, rules)
    costs = 2 * (rules.suspend_seconds + rules.resume_seconds) + rules.move_seconds * rules.moves
    return min(part * (costs + rules.hysteresis), rules.window * (1 - part) / 2)
