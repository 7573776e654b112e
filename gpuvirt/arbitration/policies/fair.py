# SPDX-License-Identifier: Apache-2.0
"""fair: GPU time in proportion to weights. Every tenant has its share, however many jobs it has (see fairshare.py)."""

from __future__ import annotations

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


def fair_rank(gpu: Gpu, contender: Contender) -> Rank:
    """Order by virtual time, without equals. Policies use it among those that are alike to them."""
    vtime = tenant_of(gpu, contender).vtime
    return (vtime, contender.tenant, contender.vtime, contender.waiting_since or 0, contender.key)
