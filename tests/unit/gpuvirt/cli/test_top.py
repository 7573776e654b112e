# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt top` on a terminal of its own, and without one."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import pty
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]
MIB = 1 << 20
JOB = {
    "job": "j1", "name": "train", "user": "alice", "gpu": [0], "state": "running", "held_s": 10.0, "lost_s": 1.0,
    "charged": 300 * MIB, "resident": 300 * MIB, "arena": 60 * MIB, "reason": "",
}  # fmt: skip
STATUS = {"daemon": {}, "gpus": [], "jobs": [JOB]}
ENTERED, LEFT = b"\x1b[?1049h", b"\x1b[?7h\x1b[?25h\x1b[?1049l"


class Terminal:
    """The program on a terminal; what it has written is in `seen`."""

    def __init__(self, runtime: Path, *arguments: str, **environ: str) -> None:
        self.master, slave = pty.openpty()
        self.before = termios.tcgetattr(slave)
        self.resize(100, 30)
        self.seen = b""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "gpuvirt.cli.main", "top", *arguments],
            env={**os.environ, "GPUVIRT_RUNTIME": str(runtime), "TERM": "xterm", "NO_COLOR": "", **environ},
            stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        self.slave = slave

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def read_until(self, text: bytes, limit: float = 20.0) -> bytes:
        """What comes up to and with `text`."""
        deadline = time.monotonic() + limit
        start = len(self.seen)
        while text not in self.seen[start:]:
            assert time.monotonic() < deadline, self.seen
            ready, _, _ = select.select([self.master], [], [], 0.1)
            if ready:
                self.seen += os.read(self.master, 65536)
        return self.seen[start:]

    def type(self, keys: bytes) -> None:
        os.write(self.master, keys)

    def ended(self) -> int:
        """Exit code; reads what is still to come."""
        with contextlib.suppress(AssertionError):
            self.read_until(LEFT, 10)
        return self.process.wait(20)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)
        os.close(self.master)
        os.close(self.slave)


@pytest.fixture
def open_top(runtime: Path) -> Iterator[Callable[..., Terminal]]:
    made: list[Terminal] = []

    def make(*arguments: str, **environ: str) -> Terminal:
        made.append(Terminal(runtime, *arguments, **environ))
        return made[-1]

    yield make
    for terminal in made:
        terminal.close()


def clean(terminal: Terminal) -> bool:
    """Is the terminal as it was found?"""
    return terminal.seen.rstrip().endswith(LEFT) and termios.tcgetattr(terminal.slave)[3] == terminal.before[3]


@pytest.mark.parametrize("key", [b"q", b"Q", b"\x1b", b"\x03"])
def test_it_shows_and_leaves_the_terminal_as_it_was(make_daemon: Any, open_top: Any, key: bytes) -> None:
    daemon = make_daemon(status=STATUS)
    top = open_top("-i", "0.1")
    shown = top.read_until(b"train")
    assert shown.startswith(ENTERED)
    top.read_until(b"train")
    top.type(key)
    assert top.ended() == 0
    assert clean(top)
    assert len(daemon.operations()) >= 2, "it looks again and again"
    assert b"Traceback" not in top.seen


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_leaves_it_clean(make_daemon: Any, open_top: Any, number: signal.Signals, code: int) -> None:
    make_daemon(status=STATUS)
    top = open_top()
    top.read_until(b"train")
    top.process.send_signal(number)
    assert top.ended() == code
    assert clean(top)


def test_a_window_that_changes_is_drawn_anew_at_once(make_daemon: Any, open_top: Any) -> None:
    make_daemon(status={**STATUS, "jobs": [{**JOB, "reason": "because " + "x" * 100}]})
    top = open_top("-i", "3600")
    assert b"x" * 60 not in top.read_until(b"\x1b[J")
    top.resize(200, 30)
    top.process.send_signal(signal.SIGWINCH)  # as the terminal's owner does; the test's terminal has none
    assert b"x" * 100 in top.read_until(b"\x1b[J", 10)


def test_ctrl_z_gives_the_shell_its_terminal(make_daemon: Any, open_top: Any) -> None:
    make_daemon(status=STATUS)
    top = open_top("-i", "0.2")
    top.read_until(b"train")
    top.process.send_signal(signal.SIGTSTP)
    top.read_until(LEFT)
    state = Path(f"/proc/{top.process.pid}/stat")
    deadline = time.monotonic() + 10
    # In a session of its own nobody could continue it, so the kernel may not stop it: then it goes on at once.
    while state.read_text().rsplit(")", 1)[1].split()[0] != "T" and ENTERED not in top.seen.split(LEFT, 1)[1]:
        assert time.monotonic() < deadline
        with contextlib.suppress(AssertionError):
            top.read_until(ENTERED, 0.2)
    top.process.send_signal(signal.SIGCONT)
    top.read_until(b"train")
    top.type(b"q")
    assert top.ended() == 0
    assert clean(top)


def test_a_daemon_that_goes_away_is_waited_for(make_daemon: Any, open_top: Any) -> None:
    answers = iter([STATUS, STATUS, None])
    make_daemon(status=lambda request: next(answers, {**STATUS, "jobs": [{**JOB, "name": "again"}]}))
    top = open_top("-i", "0.1")
    top.read_until(b"trying again")
    assert b"train" in top.seen
    top.read_until(b"again  ")
    top.type(b"q")
    assert top.ended() == 0


def test_no_colour_when_nobody_wants_it(make_daemon: Any, open_top: Any) -> None:
    make_daemon(status=STATUS)
    coloured, plain = open_top(), open_top(NO_COLOR="1")
    assert b"\x1b[32m" in coloured.read_until(b"train") + coloured.read_until(b"\x1b[J")
    assert b"\x1b[3" not in plain.read_until(b"train") + plain.read_until(b"\x1b[J")


def test_a_terminal_that_can_nothing_gets_one_picture(make_daemon: Any, open_top: Any) -> None:
    make_daemon(status=STATUS)
    top = open_top("-i", "0.1", TERM="dumb")
    top.read_until(b"train")
    assert top.process.wait(20) == 0
    assert b"\x1b" not in top.seen


def test_once(make_daemon: Any, gpuvirt: Cli) -> None:
    daemon = make_daemon(status=STATUS)
    for arguments in (("--once",), ()):
        done = gpuvirt("top", "-i", "0.1", *arguments)
        assert (done.returncode, done.stderr) == (0, "")
        assert "train" in done.stdout and "\x1b" not in done.stdout
        assert max(map(len, done.stdout.splitlines())) <= 80
    assert len(daemon.operations()) == 4, "two looks each: shares are of the time between them"


def test_json(make_daemon: Any, gpuvirt: Cli) -> None:
    later = iter([STATUS])
    make_daemon(status=lambda request: next(later, {**STATUS, "jobs": [{**JOB, "held_s": 10.05}]}))
    answer = json.loads(gpuvirt("top", "-i", "0.1", "-o", "json").stdout)
    assert set(answer) == {"seconds", "gpus", "jobs"}
    assert answer["jobs"][0]["share"] == pytest.approx(0.05 / answer["seconds"])


def test_without_a_daemon(gpuvirt: Cli) -> None:
    done = gpuvirt("top")
    assert done.returncode == 1
    assert done.stderr.startswith("gpuvirt top: error: no gpuvirtd is running") and done.stderr.count("\n") == 1
