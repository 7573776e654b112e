# SPDX-License-Identifier: Apache-2.0
"""tiers: jobs of a service tier have a guaranteed part of the time that they want the GPU; the rest is shared.

Who has had less than its guarantee of the time since it began to want the GPU (within the window, while others wanted
it too) goes first, the one that lacks most. What the guarantees leave is shared as under `fair` by all; time that is
had by guarantee does not count there. Guarantees that add up to more than there is are scaled down. Jobs without a
tier always have LEFT of the time.
"""

from __future__ import annotations

from gpuvirt.arbitration.facts import Contender, Gpu, Grounds
from gpuvirt.arbitration.policies.base import Rank
from gpuvirt.arbitration.policies.fair import fair_rank
from gpuvirt.arbitration.policies.floor import neglected, wanted_ns
from gpuvirt.arbitration.policies.words import counted
from gpuvirt.units import format_duration

LEFT = 0.01  # of the time, for those without a tier


class Tiers:
    """Who lacks most of its guarantee, then fair shares."""

    name = "tiers"
    summary = "each tier has its guaranteed part of the time; the rest is shared"
    heeds = frozenset({"weight", "tier"})

    def admits(self, gpu: Gpu, contender: Contender) -> str:
        return ""

    def rank(self, gpu: Gpu, contender: Contender, now: int) -> Rank:
        lacking = lack_ns(gpu, contender, now)
        if lacking > 0:
            return (1, -lacking, *fair_rank(gpu, contender))
        return (0 if _neglected(gpu, contender, now) else 2, 0, *fair_rank(gpu, contender))

    def grounds(self, gpu: Gpu, contender: Contender, now: int) -> Grounds:
        if lack_ns(gpu, contender, now) > 0:
            return Grounds.RIGHT
        return Grounds.FLOOR if _neglected(gpu, contender, now) else Grounds.SHARE

    def revoke_at(self, gpu: Gpu, holder: Contender, waiter: Contender, now: int) -> int | None:
        """When it will lack a whole ordinary quantum: matters where quanta are long because memory moves."""
        share = guarantee(gpu, waiter)
        if share <= 0 or holder.grounds is Grounds.RIGHT:
            return None
        return now + int(max(0, gpu.rules.quantum - lack_ns(gpu, waiter, now)) / share)

    def says(self, gpu: Gpu, contender: Contender, now: int) -> str:
        share, lacking = guarantee(gpu, contender), lack_ns(gpu, contender, now)
        if share > 0:
            behind = f"it lacks {format_duration(lacking)} of it" if lacking > 0 else "it has had it"
            return f"tier {contender.tier}: {share:.0%} of the time is guaranteed; {behind}"
        others = (one for one in gpu.contenders.values() if one is not contender and one.wants(gpu))
        before = sum(lack_ns(gpu, one, now) > 0 for one in others)
        return f"no tier: what the guarantees leave, {LEFT:.0%} at least; {counted(before)} before it by guarantee"


def guarantee(gpu: Gpu, contender: Contender) -> float:
    """Its part of the time now: that of its tier, less where all that want the GPU are guaranteed too much."""
    share = gpu.rules.share_of(contender.tier)
    if share <= 0:
        return 0.0
    total = sum(gpu.rules.share_of(one.tier) for one in gpu.contenders.values() if one is contender or one.wants(gpu))
    return share if total <= 1 else share / total


def lack_ns(gpu: Gpu, contender: Contender, now: int) -> int:
    """By how much it is behind its guarantee in the window; negative: it had more."""
    share = guarantee(gpu, contender)
    if share <= 0:
        return 0
    return int(share * wanted_ns(gpu, contender, now)) - contender.recent.held.used(now, gpu.rules.window)


def _neglected(gpu: Gpu, contender: Contender, now: int) -> bool:
    if gpu.rules.share_of(contender.tier) > 0:
        return False
    group = (one for one in gpu.contenders.values() if gpu.rules.share_of(one.tier) <= 0)
    return neglected(gpu, contender, group, LEFT, now)
