# SPDX-License-Identifier: Apache-2.0
"""Scenarios: what they may say, and one line for what they may not."""

from __future__ import annotations

import tomllib
from importlib import resources
from random import Random
from typing import Any

import pytest

from gpuvirt.arbitration.facts import MILLISECOND, SECOND
from gpuvirt.errors import ConfigError
from gpuvirt.simulation.drawing import Lengths, lengths
from gpuvirt.simulation.scenario import Scenario, read

US = 1000
JOB = {"name": "a", "kernel": "200us"}


def made(**tables: Any) -> Scenario:
    return read({"job": [JOB], **tables}, "x.toml")


def test_defaults_are_those_of_the_daemon() -> None:
    scenario = made()
    assert (scenario.policy, scenario.rules.quantum, scenario.rules.swap_share) == ("fair", 20 * MILLISECOND, 0.05)
    (job,) = scenario.jobs
    assert (job.weight, job.kernels, job.service, job.arrivals.kind) == (1, 1, 200 * US, "closed")


def test_several_of_a_kind() -> None:
    scenario = read({"job": [{**JOB, "count": 3}]}, "x.toml")
    assert [job.name for job in scenario.jobs] == ["a-1", "a-2", "a-3"]
    assert len({job.seed for job in scenario.jobs}) == 3


def test_load_is_of_what_one_request_takes() -> None:
    (job,) = read({"job": [{**JOB, "kernels": 50, "load": 0.5}]}, "x.toml").jobs
    assert job.arrivals.open
    assert job.arrivals.gap.mean == 2 * 50 * 200 * US


@pytest.mark.parametrize(
    ("given", "mean"),
    [
        ("1ms", 1000 * US),
        ({"exponential": "1ms"}, 1000 * US),
        ({"lognormal": "1ms", "sigma": 1.0}, 1000 * US),
        ({"uniform": ["500us", "1500us"]}, 1000 * US),
        ({"choice": ["500us", "5500us"], "chances": [9, 1]}, 1000 * US),
        ({"values": ["1ms", "500us", "1500us"]}, 1000 * US),
    ],
)
def test_draws_have_the_mean_that_they_say(given: Any, mean: int) -> None:
    found = lengths(given, "x")
    assert found.mean == pytest.approx(mean)
    draw, again = found.draw(Random("1")), found.draw(Random("1"))
    drawn = [draw() for _ in range(30_000)]
    assert sum(drawn) / len(drawn) == pytest.approx(mean, rel=0.05)
    assert drawn[:50] == [again() for _ in range(50)]


def test_values_come_in_order() -> None:
    draw = Lengths("values", (1, 2, 3)).draw(Random())
    assert [draw() for _ in range(5)] == [1, 2, 3, 1, 2]


@pytest.mark.parametrize(
    ("tables", "text"),
    [
        ({"job": []}, "x.toml: no job"),
        ({"gpus": {}}, "x.toml: unknown key 'gpus'; did you mean 'gpu'?"),
        ({"gpu": {"memroy": "1G"}}, "x.toml: gpu: unknown key 'memroy'; did you mean 'memory'?"),
        ({"gpu": {"memory": "much"}}, "x.toml: gpu.memory: size 'much' is not a number with a unit"),
        ({"time": {"quantum": "0"}}, "x.toml: time.quantum: must be more than 0"),
        ({"duration": "soon"}, "x.toml: duration: duration 'soon' is not a number with a unit"),
        ({"warmup": "60s"}, "x.toml: the warmup is not shorter than the duration"),
        ({"job": [{"name": "a"}]}, "x.toml: job a: give it either a kernel or work"),
        ({"job": [{**JOB, "work": "1s"}]}, "x.toml: job a: give it either a kernel or work"),
        ({"job": [{"name": "a", "work": "1s", "kernels": 3}]}, "x.toml: job a: work has no kernels"),
        ({"job": [JOB, JOB]}, "x.toml: two jobs are called 'a'"),
        ({"job": [{**JOB, "gpu": 1}]}, "x.toml: job a: there is no GPU 1; the host has 1"),
        ({"job": [{**JOB, "weight": 0}]}, "x.toml: job[0].weight: expected `int` >= 1"),
        ({"job": [{**JOB, "load": 0.5, "rate": 3.0}]}, "x.toml: job a: load, rate exclude each other"),
        ({"job": [{**JOB, "load": 0.5, "think": "1s"}]}, "x.toml: job a: load, think exclude each other"),
        ({"job": [{**JOB, "kernel": {"normal": "1ms"}}]}, "x.toml: job a: kernel: not a length; write for example"),
        ({"job": [{**JOB, "kernel": {"uniform": ["1ms"]}}]}, "x.toml: job a: kernel: uniform needs two lengths"),
        ({"job": [{**JOB, "kernel": {"exponential": "1ms", "sigma": 1}}]}, "x.toml: job a: kernel: exponential has no"),
        ({"job": [{**JOB, "kernel": "0"}]}, "x.toml: job a: a kernel of no length"),
        ({"job": [{**JOB, "start": "2s", "stop": "1s"}]}, "x.toml: job a: it stops before it starts"),
        ({"job": [{**JOB, "tier": "gold"}]}, "x.toml: job a: there is no tier 'gold'; known: premium, standard"),
        ({"job": [{**JOB, "deadline": "0"}]}, "x.toml: job a: deadline: must be more than 0"),
        ({"job": [{**JOB, "count": 1000}]}, "x.toml: 1000 jobs are more than 256"),
    ],
)
def test_mistakes_are_named(tables: dict[str, Any], text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        made(**tables)
    assert str(caught.value).startswith(text)


def test_all_that_come_with_gpuvirt_can_be_read() -> None:
    files = [file for file in resources.files("gpuvirt.simulation.scenarios").iterdir() if file.name.endswith(".toml")]
    assert len(files) >= 4
    for file in files:
        scenario = read(tomllib.loads(file.read_text()), file.name)
        assert scenario.title and scenario.duration >= 20 * SECOND
