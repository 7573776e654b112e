# SPDX-License-Identifier: Apache-2.0
"""What came of a simulated run, in figures: rows for a table, and what the GPUs did.

share          part of the GPU's time in which kernels of the job computed
normalised     requests per second, of what the same job does alone
share_error_pp largest difference, over the windows of the report, between the shares of the jobs that wanted the GPU
               all the time and what their weights say, in percentage points
loss           part of the time in which somebody wanted the GPU and nobody computed
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from gpuvirt.arbitration.facts import SECOND, Rules
from gpuvirt.simulation.arbiter import Arbiter
from gpuvirt.simulation.host import Host, Run
from gpuvirt.simulation.measures import Tally
from gpuvirt.simulation.scenario import Job, Scenario

ALWAYS = 0.99  # of a window: then a job wanted the GPU all the time


@dataclass(frozen=True, slots=True)
class Alone:
    """A job by itself on such a GPU."""

    rate: float  # requests/s
    latencies: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Outcome:
    """Rows with stable keys (seconds, bytes, parts of 1); None where there is nothing to say."""

    policy: str
    jobs: list[dict[str, Any]]
    gpus: list[dict[str, Any]]
    run: Run = field(repr=False)
    alone: dict[str, Alone] = field(repr=False)


def simulate(scenario: Scenario, solo: bool = True) -> Outcome:
    """Runs a scenario to its end, and each of its jobs alone if `solo`. Raises ConfigError if it cannot be run."""
    host = Host(scenario)
    host.run()
    run = host.result()
    alone = solos(scenario) if solo else {}
    jobs = [
        _job_row(run, arbiter, job, alone.get(job.name)) for job in scenario.jobs for arbiter in [run.arbiters[job.gpu]]
    ]
    gpus = [_gpu_row(run, arbiter, [row for row in jobs if row["gpu"] == arbiter.index]) for arbiter in run.arbiters]
    return Outcome(scenario.policy, jobs, gpus, run, alone)


def solos(scenario: Scenario) -> dict[str, Alone]:
    """Each job alone, from the start to the end of the scenario. Those that differ by their name alone run once."""
    known: dict[Job, Alone] = {}
    found = {}
    for job in scenario.jobs:
        kind = replace(
            job, name="", gpu=0, seed="" if not job.arrivals.open else job.seed, start=0, stop=None, weight=1
        )
        if kind not in known:
            only = replace(job, gpu=0, start=0, stop=None)
            host = Host(replace(scenario, jobs=(only,), gpus=replace(scenario.gpus, count=1)))
            host.run()
            tally = host.result().arbiters[0].tallies[job.name]
            known[kind] = Alone(_rate(tally, scenario, host.start), tuple(tally.latencies))
        found[job.name] = known[kind]
    return found


def _rate(tally: Tally, scenario: Scenario, start: int) -> float:
    """Requests/s while the job was there, after the warmup."""
    begin = max(start + scenario.warmup, tally.began)
    end = tally.ended if tally.ended is not None else start + scenario.duration
    return tally.requests * SECOND / (end - begin) if end > begin else 0.0


def _job_row(run: Run, arbiter: Arbiter, job: Job, alone: Alone | None) -> dict[str, Any]:
    tally = arbiter.tallies.get(job.name)
    if tally is None:  # it would have started after the end
        return {"job": job.name, "gpu": job.gpu, "weight": job.weight, "share": 0.0, "requests": 0}
    counted = run.end - run.begin
    rate = _rate(tally, run.scenario, run.begin - run.scenario.warmup)
    p99 = percentile(tally.latencies, 0.99)
    solo99 = percentile(alone.latencies, 0.99) if alone is not None else None
    return {
        "job": job.name,
        "gpu": job.gpu,
        "weight": job.weight,
        "share": sum(tally.computed.values()) / counted,
        "held": tally.held.total / counted,
        "wanted": tally.wanted.total / counted,
        "requests": tally.requests,
        "rate": rate,
        "normalised": rate / alone.rate if alone is not None and alone.rate else None,
        "latency_p50_s": _seconds(percentile(tally.latencies, 0.5)),
        "latency_p95_s": _seconds(percentile(tally.latencies, 0.95)),
        "latency_p99_s": _seconds(p99),
        "latency_p99_ratio": p99 / solo99 if p99 is not None and solo99 else None,
        "wait_p50_s": _seconds(percentile(tally.waits, 0.5)),
        "wait_p99_s": _seconds(percentile(tally.waits, 0.99)),
        "drain_p99_s": _seconds(percentile(tally.drains, 0.99)),
        "turns": tally.turns,
        "out_bytes": tally.out,
        "copied_bytes": tally.copied,
        "in_bytes": tally.inward,
        "reason": tally.reason,
    }


def _gpu_row(run: Run, arbiter: Arbiter, jobs: list[dict[str, Any]]) -> dict[str, Any]:
    counted = run.end - run.begin
    computed = sum(sum(tally.computed.values()) for tally in arbiter.tallies.values())
    wanted = arbiter.tally.wanted.total
    normalised = [row.get("normalised") for row in jobs]
    error, jain = fairness(run, arbiter)
    handovers = arbiter.tally.handovers
    return {
        "gpu": arbiter.index,
        "policy": run.scenario.policy,
        "computing": computed / counted,
        "idle": 1 - wanted / counted,
        "loss": max(0.0, 1 - computed / wanted) if wanted else 0.0,
        "normalised": sum(normalised) if jobs and None not in normalised else None,
        "share_error_pp": error,
        "jain": jain,
        "switches": arbiter.tally.switches,
        "handover_p50_s": _seconds(percentile(handovers, 0.5)),
        "handover_p99_s": _seconds(percentile(handovers, 0.99)),
        "out_bytes": sum(row.get("out_bytes", 0) for row in jobs),
        "in_bytes": sum(row.get("in_bytes", 0) for row in jobs),
    }


def fairness(run: Run, arbiter: Arbiter) -> tuple[float | None, float | None]:
    """(share error in percentage points, smallest Jain index); None when in no window two jobs wanted all the time."""
    width = run.scenario.report
    jobs = {job.name: job for job in run.scenario.jobs}
    errors, indexes = [], []
    for window in range((run.end - run.begin) // width):
        there = {
            name: tally.computed.get(window, 0)
            for name, tally in arbiter.tallies.items()
            if tally.wanted.windows.get(window, 0) >= ALWAYS * width
        }
        computed = sum(there.values())
        if len(there) < 2 or computed == 0:
            continue
        due = entitled([jobs[name] for name in there], run.scenario.rules)
        errors.append(max(abs(time / computed - due[name]) for name, time in there.items()))
        indexes.append(jain([time / due[name] for name, time in there.items()]))
    return (100 * max(errors), min(indexes)) if errors else (None, None)


def entitled(jobs: Sequence[Job], rules: Rules) -> dict[str, float]:
    """Part of the time by weight: first of tenants, then of the jobs of each."""
    tenants: dict[str, int] = {}
    for job in jobs:
        tenants[job.tenant] = tenants.get(job.tenant, 0) + job.weight
    whole = sum(rules.weight_of(tenant) for tenant in tenants)
    return {job.name: rules.weight_of(job.tenant) / whole * job.weight / tenants[job.tenant] for job in jobs}


def jain(values: Sequence[float]) -> float:
    """Jain's index of fairness: 1 when all are equal, 1/n when one has everything."""
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else 1.0


def percentile(values: Sequence[int], part: float) -> int | None:
    """The smallest value that at least this part of all is not above (nearest rank). None if there are none."""
    if not values:
        return None
    ordered = sorted(values)
    return ordered[max(0, -int(-part * len(ordered) // 1) - 1)]


def _seconds(value: int | None) -> float | None:
    return None if value is None else value / SECOND
