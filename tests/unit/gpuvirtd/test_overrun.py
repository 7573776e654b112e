# SPDX-License-Identifier: Apache-2.0
"""Jobs that do not give the GPU back: stopped or killed as the configuration says, and the others go on."""

from __future__ import annotations

import os
import signal

from fake_shim import MIB, until

from gpuvirtd.identity import is_stopped

CONFIG = """[memory]
reserve = "0"
[time]
quantum = "10ms"
quantum_max = "10ms"
drain_budget = "20ms"
overrun_after = "100ms"
on_overrun = "{}"
"""


def pair(new_daemon, shims, rung):
    """Two jobs that know of each other, of which the first keeps the GPU."""
    daemon = new_daemon(config=CONFIG.format(rung)).start()
    made = []
    for name in ("bad", "good"):
        shim = shims()
        job = daemon.create(shim, name)
        shim.hello(daemon.socket, job["token"], daemon.uuid())
        shim.want(10 * MIB)
        made.append((shim, job["job"]))
    (bad, a), (good, b) = made
    # Each has had a turn, so that no room is promised that nobody uses.
    until(lambda: len(bad.view()["intervals"]) > 1 and len(good.view()["intervals"]) > 1, what="turns")
    bad.configure(drain=False)
    return daemon, (bad, a), (good, b)


def test_stopped_the_others_go_on_and_so_does_it_at_its_turn(new_daemon, shims):
    daemon, (bad, a), (good, _) = pair(new_daemon, shims, "stop")
    until(lambda: is_stopped(bad.pid), 20, "the stop")
    before = len(good.view()["intervals"])
    until(lambda: len(good.view()["intervals"]) > before or good.view()["word"] == "GRANTED", 20, "the other's turn")
    until(lambda: not is_stopped(bad.pid), 20, "it to go on")
    until(lambda: is_stopped(bad.pid), 20, "the next stop")
    told = daemon.admin.call("describe", job=a)["job"]["events"]
    assert any(event["kind"] == "time" and "overrun stopped" in event["text"] for event in told)
    good.kill()
    until(lambda: not is_stopped(bad.pid), 20, "it to go on alone")


def test_who_was_stopped_goes_on_when_the_daemon_ends_or_dies(new_daemon, shims):
    for kill in (False, True):
        daemon, (bad, _), (good, _) = pair(new_daemon, shims, "stop")
        until(lambda bad=bad: is_stopped(bad.pid), 20, "the stop")
        daemon.stop(kill=kill)
        if kill:
            os.kill(bad.pid, signal.SIGSTOP)  # whether or not it was its turn at this moment
            daemon.start()
        until(lambda bad=bad: not is_stopped(bad.pid), 20, "it to go on")
        bad.kill()
        good.kill()
        daemon.stop()


def test_killed_the_others_go_on(new_daemon, shims):
    daemon, (_bad, a), (good, _) = pair(new_daemon, shims, "kill")
    until(lambda: daemon.job(a)["state"] == "ended", 20, "its end")
    until(lambda: good.view()["word"] == "OPEN", 20, "the GPU for the other")


def test_by_default_it_keeps_what_it_has(new_daemon, shims):
    daemon, (bad, a), (good, _) = pair(new_daemon, shims, "wait")
    until(lambda: daemon.job(a)["overruns"] > 0, 20, "the overrun")
    until(lambda: good.view()["word"] == "CLOSED", what="the wait")
    assert not is_stopped(bad.pid)
    bad.configure(drain=True)
    turns = len(good.view()["intervals"])
    until(lambda: len(good.view()["intervals"]) > turns, 20, "the other's turn")
