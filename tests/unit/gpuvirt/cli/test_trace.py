# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt trace`: what the daemon tells in parts becomes one file, checked field by field."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from support.pftrace import read

Cli = Callable[..., subprocess.CompletedProcess[str]]
FIELDS = ["lane", "job", "client", "name", "begin", "end", "epoch", "bytes", "moved"]
FLOW = {"copied": 7, "zero": 3, "clean": 2, "duplicate": 1}
HEAD = {
    "fields": FIELDS,
    "now": 2_000_000_000,
    "clocks": {"realtime": 1_700_000_000_000_000_000, "boottime": 3_000_000_000},
    "gpu": {"index": 0, "uuid": "GPU-0", "name": "Soft GPU"},
    "names": {"j1": "train", "j2": "eval"},
    "pids": {"1": 4711},
    "resident": {"j1": 60, "j2": 80},
    "open": [["lease", "j2", 0, "alone", 400, 0, 2, 0, None]],
    "switches": [
        {
            "kind": "turn", "from": "j1", "to": "j2", "age_s": 1.0, "delay_s": 0.25, "drain_s": 0.1, "stayed": 5,
            "out": FLOW, "in": FLOW,
        }
    ],
    "records": [
        ["memory", "j1", 0, "", 90, 90, 0, 100, None],
        ["lease", "j1", 0, "held", 100, 200, 1, 0, None],
        ["note", "j1", 0, "does not drain yet", 250, 250, 0, 0, None],
    ],
    "next": 3,
}  # fmt: skip
REST = {
    "records": [
        ["lease", "j1", 0, "drain", 200, 300, 1, 0, None],
        ["swap", "j1", 1, "evict", 300, 390, 0, 0, [100, 60, 30, 10, 0]],
        ["memory", "j1", 0, "", 390, 390, 0, 60, None],
        ["gpu", "j2", 0, "prepares", 300, 400, 0, 0, None],
        ["lease", "j2", 0, "waits", 150, 300, 0, 0, None],
        ["lease", "j2", 0, "waits for memory", 300, 400, 0, 0, None],
    ],
    "next": None,
}


@pytest.fixture
def told(make_daemon: Any) -> Any:
    status = {"gpus": [{"index": 0}], "jobs": []}
    return make_daemon(status=status, trace=lambda request: REST if "start" in request else HEAD)


def test_the_whole_file(told: Any, gpuvirt: Cli, tmp_path: Path) -> None:
    path = tmp_path / "x.pftrace"
    done = gpuvirt("trace", "--last", "10s", "-o", str(path))
    assert (done.returncode, done.stderr) == (0, "")
    assert "10 records" in done.stdout and str(path) in done.stdout
    asked = [request for request in told.requests if request["op"] == "trace"]
    assert asked == [
        {"op": "trace", "gpu": 0, "last_ns": 10_000_000_000},
        {"op": "trace", "gpu": 0, "start": 3},
    ]
    tracks, clocks = read(path.read_bytes())
    assert {clock.clock_id: clock.timestamp for clock in clocks.clocks} == {
        1: 1_700_000_000_000_000_000, 6: 3_000_000_000, 3: 2_000_000_000,
    }  # fmt: skip
    gpu, train, evaluation = "GPU 0 (Soft GPU)", "train (j1)", "eval (j2)"
    assert set(tracks) == {
        (None, gpu), (gpu, "lease"), (gpu, "hand-over"), (gpu, "memory moved"),
        (None, train), (train, "lease"), (train, "swaps of pid 4711"), (train, "on the device"),
        (None, evaluation), (evaluation, "lease"), (evaluation, "on the device"),
    }  # fmt: skip
    lease = tracks[gpu, "lease"].slices
    assert [(one.name, one.begin, one.end) for one in lease] == [
        ("train (j1)", 100, 200),
        ("train (j1): drain", 200, 300),
        ("eval (j2)", 400, None),
    ]
    assert lease[0].arguments == {"job": "j1", "lease": "held", "epoch": 1}
    assert [(one.name, one.begin, one.end) for one in tracks[gpu, "hand-over"].slices] == [
        ("prepares eval (j2)", 300, 400)
    ]
    [moved] = tracks[gpu, "memory moved"].slices
    assert (moved.name, moved.begin, moved.end) == ("train (j1) to eval (j2)", 750_000_000, 1_000_000_000)
    assert moved.arguments["drain_ms"] == 100.0 and moved.arguments["stayed_bytes"] == 5
    for way in ("out", "in"):
        assert {kind: moved.arguments[f"{way}_{kind}_bytes"] for kind in FLOW} == FLOW
    held, drained = tracks[train, "lease"].slices
    assert (held.name, drained.name) == ("held", "drain")
    assert tracks[train, "lease"].instants == [(250, "does not drain yet")]
    waits = tracks[evaluation, "lease"].slices
    assert [(one.name, one.begin, one.end) for one in waits] == [
        ("waits", 150, 300), ("waits for memory", 300, 400), ("alone", 400, None),
    ]  # fmt: skip
    assert drained.flows == waits[2].ends != [] and held.flows == []
    [swap] = tracks[train, "swaps of pid 4711"].slices
    assert (swap.name, swap.begin, swap.end) == ("evict", 300, 390)
    assert swap.arguments == {
        "resident_before_bytes": 100, "resident_after_bytes": 60, "copied_bytes": 30, "saved_bytes": 10, "status": 0,
    }  # fmt: skip
    memory = tracks[train, "on the device"]
    assert (memory.unit, memory.points) == (3, [(90, 100), (390, 60)])
    assert tracks[evaluation, "on the device"].points == [(90, 80)], "it has not changed"


def test_several_gpus(make_daemon: Any, gpuvirt: Cli, tmp_path: Path) -> None:
    heads = {index: {**HEAD, "next": None, "gpu": {**HEAD["gpu"], "index": index}} for index in (0, 1)}  # type: ignore[dict-item]
    status = {"gpus": [{"index": 0}, {"index": 1}], "jobs": []}
    make_daemon(status=status, trace=lambda request: heads[request["gpu"]])
    path = tmp_path / "x.pftrace"
    assert gpuvirt("trace", "-o", str(path)).returncode == 0
    tracks, _ = read(path.read_bytes())
    assert {name for parent, name in tracks if parent == "train (j1)"} == {
        "GPU 0 lease", "GPU 1 lease", "GPU 0 on the device", "GPU 1 on the device",
    }  # fmt: skip
    assert gpuvirt("trace", "--gpu", "1", "-o", str(path)).returncode == 0
    tracks, _ = read(path.read_bytes())
    assert {name for parent, name in tracks if parent is None} == {"GPU 1 (Soft GPU)", "train (j1)", "eval (j2)"}


def test_who_has_it_while_the_work_of_another_ends(make_daemon: Any, gpuvirt: Cli, tmp_path: Path) -> None:
    """The hand-over that does not wait: the GPU's slices overlap, and each of its tracks stays sound."""
    records = [
        ["lease", "j2", 0, "held", 100, 200, 1, 0, None],
        ["lease", "j2", 0, "drain", 200, 260, 1, 0, None],
        ["lease", "j1", 0, "held", 200, 300, 2, 0, None],
    ]
    head = {**HEAD, "records": records, "open": [], "switches": [], "resident": {}, "next": None}
    make_daemon(status={"gpus": [{"index": 0}], "jobs": []}, trace=head)
    path = tmp_path / "x.pftrace"
    assert gpuvirt("trace", "-o", str(path)).returncode == 0
    tracks, _ = read(path.read_bytes())
    gpu = "GPU 0 (Soft GPU)"
    assert [one.name for one in tracks[gpu, "lease"].slices] == ["eval (j2)", "train (j1)"]
    assert [one.name for one in tracks[gpu, "lease, beside it"].slices] == ["eval (j2): drain"]
    held, drained = tracks["eval (j2)", "lease"].slices
    [next_one] = tracks["train (j1)", "lease"].slices
    assert drained.flows == next_one.ends != [] and held.flows == held.ends == drained.ends == []


def test_to_standard_output(told: Any, runtime: Path) -> None:
    command = [sys.executable, "-m", "gpuvirt.cli.main", "trace", "-o", "-"]
    done = subprocess.run(
        command,
        env={"PATH": "/usr/bin:/bin", "GPUVIRT_RUNTIME": str(runtime)},
        capture_output=True,
        timeout=60,
        check=True,
    )
    assert read(done.stdout)[0] and done.stderr == b""


def test_mistakes_are_one_line(told: Any, gpuvirt: Cli, tmp_path: Path) -> None:
    for arguments, code, words in (
        (("--last", "yesterday"), 2, "duration 'yesterday'"),
        (("-o", str(tmp_path / "none" / "x")), 1, "cannot be written"),
    ):
        done = gpuvirt("trace", *arguments)
        assert done.returncode == code and words in done.stderr and done.stderr.count("\n") == 1


def test_nothing_has_happened(make_daemon: Any, gpuvirt: Cli, tmp_path: Path) -> None:
    empty = {**HEAD, "records": [], "open": [], "switches": [], "resident": {}, "next": None}
    make_daemon(status={"gpus": [{"index": 0}], "jobs": []}, trace=empty)
    path = tmp_path / "x.pftrace"
    done = gpuvirt("trace", "-o", str(path))
    assert (done.returncode, done.stderr) == (0, "") and "0 records" in done.stdout
    assert len(read(path.read_bytes())[0]) == 4
