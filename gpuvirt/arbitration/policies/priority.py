# SPDX-License-Identifier: Apache-2.0
"""priority: who has the higher priority goes first, at once. The others share what is left, and have a floor.

Jobs of the same priority share as under `fair`. Every priority below the highest that wants the GPU has the floor
(Rules.floor) of its own.
"""

from __future__ import annotations

from gpuvirt.arbitration.facts import Contender, Gpu, Grounds
from gpuvirt.arbitration.policies.base import Rank
from gpuvirt.arbitration.policies.fair import fair_rank
from gpuvirt.arbitration.policies.floor import neglected
from gpuvirt.arbitration.policies.words import counted, priority_name


class Priority:
    """Priorities in order, with a floor for all but the first."""

    name = "priority"
    summary = "higher priorities first and at once; the others share the rest and have a floor"
    heeds = frozenset({"weight", "priority"})

    def admits(self, gpu: Gpu, contender: Contender) -> str:
        return ""

    def rank(self, gpu: Gpu, contender: Contender, now: int) -> Rank:
        return (0 if _neglected(gpu, contender, now) else 1, -contender.priority, *fair_rank(gpu, contender))

    def grounds(self, gpu: Gpu, contender: Contender, now: int) -> Grounds:
        return Grounds.FLOOR if _neglected(gpu, contender, now) else Grounds.SHARE

    def revoke_at(self, gpu: Gpu, holder: Contender, waiter: Contender, now: int) -> int | None:
        return now if waiter.priority > holder.priority else None

    def says(self, gpu: Gpu, contender: Contender, now: int) -> str:
        others = [one.priority for one in gpu.contenders.values() if one is not contender and one.wants(gpu)]
        before, beside = (sum(p > contender.priority for p in others), others.count(contender.priority))
        words = (
            [f"{counted(before)} of a higher priority before it; its own have {gpu.rules.floor:.0%}"] if before else []
        )
        words += [f"shares by weight with {counted(beside)} of its own priority"] if beside else []
        words += [] if before or beside else ["nobody is before it" if others else "nobody else wants the GPU"]
        return f"priority {priority_name(contender.priority)}: {', '.join(words)}"


def _neglected(gpu: Gpu, contender: Contender, now: int) -> bool:
    if not any(one.priority > contender.priority and one.wants(gpu) for one in gpu.contenders.values()):
        return False
    group = (one for one in gpu.contenders.values() if one.priority == contender.priority)
    return neglected(gpu, contender, group, gpu.rules.floor, now)
