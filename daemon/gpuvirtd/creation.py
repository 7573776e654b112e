# SPDX-License-Identifier: Apache-2.0
"""Jobs come into being, and get other limits while they run. Raises RefusedError with what is wrong."""

from __future__ import annotations

import sqlite3
import time
from typing import TYPE_CHECKING, Any

from gpuvirt.arbitration.events import room_changed
from gpuvirt.arbitration.limits import Limits, check, meaning
from gpuvirt.arbitration.standing import Standing
from gpuvirt.arbitration.standing import check as check_standing
from gpuvirt.errors import RefusedError
from gpuvirt.units import format_size
from gpuvirtd.identity import Process
from gpuvirtd.job_events import Kind
from gpuvirtd.jobs import Job, new_token
from gpuvirtd.memory.quotas import rooms_beside

if TYPE_CHECKING:
    from gpuvirtd.host import Host


def create_job(
    host: Host,
    peer: Process,
    name: str,
    limits: Limits,
    standing: Standing,
    command: list[str],
    pid: int | None,
    wait: bool,
) -> Job:
    """A new job of the peer's user. Without `wait` one that would have to wait in line is refused."""
    if limits.memory is None and host.policy.default_memory:
        limits = Limits(host.policy.default_memory, limits.soft, limits.reserve)
    check_limits(host, limits)
    check_standing(standing, host.policy.rules)
    if sum(job.uid == peer.uid for job in host.jobs) >= host.policy.jobs_per_user:
        raise RefusedError(f"uid {peer.uid} has {host.policy.jobs_per_user} jobs already", "raise limits.jobs_per_user")
    root = host.root_of(peer, pid if pid is not None else peer.pid)
    job = Job(
        host.jobs.new_id(), new_token(), name, peer.uid, standing.weight, limits.memory, command, root, time.time()
    )
    job.soft, job.reserve = limits.soft, limits.reserve
    job.priority, job.tier, job.due_in = standing.priority, standing.tier, standing.due_in
    job.origin = host.origins.get((peer.pid, peer.start), "")
    host.line.enter(job)
    try:
        host.state.put_job(job.stored(), job.extra())
    except sqlite3.Error as error:
        root.close()
        raise RefusedError(f"the job cannot be recorded in {host.state.path}: {error}", "free space there") from None
    host.jobs.add(job)
    host.watch(root.pidfd, host.root_died, job)
    host.line.look()
    place = host.line.place(job)
    if place is not None and not wait:
        host.root_died(job)
        raise RefusedError(f"the job would have to wait in line: {place.reason}", "start it with: gpuvirt run")
    host.log.info("job_created", job=job.id, name=name, uid=job.uid, pid=root.pid)
    host.job_changed(job)
    return job


def change_limits(host: Host, job: Job, limits: Limits) -> list[str]:
    """Other limits for a job, running or in line; what that means now, in words."""
    check_limits(host, limits)
    limit, others = min(rooms_beside(host.jobs, job, host.policy.budget), key=lambda room: room[0] - room[1])
    room = max(0, limit - others)
    if limits.reserve > max(room, job.reserve):
        raise RefusedError(
            f"a reservation of {format_size(limits.reserve)} cannot be kept: the host memory budget leaves "
            f"{format_size(room)} beside {format_size(others)} of other jobs",
            "reserve less, or wait until another job has ended",
        )
    before = job.limits
    job.memory, job.soft, job.reserve = limits.memory, limits.soft, limits.reserve
    host.record(job)
    text = f"limits: {describe(before)} -> {describe(limits)}"
    job.events.add(Kind.LIMIT, text)
    host.log.info("limits_changed", job=job.id, before=describe(before), now=describe(limits))
    for arbiter in host.arbiters.values():
        contender = arbiter.gpu.contenders.get(job.id)
        if contender is not None:
            contender.soft = limits.soft
            room_changed(arbiter.gpu)
    host.publish_quotas()
    for arbiter in host.arbiters.values():
        arbiter.turn()
    return meaning(limits, sum(member.facts.charged for member in job.members.values()))


def describe(limits: Limits) -> str:
    """In words, as short as `gpuvirt limit` takes them."""
    parts = [f"memory {format_size(limits.memory)}" if limits.memory is not None else "memory none"]
    if limits.soft is not None:
        parts.append(f"soft {format_size(limits.soft)}")
    if limits.reserve:
        parts.append(f"reserve {format_size(limits.reserve)}")
    return ", ".join(parts)


def limits_row(job: Job) -> dict[str, Any]:
    """As the admin socket tells them (bytes)."""
    return {"job": job.id, "memory": job.memory, "soft": job.soft, "reserve": job.reserve}


def check_limits(host: Host, limits: Limits) -> None:
    """Raises RefusedError for limits that can never hold here."""
    largest = max(arbiter.device.memory_total for arbiter in host.arbiters.values())
    budget = min(host.policy.host_budget, host.policy.host_budget_per_user)
    check(limits, largest, not host.policy.refuse_over_device, budget)
