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
    from gpuvirtd.memory.backing import Budget


def publish_quotas(jobs: Iterable[Job], arbiters: Iterable[Arbiter], budget: Budget, log: Logger) -> None:
    """Write the quota of every job into its lease page on every GPU that it uses."""
    for arbiter in arbiters:
        for job in jobs:
            if job.id in arbiter.pages:
                publish_quota(jobs, job, arbiter, budget, log)


def publish_quota(jobs: Iterable[Job], job: Job, arbiter: Arbiter, budget: Budget, log: Logger) -> int:
    """Write one job's quota on one GPU (bytes), and what its processes have charged; returns the quota."""
    mine = [member for member in job.members.values() if member.arbiter is arbiter]
    found = quota_of(jobs, job, arbiter, budget)
    page = arbiter.page_of(job)
    page.set_members(len(mine), sum(member.facts.charged for member in mine))
    if page.quota != found.bytes:
        if found.bound is Bound.BUDGET and found.bytes < page.quota:
            log.warning("quota_cut", job=job.id, quota=found.bytes, reason="host memory budget")
        page.set_quota(found.bytes)
    return found.bytes


def quota_of(jobs: Iterable[Job], job: Job, arbiter: Arbiter, budget: Budget) -> Quota:
    """What a job may charge on one GPU now, or could if it attached."""
    mine = [member for member in job.members.values() if member.arbiter is arbiter]
    here = sum(member.facts.charged for member in arbiter.members.values() if member.job is not job)
    rooms = rooms_beside(jobs, job, budget)
    alone = here == 0 and all(others == 0 for _, others in rooms)
    return quota(
        job.memory,
        arbiter.gpu.capacity,
        sum(member.facts.charged for member in mine),
        None if alone else min(limit - others for limit, others in rooms),
        here,
        sum(member.facts.native for member in mine),
        job.reserve,
    )


def rooms_beside(jobs: Iterable[Job], job: Job, budget: Budget) -> list[tuple[int, int]]:
    """(budget, what other jobs have of it or have reserved) of all jobs, and of those of this job's user. Bytes."""
    others = [other for other in jobs if other is not job]
    own = [other for other in others if other.uid == job.uid]
    return [
        (budget.total, sum(committed(other) for other in others)),
        (budget.per_user, sum(committed(other) for other in own)),
    ]


def committed(job: Job) -> int:
    """Host memory that a job may need: all that may have to be swapped, or what is set aside for it (bytes).

    Nothing is set aside for a job in line: it would be missing to those that run, whose end it waits for.
    """
    if job.queued is not None:
        return 0
    return max(job.reserve, sum(member.facts.charged - member.facts.native for member in job.members.values()))


def refusal(jobs: Iterable[Job], job: Job, arbiter: Arbiter, budget: Budget, asked: int) -> str:
    """Why a job cannot have `asked` more bytes on a GPU now, for people."""
    found = quota_of(jobs, job, arbiter, budget)
    charged = sum(member.facts.charged for member in job.members.values() if member.arbiter is arbiter)
    size = format_size(found.bytes)
    if found.bound is Bound.LIMIT:
        reason = f"the limit of the job is {size} (raise it with: gpuvirt limit {job.id} --memory SIZE)"
    elif found.bound is Bound.DEVICE:
        reason = f"GPU {arbiter.device.index} has {size} for jobs, and a job alone cannot be larger than the device"
    else:
        (total, others), (own, others_own) = rooms_beside(jobs, job, budget)
        if total - others <= own - others_own:
            name = f"the host memory budget ({format_size(total)}, memory.host_budget)"
        else:
            name = f"the host memory budget of this user ({format_size(own)}, memory.host_budget_per_user)"
            others = others_own
        reason = f"{name} leaves {size} for this job beside {format_size(others)} of others"
    return f"allocation of {format_size(asked)} beside {format_size(charged)} refused: {reason}"
