# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt soft-gpu fault`: the board's own words; what programs see of faults is in tests/integration."""

from __future__ import annotations

import ctypes
import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gpuvirt.cli.softgpu_fault import ROOM, FaultBoard
from gpuvirt.errors import GpuvirtError, UsageError


class Library:
    """Stands for the soft NVML library: answers as it does, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[tuple[object, ...]] = []

    def gv_softgpu_fault_add(self, rule: bytes, message: ctypes.Array[ctypes.c_char], room: ctypes.c_size_t) -> int:
        assert room.value == len(message)
        message.value = b"" if rule == b"cuInit:1:hang" else b"no such rule"
        return 7 if rule == b"cuInit:1:hang" else 0

    def gv_softgpu_fault_clear(self, number: ctypes.c_uint32) -> int:
        return 3 if number.value == 0 else 1

    def gv_softgpu_fault_list(self, text: ctypes.Array[ctypes.c_char], room: ctypes.c_size_t) -> int:
        assert room.value == ROOM
        text.value = b"7\tcuInit:1:hang\t2\t1\n9\tcopy.*:*:rate=10\t0\t0\n"
        return 2

    def gv_softgpu_fault_device(self, *arguments: object) -> int:
        device, what, first, second, message, _ = arguments
        assert isinstance(message, ctypes.Array)
        message.value = b"there is no device 5"
        self.asked.append((device.value, what, first.value, second.value))  # type: ignore[attr-defined]
        return int(device.value == 0)  # type: ignore[attr-defined]

    def gv_softgpu_events(self, text: ctypes.Array[ctypes.c_char], room: ctypes.c_size_t) -> int:
        text.value = b"1\t123456\t0\t8\t79\t0\n"
        return 1


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FaultBoard:
    (tmp_path / "board").touch()
    monkeypatch.setattr(ctypes, "CDLL", lambda path: Library())
    monkeypatch.setenv("GPUVIRT_SOFTGPU_BOARD", "of the caller")
    return FaultBoard(tmp_path / "board", Path("libnvidia-ml.so.1"))


def test_rules(faults: FaultBoard) -> None:
    assert faults.add("cuInit:1:hang") == 7
    with pytest.raises(UsageError, match="no such rule"):
        faults.add("x")
    assert (faults.clear(), faults.clear(7)) == (3, 1)
    assert faults.rules() == [
        {"id": 7, "rule": "cuInit:1:hang", "calls": 2, "acted": 1},
        {"id": 9, "rule": "copy.*:*:rate=10", "calls": 0, "acted": 0},
    ]


def test_devices_and_events(faults: FaultBoard) -> None:
    faults.device(0, "stranger", 42, 1 << 40)
    with pytest.raises(UsageError, match="no device 5"):
        faults.device(5, "lose")
    assert faults.events() == [{"number": 1, "time_ns": 123456, "device": 0, "type": 8, "data": 79, "pid": 0}]


def test_without_a_board(tmp_path: Path) -> None:
    with pytest.raises(GpuvirtError, match="there is no soft GPU yet"):
        FaultBoard(tmp_path / "none", Path("libnvidia-ml.so.1"))


Cli = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def board(gpuvirt: Cli, runtime: Path) -> Path:
    """A soft GPU of two devices."""
    path = runtime / "board"
    done = gpuvirt("soft-gpu", "create", "--memory", "64M", "--devices", "2", "--board", str(path))
    assert done.returncode == 0, done.stderr
    return path


def fault(gpuvirt: Cli, board: Path, *words: str) -> str:
    """What a command that succeeds prints."""
    done = gpuvirt("soft-gpu", "fault", *words, "--board", str(board))
    assert done.returncode == 0, done.stderr
    return done.stdout


def refused(gpuvirt: Cli, board: Path, *words: str) -> str:
    """The one line of a command that fails."""
    done = gpuvirt("soft-gpu", "fault", *words, "--board", str(board))
    assert done.returncode in (1, 2) and done.stderr.count("\n") == 1, done.stderr
    assert done.stdout == ""
    return done.stderr


def test_the_device_may_be_left_out(gpuvirt: Cli, board: Path) -> None:
    fault(gpuvirt, board, "xid", "79")
    fault(gpuvirt, board, "xid", "1", "48", "--pid", "7")
    events = json.loads(fault(gpuvirt, board, "events", "-o", "json"))
    assert [(e["device"], e["data"], e["pid"]) for e in events] == [(0, 79, 0), (1, 48, 7)]
    fault(gpuvirt, board, "withhold", "16M")
    fault(gpuvirt, board, "withhold", "1", "32M")
    fault(gpuvirt, board, "stranger", "42", "2M")
    fault(gpuvirt, board, "stranger", "1", "42", "2M")
    fault(gpuvirt, board, "lose", "1")
    fault(gpuvirt, board, "recover", "1")
    assert "missing argument 'NUMBER'" in refused(gpuvirt, board, "xid")


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        (["add", "cuInit:1:hang:pid=2147483647"], "there is no process 2147483647"),
        (["add", "cuMemAlloc:1:hang:device=2"], "there is no device 2"),
        (["add", os.fsdecode(b"\xff\xfe:1:hang")], "fault rule"),
        (["add", "ü" * 400 + ":1:hang"], "fault rule"),
        (["add", "ü" * 247 + ":1:hang"], "fault rule"),
        (["xid", "0", "99999999999999999999999"], "is not in the range"),
        (["xid", "0", "79", "--pid", "99999999999"], "is not in the range"),
        (["ecc", "--count", "99999999999999999999"], "is not in the range"),
        (["lose", "4294967296"], "is not in the range"),
        (["clear", "4294967297"], "is not in the range"),
    ],
)
def test_wrong_words_are_one_line(gpuvirt: Cli, board: Path, words: list[str], reason: str) -> None:
    assert reason in refused(gpuvirt, board, *words)
    assert json.loads(fault(gpuvirt, board, "list", "-o", "json")) == []


@pytest.mark.parametrize("words", [["list"], ["events"], ["clear"], ["add", "cuInit:1:hang"], ["lose"]])
def test_what_is_no_board_is_refused(gpuvirt: Cli, tmp_path: Path, words: list[str]) -> None:
    (tmp_path / "letter").write_text("dear reader")
    assert "is not the file of a soft GPU" in refused(gpuvirt, tmp_path / "letter", *words)
