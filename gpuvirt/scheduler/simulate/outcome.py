# SPDX-License-Identifier: Apache-2.0
"""What came of a run, in figures. Seconds; parts of 1.

jct         from the arrival of a job to its end
wait        jct less the time for which it made progress: in the queue, suspended, or being suspended and resumed
slowdown    jct in run times of the job
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpuvirt.scheduler.simulate.engine import Run


def percentile(values: Sequence[float], part: float) -> float:
    """Of sorted values, the one that `part` of them do not exceed (nearest rank)."""
    return values[max(0, min(len(values) - 1, -int(-part * len(values) // 1) - 1))]


def figures(run: Run) -> dict[str, Any]:
    """One row. All jobs have ended."""
    jct = sorted(_ended(job.ended) - job.arrival for job in run.jobs)
    waits = sorted(max(0.0, _ended(job.ended) - job.arrival - job.work) for job in run.jobs)
    slow = sorted((_ended(job.ended) - job.arrival) / max(1.0, job.work) for job in run.jobs)
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
        "slowdown_p95": percentile(slow, 0.95),
        "suspensions": sum(job.suspensions for job in run.jobs),
        "lost_gpu_s": run.lost,
        "lost": run.lost / (useful + run.lost) if useful else 0.0,
        "used": useful / capacity if capacity else 0.0,
        "makespan_s": end - begin,
        "plans": run.plans,
    }


def _ended(moment: float | None) -> float:
    assert moment is not None, "a job has not ended"
    return moment
