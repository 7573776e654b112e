# SPDX-License-Identifier: Apache-2.0
"""The host, its GPUs and the scheduler's jobs as messages."""

from __future__ import annotations

import os
import socket
from typing import Any

import gpuvirt
from gpuvirt.proto.gpuvirt.v1 import agent_pb2 as agent
from gpuvirt.proto.gpuvirt.v1 import types_pb2 as types
from gpuvirtd.agent.book import Attempt
from gpuvirtd.agent.launch import PRIORITIES
from gpuvirtd.agent.work import Work
from gpuvirtd.identity import boot_id
from gpuvirtd.memory.arenas import host_memory
from gpuvirtd.status import gpu_status, job_status

BY_NAME = {name: number for number, name in PRIORITIES.items()}


def inventory(work: Work, now: agent.Heartbeat) -> agent.RegisterReply:
    host = work.host
    gpus = [
        types.Gpu(
            uuid=arbiter.device.uuid,
            index=arbiter.device.index,
            type=arbiter.device.name,
            memory_bytes=arbiter.device.memory_total,
            capacity_bytes=arbiter.gpu.capacity,
            policy=arbiter.gpu.policy,
        )
        for arbiter in host.arbiters.values()
    ]
    return agent.RegisterReply(
        host=socket.gethostname(),
        version=gpuvirt.__version__,
        generation=host.generation,
        boot=boot_id(),
        gpus=gpus,
        cpus=len(os.sched_getaffinity(0)),
        memory_bytes=host_memory(),
        swap_bytes=host.policy.host_budget,
        now=now,
    )


def heartbeat(work: Work, sequence: int, term: int) -> agent.Heartbeat:
    host = work.host
    return agent.Heartbeat(
        sequence=sequence,
        generation=host.generation,
        term=term,
        recovering=host.recovery.active(),
        draining=work.draining is not None,
        gpus=[_usage(gpu_status(host, arbiter)) for arbiter in host.arbiters.values()],
        jobs=[job_of(work, attempt) for attempt in work.attempts.values()],
        swap_room_bytes=host.host_room(),
        local_jobs=sum(not job.origin for job in host.jobs),
    )


def _usage(row: dict[str, Any]) -> types.GpuUsage:
    return types.GpuUsage(
        uuid=row["uuid"],
        healthy=row["state"] == "ok",
        used_bytes=row["memory_used"] or 0,
        charged_bytes=row["charged"],
        resident_bytes=row["resident"],
        holder=row["holder"] or "",
        waiting=len(row["queue"]),
    )


def job_of(work: Work, attempt: Attempt) -> agent.Job:
    """An attempt as it is now."""
    told = agent.Job(
        id=attempt.job,
        attempt=attempt.attempt,
        local=attempt.local,
        reason=attempt.reason,
        exit=attempt.exit,
        log=attempt.log,
        limits=types.Limits(**attempt.limits),
        standing=types.Standing(**attempt.standing),
        held_seconds=attempt.held_s,
        waited_seconds=attempt.waited_s,
        command=attempt.command,
    )
    job = work.host.jobs.by_id.get(attempt.local)
    told.state = _state(work, attempt)
    if job is None or attempt.ended:
        return told
    row = job_status(work.host, job)
    told.reason = row["reason"]
    told.limits.CopyFrom(
        types.Limits(memory_bytes=job.memory or 0, soft_bytes=job.soft or 0, reserve_bytes=job.reserve)
    )
    told.standing.CopyFrom(
        types.Standing(
            weight=job.weight,
            priority=BY_NAME[row["priority"]],
            tier=job.tier,
            deadline_seconds=job.due_in / 1e9,
        )
    )
    told.gpus[:] = sorted({member.arbiter.device.uuid for member in job.members.values()})
    told.charged_bytes, told.resident_bytes = row["charged"], row["resident"]
    told.held_seconds, told.waited_seconds = row["held_s"], row["wait_s"]
    return told


def _state(work: Work, attempt: Attempt) -> agent.Job.State:
    job = work.host.jobs.by_id.get(attempt.local)
    if attempt.ended:
        return agent.Job.ENDED
    if attempt.job in work.stopping or (job is None and attempt.local):
        return agent.Job.STOPPING
    if job is None:
        return agent.Job.STARTING
    if job.queued is not None:
        return agent.Job.QUEUED
    if job.suspended:
        return agent.Job.SUSPENDED if attempt.job in work.stopped else agent.Job.SUSPENDING
    return agent.Job.RUNNING
