# SPDX-License-Identifier: Apache-2.0
"""A job with processes on several GPUs has the lease of all of them or of none: what that means on one of them.

Its turn comes on each GPU as the policy there says. Where it has come the gang is *elected*, and others go on until it
is elected everywhere; then all its GPUs are *reserved* for it, each is freed and made *ready*, and all are granted at
one time. What is known of the other GPUs is in Contender.gang; `together` puts it there.
"""

from __future__ import annotations

from collections.abc import Iterable

from gpuvirt.arbitration import ledger
from gpuvirt.arbitration.facts import Contender, Decision, Gpu, Grounds
from gpuvirt.arbitration.fairshare import charged_vtime, level_of, tenant_of
from gpuvirt.arbitration.policies import choose, policy_of

CREDIT_QUANTA = 4  # a gang may be so far behind on one GPU because it waited for another


def is_new(gpu: Gpu, contender: Contender) -> bool:
    """Its turn here must be told to its other GPUs before anything is done about it."""
    return contender.gang is not None and not contender.gang.elected and gpu.reserved != contender.key


def is_kept(gpu: Gpu, contender: Contender) -> bool:
    """The GPU is reserved for it."""
    return contender.gang is not None and gpu.reserved == contender.key


def kept_until(gpu: Gpu, holder: Contender) -> int:
    """When the quantum of the holder is over."""
    return holder.deadline if gpu.reserved in (None, holder.key) else min(holder.deadline, gpu.reserved_at)


def elect(gpu: Gpu, gang: Contender, now: int, out: Decision) -> None:
    """Its turn has come on this GPU. `together` answers, and then it is decided again."""
    assert gang.gang is not None
    gang.gang.elected, gang.gang.elected_at, gang.gang.asked = True, now, True
    gang.reason = "its turn has come on this GPU, and it waits for that on the others that it uses"
    out.wake(now)


def offered(gpu: Gpu, waiters: list[Contender], now: int) -> list[Contender]:
    """Who of those that want the GPU may have it: the gang that it is reserved for, else no gang that was elected."""
    kept = gpu.contenders.get(gpu.reserved) if gpu.reserved is not None else None
    able = [one for one in waiters if one.gang is None or not one.gang.elected]
    if kept is None or kept not in waiters or kept.gang is None:
        return able
    if kept.gang.elected and _overtaken(gpu, kept, able, now):
        kept.gang.elected = False  # which ends the reservation, here and on its other GPUs
        return able
    return [kept]


def _overtaken(gpu: Gpu, kept: Contender, others: Iterable[Contender], now: int) -> bool:
    """Somebody came who could take the GPU from it at once."""
    best = choose(gpu, others, now)
    if best is None:
        return False
    when = policy_of(gpu).revoke_at(gpu, kept, best, now)
    if when is None or when > now or choose(gpu, [kept, best], now) is kept:
        return False
    return policy_of(gpu).grounds(gpu, kept, now) is not Grounds.FLOOR


def filler(gpu: Gpu, kept: Contender, waiters: Iterable[Contender], now: int) -> Contender | None:
    """Who may have a GPU that is reserved for a gang until the others of that are free: if no memory has to move."""
    if not is_kept(gpu, kept) or now + gpu.rules.minimum_run > gpu.reserved_at:
        return None
    if gpu.penalty or not ledger.fits(gpu) or any(client.request is not None for client in gpu.clients()):
        return None
    if not all(client.drained for client in gpu.clients()):
        return None
    able = [
        one
        for one in waiters
        if one.gang is None
        and not one.tries
        and all(client.connected and client.restored and client.shortfall == 0 for client in one.clients.values())
    ]
    return choose(gpu, able, now)


def catch_up(gpu: Gpu, gang: Contender) -> None:
    """It is granted. What it has missed here because another of its GPUs was not free it makes up for in part only:
    else it would keep others from this one for long when the other one becomes free.
    """
    assert gang.gang is not None
    gang.gang.elected = gang.gang.released = gang.gang.ready = gang.gang.asked = False
    level, tenant, credit = level_of(gpu, gang), tenant_of(gpu, gang), CREDIT_QUANTA * gpu.rules.quantum
    gang.vtime = max(gang.vtime, tenant.vnow - charged_vtime(credit, gang.weight))
    tenant.vtime = max(tenant.vtime, level.vnow - charged_vtime(credit, tenant.weight))
