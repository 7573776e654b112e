# SPDX-License-Identifier: Apache-2.0
"""What each job may charge, as its lease pages say."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from gpuvirt.arbitration import ledger
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
    charged = sum(member.facts.charged for member in mine)
    native = sum(member.facts.native for member in mine)
    others = charged_by_others(jobs, job)
    capacity = arbiter.gpu.capacity
    quota = ledger.published_quota(job.memory, capacity, charged, others, host_budget, native)
    page = arbiter.page_of(job)
    page.set_members(len(mine), charged)
    if page.quota != quota:
        uncut = ledger.published_quota(job.memory, capacity, charged, 0, host_budget, native)
        if quota < uncut <= page.quota:
            log.warning("quota_cut", job=job.id, quota=quota, others_charged=others, reason="host memory budget")
        page.set_quota(quota)
    return quota


def charged_by_others(jobs: Iterable[Job], job: Job) -> int:
    """Bytes of all other jobs that may have to be swapped."""
    return sum(
        member.facts.charged - member.facts.native
        for other in jobs
        if other is not job
        for member in other.members.values()
    )
