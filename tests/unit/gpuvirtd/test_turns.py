# SPDX-License-Identifier: Apache-2.0
"""Policies and weights that people set on a running daemon, and that outlive it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from fake_shim import MIB, until

from gpuvirt.errors import RefusedError


def policies(daemon: Any, **given: Any) -> list[str]:
    return [row["policy"] for row in daemon.admin.call("policy", **given)["policies"]]


def test_policies_are_shown_changed_and_kept(new_daemon: Callable[..., Any]) -> None:
    daemon = new_daemon(gpus=2, config='[time]\npolicies = { "1" = "tiers" }\n').start()
    assert policies(daemon) == ["fair", "tiers"]
    assert policies(daemon, gpu=0, name="priority") == ["priority"]
    assert policies(daemon, gpu=daemon.devices[1]["uuid"], name="exclusive") == ["exclusive"]
    assert [gpu["policy"] for gpu in daemon.status()["gpus"]] == ["priority", "exclusive"]
    daemon.stop(kill=True)
    daemon.start()
    assert policies(daemon) == ["priority", "exclusive"]
    assert policies(daemon, name="configured") == ["fair", "tiers"]
    daemon.stop()
    daemon.start()
    assert policies(daemon) == ["fair", "tiers"]


@pytest.mark.parametrize(
    ("given", "words"),
    [({"name": "random"}, ["no policy 'random'", "known: fair"]), ({"gpu": 7}, ["no GPU '7'", "gpuvirt gpus"])],
)
def test_what_there_is_not_is_refused(daemon: Any, given: dict[str, Any], words: list[str]) -> None:
    with pytest.raises(RefusedError) as caught:
        policies(daemon, **given)
    assert all(word in str(caught.value) for word in words), caught.value
    assert policies(daemon) == ["fair"]


def test_weights_are_shown_changed_and_kept(daemon: Any, attach: Any) -> None:
    _, job = attach("a", weight=2)
    shown = daemon.admin.call("weight", job="a")
    assert shown["standing"] == {"job": job, "weight": 2, "priority": "normal", "tier": None, "deadline_s": None}
    assert shown["notes"] == []
    assert daemon.admin.call("weight", job=job, weight=5)["standing"]["weight"] == 5
    assert daemon.job(job)["weight"] == 5
    events = daemon.admin.call("describe", job=job)["job"]["events"]
    assert [event["text"] for event in events if event["kind"] == "time"] == ["weight: 2 -> 5"]
    daemon.stop(kill=True)
    daemon.start()
    assert daemon.job(job)["weight"] == 5
    with pytest.raises(RefusedError, match="there is no job 'j77'"):
        daemon.admin.call("weight", job="j77", weight=2)
    with pytest.raises(RefusedError, match="weight"):
        daemon.admin.call("weight", job=job, weight=0)


def test_what_a_job_asks_for_is_kept_and_says_where_it_counts(daemon: Any, shims: Any) -> None:
    shim = shims()
    answer = daemon.create(shim, "a", priority="high", tier="premium", deadline_ns=20_000_000)
    notes = answer["notes"]
    assert [note.split(" makes")[0] for note in notes] == ["a priority", "a tier", "a deadline"]
    assert "under policy 'fair', but under 'priority'" in notes[0]
    policies(daemon, gpu=0, name="priority")
    assert [note.split(" makes")[0] for note in daemon.admin.call("weight", job=answer["job"])["notes"]] == [
        "a tier",
        "a deadline",
    ]
    daemon.stop(kill=True)
    daemon.start()
    row = daemon.job(answer["job"])
    assert (row["priority"], row["tier"], row["deadline_s"]) == ("high", "premium", 0.02)
    with pytest.raises(RefusedError, match=r"no tier 'gold'.*known: premium, standard"):
        daemon.create(shims(), "b", tier="gold")


def test_an_exclusive_gpu_says_whose_it_is(daemon: Any, attach: Any) -> None:
    first, job = attach("first")
    first.want(0)
    until(lambda: daemon.gpu()["holder"] == job)
    policies(daemon, gpu=0, name="exclusive")
    second, waiting = attach("second")
    second.want(0)
    until(lambda: daemon.job(waiting)["state"] == "waiting")
    assert daemon.job(waiting)["reason"] == f"job {job} has the GPU for itself until it ends"
    assert daemon.admin.call("policy")["policies"][0]["owner"] == job
    first.kill()
    until(lambda: daemon.gpu()["holder"] == waiting)


EXCLUSIVE = '[time]\npolicy = "exclusive"\n'


def owner(daemon: Any) -> str | None:
    found: str | None = daemon.admin.call("policy")["policies"][0]["owner"]
    return found


def test_who_has_the_gpu_for_itself_keeps_it_over_a_restart(new_daemon: Callable[..., Any], shims: Any) -> None:
    daemon = new_daemon(config=EXCLUSIVE).start()
    first, second = shims(), shims()
    jobs = []
    for shim, name in ((first, "first"), (second, "second")):
        job = daemon.create(shim, name)
        assert shim.hello(daemon.socket, job["token"], daemon.uuid()) == "welcome"
        jobs.append(job["job"])
    first.want(MIB)
    until(lambda: first.view()["word"] == "OPEN", what="OPEN")
    first.finish()
    for back in (False, True):
        if back:
            daemon.stop(kill=True)
            daemon.start()
            for shim in (second, first):  # who waits comes first, and the owner has nothing to do
                until(lambda shim=shim: shim.view()["closed"], what="the loss of the connection")
                assert shim.hello(*shim.options_of(), reattach=1) == "welcome"
        second.want(MIB)
        until(lambda: "for itself" in daemon.job(jobs[1])["reason"], what="the reason")
        assert second.view()["word"] == "CLOSED" and owner(daemon) == jobs[0]
    first.kill()
    until(lambda: second.view()["word"] == "OPEN", what="the end of the owner")
    assert owner(daemon) == jobs[1]


def test_whose_end_the_daemon_did_not_see_keeps_nobody_out(new_daemon: Callable[..., Any], shims: Any) -> None:
    daemon = new_daemon(config=EXCLUSIVE).start()
    first, second = shims(), shims()
    job = daemon.create(first, "first")
    assert first.hello(daemon.socket, job["token"], daemon.uuid()) == "welcome"
    first.want(MIB)
    until(lambda: first.view()["word"] == "OPEN", what="OPEN")
    assert owner(daemon) == job["job"]
    daemon.stop(kill=True)
    first.kill()
    daemon.start()
    job = daemon.create(second, "second")
    assert second.hello(daemon.socket, job["token"], daemon.uuid()) == "welcome"
    second.want(MIB)
    until(lambda: second.view()["word"] == "OPEN", what="OPEN")
    assert owner(daemon) == job["job"]
