# SPDX-License-Identifier: Apache-2.0
"""What is left on the hosts while a plan is made: a working copy, changed by what the plan does. PURE.

A GPU has thousandths, which are never promised twice, and memory, which may be promised beyond what it has
(Rules.oversubscribe); what is promised beyond it, and the device memory of suspended jobs, must have room to swap.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

from gpuvirt.scheduler.state import Demand, Gpu, Job, Member, MemberState, Node, NodeState, Phase, Snapshot

OCCUPYING = frozenset({Phase.STARTING, Phase.RUNNING, Phase.RESUMING})
ASIDE = frozenset({Phase.SUSPENDING, Phase.SUSPENDED})  # what they leave is another's: it waits until they have


def memory_of(demand: Demand, gpu: Gpu) -> int:
    """Device memory that a demand takes on one of its GPUs; one that does not say takes as much as of its time."""
    return demand.gpu_memory_bytes or gpu.memory_bytes * demand.gpu_thousandths // 1000


@dataclass(slots=True)
class GpuRoom:
    """One GPU."""

    gpu: Gpu
    left: int = 1000  # thousandths
    promised: int = 0  # bytes of its memory

    def over(self) -> int:
        """Bytes promised beyond what it has."""
        return max(0, self.promised - self.gpu.memory_bytes)


class HostRoom:
    """One host."""

    __slots__ = ("aside", "cpu", "gpus", "memory", "node", "oversubscribe", "usable")

    def __init__(self, node: Node, oversubscribe: float) -> None:
        self.node = node
        self.usable = node.state is NodeState.READY
        self.oversubscribe = oversubscribe
        self.gpus = {gpu.uuid: GpuRoom(gpu) for gpu in node.gpus}
        self.cpu = node.cpu_thousandths
        self.memory = node.memory_bytes - node.swap_bytes
        self.aside = 0  # device memory of suspended jobs, bytes

    def swap_left(self) -> int:
        """Bytes that may still be swapped out to it; below 0: too many."""
        return self.node.swap_bytes - self.aside - sum(room.over() for room in self.gpus.values())

    def take(self, demand: Demand, gpus: Iterable[str], sign: int = 1) -> None:
        """A member works here; `sign` -1: not any more."""
        self.cpu -= sign * demand.cpu_thousandths
        self.memory -= sign * demand.memory_bytes
        for uuid in gpus:
            room = self.gpus.get(uuid)
            if room is not None:  # else: the GPU has gone from the host
                room.left -= sign * demand.gpu_thousandths
                room.promised += sign * memory_of(demand, room.gpu)

    def set_aside(self, demand: Demand, gpus: Iterable[str], sign: int = 1) -> None:
        """A member is suspended here: its processes and all their memory stay."""
        self.memory -= sign * demand.memory_bytes
        self.aside += sign * self.device_memory(demand, gpus)

    def device_memory(self, demand: Demand, gpus: Iterable[str]) -> int:
        """Bytes that a member has on GPUs of this host."""
        return sum(memory_of(demand, self.gpus[uuid].gpu) for uuid in gpus if uuid in self.gpus)

    def may_use(self, room: GpuRoom, demand: Demand) -> bool:
        """Is it the right kind, and is there room on it?"""
        if not room.gpu.healthy or (demand.gpu_types and room.gpu.type not in demand.gpu_types):
            return False
        limit = int(room.gpu.memory_bytes * self.oversubscribe)
        return room.left >= demand.gpu_thousandths and room.promised + memory_of(demand, room.gpu) <= limit

    def choose(self, demand: Demand) -> tuple[str, ...] | None:
        """GPUs for a member, those with the least room that do; None: there is no room."""
        if not self.usable or self.cpu < demand.cpu_thousandths or self.memory < demand.memory_bytes:
            return None
        fitting = [room for room in self.gpus.values() if self.may_use(room, demand)]
        if len(fitting) < demand.gpus:
            return None
        fitting.sort(key=lambda room: (room.left, room.gpu.memory_bytes - room.promised, room.gpu.index))
        chosen = fitting[: demand.gpus]
        return tuple(room.gpu.uuid for room in chosen) if self.can_swap(chosen, demand) else None

    def goes_on(self, demand: Demand, gpus: Sequence[str]) -> bool:
        """Could a member that is suspended here have its own GPUs back? (Its memory is here.)"""
        if not self.usable or self.cpu < demand.cpu_thousandths:
            return False
        rooms = [self.gpus[uuid] for uuid in gpus if uuid in self.gpus]
        if len(rooms) < len(gpus) or not all(self.may_use(room, demand) for room in rooms):
            return False
        self.aside -= (back := self.device_memory(demand, gpus))
        fits = self.can_swap(rooms, demand)
        self.aside += back
        return fits

    def can_swap(self, rooms: Iterable[GpuRoom], demand: Demand) -> bool:
        more = 0
        for room in rooms:
            after = room.promised + memory_of(demand, room.gpu) - room.gpu.memory_bytes
            more += max(0, after) - room.over()
        return more <= 0 or more <= self.swap_left()

    def slots(self, demand: Demand, most: int) -> int:
        """How many members of a kind there is room for, up to `most`."""
        taken: list[tuple[str, ...]] = []
        while len(taken) < most and (gpus := self.choose(demand)) is not None:
            self.take(demand, gpus)
            taken.append(gpus)
            if not demand.gpus and not demand.cpu_thousandths and not demand.memory_bytes:
                taken = [()] * most  # it takes nothing
                break
        for gpus in taken:
            self.take(demand, gpus, -1)
        return len(taken)


class Room:
    """All hosts."""

    def __init__(self, snapshot: Snapshot) -> None:
        self.hosts = {
            name: HostRoom(node, snapshot.rules.oversubscribe) for name, node in sorted(snapshot.nodes.items())
        }
        for job in snapshot.jobs.values():
            if job.phase in OCCUPYING:
                self.occupy(job.spec.demand, living(job))
            elif job.phase in ASIDE:
                self.set_aside(job)

    def occupy(self, demand: Demand, members: Iterable[Member], sign: int = 1) -> None:
        """Members work on their GPUs; `sign` -1: not any more."""
        for member in members:
            host = self.hosts.get(member.node)
            if host is not None:
                host.take(demand, member.gpus, sign)

    def set_aside(self, job: Job, sign: int = 1) -> None:
        """All members of a job are suspended where they are."""
        for member in living(job):
            host = self.hosts.get(member.node)
            if host is not None:
                host.set_aside(job.spec.demand, member.gpus, sign)

    def suspend(self, job: Job) -> None:
        """A job that works leaves its GPUs."""
        self.occupy(job.spec.demand, living(job), -1)
        self.set_aside(job)

    def unsuspend(self, job: Job) -> None:
        """The opposite."""
        self.set_aside(job, -1)
        self.occupy(job.spec.demand, living(job))

    def can_suspend(self, job: Job) -> bool:
        """Would its device memory find room on its hosts? (A host that it left promised it no swap.)"""
        self.suspend(job)
        fits = all(self.hosts[member.node].swap_left() >= 0 for member in living(job) if member.node in self.hosts)
        self.unsuspend(job)
        return fits

    def can_resume(self, job: Job) -> bool:
        """Could all members of a suspended job have their GPUs back? Two may be on one GPU: each counts."""
        taken: list[Member] = []
        for member in living(job):
            host = self.hosts.get(member.node)
            if host is None or not host.goes_on(job.spec.demand, member.gpus):
                break
            host.set_aside(job.spec.demand, member.gpus, -1)
            host.take(job.spec.demand, member.gpus)
            taken.append(member)
        whole = len(taken) == len(list(living(job)))
        for member in taken:
            self.hosts[member.node].take(job.spec.demand, member.gpus, -1)
            self.hosts[member.node].set_aside(job.spec.demand, member.gpus)
        return whole

    def usable(self) -> Iterator[HostRoom]:
        """Hosts that take members."""
        return (host for host in self.hosts.values() if host.usable)


def living(job: Job) -> list[Member]:
    """Members that have not ended and are not on their way out."""
    return [one for one in job.members if one.state not in (MemberState.ENDED, MemberState.STOPPING)]
