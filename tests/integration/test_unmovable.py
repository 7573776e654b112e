# SPDX-License-Identifier: Apache-2.0
"""Memory that does not move, beside jobs that are swapped all the time: all words right, and why it stays is shown."""

from __future__ import annotations

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from support.host import BIN, MIB, Host, Program, host
from support.swapping import LIMIT, Rig

SETTINGS = '[time]\nquantum = "5ms"\nswap_share = 1.0'


@pytest.fixture
def rig() -> Iterator[Rig]:
    """Two jobs of 40 MiB take turns on 80 MiB, of which others have a part for good."""
    with host(80 * MIB, settings=SETTINGS) as machine:
        made = Rig(machine)
        for name in ("one", "two"):
            made.start(name, 40).program.wait_for("step 1", LIMIT)
        yield made
        made.close()


def described(machine: Host, name: str, *options: str) -> str:
    done = subprocess.run(
        [str(BIN / "gpuvirt"), "describe", name, *options],
        env=machine.environ(), capture_output=True, text=True, timeout=30, check=True,
    )  # fmt: skip
    return done.stdout


def fixed(machine: Host, name: str) -> dict[str, tuple[int, str]]:
    """Bytes and reason by kind."""
    answer: dict[str, Any] = json.loads(described(machine, name, "-o", "json"))
    return {row["kind"]: (row["bytes"], row["reason"]) for row in answer["fixed"]}


def swaps(rig: Rig) -> None:
    """The two go on, and not because there is room for both."""

    def left() -> int:
        """Bytes of both that have left the device, copied or not."""
        return sum(sum(rig.machine.job_named(job.name)["moved"]["out"].values()) for job in rig.jobs)

    before = left()
    for job in rig.jobs:
        job.advances(3)
    assert left() > before, rig.machine.report()


def ends(rig: Rig, program: Program) -> None:
    assert program.wait(LIMIT) == 0, program.text
    assert "result: OK" in program.text
    for job in rig.jobs:
        job.finish()
    rig.nothing_is_left()


def test_all_kinds_in_one_program(rig: Rig) -> None:
    machine = rig.machine
    program = machine.job("unmovable.py", name="kinds")
    program.wait_for("step 3", 2 * LIMIT)
    swaps(rig)
    found = machine.until(
        lambda: (
            kinds if {"arrays", "managed", "exported", "graphs"} <= (kinds := fixed(machine, "kinds")).keys() else None
        ),
        "all kinds to be known",
    )
    assert all(size >= 4 * MIB for size, _ in found.values()), found
    # Memory of graphs is there while they run, so the picture of another moment may lack it.
    reasons = [reason for _, reason in found.values()]
    machine.until(lambda: all(reason in described(machine, "kinds") for reason in reasons), f"each of {reasons}")
    picture = json.loads(described(machine, "kinds", "-o", "json"))
    assert picture["pinned"] == 4 * MIB
    # What can move does, and the rest is where it was, whatever the others need.
    assert picture["out_bytes"] > 0
    (process,) = picture["processes"]  # one copy of its page; memory of graphs comes and goes from one to the next
    assert process["resident"] >= process["fixed"] >= 12 * MIB
    (pid,) = machine.job_named("kinds")["pids"]
    os.kill(pid, signal.SIGTERM)
    ends(rig, program)


@pytest.mark.parametrize(
    ("script", "arguments", "kind"),
    [
        ("shared.py", ("--memory", "4", "--own", "4", "--seconds", "3"), "exported"),
        ("exported.py", ("--memory", "8", "--rounds", "12", "--pause", "0.1"), "exported"),
    ],
)
def test_memory_of_two_processes(rig: Rig, script: str, arguments: tuple[str, ...], kind: str) -> None:
    program = rig.machine.job(script, *arguments, name="two-processes")
    program.wait_for("round 1", 2 * LIMIT)

    def found() -> tuple[int, str]:
        return fixed(rig.machine, "two-processes").get(kind, (0, ""))

    rig.machine.until(lambda: found()[0] >= 4 * MIB and "another process" in found()[1], f"{kind} memory", LIMIT)
    swaps(rig)
    ends(rig, program)
