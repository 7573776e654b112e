# SPDX-License-Identifier: Apache-2.0
"""Charged time and virtual time: start-time fair queueing, of tenants on the GPU and of jobs within their tenant.

Every tenant and every job has a virtual time that grows by charged time / weight. The tenant with the smallest one is
next, and of its jobs the one with the smallest. Who comes back from idleness is set to the present virtual time less
at most one quantum of credit, so that sleepers cannot hoard (Goyal, Vin, Cheng: Start-time Fair Queuing, SIGCOMM 1996;
the clamp is ours).
"""

from __future__ import annotations

from gpuvirt.arbitration.facts import Contender, Gpu, Grounds, Level, Tenant, Word

LEVELLED = "priority"  # the policy under which jobs of different priority are never compared by their shares
SCALE = 1000  # keeps integer division of ns by a weight (1..1000) exact enough


def charged_vtime(duration_ns: int, weight: int) -> int:
    """Virtual time of `duration_ns` of held time."""
    return duration_ns * SCALE // weight


def vtime_on_wake(vtime: int, vnow: int, quantum: int, weight: int) -> int:
    """Virtual time of a contender that starts to wait: at most one quantum behind the present one."""
    return max(vtime, vnow - charged_vtime(quantum, weight))


def level_of(gpu: Gpu, contender: Contender) -> Level:
    """Whom a contender shares with."""
    return gpu.levels.setdefault(contender.priority if gpu.policy == LEVELLED else 0, Level())


def tenant_of(gpu: Gpu, contender: Contender) -> Tenant:
    """The tenant of a contender on this GPU; a new one begins at the present virtual time."""
    level = level_of(gpu, contender)
    tenant = level.tenants.get(contender.tenant)
    if tenant is None:
        tenant = level.tenants[contender.tenant] = Tenant(gpu.rules.weight_of(contender.tenant), level.vnow)
    return tenant


def forget_tenants(gpu: Gpu) -> None:
    """Drops tenants without a job. One that had more than its share is kept until the others have caught up."""
    present = {contender.tenant for contender in gpu.contenders.values()}
    for level in gpu.levels.values():
        for name, tenant in list(level.tenants.items()):
            if name not in present and tenant.vtime <= level.vnow:
                del level.tenants[name]


def wake(gpu: Gpu, contender: Contender) -> None:
    """A contender starts to wait: it, and its tenant with it, is not further behind than one quantum."""
    level, tenant, quantum = level_of(gpu, contender), tenant_of(gpu, contender), gpu.rules.quantum
    contender.vtime = vtime_on_wake(contender.vtime, tenant.vnow, quantum, contender.weight)
    others = (one for one in gpu.contenders.values() if tenant_of(gpu, one) is tenant)
    if not any(one.wants(gpu) for one in others):
        tenant.vtime = vtime_on_wake(tenant.vtime, level.vnow, quantum, tenant.weight)


def advance(gpu: Gpu, holder: Contender) -> None:
    """The holder begins (another) quantum: its virtual time is the present one, on the GPU and within its tenant."""
    level, tenant = level_of(gpu, holder), tenant_of(gpu, holder)
    tenant.vnow = max(tenant.vnow, holder.vtime)
    level.vnow = max(level.vnow, tenant.vtime)


def charge(gpu: Gpu, holder: Contender, now: int) -> None:
    """Account the time that a holder had the lease since the last call.

    Time alone is charged, too, and carries the present virtual time along: whoever comes to a GPU that one job had
    for itself is not behind that job, and is not ahead by more than its credit. Time that it has by right is not
    charged to its share.
    """
    if holder.charge_from is None:
        return
    since, holder.charge_from = holder.charge_from, now
    duration = now - since
    if holder.word is Word.OPEN or holder.grounds is not Grounds.RIGHT:
        tenant = tenant_of(gpu, holder)
        holder.vtime += charged_vtime(duration, holder.weight)
        tenant.vtime += charged_vtime(duration, tenant.weight)
    if holder.word is Word.OPEN:
        holder.open_ns += duration
        holder.recent.alone.add(since, now, gpu.rules.window)
        advance(gpu, holder)
    else:
        holder.held_ns += duration
        holder.burst_ns += duration
        holder.recent.held.add(since, now, gpu.rules.window)


def rebase(gpu: Gpu) -> None:
    """All begin anew, as equals: what they had under other rules is not made up for."""
    gpu.levels.clear()
    for contender in gpu.contenders.values():
        contender.vtime = 0
