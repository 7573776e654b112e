# SPDX-License-Identifier: Apache-2.0
"""Where device memory lies, and what taking and giving it costs in calls of the driver."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from support.host import BIN, MIB, Host, Program, host

CALLS = ("cuMemCreate", "cuMemRelease", "cuMemMap", "cuMemUnmap", "cuMemSetAccess")
ROUNDS = 200


@pytest.fixture
def machine() -> Iterator[Host]:
    with host(512 * MIB) as made:
        yield made


def count_calls(machine: Host) -> None:
    """From now on: rules that do nothing, since the soft GPU counts what matches them."""
    rules = [f"{name}:999999999:delay=1ms" for name in CALLS]
    subprocess.run(
        [str(BIN / "gpuvirt"), "soft-gpu", "fault", "add", "--board", str(machine.board), *rules],
        check=True, capture_output=True, env=machine.environ(),
    )  # fmt: skip


def calls(machine: Host) -> dict[str, int]:
    """Of each function so far, by all processes."""
    shown = subprocess.run(
        [str(BIN / "gpuvirt"), "soft-gpu", "fault", "list", "--board", str(machine.board), "-o", "json"],
        check=True, capture_output=True, text=True, env=machine.environ(),
    )  # fmt: skip
    return {row["rule"].split(":")[0]: row["calls"] for row in json.loads(shown.stdout)}


def addresses(program: Program) -> list[str]:
    assert program.wait(60) == 0, program.text
    assert "same done" in program.text
    return [line for line in program.lines if line.startswith("at ")]


def test_same_calls_same_addresses(machine: Host) -> None:
    """In two processes of a job, and in another job: pages that hold pointers are equal in all replicas."""
    pair = machine.job("addresses.py", "same", "2", name="pair")
    other = machine.job("addresses.py", "same", "1", name="other")
    both, one = addresses(pair), addresses(other)
    assert len(one) == 150
    assert sorted(both) == sorted(one * 2)


def test_regions(machine: Host) -> None:
    """Small, middle and large requests lie apart; a large one in coarse extents if the limit allows them."""
    program = machine.job("addresses.py", "sizes", name="sizes", options=("--memory", "312M"))
    assert program.wait(60) == 0, program.text
    at = {key: int(value, 16) for key, value in (line.split() for line in program.lines if line.count(" ") == 1)}
    assert at["small"] < at["middle"] < at["large"]
    assert at["large"] - at["middle"] >= 512 * MIB
    assert at["fits"] < at["large"], "what only fits in fine extents lies among them"
    assert at["charged_large"] == 128 * MIB


@pytest.mark.parametrize("mode", ["unused", "used", "two"])
def test_allocation_loop_without_driver_calls(machine: Host, mode: str) -> None:
    """A program that takes and frees the same size again and again calls no memory management of the driver."""
    count_calls(machine)
    program = machine.job("addresses.py", "loop", str(ROUNDS), mode)
    program.wait_for("loop begins")
    before = calls(machine)
    program.wait_for("loop done")
    after = calls(machine)
    assert sum(after.values()) - sum(before.values()) < ROUNDS // 4, (before, after)
    assert program.wait(30) == 0, program.text


def test_freed_memory_goes_back_under_pressure(machine: Host) -> None:
    """What a job has freed is taken from it without a copy when another one needs the room."""
    keeper = machine.job("addresses.py", "idle", "400", name="keeper")
    keeper.wait_for("idle freed")
    taker = machine.job("addresses.py", "idle", "400", name="taker")
    taker.wait_for("idle freed")
    now = machine.job_named("keeper")
    assert now["resident"] <= 112 * MIB and now["charged"] == 0, now
    assert now["out_bytes"] == 0, "free memory is not copied"
    keeper.stop()
    taker.stop()
