# SPDX-License-Identifier: Apache-2.0
"""What queues use, what is theirs by quota, what their limits forbid, and who has had least for its weight. PURE."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from gpuvirt.scheduler.decide.room import HostRoom, Room, memory_of
from gpuvirt.scheduler.state import Demand, Gpu, Job, Member, Queue, Resources

Amounts = tuple[int, int, int, int]  # as Resources: GPU thousandths, device memory, CPU thousandths, host memory
NOTHING: Amounts = (0, 0, 0, 0)
NAMES = ("GPUs", "GPU memory", "CPUs", "memory")


def amounts(resources: Resources) -> Amounts:
    return (
        resources.gpu_thousandths,
        resources.gpu_memory_bytes,
        resources.cpu_thousandths,
        resources.memory_bytes,
    )


def plus(one: Amounts, other: Amounts, sign: int = 1) -> Amounts:
    return (
        one[0] + sign * other[0],
        one[1] + sign * other[1],
        one[2] + sign * other[2],
        one[3] + sign * other[3],
    )


def path(name: str) -> tuple[str, ...]:
    """A queue and those above it, itself first: "a/b/c", "a/b", "a"."""
    parts = name.split("/")
    return tuple("/".join(parts[:length]) for length in range(len(parts), 0, -1))


class Usage:
    """What each queue has on GPUs while a plan is made."""

    def __init__(self, queues: Mapping[str, Queue], room: Room) -> None:
        self.queues = queues
        self._used: dict[str, Amounts] = {}
        self._gpus: dict[str, Gpu] = {uuid: one.gpu for host in room.hosts.values() for uuid, one in host.gpus.items()}
        self._typical = max((gpu.memory_bytes for gpu in self._gpus.values()), default=0)
        self.capacity = _capacity(room.hosts.values())

    def used(self, queue: str) -> Amounts:
        """By all jobs of a queue and of those below it."""
        return self._used.get(queue, NOTHING)

    def of(self, demand: Demand, members: Iterable[Member]) -> Amounts:
        """What members take."""
        total = NOTHING
        for member in members:
            memory = sum(
                memory_of(demand, self._gpus[uuid]) if uuid in self._gpus else demand.gpu_memory_bytes
                for uuid in member.gpus
            )
            total = plus(
                total, (demand.gpus * demand.gpu_thousandths, memory, demand.cpu_thousandths, demand.memory_bytes)
            )
        return total

    def asked(self, job: Job, count: int) -> Amounts:
        """What `count` members of a job would take, wherever they go."""
        demand = job.spec.demand
        memory = demand.gpus * (demand.gpu_memory_bytes or self._typical * demand.gpu_thousandths // 1000)
        thousandths = demand.gpus * demand.gpu_thousandths
        return (thousandths * count, memory * count, demand.cpu_thousandths * count, demand.memory_bytes * count)

    def take(self, queue: str, what: Amounts, sign: int = 1) -> None:
        """A queue uses so much more."""
        for name in path(queue):
            self._used[name] = plus(self.used(name), what, sign)

    def forbidden(self, queue: str, more: Amounts) -> str:
        """Why a queue may not use so much more: a limit of its own, or of one above it; empty: it may."""
        for name in path(queue):
            known = self.queues.get(name)
            if known is None:
                continue
            after = plus(self.used(name), more)
            for what, limit, used in zip(NAMES, amounts(known.limit), after, strict=True):
                if limit and used > limit:
                    return f"queue '{name}' is at its limit of {what}"
        return ""

    def entitled(self, queue: str, more: Amounts) -> bool:
        """Would a queue that uses so much more be within its quota, or else within that of the first above it?"""
        for name in path(queue):
            known = self.queues.get(name)
            if known is None or known.quota == Resources():
                continue
            after = plus(self.used(name), more)
            return all(used <= quota for quota, used in zip(amounts(known.quota), after, strict=True) if quota)
        return False

    def share(self, queue: str) -> tuple[float, ...]:
        """Dominant shares by weight, from the top of the hierarchy down: the smallest has had least."""
        return tuple(self._dominant(name) for name in reversed(path(queue)))

    def _dominant(self, name: str) -> float:
        known = self.queues.get(name)
        weight = known.weight if known is not None else 1
        shares = (used / all_of for used, all_of in zip(self.used(name), self.capacity, strict=True) if all_of)
        return max(shares, default=0.0) / max(1, weight)


def _capacity(hosts: Iterable[HostRoom]) -> Amounts:
    total = NOTHING
    for host in hosts:
        gpus = [room.gpu for room in host.gpus.values() if room.gpu.healthy]
        memory = sum(gpu.memory_bytes for gpu in gpus)
        total = plus(
            total,
            (1000 * len(gpus), memory, host.node.cpu_thousandths, host.node.memory_bytes - host.node.swap_bytes),
        )
    return total
