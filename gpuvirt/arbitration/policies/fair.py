# SPDX-License-Identifier: Apache-2.0
"""fair: GPU time in proportion to weights. Every tenant has its share, however many jobs it has (see fairshare.py)."""

from __future__ import annotations

from collections.abc import Iterable

from gpuvirt.arbitration.facts import Contender, Gpu, Grounds
from gpuvirt.arbitration.fairshare import tenant_of
from gpuvirt.arbitration.policies.base import Rank


class Fair:
    """Smallest virtual time of the tenant, then of the job; then who waits longest."""

    name = "fair"
    summary = "GPU time in proportion to the weights, first of tenants, then of their jobs"
    heeds = frozenset({"weight"})

    def admits(self, gpu: Gpu, contender: Contender) -> str:
        return ""

    def rank(self, gpu: Gpu, contender: Contender, now: int) -> Rank:
        return fair_rank(gpu, contender)

    def grounds(self, gpu: Gpu, contender: Contender, now: int) -> Grounds:
        return Grounds.SHARE

    def revoke_at(self, gpu: Gpu, holder: Contender, waiter: Contender, now: int) -> int | None:
        return None  # batch work waits for the end of a quantum

    def says(self, gpu: Gpu, contender: Contender, now: int) -> str:
        wanting = [one for one in gpu.contenders.values() if one is contender or one.wants(gpu)]
        return f"weight {contender.weight}: {due_share(gpu, contender, wanting):.0%} of the time that others want too"


def due_share(gpu: Gpu, contender: Contender, wanting: Iterable[Contender]) -> float:
    """The part of the time that is its by weights, first of tenants, then of their jobs, among those that want it."""
    jobs: dict[str, int] = {}
    for one in wanting:
        jobs[one.tenant] = jobs.get(one.tenant, 0) + one.weight
    tenants = sum(gpu.rules.weight_of(tenant) for tenant in jobs)
    return gpu.rules.weight_of(contender.tenant) / tenants * contender.weight / jobs[contender.tenant]


def fair_rank(gpu: Gpu, contender: Contender) -> Rank:
    """Order by virtual time, without equals. Policies use it among those that are alike to them."""
    vtime = tenant_of(gpu, contender).vtime
    return (vtime, contender.tenant, contender.vtime, contender.waiting_since or 0, contender.key)
