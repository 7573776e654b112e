# SPDX-License-Identifier: Apache-2.0
"""Signals between terminal, `gpuvirt run` and program, with a real terminal."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

PROGRAM = """
trap 'echo caught INT' INT
trap 'echo caught HUP; exit 7' HUP
echo ready
while :; do
    if read line; then echo "got $line"; fi
    [ "$line" = end ] && exit 3
done
"""


class Terminal:
    """A pseudo terminal and the process group in its foreground."""

    def __init__(self, runtime: Path, *command: str) -> None:
        self.master, slave = os.openpty()
        settings = termios.tcgetattr(slave)
        settings[3] &= ~termios.ECHO
        termios.tcsetattr(slave, termios.TCSANOW, settings)

        def take_terminal() -> None:
            fcntl.ioctl(0, termios.TIOCSCTTY, 0)

        self.process = subprocess.Popen(
            command,
            env={**os.environ, "GPUVIRT_RUNTIME": str(runtime)},
            stdin=slave,
            stdout=slave,
            stderr=slave,
            start_new_session=True,
            preexec_fn=take_terminal,
        )
        os.close(slave)
        self.seen = ""

    def until(self, words: str) -> None:
        """Reads until `words` have appeared."""
        deadline = time.monotonic() + 20
        while words not in self.seen:
            ready, _, _ = select.select([self.master], [], [], max(0.0, deadline - time.monotonic()))
            assert ready, f"no '{words}' in {self.seen!r}"
            self.seen += os.read(self.master, 4096).decode()

    def type(self, text: str) -> None:
        os.write(self.master, text.encode())

    def close(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(20)
        os.close(self.master)


@pytest.fixture
def terminal(make_daemon: Any, runtime: Path) -> Iterator[Terminal]:
    make_daemon()
    opened = Terminal(runtime, sys.executable, "-m", "gpuvirt.cli.main", "run", "--", "sh", "-c", PROGRAM)
    yield opened
    opened.close()


def test_interrupt_key_reaches_the_program_once(terminal: Terminal) -> None:
    terminal.until("ready")
    terminal.type("\x03")
    terminal.until("caught INT")
    terminal.type("one\n")
    terminal.until("got one")
    terminal.type("end\n")
    assert terminal.process.wait(20) == 3
    assert terminal.seen.count("caught INT") == 1


def test_interrupt_by_a_process_is_passed_on(terminal: Terminal) -> None:
    terminal.until("ready")
    os.kill(terminal.process.pid, signal.SIGINT)
    terminal.until("caught INT")
    os.kill(terminal.process.pid, signal.SIGHUP)
    terminal.until("caught HUP")
    assert terminal.process.wait(20) == 7


def test_stop_key_stops_both(terminal: Terminal) -> None:
    """Job control of a shell: it must see that its child, which is us, has stopped."""
    terminal.until("ready")
    os.kill(terminal.process.pid, signal.SIGSTOP)
    _, status = os.waitpid(terminal.process.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    os.killpg(terminal.process.pid, signal.SIGCONT)
    terminal.type("end\n")
    assert terminal.process.wait(20) == 3


def test_hang_up_of_the_terminal_reaches_the_program(terminal: Terminal) -> None:
    """As when the connection of `ssh -t HOST gpuvirt run ...` breaks."""
    terminal.until("ready")
    os.close(terminal.master)
    terminal.master = os.open(os.devnull, os.O_RDWR)
    assert terminal.process.wait(20) == 7


def test_program_killed_before_it_runs(make_daemon: Any, runtime: Path) -> None:
    def kill(request: dict[str, Any]) -> dict[str, Any]:
        os.kill(request["pid"], signal.SIGKILL)
        return {}

    make_daemon(job_started=kill)
    environ = {**os.environ, "GPUVIRT_RUNTIME": str(runtime)}
    command = [sys.executable, "-m", "gpuvirt.cli.main", "run", "true"]
    assert subprocess.run(command, env=environ, check=False).returncode == -signal.SIGKILL


def test_killed_by_the_interrupt_key(make_daemon: Any, runtime: Path) -> None:
    daemon = make_daemon()
    opened = Terminal(runtime, sys.executable, "-m", "gpuvirt.cli.main", "run", "sh", "-c", "echo ready; exec sleep 60")
    try:
        opened.until("ready")
        opened.type("\x03")
        assert opened.process.wait(20) == -signal.SIGINT
        assert daemon.operations()[-1] == "end_job"
    finally:
        opened.close()
