# SPDX-License-Identifier: Apache-2.0
"""Why a job waits, in words, and which hosts would nearly have done. PURE."""

from __future__ import annotations

from gpuvirt.scheduler.actions import Miss
from gpuvirt.scheduler.decide.place import allowed
from gpuvirt.scheduler.decide.room import HostRoom, Room, memory_of
from gpuvirt.scheduler.state import Job, NodeState
from gpuvirt.units import format_size

MISSES = 3


def waits_for(job: Job) -> str:
    """What it needs, in a few words."""
    spec, demand = job.spec, job.spec.demand
    if demand.gpus == 0:
        what = "CPUs and memory"
    elif demand.gpu_thousandths == 1000:
        what = f"{demand.gpus} GPU{'s' * (demand.gpus != 1)}"
    else:
        what = f"{demand.gpu_thousandths / 1000:g} of {demand.gpus} GPU{'s' * (demand.gpus != 1)}"
    if spec.members_min > 1:
        what = f"{spec.members_min} times {what} at once"
    if spec.topology:
        what += f" in one {spec.topology}"
    return what


def misses(room: Room, job: Job) -> tuple[Miss, ...]:
    """The hosts that lack least."""
    found = sorted((*_lacks(host, job), host.node.name) for host in room.hosts.values())
    return tuple(Miss(name, words) for _, words, name in found[:MISSES])


def _lacks(host: HostRoom, job: Job) -> tuple[float, str]:
    """How much (the larger the more), and what."""
    demand = job.spec.demand
    if host.node.state is not NodeState.READY:
        return (9.0, f"is {host.node.state.value}" + (f": {host.node.reason}" if host.node.reason else ""))
    if not allowed(job.spec, host):
        return (8.0, f"is not in region {' or '.join(job.spec.regions)}")
    kinds = [one for one in host.gpus.values() if not demand.gpu_types or one.gpu.type in demand.gpu_types]
    if len(kinds) < demand.gpus:
        what = " or ".join(demand.gpu_types) if demand.gpu_types else "GPUs"
        return (7.0, f"has {len(kinds)} of the {demand.gpus} {what} that a member needs")
    healthy = [one for one in kinds if one.gpu.healthy]
    if len(healthy) < demand.gpus:
        return (6.0, f"{len(kinds) - len(healthy)} of its GPUs cannot be used")
    free = [one for one in healthy if one.left >= demand.gpu_thousandths]
    if len(free) < demand.gpus:
        return (1 + (demand.gpus - len(free)) / max(1, demand.gpus), f"{len(free)} of {demand.gpus} GPUs are free")
    short = sorted(
        one.promised + memory_of(demand, one.gpu) - int(one.gpu.memory_bytes * host.oversubscribe) for one in free
    )[demand.gpus - 1 : demand.gpus]
    if short and short[0] > 0:
        return (0.5, f"GPU memory {format_size(short[0])} short")
    if host.cpu < demand.cpu_thousandths:
        return (0.4, f"CPU {(demand.cpu_thousandths - host.cpu) / 1000:g} cores short")
    if host.memory < demand.memory_bytes:
        return (0.3, f"memory {format_size(demand.memory_bytes - host.memory)} short")
    if host.choose(demand) is None:
        return (0.2, "no room to swap what would be promised beyond its GPU memory")
    slots = host.slots(demand, job.spec.members_min)
    return (0.1, f"has room for {slots} of {job.spec.members_min} members")
