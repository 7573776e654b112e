# SPDX-License-Identifier: Apache-2.0
"""Children are shown, waited for and never outlive the block."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from harness.interrupts import Interrupted, Interrupts
from harness.processes import Child, Children

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); print('up', flush=True); time.sleep(60)"
PARENT = """
import subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
print("child", child.pid, flush=True)
time.sleep(60)
"""


@pytest.fixture
def interrupts(handlers: None) -> Interrupts:
    """Signals caught for the time of the test."""
    return Interrupts()


def python(code: str) -> list[str]:
    """Command line of a Python child."""
    return [sys.executable, "-c", code]


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return state != "Z"


def eventually(condition: Callable[[], bool], seconds: float = 5.0) -> bool:
    """Whether it comes true in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.01)
    return True


def test_lines_are_shown_and_kept(interrupts: Interrupts) -> None:
    shown: list[tuple[str, str]] = []
    with Children(interrupts, lambda who, line: shown.append((who, line))) as children:
        child = children.start("one", python("print('a'); import sys; print('b', file=sys.stderr)"), os.environ)
        assert children.wait(child, 10)
    assert sorted(shown) == [("one", "a"), ("one", "b")]
    assert child.exit_code == 0
    assert child.said("b")
    assert 0 < child.seconds < 10


def test_wait_until_a_line_does_not_wait_for_the_end(interrupts: Interrupts) -> None:
    with Children(interrupts) as children:
        child = children.start("one", python("import time; print('go', flush=True); time.sleep(60)"), os.environ)
        assert children.wait(child, 10, until="go")
        assert child.exit_code is None


def test_wait_until_a_line_that_never_comes(interrupts: Interrupts) -> None:
    with Children(interrupts) as children:
        child = children.start("one", python("print('no')"), os.environ)
        assert not children.wait(child, 10, until="go")


def test_grandchildren_die_too(interrupts: Interrupts) -> None:
    with Children(interrupts) as children:
        child = children.start("one", python(PARENT), os.environ)
        assert children.wait(child, 10, until="child")
        grandchild = int(child.lines[0].split()[1])
        assert alive(grandchild)
    assert not alive(child.pid)
    assert eventually(lambda: not alive(grandchild))


def test_a_child_that_ignores_sigterm_is_killed(interrupts: Interrupts, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("harness.processes.GRACE", 0.2)
    with Children(interrupts) as children:
        child = children.start("one", python(STUBBORN), os.environ)
        assert children.wait(child, 10, until="up")
    assert child.exit_code == -signal.SIGKILL


def test_interruption_stops_the_children(interrupts: Interrupts) -> None:
    kept: list[Child] = []

    def interrupted() -> None:
        with Children(interrupts) as children:
            kept.append(children.start("one", python("import time; time.sleep(60)"), os.environ))
            os.kill(os.getpid(), signal.SIGTERM)
            children.wait(kept[0], 30)

    began = time.monotonic()
    with pytest.raises(Interrupted):
        interrupted()
    assert time.monotonic() - began < 10
    assert not alive(kept[0].pid)


def test_nothing_starts_after_an_interruption(interrupts: Interrupts) -> None:
    os.kill(os.getpid(), signal.SIGINT)
    with Children(interrupts) as children, pytest.raises(Interrupted):
        children.start("one", python("pass"), os.environ)
