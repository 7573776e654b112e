# SPDX-License-Identifier: Apache-2.0
"""Where the members of a job go: as close together as they fit, on hosts that they fill best. PURE."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from typing import Final

from gpuvirt.scheduler.decide.room import HostRoom, Room
from gpuvirt.scheduler.state import Demand, Job, Member, Spec

DOMAINS: Final = ("gpu", "nvlink", "host", "rack", "zone", "region")  # from the narrowest
LABELLED: Final = ("rack", "zone", "region")


def levels(topology: str) -> tuple[str, ...]:
    """Domains in which to look for room, the narrowest first; "": anywhere."""
    if topology in ("gpu", "nvlink"):  # what is on one GPU is on one host; inventories do not tell NVLink groups yet
        return ("host",)
    if not topology:
        return ("host", *LABELLED, "")
    return ("host", *LABELLED[: LABELLED.index(topology) + 1]) if topology in LABELLED else ("host",)


def fitness(host: HostRoom, demand: Demand) -> tuple[int, int, int, int]:
    """How well a member fits a host that has room: the smallest leaves the least that is of no use."""
    wanted = demand.gpu_thousandths
    free = sum(room.left == 1000 for room in host.gpus.values())
    if demand.gpus == 0:
        return (free, host.cpu, host.memory, 0)  # where its cores are worth least
    begun = [room.left - wanted for room in host.gpus.values() if wanted <= room.left < 1000]
    if wanted < 1000 and len(begun) >= demand.gpus:
        return (0, min(begun), free, host.cpu)
    return (1, 0, free, host.cpu)


def allowed(spec: Spec, host: HostRoom) -> bool:
    """May a job be on this host at all?"""
    return not spec.regions or host.node.domains.get("region", "") in spec.regions


def place(room: Room, job: Job, count: int, *, beside: Sequence[Member] = ()) -> tuple[Member, ...] | None:
    """Members for `count` more ranks of a job, in one domain with `beside`; takes nothing. None: no room."""
    spec = job.spec
    hosts = [host for host in room.usable() if allowed(spec, host)]
    here = [room.hosts[member.node] for member in beside if member.node in room.hosts]
    if spec.topology == "gpu":
        return _on_one_gpu([host for host in hosts if not here or host in here], job, count, beside)
    slots = {host.node.name: host.slots(spec.demand, count) for host in hosts}
    hosts = [host for host in hosts if slots[host.node.name]]
    for level in levels(spec.topology):
        best: tuple[int, str] | None = None
        for domain, inside in domains(hosts, level).items():
            if any(domain_of(host, level) != domain for host in here):
                continue
            total = sum(slots[host.node.name] for host in inside)
            if total >= count and (best is None or (total, domain) < best):
                best = (total, domain)
        if best is None:
            continue
        inside = domains(hosts, level)[best[1]]
        if level == "host":  # every host is a domain of its own: of those with room for all, the best
            inside = [host for host in hosts if slots[host.node.name] >= count and (not here or host in here)]
        if level == "host" or count == 1:
            best_host = min(inside, key=lambda host: (*fitness(host, spec.demand), host.node.name))
            return _fill(job, [(best_host, count)], beside)
        return _fill(job, _spread(inside, slots, count, spec.demand), beside)
    return None


def _spread(
    inside: Iterable[HostRoom], slots: dict[str, int], count: int, demand: Demand
) -> list[tuple[HostRoom, int]]:
    """On few hosts: the roomiest first, and the last of them one that it fills."""
    left = sorted(inside, key=lambda host: (-slots[host.node.name], *fitness(host, demand), host.node.name))
    found: list[tuple[HostRoom, int]] = []
    while count:
        last = [host for host in left if slots[host.node.name] >= count]
        host = last[-1] if last else left[0]  # of those that hold the rest, the one with the least room
        part = min(count, slots[host.node.name])
        found.append((host, part))
        left.remove(host)
        count -= part
    return found


def _fill(job: Job, parts: Iterable[tuple[HostRoom, int]], beside: Sequence[Member]) -> tuple[Member, ...]:
    demand = job.spec.demand
    ranks = _free_ranks(job, beside)
    found: list[Member] = []
    for host, count in parts:
        for _ in range(count):
            gpus = host.choose(demand)
            assert gpus is not None, "a host has less room than it had"
            host.take(demand, gpus)
            found.append(_member(job, next(ranks), host.node.name, gpus))
    by_name = {host.node.name: host for host, _ in parts}
    for member in found:
        by_name[member.node].take(demand, member.gpus, -1)
    return tuple(found)


def _on_one_gpu(hosts: Iterable[HostRoom], job: Job, count: int, beside: Sequence[Member]) -> tuple[Member, ...] | None:
    """All members on the same GPU: shares of it."""
    demand = job.spec.demand
    wanted = {uuid for member in beside for uuid in member.gpus}
    best: tuple[int, str, HostRoom, str] | None = None
    for host in hosts:
        for uuid, gpu in host.gpus.items():
            if wanted and uuid not in wanted:
                continue
            taken = 0
            while taken < count and demand.gpus == 1 and _has(host, demand, uuid):
                host.take(demand, (uuid,))
                taken += 1
            left = gpu.left
            for _ in range(taken):
                host.take(demand, (uuid,), -1)
            if taken == count and (best is None or (left, uuid) < best[:2]):
                best = (left, uuid, host, uuid)
    if best is None:
        return None
    ranks = _free_ranks(job, beside)
    return tuple(_member(job, next(ranks), best[2].node.name, (best[3],)) for _ in range(count))


def _has(host: HostRoom, demand: Demand, uuid: str) -> bool:
    room = host.gpus[uuid]
    enough = host.cpu >= demand.cpu_thousandths and host.memory >= demand.memory_bytes
    return enough and host.may_use(room, demand) and host.can_swap((room,), demand)


def domain_of(host: HostRoom, level: str) -> str | None:
    if level == "":
        return ""
    return host.node.name if level == "host" else host.node.domains.get(level)


def domains(hosts: Iterable[HostRoom], level: str) -> dict[str, list[HostRoom]]:
    """Hosts by their domain; one that does not say in which it is, is in none."""
    found: dict[str, list[HostRoom]] = defaultdict(list)
    for host in hosts:
        domain = domain_of(host, level)
        if domain is not None:
            found[domain].append(host)
    return found


def _free_ranks(job: Job, beside: Sequence[Member]) -> Iterator[int]:
    taken = {member.rank for member in beside}
    return iter([rank for rank in range(job.spec.members_max) if rank not in taken])


def _member(job: Job, rank: int, node: str, gpus: tuple[str, ...]) -> Member:
    return Member(rank, node, gpus, job.attempts + 1)
