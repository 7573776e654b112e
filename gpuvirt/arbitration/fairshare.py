# SPDX-License-Identifier: Apache-2.0
"""Charged time and virtual time: start-time fair queueing, of tenants on the GPU and of jobs within their tenant.

Every tenant and every job has a virtual time that grows by charged time / weight. The tenant with the smallest one is
next, and of its jobs the one with the smallest. Who comes back from idleness is set to the present virtual time less
at most one quantum of credit, so that sleepers cannot hoard (Goyal, Vin, Cheng: Start-time Fair Queuing, SIGCOMM 1996;
the clamp is ours).
"""

from __future__ import annotations

from gpuvirt.arbitration.facts import Contender, Gpu, Tenant, Word

SCALE = 1000  # keeps integer division of ns by a weight (1..1000) exact enough


def charged_vtime(duration_ns: int, weight: int) -> int:
    """Virtual time of `duration_ns` of held time."""
    return duration_ns * SCALE // weight


def vtime_on_wake(vtime: int, vnow: int, quantum: int, weight: int) -> int:
    """Virtual time of a contender that starts to wait: at most one quantum behind the present one."""
    return max(vtime, vnow - charged_vtime(quantum, weight))


def tenant_of(gpu: Gpu, contender: Contender) -> Tenant:
    """The tenant of a contender on this GPU; a new one begins at the present virtual time."""
    tenant = gpu.tenants.get(contender.tenant)
    if tenant is None:
        tenant = gpu.tenants[contender.tenant] = Tenant(gpu.rules.weight_of(contender.tenant), gpu.vnow)
    return tenant


def forget_tenants(gpu: Gpu) -> None:
    """Drops tenants without a job. One that had more than its share is kept until the others have caught up."""
    present = {contender.tenant for contender in gpu.contenders.values()}
    for name, tenant in list(gpu.tenants.items()):
        if name not in present and tenant.vtime <= gpu.vnow:
            del gpu.tenants[name]


def wake(gpu: Gpu, contender: Contender) -> None:
    """A contender starts to wait: it, and its tenant with it, is not further behind than one quantum."""
    tenant, quantum = tenant_of(gpu, contender), gpu.rules.quantum
    contender.vtime = vtime_on_wake(contender.vtime, tenant.vnow, quantum, contender.weight)
    others = (one for one in gpu.contenders.values() if one.tenant == contender.tenant)
    if not any(one.waiting or one.charge_from is not None for one in others):
        tenant.vtime = vtime_on_wake(tenant.vtime, gpu.vnow, quantum, tenant.weight)


def advance(gpu: Gpu, holder: Contender) -> None:
    """The holder begins (another) quantum: its virtual time is the present one, on the GPU and within its tenant."""
    tenant = tenant_of(gpu, holder)
    tenant.vnow = max(tenant.vnow, holder.vtime)
    gpu.vnow = max(gpu.vnow, tenant.vtime)


def charge(gpu: Gpu, holder: Contender, now: int) -> None:
    """Account the time that a holder had the lease since the last call.

    Time alone is charged, too, and carries the present virtual time along: whoever comes to a GPU that one job had
    for itself is not behind that job, and is not ahead by more than its credit.
    """
    if holder.charge_from is None:
        return
    duration = now - holder.charge_from
    holder.charge_from = now
    tenant = tenant_of(gpu, holder)
    holder.vtime += charged_vtime(duration, holder.weight)
    tenant.vtime += charged_vtime(duration, tenant.weight)
    if holder.word is Word.OPEN:
        holder.open_ns += duration
        advance(gpu, holder)
    else:
        holder.held_ns += duration
