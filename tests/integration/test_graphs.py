# SPDX-License-Identifier: Apache-2.0
"""Graphs and captures of every making, while the GPU is taken away and given back all the time: the same bits."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from support.host import MIB, Host, host

SCENES = ("captured", "explicit", "memory_nodes", "conditions", "into_graph", "threads", "long_captures")
MEMORY = 160  # of 256 MiB: nearly all of one job must leave for the other


@pytest.fixture
def crowded() -> Iterator[Host]:
    """Turns as short as they can be; a hand-over may take most of the time."""
    with host(settings='[time]\nquantum = "10ms"\nswap_share = 0.8') as ready:
        yield ready


def digests(text: str) -> dict[str, str]:
    assert "result: OK" in text, text
    return dict(re.findall(r"digest (\w+) (\w+)", text))


def test_graphs_are_bit_equal_under_continual_preemption(crowded: Host) -> None:
    """Two jobs that both want the GPU all the time, and do not fit on it together."""
    arguments = ("graphs.py", "--memory", str(MEMORY), "--rounds", "2")
    expected = []
    for seed in (1, 2):  # one after the other: both at once do not fit
        bare = crowded.bare(*arguments, "--seed", str(seed))
        assert bare.wait() == 0, bare.text
        expected.append(digests(bare.text))
    assert tuple(expected[0]) == SCENES
    assert expected[0] != expected[1]
    jobs = [crowded.job(*arguments, "--seed", str(seed), name=f"seed{seed}") for seed in (1, 2)]
    for job, known in zip(jobs, expected, strict=True):
        assert job.wait() == 0, crowded.report()
        assert digests(job.text) == known
    for name in ("seed1", "seed2"):
        told = crowded.job_named(name)
        assert told["switches"] >= 15, told
        assert told["out_bytes"] >= 15 * 32 * MIB, told


def test_a_graph_that_allocates_more_than_the_quota_is_out_of_memory(crowded: Host) -> None:
    program = crowded.job("graph_quota.py", options=("--memory", "64M"))
    assert program.wait() == 0, program.text
    assert "result: OK" in program.text


def test_a_refused_launch_changes_no_account(crowded: Host) -> None:
    program = crowded.job(
        "graph_quota.py",
        "--refused",
        options=("--memory", "64M"),
        GPUVIRT_SOFTGPU_FAULTS="cuGraphLaunch:2+:OUT_OF_MEMORY",
    )
    assert program.wait() == 0, program.text
    assert "result: OK" in program.text
