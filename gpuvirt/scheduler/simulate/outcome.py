# SPDX-License-Identifier: Apache-2.0
"""What came of a run, in figures. Seconds; parts of 1.

jct         from the arrival of a job to its end
wait        jct less the time for which it made progress: in the queue, suspended, or being suspended and resumed
slowdown    jct in run times of the job, those of less than SHORT s taken for as long (bounded slowdown)
allocation  part of the GPUs that jobs had while any job waited: what an order leaves idle although somebody wants it
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

from gpuvirt.scheduler.order.job import Job
from gpuvirt.scheduler.simulate.engine import Run

SHORT = 10.0  # s


def percentile(values: Sequence[float], part: float) -> float:
    """Of sorted values, the one that `part` of them do not exceed (nearest rank)."""
    return values[max(0, min(len(values) - 1, -int(-part * len(values) // 1) - 1))]


def figures(run: Run) -> dict[str, Any]:
    """One row. All jobs have ended."""
    jct = sorted(_ended(job.ended) - job.arrival for job in run.jobs)
    waits = sorted(max(0.0, _ended(job.ended) - job.arrival - job.work) for job in run.jobs)
    slow = sorted(_slowdown(job) for job in run.jobs)
    begin = min(job.arrival for job in run.jobs)
    end = max(_ended(job.ended) for job in run.jobs)
    useful = sum(job.gpus * job.work for job in run.jobs)
    capacity = run.terms.gpus * (end - begin)
    return {
        "policy": run.policy.name,
        "jobs": len(run.jobs),
        "jct_avg_s": sum(jct) / len(jct),
        "jct_p50_s": percentile(jct, 0.5),
        "jct_p95_s": percentile(jct, 0.95),
        "jct_p99_s": percentile(jct, 0.99),
        "jct_max_s": jct[-1],
        "wait_avg_s": sum(waits) / len(waits),
        "wait_p50_s": percentile(waits, 0.5),
        "wait_p95_s": percentile(waits, 0.95),
        "wait_p99_s": percentile(waits, 0.99),
        "slowdown_p50": percentile(slow, 0.5),
        "slowdown_p95": percentile(slow, 0.95),
        "jain": fairness([row["slowdown_avg"] for row in tenants(run)]),
        "suspensions": sum(job.suspensions for job in run.jobs),
        "lost_gpu_s": run.lost,
        "lost": run.lost / (useful + run.lost) if useful else 0.0,
        "used": useful / capacity if capacity else 0.0,
        "allocation": allocation(run),
        "makespan_s": end - begin,
        "plans": run.plans,
    }


def tenants(run: Run) -> list[dict[str, Any]]:
    """One row for each tenant, in the order of their names."""
    found: dict[str, list[Job]] = {}
    for job in run.jobs:
        found.setdefault(job.tenant, []).append(job)
    return [
        {
            "policy": run.policy.name,
            "tenant": tenant,
            "jobs": len(jobs),
            "gpu_s": sum(job.gpus * job.work for job in jobs),
            "jct_avg_s": sum(_ended(job.ended) - job.arrival for job in jobs) / len(jobs),
            "wait_avg_s": sum(max(0.0, _ended(job.ended) - job.arrival - job.work) for job in jobs) / len(jobs),
            "slowdown_avg": sum(_slowdown(job) for job in jobs) / len(jobs),
        }
        for tenant, jobs in sorted(found.items())
    ]


def fairness(values: Sequence[float]) -> float:
    """Jain's index: 1 when all are equal, 1 / n when one has all."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def allocation(run: Run) -> float | None:
    """Part of the GPUs that jobs had while any job waited; None when none ever did."""
    given = waited = 0.0
    for (begin, gpus, waiting), (end, _, _) in pairwise(run.curve):
        if waiting:
            given += gpus * (end - begin)
            waited += end - begin
    return given / (run.terms.gpus * waited) if waited else None


def _slowdown(job: Job) -> float:
    return max(1.0, (_ended(job.ended) - job.arrival) / max(SHORT, job.work))


def _ended(moment: float | None) -> float:
    assert moment is not None, "a job has not ended"
    return moment
