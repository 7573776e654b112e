# SPDX-License-Identifier: Apache-2.0
"""What each job may charge, as its lease pages say, and why it may not have more."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gpuvirt.arbitration.ledger import Bound, Quota, quota
from gpuvirt.units import format_size
from gpuvirtd.log import Logger

if TYPE_CHECKING:
    from gpuvirtd.arbiter.arbiter import Arbiter
    from gpuvirtd.jobs import Job


def publish_quotas(jobs: Iterable[Job], arbiters: Iterable[Arbiter], host_budget: int, log: Logger) -> None:
    """Write the quota of every job into its lease page on every GPU that it uses."""
    for arbiter in arbiters:
        for job in jobs:
            if job.id in arbiter.pages:
                publish_quota(jobs, job, arbiter, host_budget, log)


def publish_quota(jobs: Iterable[Job], job: Job, arbiter: Arbiter, host_budget: int, log: Logger) -> int:
    """Write one job's quota on one GPU (bytes), and what its processes have charged; returns the quota."""
    mine = [member for member in job.members.values() if member.arbiter is arbiter]
    found = quota_of(jobs, job, arbiter, host_budget)
    page = arbiter.page_of(job)
    page.set_members(len(mine), sum(member.facts.charged for member in mine))
    if page.quota != found.bytes:
        if found.bound is Bound.BUDGET and found.bytes < page.quota:
            log.warning("quota_cut", job=job.id, quota=found.bytes, reason="host memory budget")
        page.set_quota(found.bytes)
    return found.bytes


def quota_of(jobs: Iterable[Job], job: Job, arbiter: Arbiter, host_budget: int) -> Quota:
    """What a job may charge on one GPU now, or could if it attached."""
    mine = [member for member in job.members.values() if member.arbiter is arbiter]
    others = committed_to_others(jobs, job)
    here = sum(member.facts.charged for member in arbiter.members.values() if member.job is not job)
    return quota(
        job.memory,
        arbiter.gpu.capacity,
        sum(member.facts.charged for member in mine),
        host_budget - others if others > 0 or here > 0 else None,
        here,
        sum(member.facts.native for member in mine),
        job.reserve,
    )


def committed(job: Job) -> int:
    """Host memory that a job may need: all that may have to be swapped, or what is set aside for it (bytes)."""
    return max(job.reserve, sum(member.facts.charged - member.facts.native for member in job.members.values()))


def committed_to_others(jobs: Iterable[Job], job: Job) -> int:
    """Bytes of all other jobs."""
    return sum(committed(other) for other in jobs if other is not job)


def refusal(jobs: Iterable[Job], job: Job, arbiter: Arbiter, host_budget: int, asked: int) -> str:
    """Why a job cannot have `asked` more bytes on a GPU now, for people."""
    found = quota_of(jobs, job, arbiter, host_budget)
    charged = sum(member.facts.charged for member in job.members.values() if member.arbiter is arbiter)
    size = format_size(found.bytes)
    if found.bound is Bound.LIMIT:
        reason = f"the limit of the job is {size} (raise it with: gpuvirt limit {job.id} --memory SIZE)"
    elif found.bound is Bound.DEVICE:
        reason = f"GPU {arbiter.device.index} has {size} for jobs, and a job alone cannot be larger than the device"
    else:
        reason = (
            f"the host memory budget ({format_size(host_budget)}, memory.host_budget) leaves {size} for this job "
            f"beside {format_size(committed_to_others(jobs, job))} of others"
        )
    return f"allocation of {format_size(asked)} beside {format_size(charged)} refused: {reason}"
