# SPDX-License-Identifier: Apache-2.0
"""The answer to QUERY: what the asking process's job has on one GPU. Whoever asks is no client by it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuvirt.control import messages
from gpuvirtd.arbiter.arbiter import Arbiter
from gpuvirtd.identity import Process
from gpuvirtd.jobs import Job, Member
from gpuvirtd.memory import quotas
from gpuvirtd.namespaces import pid_seen_by
from gpuvirtd.sessions import INVALID_DEVICE, NOT_PERMITTED, Refusal

if TYPE_CHECKING:
    from gpuvirtd.host import Host


def usage_of(host: Host, process: Process, query: messages.Query) -> messages.Usage | None:
    """What the job of this token has on this GPU, as `process` may see it. Raises Refusal.

    None while processes of the job have not come back after a restart: what they knew before is nearer to the truth.
    """
    job = host.jobs.by_token(query.token)
    if job is None:
        raise Refusal(NOT_PERMITTED, "the job is not known to this gpuvirtd")
    if process.uid not in (0, job.uid):
        raise Refusal(NOT_PERMITTED, f"job {job.id} belongs to uid {job.uid}, this process to uid {process.uid}")
    arbiter = host.arbiters.get(query.device_uuid)
    if arbiter is None:
        raise Refusal(INVALID_DEVICE, f"the GPU {query.device_uuid.hex()} is not served by gpuvirtd")
    if host.recovery.waits_for(job):
        return None
    now = host.clock.now()
    members = [member for member in job.members.values() if member.arbiter is arbiter]
    for member in members:
        member.refresh(now)
    seen = []
    for member in sorted(members, key=lambda member: -member.report.charged_bytes):
        pid = pid_seen_by(member.process.pid, process.pid)
        if pid is not None:
            seen.append(_entry(member, pid, now))
    # By the pages and not by the last messages: those come only when the daemon has to decide by them.
    charged = sum(member.report.charged_bytes for member in members)
    return messages.Usage(
        generation=host.generation,
        quota=quota_of(host, job, arbiter),
        charged=charged,
        now_ns=now,
        processes=tuple(seen[: messages.USAGE_PROCESSES]),
    )


def quota_of(host: Host, job: Job, arbiter: Arbiter) -> int:
    """Bytes that the job may charge on this GPU: as in its lease page, or as they would be if it attached now.

    Not less than it has: who divides the one by the other means its share of a device.
    """
    charged = sum(member.facts.charged for member in job.members.values() if member.arbiter is arbiter)
    if job.id in arbiter.pages:
        return max(charged, arbiter.pages[job.id].quota)
    return quotas.quota_of(host.jobs, job, arbiter, host.policy.budget).bytes


def _entry(member: Member, pid: int, now: int) -> messages.UsageProcess:
    busy = member.busy(now)
    since, before = member.recent(now)
    return messages.UsageProcess(
        pid=pid,
        host_pid=member.process.pid,
        charged_bytes=member.report.charged_bytes,
        peak_bytes=max(member.peak, member.report.charged_bytes),
        busy_ns=busy,
        recent_ns=max(0, min(busy - before, now - since)),
        window_ns=now - since,
        attached_ns=member.attached,
    )
