# SPDX-License-Identifier: Apache-2.0
"""The simulated fleet: what preemption costs, what is measured."""

from __future__ import annotations

import pytest

from gpuvirt.errors import ConfigError
from gpuvirt.scheduler.order import POLICIES
from gpuvirt.scheduler.order.job import Terms
from gpuvirt.scheduler.simulate.engine import Engine, Request
from gpuvirt.scheduler.simulate.outcome import allocation, fairness, figures, percentile, tenants


def test_preemption_costs_who_comes_and_who_comes_back() -> None:
    jobs = [Request(0, 4, 100), Request(10, 4, 20)]
    run = Engine(jobs, Terms(4, suspend=3, resume=5), POLICIES["srtf"]).run()
    long, short = run.jobs
    assert short.ended == 10 + 3 + 20
    assert long.ended == 33 + 5 + 90
    assert run.lost == 4 * (3 + 5)
    assert (long.suspensions, short.suspensions) == (1, 0)


def test_gpus_that_were_idle_need_nobody_suspended() -> None:
    jobs = [Request(0, 2, 100), Request(10, 2, 20)]
    run = Engine(jobs, Terms(4, suspend=3, resume=5), POLICIES["srtf"]).run()
    assert [job.ended for job in run.jobs] == [100, 30] and run.lost == 0


def test_who_is_suspended_while_it_comes_back_has_paid_only_until_then() -> None:
    jobs = [Request(0, 1, 100), Request(10, 1, 10), Request(22, 1, 10)]
    run = Engine(jobs, Terms(1, resume=5), POLICIES["srtf"]).run()
    assert run.jobs[0].suspensions == 2
    assert run.jobs[0].ended == pytest.approx(20 + 2 + 10 + 5 + 90)
    assert run.lost == pytest.approx(2 + 5)


def test_a_gang_larger_than_the_fleet_is_refused() -> None:
    with pytest.raises(ConfigError, match="8 GPUs, the fleet has 4"):
        Engine([Request(0, 8, 1)], Terms(4), POLICIES["fifo"])


def test_figures() -> None:
    row = figures(Engine([Request(0, 1, 100), Request(0, 1, 100)], Terms(1), POLICIES["fifo"]).run())
    assert row["jct_avg_s"] == 150 and row["jct_max_s"] == 200 and row["jct_p50_s"] == 100
    assert row["wait_avg_s"] == 50 and row["used"] == 1 and row["lost"] == 0 and row["jobs"] == 2


def test_percentiles_are_of_the_values() -> None:
    values = [float(n) for n in range(1, 101)]
    assert [percentile(values, part) for part in (0.0, 0.5, 0.95, 1.0)] == [1, 50, 95, 100]


def test_allocation_counts_only_while_somebody_waits() -> None:
    jobs = [Request(0, 2, 100), Request(10, 3, 20), Request(200, 1, 50)]
    assert allocation(Engine(jobs, Terms(4), POLICIES["fifo"]).run()) == 0.5  # from 10 s to 100 s two of four
    assert allocation(Engine(jobs[:1], Terms(4), POLICIES["fifo"]).run()) is None


def test_tenants_and_fairness() -> None:
    jobs = [Request(0, 1, 100, "a"), Request(0, 1, 100, "b")]
    run = Engine(jobs, Terms(1), POLICIES["fifo"]).run()
    first, second = tenants(run)
    assert (first["tenant"], first["jct_avg_s"], first["slowdown_avg"]) == ("a", 100, 1)
    assert (second["wait_avg_s"], second["slowdown_avg"], second["gpu_s"]) == (100, 2, 100)
    assert figures(run)["jain"] == pytest.approx(9 / 10)
    assert fairness([1, 0, 0, 0]) == 0.25 and fairness([3, 3]) == 1
