# SPDX-License-Identifier: Apache-2.0
"""QUERY: what a job has on a GPU, asked by any of its processes, which is no client by asking."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest
from fake_shim import MIB, until

from gpuvirt.control import messages
from gpuvirt.errors import ProtocolError
from gpuvirtd.namespaces import numbers, pid_seen_by


def ask(daemon, token, uuid=None):
    """The answer to one QUERY of this process."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(5)
        connection.connect(daemon.socket)
        connection.send(messages.encode(messages.Query(uuid or daemon.uuid(), token)))
        return messages.decode(connection.recv(messages.LARGEST))


def test_before_anybody_attached(daemon, shims):
    job = daemon.create(shims(), memory=64 * MIB)
    usage = ask(daemon, job["token"])
    assert (usage.quota, usage.charged, usage.processes) == (64 * MIB, 0, ())
    assert daemon.gpu()["queue"] == [] and daemon.job(job["job"])["attached"] is False


def test_the_job_sees_itself_and_nobody_else(daemon, shims, attach):
    one, two = shims(), shims()
    job = daemon.create(one, memory=100 * MIB)
    one.hello(daemon.socket, job["token"], daemon.uuid())
    two.hello(daemon.socket, job["token"], daemon.uuid())
    other, _ = attach("other")
    other.want(50 * MIB)
    one.write_page(charged_bytes=8 * MIB)  # without a message: it has not used its memory yet
    two.write_page(charged_bytes=24 * MIB)
    usage = until(lambda: (u := ask(daemon, job["token"])).charged == 32 * MIB and u, what="the charges")
    assert usage.quota == 100 * MIB
    assert [(entry.pid, entry.host_pid, entry.charged_bytes) for entry in usage.processes] == [
        (two.pid, two.pid, 24 * MIB),
        (one.pid, one.pid, 8 * MIB),
    ]
    assert len(daemon.job(job["job"])["pids"]) == 2, "who asks is no client"


def test_busy_time_is_recent(daemon, attach):
    shim, _ = attach()
    token = shim.options_of()[1]
    shim.want(MIB)
    until(lambda: shim.view()["word"] in ("OPEN", "GRANTED"), what="the lease")

    def busy():
        [entry] = ask(daemon, token).processes
        return entry if entry.busy_ns > 0 else None

    entry = until(busy, what="busy time")
    assert 0 < entry.recent_ns <= entry.window_ns and entry.attached_ns > 0
    shim.finish()
    until(lambda: (e := busy()) and e.recent_ns == 0 and e.busy_ns > 0, 8, "an idle window")


def test_refusals(daemon, shims):
    job = daemon.create(shims())
    assert "not known" in ask(daemon, "0" * 32).reason
    assert "not served" in ask(daemon, job["token"], b"\7" * 16).reason


def test_one_connection_may_ask_again(daemon, shims):
    job = daemon.create(shims())
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
        connection.settimeout(5)
        connection.connect(daemon.socket)
        for _ in range(3):
            connection.send(messages.encode(messages.Query(daemon.uuid(), job["token"])))
            assert isinstance(messages.decode(connection.recv(messages.LARGEST)), messages.Usage)
        connection.send(messages.encode(messages.Want(1, 1)))
        assert connection.recv(100) == b"", "WANT is for clients"
    assert not daemon.status()["daemon"]["counters"].get("refused")
    assert "disconnected" not in daemon.log.read_text(), "a monitor that polls does not fill the log"


def test_after_a_restart_nothing_is_said_until_the_job_is_back(new_daemon, shims):
    """Else a monitor would show a job without memory for a moment."""
    daemon = new_daemon().start()
    shim = shims()
    job = daemon.create(shim)
    shim.hello(daemon.socket, job["token"], daemon.uuid())
    shim.write_page(charged_bytes=8 * MIB)
    assert ask(daemon, job["token"]).charged == 8 * MIB
    daemon.stop(kill=True)
    daemon.start()
    with pytest.raises(ProtocolError, match="shorter than a header"):
        ask(daemon, job["token"])  # it hangs up: the last known answer counts
    until(lambda: shim.view()["closed"], what="the loss of the connection")
    assert shim.hello(*shim.options_of(), reattach=1) == "welcome"
    assert ask(daemon, job["token"]).processes[0].pid == shim.pid


@pytest.fixture
def contained():
    """A shell in a pid namespace of its own, with a child in the same one: (shell, child)."""
    if shutil.which("unshare") is None:
        pytest.skip("no unshare")
    shell = subprocess.Popen(["unshare", "--pid", "--fork", "sh", "-c", "sleep 60 & echo ready; wait"],
                             stdout=subprocess.PIPE)  # fmt: skip
    assert shell.stdout is not None
    if shell.stdout.readline() != b"ready\n":
        shell.wait()
        pytest.skip("this user may not make pid namespaces")
    inner = int(children(shell.pid)[0])
    yield inner, int(children(inner)[0])
    subprocess.run(["kill", "-KILL", str(inner)], check=True)
    shell.wait()
    shell.stdout.close()


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def test_pids_as_the_observer_sees_them(contained):
    shell, child = contained
    me = os.getpid()
    assert pid_seen_by(me, me) == me
    assert pid_seen_by(child, me) == child, "from outside: our own number"
    assert pid_seen_by(child, shell) == numbers(child)[-1] != child, "from inside: its number there"
    assert pid_seen_by(shell, child) == 1
    assert pid_seen_by(me, shell) is None, "outside is not to be seen from inside"
    gone = subprocess.Popen(["true"])
    gone.wait()
    assert pid_seen_by(gone.pid, me) is None


def test_siblings_do_not_see_each_other(contained):
    other = subprocess.Popen(["unshare", "--pid", "--fork", "sh", "-c", "echo ready; sleep 60"], stdout=subprocess.PIPE)
    assert other.stdout is not None and other.stdout.readline() == b"ready\n"
    stranger = int(children(other.pid)[0])
    assert pid_seen_by(stranger, contained[0]) is None
    subprocess.run(["kill", "-KILL", str(stranger)], check=True)
    other.wait()
    other.stdout.close()
