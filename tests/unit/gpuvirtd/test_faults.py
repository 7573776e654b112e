# SPDX-License-Identifier: Apache-2.0
"""Clients die, lie, fall silent and send rubbish; the others and the daemon go on."""

from __future__ import annotations

import os
import signal
import time

import pytest
from fake_shim import MIB, until

from gpuvirt.control import messages

LEASE_BACK_S = 0.25


def holder_and_waiter(daemon, attach, size=10 * MIB):
    first, a = attach("a")
    first.want(size)
    until(lambda: first.view()["word"] == "OPEN", what="OPEN")
    second, b = attach("b")
    return first, a, second, b


def test_killed_holder_gives_the_gpu_back_at_once(daemon, attach):
    first, a, second, b = holder_and_waiter(daemon, attach)
    first.configure(drain=False)
    second.want(10 * MIB)
    until(lambda: first.view()["word"] in ("GRANTED", "DRAIN"), what="pressure")
    killed = time.monotonic()
    first.kill()
    until(lambda: second.view()["word"] == "OPEN", what="OPEN")
    assert time.monotonic() - killed < LEASE_BACK_S
    ended = until(lambda: (j := daemon.job(a))["state"] == "ended" and j, what="the end of the job")
    assert ended["charged"] == ended["resident"] == 0
    assert daemon.gpu()["charged"] == 10 * MIB
    second.kill()
    until(lambda: daemon.job(b)["state"] == "ended", what="the end")
    gpu = daemon.gpu()
    assert (gpu["promised"], gpu["charged"], gpu["resident"], gpu["holder"]) == (0, 0, 0, None)


def test_killed_waiter_leaves_the_queue(daemon, attach):
    first, a, second, b = holder_and_waiter(daemon, attach)
    first.configure(drain=False)
    second.want(10 * MIB)
    until(lambda: daemon.gpu()["queue"] == [b], what="the queue")
    second.kill()
    until(lambda: daemon.gpu()["queue"] == [] and daemon.job(b)["state"] == "ended", what="an empty queue")
    assert daemon.gpu()["holder"] == a


def test_an_eviction_that_fails_half_way_leaves_out_what_is_out(daemon, attach):
    """Who waits for its room is told that it will not come; the half that left is not taken twice."""
    first, _, second, b = holder_and_waiter(daemon, attach, 400 * MIB)
    first.configure(evict="half")
    first.finish()  # it does not want it back
    second.want(400 * MIB)
    until(lambda: "Credit" in second.view()["received"], what="credit")
    until(lambda: daemon.job(b)["reason"], what="the reason")
    half = (400 - 112) // 2 * MIB
    assert first.view()["resident"] == 400 * MIB - half
    gpu = daemon.gpu()
    assert gpu["promised"] <= gpu["capacity"]
    assert second.view()["resident"] == 112 * MIB + half  # what came in stays
    first.configure(evict="ok")
    until(lambda: second.view()["word"] in ("OPEN", "GRANTED"), 10, "its turn, later")
    assert first.view()["out"] == 2 * half
    until(lambda: second.view()["resident"] == 400 * MIB, what="all its memory")


@pytest.mark.parametrize("victim", ["evicting", "restoring"])
def test_killed_while_memory_moves(daemon, attach, victim):
    first, a, second, b = holder_and_waiter(daemon, attach, 400 * MIB)
    (first if victim == "evicting" else second).configure(evict="silent", restore="silent")
    second.want(400 * MIB)
    expected = "Evict" if victim == "evicting" else "Restore"
    dying, living, job = (first, second, b) if victim == "evicting" else (second, first, a)
    until(lambda: expected in dying.view()["received"], what=expected)
    dying.kill()
    until(lambda: living.view()["word"] == "OPEN" and daemon.gpu()["holder"] == job, what="the other to go on")
    view = living.view()
    assert view["resident"] == 400 * MIB
    gpu = daemon.gpu()
    assert gpu["resident"] == 400 * MIB
    assert gpu["promised"] <= gpu["capacity"]


def test_stuck_holder_is_reported_and_the_others_see_why(daemon, attach):
    first, a, second, b = holder_and_waiter(daemon, attach)
    first.configure(drain=False)
    second.want(10 * MIB)
    job = until(lambda: (j := daemon.job(b))["reason"].find("does not drain") > 0 and j, 3, "the reason")
    assert job["state"] == "waiting"
    assert job["reason"].startswith(f"{a} holds GPU 0")
    assert daemon.job(a)["overruns"] == 1
    assert "drain_overdue" in daemon.log.read_text()
    first.configure(drain=True)
    until(lambda: second.view()["word"] in ("OPEN", "GRANTED"), what="the waiter's turn")
    assert daemon.job(a)["overrun_s"] > 0


def test_the_reason_names_the_process_and_goes_with_its_cause(daemon, attach):
    first, a, second, b = holder_and_waiter(daemon, attach)
    first.configure(drain=False)
    second.want(10 * MIB)
    pid = daemon.job(a)["pids"][0]
    until(lambda: f"does not drain yet: process {pid}" in daemon.job(b)["reason"], 3, "the reason, with the pid")
    first.configure(drain=True)
    until(lambda: second.view()["word"] in ("OPEN", "GRANTED"), what="the waiter's turn")
    assert "does not drain" not in daemon.job(a)["reason"] + daemon.job(b)["reason"]


def test_failed_evict_takes_another_victim(daemon, attach):
    shims = [attach(name)[0] for name in "abc"]
    for shim in shims[:2]:
        shim.want(200 * MIB, busy=False)
        until(lambda s=shim: s.view()["resident"] == 200 * MIB, what="memory")
        shim.finish()
    shims[0].configure(evict="fail")
    shims[1].configure(evict="ok")
    shims[2].want(200 * MIB)
    until(lambda: shims[2].view()["word"] == "OPEN", what="OPEN for the third")
    assert shims[0].view()["resident"] == 200 * MIB
    assert shims[1].view()["out"] > 0


def test_restore_without_room_evicts_more(daemon, attach):
    """The ledger thought that there was room; the device said no."""
    first, _, second, _ = holder_and_waiter(daemon, attach, 200 * MIB)
    second.configure(restore="oom", oom_short=50 * MIB)
    second.want(200 * MIB)
    until(lambda: second.view()["received"].count("Restore") >= 1, what="a RESTORE")
    second.configure(restore="ok")
    until(lambda: second.view()["word"] in ("OPEN", "GRANTED"), what="the second's turn")
    assert "Evict" in first.view()["received"]


def test_hopeless_restore_leaves_the_gpu_to_others(daemon, attach):
    first, _, second, b = holder_and_waiter(daemon, attach, 100 * MIB)
    second.configure(restore="oom", oom_short=50 * MIB)
    second.want(100 * MIB)
    until(lambda: second.view()["received"].count("Restore") >= 3, what="three tries")
    turns = len(first.view()["intervals"])
    until(lambda: len(first.view()["intervals"]) > turns or first.view()["word"] == "OPEN", what="the first's turn")
    assert daemon.job(b)["reason"]
    second.configure(restore="ok")
    until(lambda: second.view()["word"] in ("OPEN", "GRANTED"), what="the second's turn after all")


def test_growth_of_the_holder_evicts_the_others(daemon, attach):
    first, _, second, _ = holder_and_waiter(daemon, attach, 200 * MIB)
    first.finish()
    second.want(200 * MIB)
    until(lambda: second.view()["word"] == "OPEN", what="OPEN")
    second.want(450 * MIB)
    until(lambda: second.view()["resident"] == 450 * MIB, what="growth")
    assert second.view()["word"] == "OPEN"
    assert first.view()["resident"] <= 62 * MIB
    assert "Evict" not in second.view()["received"]


def test_broken_connection_is_mended(daemon, attach, shims):
    first, a, second, _ = holder_and_waiter(daemon, attach, 300 * MIB)
    first.drop()
    until(lambda: "connection" in daemon.log.read_text(), what="the loss")
    second.want(300 * MIB)
    time.sleep(0.1)
    assert second.view()["word"] == "CLOSED"  # the first's memory stays charged, its work may still run
    assert daemon.gpu()["resident"] == 300 * MIB
    options = first.options_of()
    assert first.hello(*options, reattach=1) == "welcome"
    until(lambda: second.view()["word"] in ("OPEN", "GRANTED"), what="the second's turn")
    assert first.view()["out"] > 0
    assert len(daemon.job(a)["pids"]) == 1


def test_second_hello_of_a_process_replaces_the_first(daemon, attach):
    first, a = attach("a")
    first.want(100 * MIB)
    until(lambda: first.view()["word"] == "OPEN", what="OPEN")
    options = first.options_of()
    first.drop()  # as exec does
    first.configure(charged=0, resident=0)
    assert first.hello(*options) == "welcome"  # another program in the same process
    job = until(lambda: (j := daemon.job(a))["charged"] == 0 and j, what="a new account")
    assert len(job["pids"]) == 1


def test_second_copy_in_a_process_is_refused(daemon, attach):
    """Its place is not taken: the two would take it from each other for ever."""
    first, a = attach("a")
    first.want(100 * MIB)
    until(lambda: first.view()["word"] == "OPEN", what="OPEN")
    assert "another copy of the shim" in first.hello(*first.options_of())
    assert daemon.job(a)["charged"] == 100 * MIB
    assert len(daemon.job(a)["pids"]) == 1


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"claimed_pid": 1}, "the kernel says"),
        ({"token": "0" * 32}, "not known"),
        ({"device_uuid": bytes(16)}, "not served"),
        ({"version": 99}, "protocol 99"),
        ({"minimum_version": 99}, "needs protocol 99"),
    ],
)
def test_refusals_say_why(daemon, shims, changes, words):
    shim = shims()
    job = daemon.create(shim)
    answer = shim.hello(daemon.socket, job["token"], daemon.uuid(), **changes)
    assert words in answer
    assert daemon.status()["daemon"]["counters"]["refused"] == 1
    assert daemon.job(job["job"])["state"] == "new"


GARBAGE = [
    b"\x00",
    b"garbage" * 20,
    messages.encode(messages.Want(1, 1))[:-1],
    messages.encode(messages.Want(1, 1)) + b"x",
    messages.encode(messages.Welcome(1, 1, 1, 1, 1)),
    messages.encode(messages.Restored(0, 0, 0, 0, 0, 0)),
    messages.encode(messages.Drained(0), version=7),
    bytes(300),
]


@pytest.mark.parametrize("data", GARBAGE, ids=range(len(GARBAGE)))
def test_garbage_closes_one_connection_only(daemon, attach, shims, data):
    good, job = attach("good")
    good.want(10 * MIB)
    bad, _ = attach("bad")
    bad.raw(data)
    until(lambda: bad.view()["closed"], what="the end of the bad connection")
    newcomer = shims()
    newcomer.connect(daemon.socket)
    newcomer.raw(data)
    until(lambda: daemon.status()["daemon"]["counters"]["protocol_errors"] == 2, what="the count")
    until(lambda: good.view()["word"] == "OPEN", what="the good one's turn")
    assert daemon.job(job)["state"] == "running"


def test_rubbish_in_the_page_harms_nobody_else(daemon, attach):
    first, a, second, b = holder_and_waiter(daemon, attach)
    first.scribble(os.urandom(4096))
    second.want(10 * MIB)
    until(lambda: len(second.view()["intervals"]) >= 3, what="turns of the other")
    assert daemon.job(b)["state"] in ("running", "waiting")
    assert daemon.job(a)["busy_s"] >= 0
    first.scribble(b"\xff" * 4096)
    until(lambda: daemon.job(a) and len(second.view()["intervals"]) >= 5, what="more turns")


def test_lies_about_memory_do_not_starve_others(daemon, attach):
    liar, _ = attach("liar")
    liar.raw(messages.encode(messages.Memory(1 << 63, 1 << 63, 0)))
    other, job = attach("other")
    other.want(400 * MIB)
    until(lambda: other.view()["word"] == "OPEN", what="the other's turn")
    assert daemon.job(job)["memory_quota"] == daemon.total


def test_lease_page_cannot_be_written_by_the_client(daemon, attach):
    shim, _ = attach()
    assert shim.try_to_write_lease() == "PermissionError"


def test_too_many_connections_of_one_user(new_daemon, shims):
    daemon = new_daemon(config="[limits]\nconnections_per_user = 3\n").start()
    made = [shims() for _ in range(4)]
    jobs = [daemon.create(shim) for shim in made]
    answers = [shim.hello(daemon.socket, job["token"], daemon.uuid()) for shim, job in zip(made, jobs, strict=True)]
    assert answers[:3] == ["welcome"] * 3
    assert "3 connections" in answers[3]
    made[0].kill()
    until(lambda: made[3].hello(daemon.socket, jobs[3]["token"], daemon.uuid()) == "welcome", what="a free place")


def test_stopped_client_does_not_stop_the_daemon(daemon, attach):
    first, _, second, _ = holder_and_waiter(daemon, attach)
    os.kill(first.pid, signal.SIGSTOP)
    try:
        second.want(10 * MIB)
        began = time.monotonic()
        assert daemon.status()["daemon"]["state"] == "ready"
        assert time.monotonic() - began < 1
    finally:
        os.kill(first.pid, signal.SIGCONT)
    until(lambda: second.view()["word"] in ("OPEN", "GRANTED"), what="the waiter's turn after SIGCONT")


def test_many_deaths_leave_no_descriptors(daemon, attach):
    def descriptors():
        return len(os.listdir(f"/proc/{daemon.process.pid}/fd"))

    survivor, _ = attach("survivor")
    survivor.want(300 * MIB)
    until(lambda: survivor.view()["word"] == "OPEN", what="OPEN")
    before = descriptors()
    for number in range(8):
        shim, _ = attach(f"v{number}")
        shim.want(300 * MIB)
        until(lambda n=number: daemon.gpu()["switches"] > n, what="some switching")
        shim.kill()
    until(lambda: len([j for j in daemon.status()["jobs"] if j["state"] == "ended"]) == 8, what="eight ends")
    until(lambda: descriptors() <= before, what="as few descriptors as before")
    until(lambda: survivor.view()["word"] == "OPEN", what="OPEN")
