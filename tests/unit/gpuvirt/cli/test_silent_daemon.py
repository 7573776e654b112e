# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt run` with a daemon that hangs: the program starts and ends all the same."""

from __future__ import annotations

import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

Cli = Callable[..., subprocess.CompletedProcess[str]]
BOUND = 12.0  # seconds; a call to a daemon that hangs would take 30


@pytest.fixture
def hang() -> Iterator[Callable[[Any], Any]]:
    """An answer that does not come."""
    over = threading.Event()

    def answer(request: Any) -> None:
        over.wait(60)

    yield answer
    over.set()


@pytest.mark.parametrize("operation", ["job_started", "end_job", "status"])
def test_a_daemon_that_hangs_holds_the_program_up_for_a_moment_only(
    make_daemon: Any, gpuvirt: Cli, hang: Any, operation: str
) -> None:
    make_daemon(**{operation: hang})
    began = time.monotonic()
    done = gpuvirt("run", "--", "sh", "-c", "echo ran")
    assert (done.returncode, done.stdout) == (0, "ran\n"), done.stderr
    assert time.monotonic() - began < BOUND


def test_no_connection_is_kept_while_the_program_runs(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon()
    count = "import os,sys; ps=os.getppid(); print(sum('socket' in os.readlink(f'/proc/{ps}/fd/{f}') for f in os.listdir(f'/proc/{ps}/fd')))"  # noqa: E501
    done = gpuvirt("run", "--", "python3", "-c", "import time; time.sleep(0.3); " + count)
    assert done.stdout == "0\n", done.stderr
