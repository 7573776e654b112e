# SPDX-License-Identifier: Apache-2.0
"""The daemon is killed and started again; jobs go on. Start, stop, and what may not be started."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from itertools import pairwise

from fake_shim import MIB, until


def attach(daemon, shims, name, size):
    shim = shims()
    job = daemon.create(shim, name)
    assert shim.hello(daemon.socket, job["token"], daemon.uuid()) == "welcome"
    shim.want(size)
    return shim, job["job"]


def come_back(shim):
    until(lambda: shim.view()["closed"], what="the loss of the connection")
    assert shim.hello(*shim.options_of(), reattach=1) == "welcome"


def test_killed_daemon_finds_its_jobs_again(new_daemon, shims):
    daemon = new_daemon().start()
    first, a = attach(daemon, shims, "a", 360 * MIB)
    second, b = attach(daemon, shims, "b", 360 * MIB)
    until(lambda: len(first.view()["intervals"]) >= 2, what="turns")
    daemon.stop(kill=True)
    daemon.start()
    status = daemon.status()
    assert status["daemon"]["generation"] == 2
    assert status["daemon"]["state"] == "recovering"
    assert {job["job"]: job["state"] for job in status["jobs"]} == {a: "recovering", b: "recovering"}
    come_back(first)
    time.sleep(0.1)
    assert first.view()["word"] == "CLOSED"  # the other may still run under its old page
    come_back(second)
    turns = [len(shim.view()["intervals"]) for shim in (first, second)]
    until(
        lambda: all(len(s.view()["intervals"]) > t + 1 for s, t in zip((first, second), turns, strict=True)),
        10,
        "turns",
    )
    views = [shim.view() for shim in (first, second)]
    ordered = sorted((pair for view in views for pair in view["intervals"] if len(pair) == 2), key=lambda pair: pair[0])
    assert all(x[1] <= y[0] for x, y in pairwise(ordered))
    gpu = daemon.gpu()
    assert gpu["promised"] <= gpu["capacity"]
    assert views[0]["welcome"][0] == 2
    for shim in (first, second):
        shim.kill()
    until(
        lambda: daemon.gpu()["promised"] == 0 and {j["state"] for j in daemon.status()["jobs"]} == {"ended"}, what="0"
    )


def test_death_during_the_restart_ends_the_waiting(new_daemon, shims):
    daemon = new_daemon().start()
    first, _ = attach(daemon, shims, "a", 100 * MIB)
    second, b = attach(daemon, shims, "b", 100 * MIB)
    daemon.stop(kill=True)
    first.kill()
    daemon.start()
    come_back(second)
    until(lambda: second.view()["word"] == "OPEN", what="OPEN")
    assert daemon.status()["daemon"]["state"] == "ready"
    assert [job["job"] for job in daemon.status()["jobs"] if job["state"] != "ended"] == [b]


def test_straggler_is_given_up_after_the_grace_time(new_daemon, shims):
    daemon = new_daemon(config='[time]\nrecovery_grace = "300ms"\n').start()
    late, _ = attach(daemon, shims, "late", 100 * MIB)
    second, b = attach(daemon, shims, "b", 100 * MIB)
    daemon.stop(kill=True)
    daemon.start()
    come_back(second)
    until(lambda: daemon.job(b)["reason"].find("before the restart") > 0, what="the reason")
    until(lambda: second.view()["word"] == "OPEN", what="OPEN after the grace time")
    assert "straggler" in daemon.log.read_text()
    come_back(late)
    until(lambda: late.view()["word"] in ("OPEN", "GRANTED"), what="its turn after all")


def test_corrupt_state_is_moved_aside(new_daemon, shims):
    daemon = new_daemon().start()
    attach(daemon, shims, "a", 100 * MIB)
    daemon.stop(kill=True)
    for name in ("state.db", "state.db-wal"):
        path = daemon.runtime / name
        if path.exists():
            path.write_bytes(b"not a database " * 1000)
    daemon.start()
    assert "state_rebuilt" in daemon.log.read_text()
    assert list(daemon.runtime.glob("state.db.corrupt-*"))
    assert daemon.status()["daemon"]["generation"] > 1
    assert daemon.status()["jobs"] == []


def test_stopped_daemon_leaves_jobs_alone_and_nothing_behind(new_daemon, shims):
    daemon = new_daemon().start()
    shim, _ = attach(daemon, shims, "a", 100 * MIB)
    until(lambda: shim.view()["word"] == "OPEN", what="OPEN")
    assert (daemon.runtime / "lib" / "libcuda.so.1").resolve() == daemon.shim.resolve()
    assert (daemon.runtime / "lib" / "libcuda.so").is_symlink()
    process = daemon.process
    daemon.stop()
    assert process.returncode == 0
    kept = ("state.db", "accounts.")
    assert sorted(path.name for path in daemon.runtime.iterdir() if not path.name.startswith(kept)) == []
    assert shim.view()["word"] == "OPEN"
    assert shim.process.is_alive()


def again(daemon):
    support = daemon.shim.parent
    return subprocess.run(
        [sys.executable, *daemon.process.args[1:]] if daemon.process else [],
        env={"PATH": "/usr/bin:/bin", "GPUVIRT_RUNTIME": str(daemon.runtime)},
        cwd=support,
        capture_output=True,
        text=True,
        timeout=20,
    )


def test_second_daemon_on_the_same_folder(daemon):
    done = again(daemon)
    assert done.returncode == 1
    assert done.stderr.count("\n") == 1
    assert f"another gpuvirtd (pid {daemon.process.pid})" in done.stderr
    assert daemon.status()["daemon"]["state"] == "ready"


def test_killed_daemon_leaves_sockets_that_the_next_one_replaces(new_daemon):
    daemon = new_daemon().start()
    daemon.stop(kill=True)
    assert (daemon.runtime / "client.sock").exists()
    daemon.start()
    assert daemon.status()["daemon"]["generation"] == 2


def test_sigint_is_a_clean_stop(new_daemon):
    daemon = new_daemon().start()
    process = daemon.process
    process.send_signal(signal.SIGINT)
    assert process.wait(5) == 0
    assert "Traceback" not in daemon.log.read_text()
