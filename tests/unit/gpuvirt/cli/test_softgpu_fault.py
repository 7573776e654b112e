# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt soft-gpu fault`: the board's own words; what programs see of faults is in tests/integration."""

from __future__ import annotations

import ctypes
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
