# SPDX-License-Identifier: Apache-2.0
"""`usage` of the real daemon, whoever is killed. Times are compared with what certainly passed, never with guesses."""

from __future__ import annotations

import time

import pytest
from fake_shim import until

from gpuvirt.errors import RefusedError

PATIENT = '[time]\nrecovery_grace = "60s"\n[memory]\nreserve = "0"\n'  # a loaded machine is slow to come back


def attach(daemon, shims, name):
    shim = shims()
    job = daemon.create(shim, name)
    assert shim.hello(daemon.socket, job["token"], daemon.uuid()) == "welcome"
    return shim, job["job"]


def come_back(shim):
    until(lambda: shim.view()["closed"], what="the loss of the connection")
    assert shim.hello(*shim.options_of(), reattach=1) == "welcome"


def bills(daemon, by="job"):
    key = {"job": "job", "tenant": "uid", "gpu": "gpu"}[by]
    return {row[key]: row for row in daemon.admin.call("usage", by=by)["rows"]}


def of(daemon, job):
    """The bill of a job; all zero as long as it has none."""
    return bills(daemon).get(job, dict.fromkeys(("held_s", "alone_s", "gpu_s", "wait_s", "switches"), 0))


def test_two_jobs_and_their_tenant(daemon, shims):
    began = time.monotonic()
    pairs = [attach(daemon, shims, name) for name in "ab"]
    for shim, _ in pairs:
        shim.want(0)
    until(lambda: all(of(daemon, job)["switches"] >= 3 for _, job in pairs), 20, "turns")
    for shim, _ in pairs:
        shim.kill()
    until(lambda: {job["state"] for job in daemon.status()["jobs"]} == {"ended"}, what="their ends")
    rows = bills(daemon)
    passed = time.monotonic() - began
    assert {row["name"] for row in rows.values()} == {"a", "b"} and all(row["ended"] for row in rows.values())
    for row in rows.values():
        assert row["held_s"] > 0 and row["wait_s"] > 0
        assert row["gpu_s"] == pytest.approx(row["held_s"] + row["busy_s"])
        assert row["busy_s"] <= row["alone_s"]
    (tenant,), (gpu,) = bills(daemon, "tenant").values(), bills(daemon, "gpu").values()
    assert tenant["jobs"] == gpu["jobs"] == 2
    for name in ("held_s", "alone_s", "busy_s", "wait_s", "switches", "gpu_s"):
        whole = sum(row[name] for row in rows.values())
        assert tenant[name] == pytest.approx(whole) and gpu[name] == pytest.approx(whole)
    assert gpu["held_s"] + gpu["alone_s"] <= passed
    assert gpu["gpu"] == 0 and gpu["uuid"] == daemon.devices[0]["uuid"]


def test_a_job_pays_until_its_death(daemon, shims):
    shim, job = attach(daemon, shims, "a")
    shim.want(0)
    until(lambda: shim.view()["word"] == "OPEN", what="OPEN")
    began = time.monotonic()
    until(lambda: of(daemon, job)["alone_s"] > 0.05, what="a bill that grows")
    certainly = time.monotonic() - began
    shim.kill()
    until(lambda: daemon.job(job)["state"] == "ended", what="its end")
    ended = of(daemon, job)
    assert ended["alone_s"] >= certainly and ended["switches"] == 1
    assert of(daemon, job) == ended, "nothing runs on"


@pytest.mark.parametrize("kill", [True, False])
def test_what_was_open_when_the_daemon_went_is_settled(new_daemon, shims, kill):
    daemon = new_daemon(config=PATIENT).start()
    shim, job = attach(daemon, shims, "a")
    shim.want(0)
    until(lambda: shim.view()["word"] == "OPEN", what="OPEN")
    began = time.monotonic()
    before = of(daemon, job)
    daemon.stop(kill=kill)
    daemon.start()
    middle = of(daemon, job)
    certainly = time.monotonic() - began
    come_back(shim)
    until(lambda: daemon.job(job)["switches"] == 1, what="a lease of the new daemon")
    after = of(daemon, job)
    assert before["alone_s"] <= middle["alone_s"] <= after["alone_s"]
    assert after["alone_s"] >= certainly, "it had the GPU until it came back"
    assert after["switches"] == 2
    shim.kill()
    until(lambda: daemon.job(job)["state"] == "ended", what="its end")
    assert daemon.admin.call("usage", by="tenant")["rows"][0]["jobs"] == 1, "it is one job, before and after"


@pytest.mark.parametrize("point", ["grant_stored:kill:7", "close_stored:kill:5", "drain_stored:kill:4"])
def test_killed_in_the_midst_of_a_hand_over(new_daemon, shims, monkeypatch, point):
    """Who had the lease when the daemon died is billed for it until it is back, and nobody else."""
    monkeypatch.setenv("GPUVIRT_FAILPOINTS", point)
    daemon = new_daemon(config=PATIENT).start()
    began = time.monotonic()
    pairs = [attach(daemon, shims, name) for name in "ab"]
    for shim, _ in pairs:
        shim.want(0)
    daemon.process.wait(20)
    died = time.monotonic()
    monkeypatch.delenv("GPUVIRT_FAILPOINTS")
    time.sleep(min(1.0, died - began))  # about as long as all before: who is billed for it has most of all
    back = time.monotonic()
    daemon.stop()
    had = [job for shim, job in pairs if shim.view()["word"] != "CLOSED"]
    daemon.start()
    for shim, _ in pairs:
        come_back(shim)
    until(lambda: all(daemon.job(job)["switches"] >= 1 for _, job in pairs), 20, "turns")
    rows = bills(daemon)
    assert sum(row["held_s"] + row["alone_s"] for row in rows.values()) <= time.monotonic() - began
    for job in had:
        assert rows[job]["held_s"] + rows[job]["alone_s"] >= back - died
    if not had:  # nobody: killed after CLOSED was stored, before the next one had it
        assert point.startswith("close")


def test_wrong_questions(daemon):
    for arguments, words in (
        ({"by": "colour"}, "invalid enum value 'colour'"),
        ({"since": -1}, "since: expected `float` >= 0"),
    ):
        with pytest.raises(RefusedError, match=words):
            daemon.admin.call("usage", **arguments)
    assert daemon.admin.call("usage", since=1e18, until=2e18)["rows"] == []
