# SPDX-License-Identifier: Apache-2.0
"""Room that is there, but in pieces on several hosts, is put together by moving jobs. PURE. Where moves are allowed.

It pays where no more is moved than the waiting job will use: what moves stands still for a moment, the GPUs that are
free now would until somebody ends.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpuvirt.scheduler.decide.draft import Draft
from gpuvirt.scheduler.decide.place import allowed, place
from gpuvirt.scheduler.decide.room import HostRoom, living
from gpuvirt.scheduler.state import Job, Member, Phase


@dataclass(frozen=True, slots=True)
class Moves:
    """Who goes where, and where the waiting job goes then."""

    moved: tuple[tuple[Job, tuple[Member, ...]], ...]
    members: tuple[Member, ...]


def defragment(draft: Draft, job: Job) -> Moves | None:
    """A host for a job of one member that is emptied as far as it needs; None: that cannot be, or does not pay."""
    demand = job.spec.demand
    if not draft.rules.moves or job.spec.members_min > 1 or demand.gpus * demand.gpu_thousandths <= 1000:
        return None
    wanted = demand.gpus * demand.gpu_thousandths
    hosts = [host for host in draft.room.usable() if allowed(job.spec, host)]
    free = {host.node.name: sum(room.left for room in host.gpus.values()) for host in hosts}
    if sum(free.values()) < wanted:
        return None
    on = _movable(draft)
    for host in sorted(hosts, key=lambda host: (-free[host.node.name], host.node.name)):
        found = _empty(draft, job, host, on.get(host.node.name, []), wanted)
        if found is not None:
            return found
    return None


def _movable(draft: Draft) -> dict[str, list[Job]]:
    """Jobs of one member that have been on their GPUs for a while, by host, the smallest first."""
    found: dict[str, list[Job]] = {}
    for job in draft.jobs.values():
        members = living(job)
        settled = draft.now - job.changed >= draft.rules.hysteresis
        if job.phase is Phase.RUNNING and len(members) == 1 and job.id not in draft.touched and settled:
            found.setdefault(members[0].node, []).append(job)
    for jobs in found.values():
        jobs.sort(key=lambda job: (job.spec.demand.gpus * job.spec.demand.gpu_thousandths, job.id))
    return found


def _empty(draft: Draft, job: Job, host: HostRoom, on: list[Job], wanted: int) -> Moves | None:
    """Takes jobs off a host, the smallest first, until the waiting one fits, and finds them room elsewhere."""
    room = draft.room
    off: list[Job] = []
    size = 0
    here: tuple[str, ...] | None = None
    for other in on:
        size += other.spec.demand.gpus * other.spec.demand.gpu_thousandths
        if size > wanted:
            break
        room.occupy(other.spec.demand, living(other), -1)
        off.append(other)
        here = host.choose(job.spec.demand)
        if here is not None:
            break
    moved: list[tuple[Job, tuple[Member, ...]]] = []
    members: tuple[Member, ...] = ()
    if here is not None:
        members = (Member(0, host.node.name, here, job.attempts + 1),)
        host.take(job.spec.demand, here)
        for other in reversed(off):
            elsewhere = place(room, other, 1)
            if elsewhere is None:
                break
            room.occupy(other.spec.demand, elsewhere)
            moved.append((other, elsewhere))
        host.take(job.spec.demand, here, -1)
    for other, elsewhere in moved:
        room.occupy(other.spec.demand, elsewhere, -1)
    for other in off:
        room.occupy(other.spec.demand, living(other))
    return Moves(tuple(moved), members) if here is not None and len(moved) == len(off) else None
