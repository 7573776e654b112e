# SPDX-License-Identifier: Apache-2.0
"""exclusive: one job after the other. Who has the GPU keeps it, also while idle, until its last process has gone."""

from __future__ import annotations

from gpuvirt.arbitration.facts import Contender, Gpu, Grounds
from gpuvirt.arbitration.policies.base import Rank


class Exclusive:
    """First come, first served; nobody is interrupted."""

    name = "exclusive"
    summary = "one job after the other, each until its last process has gone"
    heeds: frozenset[str] = frozenset()

    def admits(self, gpu: Gpu, contender: Contender) -> str:
        owner = gpu.contenders.get(gpu.owner) if gpu.owner is not None else None
        if owner is contender:
            return ""
        if owner is not None and owner.clients:
            return f"job {owner.key} has the GPU for itself until it ends"
        mine = self.rank(gpu, contender, now=0)
        for gang in gpu.contenders.values():  # whoever were let in before it would have the GPU until it ends
            if gang.gang is not None and gang.waiting and self.rank(gpu, gang, now=0) < mine:
                return f"job {gang.key} is before it and waits for all its GPUs"
        return ""

    def rank(self, gpu: Gpu, contender: Contender, now: int) -> Rank:
        since = contender.waiting_since if contender.gang is None else contender.gang.since  # the same on all its GPUs
        return (since or 0, contender.key)

    def grounds(self, gpu: Gpu, contender: Contender, now: int) -> Grounds:
        gpu.owner = contender.key
        return Grounds.SHARE

    def revoke_at(self, gpu: Gpu, holder: Contender, waiter: Contender, now: int) -> int | None:
        return None

    def says(self, gpu: Gpu, contender: Contender, now: int) -> str:
        kept_out = self.admits(gpu, contender)
        if kept_out:
            return kept_out
        own = gpu.owner == contender.key
        return "it has the GPU for itself until it ends" if own else "nobody has the GPU for itself: the first is next"
