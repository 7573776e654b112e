# SPDX-License-Identifier: Apache-2.0
"""Simulated runs against what must come of them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import pytest

from gpuvirt.arbitration.facts import SECOND
from gpuvirt.errors import ConfigError
from gpuvirt.simulation.host import Host
from gpuvirt.simulation.outcome import Outcome, jain, percentile, simulate
from gpuvirt.simulation.scenario import Scenario, read

GIB = 1 << 30


def scenario(*jobs: dict[str, Any], **tables: Any) -> Scenario:
    return read({"duration": "11s", "warmup": "1s", "report": "5s", "job": list(jobs), **tables}, "test")


def job(name: str, **keys: Any) -> dict[str, Any]:
    work = {} if "work" in keys else {"kernels": 100, "kernel": {"lognormal": "200us"}}
    return {"name": name, **work, **keys}


def by_name(outcome: Outcome) -> dict[str, dict[str, Any]]:
    return {row["job"]: row for row in outcome.jobs}


def test_shares_follow_the_weights() -> None:
    outcome = simulate(scenario(job("a", weight=1), job("b", weight=2), job("c", weight=4)))
    shares = {name: row["share"] for name, row in by_name(outcome).items()}
    assert shares["b"] == pytest.approx(2 / 7, abs=0.01) and shares["c"] == pytest.approx(4 / 7, abs=0.01)
    (gpu,) = outcome.gpus
    assert gpu["share_error_pp"] <= 1 and gpu["jain"] >= 0.99
    assert gpu["loss"] <= 0.02 and gpu["normalised"] >= 0.98
    assert gpu["computing"] == pytest.approx(sum(shares.values()))


def test_shares_are_first_those_of_tenants() -> None:
    ann, ben = {"tenant": "ann"}, {"tenant": "ben"}
    outcome = simulate(
        scenario(job("a", **ann), job("b", **ann), job("c", **ben), time={"tenant_weights": {"ben": 2}}), solo=False
    )
    rows = by_name(outcome)
    assert [rows[name]["share"] for name in "abc"] == pytest.approx([1 / 6, 1 / 6, 2 / 3], abs=0.01)
    assert outcome.gpus[0]["share_error_pp"] < 1


def test_policies_heed_what_the_scenario_says() -> None:
    service = job("service", priority=1, tier="premium", deadline="40ms", think="20ms")
    jobs = (service, job("training", kernels=20, count=2))
    latency = {}
    for policy in ("fair", "priority", "deadline", "tiers"):
        chosen = replace(scenario(*jobs, costs={"window": "500us"}), policy=policy)
        latency[policy] = by_name(simulate(chosen, solo=False))["service"]["latency_p50_s"]
    assert max(latency["priority"], latency["tiers"]) < 0.025  # 20 ms of work
    assert latency["deadline"] < 0.041
    assert latency["fair"] > max(latency["priority"], latency["tiers"], latency["deadline"])


def test_hardware_slices_know_no_weights() -> None:
    outcome = simulate(replace(scenario(job("a"), job("b", weight=3)), policy="bare"), solo=False)
    assert outcome.jobs[0]["share"] == pytest.approx(outcome.jobs[1]["share"], abs=0.01)
    assert outcome.gpus[0]["share_error_pp"] > 20


def test_bare_swaps_nothing() -> None:
    with pytest.raises(ConfigError, match="without an arbiter nothing is swapped"):
        simulate(replace(scenario(job("a", memory="50G"), job("b", memory="50G")), policy="bare"))


def test_the_same_seed_gives_the_same() -> None:
    jobs = (job("a", kernel={"exponential": "300us"}), job("b", load=0.3))
    first, second = (simulate(scenario(*jobs), solo=False) for _ in range(2))
    assert (first.jobs, first.gpus, first.run.spans) == (second.jobs, second.gpus, second.run.spans)
    other = simulate(replace(scenario(*jobs), seed=2), solo=False)
    assert other.jobs != first.jobs


def test_alone_it_is_a_queue_of_the_books() -> None:
    """Poisson arrivals, service time s, load 0.5: the mean time in the system is s (1 + 0.5 / (2 (1 - 0.5)))."""
    service = 10 * 200e-6
    queue = scenario(
        job("a", kernels=10, kernel="200us", load=0.5), duration="100s", warmup="0", costs={"launch": "0", "wake": "0"}
    )
    outcome = simulate(queue, solo=False)
    latencies = outcome.run.arbiters[0].tallies["a"].latencies
    assert len(latencies) > 20_000
    assert sum(latencies) / len(latencies) / SECOND == pytest.approx(1.5 * service, rel=0.05)
    assert outcome.jobs[0]["share"] == pytest.approx(0.5, rel=0.02)
    assert outcome.gpus[0]["loss"] < 0.001  # nobody else: no hand-over, nothing to wait for


def test_who_thinks_gives_way_at_once() -> None:
    """One computes half of its time: the other has all the rest, and the first loses little."""
    thinker = job("thinker", think="20ms")
    outcome = simulate(scenario(thinker, job("other"), costs={"window": "2ms"}))
    rows = by_name(outcome)
    assert rows["thinker"]["share"] + rows["other"]["share"] > 0.97
    assert rows["other"]["share"] > 0.5


def test_a_launch_bound_job_does_not_compute_all_the_time() -> None:
    outcome = simulate(scenario(job("a", kernel="20us"), costs={"launch": "50us"}), solo=False)
    assert outcome.jobs[0]["share"] == pytest.approx(0.4, abs=0.01)


def test_the_window_bounds_what_a_drain_waits_for() -> None:
    jobs = (job("a", wait=False), job("b", wait=False))
    wide = simulate(scenario(*jobs, costs={"window": "100ms"}), solo=False)
    usual = simulate(scenario(*jobs), solo=False)
    narrow = simulate(scenario(*jobs, costs={"window": "1ms"}), solo=False)
    assert min(row["drain_p99_s"] for row in wide.jobs) > 0.05
    assert max(row["drain_p99_s"] for row in narrow.jobs) < 0.002
    assert narrow.gpus[0]["loss"] < 0.02
    assert max(row["drain_p99_s"] for row in usual.jobs) < 0.003  # a tenth of the quantum, and a kernel


def test_memory_moves_and_only_what_must() -> None:
    big = {"work": "1s", "memory": "50G"}
    times = {"duration": "1000s", "warmup": "100s", "report": "450s", "time": {"quantum_max": "60s"}}
    outcome = simulate(scenario(job("a", **big), job("b", **big), **times))
    rows = by_name(outcome)
    switches = sum(row["turns"] for row in rows.values())
    assert 4 < switches < 100
    out = sum(row["out_bytes"] for row in rows.values())
    assert out / GIB / switches < 40  # 20 at a switch, and those of the warmup
    assert outcome.gpus[0]["loss"] <= 0.06
    assert rows["a"]["share"] == pytest.approx(rows["b"]["share"], abs=0.05)


def test_jobs_that_are_done_or_stopped_leave_the_gpu_to_others() -> None:
    jobs = (job("short", requests=20), job("stopped", stop="3s"), job("late", start="5s"), job("never", start="1h"))
    outcome = simulate(scenario(*jobs, warmup="0"), solo=False)
    rows = by_name(outcome)
    assert rows["short"]["requests"] == 20
    assert rows["stopped"]["wanted"] == pytest.approx(3 / 11, abs=0.001)
    assert rows["late"]["wanted"] == pytest.approx(6 / 11, abs=0.001)
    assert rows["never"]["requests"] == 0
    assert outcome.run.arbiters[0].gpu.contenders.keys() == {"late"}


def test_gpus_of_a_host_are_independent() -> None:
    outcome = simulate(scenario(job("a"), job("b", gpu=1), gpu={"count": 2}), solo=False)
    assert [gpu["switches"] for gpu in outcome.gpus] == [0, 0]  # each was granted once, in the warmup
    assert min(row["share"] for row in outcome.jobs) > 0.95


def test_one_at_a_time() -> None:
    host = Host(scenario(job("a", memory="20G"), job("b", load=0.2), job("c", think="5ms")))
    host.run()
    spans = [span for span in host.result().spans if span.kind in ("lease", "drain")]
    ordered = sorted(spans, key=lambda span: (span.begin, span.end))
    assert len(ordered) > 50
    for before, after in itertools.pairwise(ordered):
        assert before.end <= after.begin


def test_figures() -> None:
    assert jain([1, 1, 1]) == 1 and jain([1, 0, 0]) == pytest.approx(1 / 3) and jain([0]) == 1
    assert percentile([], 0.99) is None
    values = list(range(1, 101))
    assert [percentile(values, part) for part in (0.5, 0.95, 0.99, 1.0)] == [50, 95, 99, 100]
    assert percentile([7], 0.01) == 7
