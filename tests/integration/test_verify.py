# SPDX-License-Identifier: Apache-2.0
"""What is swapped out and not the same when it comes back is noticed, and never given to the program."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from gpuvirt.errors import GpuvirtError
from support.host import MIB, Host

PAGE = 2 * MIB


def arena_of(pid: int) -> Path:
    """The descriptor of a process that its swapped memory is behind: by far its largest file."""
    found = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found.append((entry.stat().st_size, entry))
        except OSError:
            continue
    size, path = max(found)
    assert size > 64 * MIB, found
    return path


def damage(arena: Path) -> int:
    """Turns one bit in each page of the file that is not all zeros; how many."""
    handle = os.open(arena, os.O_RDWR)
    changed = 0
    try:
        at = 16 * MIB  # behind the tables
        while True:
            try:
                at = os.lseek(handle, at, os.SEEK_DATA)
            except OSError:
                return changed
            at = at // PAGE * PAGE + PAGE // 2 + 8
            byte = os.pread(handle, 1, at)
            if byte and os.pread(handle, 64, at) != bytes(64):
                os.pwrite(handle, bytes([byte[0] ^ 16]), at)
                changed += 1
            at = (at // PAGE + 1) * PAGE
    finally:
        os.close(handle)


def test_a_bit_that_changed_in_host_memory_is_noticed() -> None:
    machine = Host(128 * MIB)
    try:
        machine.start_daemon()
        first = machine.job("pages.py", "weights", "--memory", "96", "--turns", "3", "--pause", "6", name="first")
        first.wait_for("ready")
        second = machine.job("pages.py", "dirty", "--memory", "96", "--turns", "1", name="second")
        second.wait_for("ready")
        pid = first.child_pid()
        assert machine.job_named("first")["moved"]["out"]["copied"] >= 32 * MIB
        assert damage(arena_of(pid)) > 0
        first.wait_for("came back with another content")
        machine.until(lambda: machine.job_named("first")["moved"]["verify_errors"], "the error to be counted")
        assert "turn 0" not in first.text
        with pytest.raises(AssertionError, match="verify_errors"):
            machine.sound()
    except GpuvirtError as error:
        raise AssertionError(machine.report()) from error
    finally:
        machine.close()
