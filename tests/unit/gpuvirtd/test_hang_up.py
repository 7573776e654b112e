# SPDX-License-Identifier: Apache-2.0
"""A daemon that was stopped finds HELLOs of connections that their processes have given up meanwhile."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from fake_shim import MIB, until

from gpuvirt.control import messages
from gpuvirtd.host import Host
from gpuvirtd.identity import is_exiting


def hello_and_hang_up(daemon, shim, token, reattach, held=0):
    """A HELLO on a connection that is closed again before the daemon can answer."""
    os.kill(daemon.process.pid, signal.SIGSTOP)
    try:
        shim.connect(daemon.socket)
        hello = messages.Hello(
            minimum_version=1,
            claimed_pid=shim.pid,
            device=0,
            reattach=reattach,
            granularity=MIB,
            device_total=daemon.total,
            charged_bytes=held,
            resident_bytes=held,
            device_uuid=daemon.uuid(),
            token=token,
        )
        shim.raw(messages.encode(hello))
        shim.drop()
    finally:
        os.kill(daemon.process.pid, signal.SIGCONT)


@pytest.mark.parametrize("times", [1, 3])
def test_a_process_that_hung_up_before_its_welcome_comes_back(daemon, attach, times):
    shim, job = attach()
    shim.want(100 * MIB)
    until(lambda: shim.view()["word"] == "OPEN", what="OPEN")
    path, token, uuid = shim.options_of()
    shim.drop()
    for _ in range(times):
        hello_and_hang_up(daemon, shim, token, 1, 100 * MIB)
    assert shim.hello(path, token, uuid, reattach=1) == "welcome"
    until(lambda: shim.view()["word"] == "OPEN", what="OPEN again")
    gpu = daemon.gpu()
    assert (gpu["charged"], gpu["holder"]) == (100 * MIB, job)
    assert "internal_errors" not in daemon.status()["daemon"]["counters"]
    shim.kill()
    until(lambda: daemon.job(job)["state"] == "ended", what="the end")
    assert daemon.gpu()["promised"] == 0


def test_a_first_hello_that_is_given_up(daemon, shims):
    shim = shims()
    job = daemon.create(shim)
    hello_and_hang_up(daemon, shim, job["token"], 0)
    assert shim.hello(daemon.socket, job["token"], daemon.uuid()) == "welcome"
    shim.want(10 * MIB)
    until(lambda: shim.view()["word"] == "OPEN", what="OPEN")
    assert len(daemon.job(job["job"])["pids"]) == 1
    assert "internal_errors" not in daemon.status()["daemon"]["counters"]


def test_a_process_that_dies_before_its_welcome(daemon, attach, shims):
    shim, job = attach()
    hello_and_hang_up(daemon, shim, shim.options_of()[1], 1)
    os.kill(daemon.process.pid, signal.SIGSTOP)
    try:
        dying = shims()
        dying.connect(daemon.socket)
        dying.kill()
        shim.kill()
    finally:
        os.kill(daemon.process.pid, signal.SIGCONT)
    until(lambda: daemon.job(job)["state"] == "ended", what="the end")
    assert daemon.gpu()["promised"] == 0
    assert "internal_errors" not in daemon.status()["daemon"]["counters"]


def test_a_process_that_is_ending_has_not_lost_its_connection():
    """Its socket closes a moment before its pidfd speaks; nobody is to be told meanwhile that it does not answer."""
    with subprocess.Popen(["true"]) as ending:
        os.waitid(os.P_PID, ending.pid, os.WEXITED | os.WNOWAIT)
        lost: list[Any] = []
        host: Any = SimpleNamespace(log=SimpleNamespace(info=lambda *_, **__: None))
        for pid in (ending.pid, os.getpid()):
            member: Any = SimpleNamespace(
                process=SimpleNamespace(pid=pid, alive=lambda: True),
                job=SimpleNamespace(id="j1"),
                arbiter=SimpleNamespace(lost=lost.append),
                number=pid,
            )
            Host._lost(host, member, "closed by the client")
        assert [member.number for member in lost] == [os.getpid()]
        assert is_exiting(ending.pid)
    assert not is_exiting(ending.pid)


def test_descriptors_that_a_hello_has_no_use_for_are_not_kept(daemon, attach):
    shim, _ = attach()
    path, token, uuid = shim.options_of()
    kept = Path(f"/proc/{daemon.process.pid}/fd")
    before = len(list(kept.iterdir()))
    for _ in range(3):
        shim.drop()
        assert shim.hello(path, token, uuid, reattach=1, extra=20) == "welcome"
    until(lambda: len(list(kept.iterdir())) <= before + 2, what="few descriptors")
