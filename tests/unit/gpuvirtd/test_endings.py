# SPDX-License-Identifier: Apache-2.0
"""How a job has ended, in the log: told by its starter, who sees it later than the daemon sees the death."""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
from fake_shim import until

from gpuvirtd.endings import PATIENCE_S, Endings
from gpuvirtd.jobs import end_reason

SLEEPER = [sys.executable, "-c", "import sys; sys.stdin.read()"]


@pytest.fixture
def job(new_daemon):
    """A daemon, a job of this process, and the process that is its root."""
    daemon = new_daemon().start()
    name = daemon.admin.call("create_job", name="told", command=["x"], pid=os.getpid())["job"]
    root = subprocess.Popen(SLEEPER, stdin=subprocess.PIPE)
    daemon.admin.call("job_started", job=name, pid=root.pid)
    yield daemon, name, root
    root.kill()
    root.wait()


def line(daemon):
    lines = [line for line in daemon.log.read_text().splitlines() if "job_ended" in line]
    assert len(lines) <= 1, lines
    return lines[0] if lines else ""


def ends(daemon, name, root):
    root.kill()
    root.wait()
    until(lambda: daemon.job(name)["state"] == "ended", what="its end")


@pytest.mark.parametrize(("code", "reason"), [(0, ""), (3, "exit code 3"), (-9, "ended by signal 9")])
def test_the_code_comes_after_the_death(job, code, reason):
    daemon, name, root = job
    ends(daemon, name, root)
    daemon.admin.call("end_job", job=name, exit=code)
    until(lambda: line(daemon), what="the line")
    assert f"exit={code}" in line(daemon) and reason in line(daemon)
    row = daemon.job(name)
    assert (row["exit"], row["reason"]) == (code, reason)


def test_the_code_comes_before_the_death(job):
    daemon, name, root = job
    daemon.admin.call("end_job", job=name, exit=5)
    assert line(daemon) == ""
    ends(daemon, name, root)
    until(lambda: "exit=5" in line(daemon), what="the line")


def test_nobody_says_how():
    """After its time the line is written without a code, and a code that comes then writes no other."""
    host = SimpleNamespace(loop=Mock(), log=Mock(), jobs=Mock())
    endings = Endings(host)
    job = SimpleNamespace(id="j1", name="told", uid=1000, exit=None, verdict="")
    endings.ended(job)
    host.log.info.assert_not_called()
    (delay, give_up, name), _ = host.loop.call_later.call_args
    assert delay == PATIENCE_S
    give_up(name)
    endings.told("j1", 1000, 3)
    host.log.info.assert_called_once_with("job_ended", job="j1", name="told", reason="its starter has not said how")


def test_only_its_owner_says_how():
    host = SimpleNamespace(loop=Mock(), log=Mock(), jobs=Mock())
    endings = Endings(host)
    endings.ended(SimpleNamespace(id="j1", name="told", uid=1000, exit=None, verdict=""))
    endings.told("j1", 1001, 3)
    host.log.info.assert_not_called()
    endings.told("j1", 1000, 0)
    host.log.info.assert_called_once_with("job_ended", job="j1", name="told", exit=0)


def test_a_daemon_that_ends_says_what_it_knows(job):
    daemon, name, root = job
    ends(daemon, name, root)
    daemon.stop()
    assert "its starter has not said how" in line(daemon)


def test_why_it_was_killed_unless_it_has_ended_well():
    assert end_reason("killed by gpuvirtd: late", -9) == "killed by gpuvirtd: late"
    assert end_reason("killed by gpuvirtd: late", None) == "killed by gpuvirtd: late"
    assert end_reason("killed by gpuvirtd: late", 0) == ""
    assert end_reason("", 3) == "exit code 3"
