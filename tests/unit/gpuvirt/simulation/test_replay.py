# SPDX-License-Identifier: Apache-2.0
"""Tapes: what was recorded leads to the same decisions, and whatever is not the same is found."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from gpuvirt.arbitration import events
from gpuvirt.arbitration.facts import Client, Gpu, Move
from gpuvirt.arbitration.lease import decide
from gpuvirt.arbitration.tape import Tape
from gpuvirt.simulation.host import Host
from gpuvirt.simulation.replay import BrokenTape, play
from gpuvirt.simulation.scenario import read

TRAIN = {"kernels": 100, "kernel": {"lognormal": "200us"}}
JOBS = [
    {"name": "one", "memory": "50G", "work": "300ms", "stop": "80s"},
    {"name": "two", "memory": "50G", "work": "300ms", "soft_memory": "10G", "dirty": 0.3},
    {"name": "three", "memory": "20G", "load": 0.1, "start": "20s", **TRAIN},
]
GIB = 1 << 30


@pytest.fixture(scope="module")
def tape() -> list[bytes]:
    """Three jobs that come, swap and go."""
    host = Host(read({"duration": "120s", "gpu": {"link": "100G"}, "job": JOBS}, "test"))
    lines: list[bytes] = []
    gpu = host.arbiters[0].gpu
    gpu.tape = Tape(gpu, lines.append)
    host.run()
    return lines


def first(tape: list[bytes], holds: Callable[[dict[str, Any]], object]) -> int:
    return next(index for index, line in enumerate(tape) if holds(json.loads(line)))


def test_the_same_again(tape: list[bytes]) -> None:
    result = play(tape)
    assert result.difference is None and not result.cut
    assert (result.gpu, result.grants > 20, result.events > 500) == ("gpu0", True, True)
    told = {json.loads(line).get("told") for line in tape}
    assert told >= {"attach", "want", "drained", "moved", "progress", "idle", "gone", "ended"}


@pytest.mark.parametrize(
    ("holds", "change"),
    [
        (lambda line: any(act[0] == "Store" for act in line.get("did", [])), lambda line: line["did"].pop()),
        (lambda line: line.get("wake"), lambda line: line.update(wake=line["wake"] + 1)),
        (lambda line: "did" in line, lambda line: line.update(facts=line["facts"] ^ 1)),
        (lambda line: line.get("told") == "want", lambda line: line["with"].__setitem__(1, 7)),
        (lambda line: "tape" in line, lambda line: line["facts"]["rules"].update(quantum=1_000_000)),
    ],
)
def test_what_differs_is_found(tape: list[bytes], holds: Any, change: Any) -> None:
    index = first(tape, holds)
    content = json.loads(tape[index])
    change(content)
    changed = [*tape[:index], json.dumps(content).encode() + b"\n", *tape[index + 1 :]]
    difference = play(changed).difference
    assert difference is not None and difference.line > index
    assert difference.recorded != difference.decided
    assert str(difference).startswith(f"line {difference.line}: recorded ")


def test_another_policy_is_another_tape(tape: list[bytes]) -> None:
    """A decision that the code makes otherwise (here: another rule from the start) does not go unnoticed."""
    content = json.loads(tape[0])
    content["facts"]["rules"]["swap_share"] = 0.5
    difference = play([json.dumps(content).encode() + b"\n", *tape[1:]]).difference
    assert difference is not None


def test_facts_that_are_changed_by_hand_are_on_the_tape() -> None:
    lines: list[bytes] = []
    gpu = Gpu("gpu", 10 * GIB)
    gpu.tape = Tape(gpu, lines.append)
    for number, key in enumerate("ab", 1):
        events.attach(gpu, key, 1, client=Client(number)).soft = number * GIB
        events.want(gpu, number, 8 * GIB, 0, now=number)
        gpu.host_room = 100 * GIB + number
        gpu.contenders[key].clients[number].fixed_kinds = ("pinned", "exported")
        decide(gpu, number)
    gpu.capacity = 12 * GIB
    events.room_changed(gpu)
    decide(gpu, 5)
    del gpu.contenders["b"].clients[2]
    decide(gpu, 6)
    changes = [json.loads(line) for line in lines if b'"set"' in line]
    paths = {".".join(path) for change in changes for path, _ in change["set"]}
    assert {"host_room", "capacity", "contenders.a.soft", "contenders.a.clients.1.fixed_kinds"} <= paths
    assert [path for change in changes for path in change["gone"]] == [["contenders", "b", "clients", "2"]]
    assert play(lines).difference is None


def test_answers_that_nobody_asked_for() -> None:
    lines: list[bytes] = []
    gpu = Gpu("gpu", 10 * GIB)
    gpu.tape = Tape(gpu, lines.append)
    events.attach(gpu, "a", 1, Client(1))
    with pytest.raises(events.UnexpectedAnswer):
        events.moved(gpu, 1, Move.EVICT, 0, GIB, 0, GIB, 0, 1, 1)
    decide(gpu, 1)
    result = play(lines)
    assert (result.difference, result.events) == (None, 2)


def test_a_tape_of_somebody_who_died(tape: list[bytes]) -> None:
    result = play([*tape[:100], tape[100][:-5]])
    assert result.cut and result.difference is None


@pytest.mark.parametrize(
    "lines",
    [
        [],
        [b"hello\n"],
        [b"{}\n"],
        [b"[1]\n"],
        [b'{"tape": 99, "facts": {}}\n'],
        [b'{"tape": 1, "facts": {"name": 3}}\n'],
        [b'{"tape": 1, "facts": {"name": "g", "capacity": 5}}\n', b'{"told": "explode", "with": [], "named": {}}\n'],
        [b'{"tape": 1, "facts": {"name": "g", "capacity": 5}}\n', b'{"told": "want", "with": [1], "named": {}}\n'],
        [b'{"tape": 1, "facts": {"name": "g", "capacity": 5}}\n', b'{"set": [[["a", "b"], 1]], "gone": []}\n'],
        [b'{"tape": 1, "facts": {"name": "g", "capacity": 5}}\n', b'{"what": 1}\n'],
    ],
)
def test_what_is_no_tape(lines: list[bytes]) -> None:
    with pytest.raises(BrokenTape):
        play(lines)
