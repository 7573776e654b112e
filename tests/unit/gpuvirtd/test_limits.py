# SPDX-License-Identifier: Apache-2.0
"""Limits of a job: what is refused, what changes while it runs, what survives a restart of the daemon."""

from __future__ import annotations

from typing import Any

import pytest
from fake_shim import MIB, until

from gpuvirt.errors import RefusedError


def limits(daemon: Any, job: str, **given: int | None) -> dict[str, Any]:
    return dict(daemon.admin.call("limit", job=job, **given))


def test_limits_are_shown_and_changed_while_the_job_runs(daemon: Any, attach: Any) -> None:
    shim, job = attach("a", memory=64 * MIB, soft=32 * MIB)
    shown = {"job": job, "memory": 64 * MIB, "soft": 32 * MIB, "reserve": 0}
    assert limits(daemon, job)["limits"] == shown
    assert shim.view()["quota"] == 64 * MIB
    answer = limits(daemon, "a", memory=128 * MIB, soft=None)
    assert answer["limits"] == shown | {"memory": 128 * MIB, "soft": None}
    assert shim.view()["quota"] == 128 * MIB
    limits(daemon, job, memory=None)
    assert shim.view()["quota"] == daemon.total
    row = daemon.job(job)
    assert (row["memory"], row["memory_soft"], row["memory_reserve"]) == (None, None, 0)
    events = daemon.admin.call("describe", job=job)["job"]["events"]
    assert [event["text"] for event in events if event["kind"] == "limit"] == [
        "limits: memory 64 MiB, soft 32 MiB -> memory 128 MiB",
        "limits: memory 128 MiB -> memory none",
    ]


def test_below_what_is_charged_is_allowed_and_says_what_it_means(daemon: Any, attach: Any) -> None:
    shim, job = attach()
    shim.want(100 * MIB)
    until(lambda: daemon.job(job)["charged"] == 100 * MIB)
    [note] = limits(daemon, job, memory=60 * MIB)["notes"]
    assert note == "100 MiB are allocated already: they stay, and nothing new is allocated until 40 MiB are freed"
    assert shim.view()["quota"] == 60 * MIB
    [note] = limits(daemon, job, memory=None, soft=70 * MIB)["notes"]
    assert note == "30 MiB of it are the first to be swapped from now on"


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"memory": 513 * MIB}, ["--memory 513 MiB", "largest GPU", "512 MiB"]),
        ({"memory": 10 * MIB, "soft": 11 * MIB}, ["soft limit 11 MiB", "above the limit 10 MiB"]),
        ({"reserve": 513 * MIB}, ["reservation of 513 MiB", "largest GPU"]),
        ({"memory": 10 * MIB, "reserve": 11 * MIB}, ["reservation 11 MiB", "above the limit"]),
    ],
)
def test_what_makes_no_sense_is_refused(daemon: Any, attach: Any, given: dict[str, int], words: list[str]) -> None:
    _, job = attach("a", memory=64 * MIB)
    before = limits(daemon, job)["limits"]
    with pytest.raises(RefusedError) as caught:
        limits(daemon, job, **given)
    assert all(word in str(caught.value) for word in words), caught.value
    assert limits(daemon, job)["limits"] == before


def test_unknown_and_finished_jobs(daemon: Any, attach: Any) -> None:
    shim, job = attach("gone")
    with pytest.raises(RefusedError, match="there is no job 'j77'"):
        limits(daemon, "j77", memory=MIB)
    shim.kill()
    until(lambda: daemon.job(job)["state"] == "ended")
    for word in (job, job.removeprefix("j"), "gone"):
        with pytest.raises(RefusedError, match=f"job {job} has ended"):
            limits(daemon, word, memory=MIB)


def test_limits_survive_the_daemon(daemon: Any, attach: Any) -> None:
    shim, job = attach("a", memory=64 * MIB)
    limits(daemon, job, memory=96 * MIB, soft=48 * MIB, reserve=24 * MIB)
    daemon.stop(kill=True)
    daemon.start()
    assert limits(daemon, job)["limits"] == {
        "job": job,
        "memory": 96 * MIB,
        "soft": 48 * MIB,
        "reserve": 24 * MIB,
    }
    until(lambda: shim.view()["closed"])
    assert shim.hello(*shim.options_of(), reattach=1) == "welcome"
    assert shim.view()["quota"] == 96 * MIB


def test_beyond_its_soft_limit_a_job_is_swapped_first(daemon: Any, attach: Any) -> None:
    """Although it ran later than the other idle one."""
    old, old_job = attach("old")
    old.want(200 * MIB)
    until(lambda: daemon.job(old_job)["resident"] == 200 * MIB)
    old.finish()
    greedy, greedy_job = attach("greedy", soft=50 * MIB)
    greedy.want(200 * MIB)
    until(lambda: daemon.job(greedy_job)["resident"] == 200 * MIB)
    greedy.finish()
    third, third_job = attach("third")
    third.want(250 * MIB)
    until(lambda: daemon.job(third_job)["resident"] == 250 * MIB)
    assert greedy.view()["out"] >= 138 * MIB
    assert old.view()["out"] == 0


def test_what_is_reserved_stays_free_for_the_job(new_daemon: Any, shims: Any) -> None:
    daemon = new_daemon(config='[memory]\nreserve = "0"\nhost_budget = "600M"\n').start()

    def begin(name: str, **wishes: Any) -> tuple[Any, str]:
        shim = shims()
        job = daemon.create(shim, name, **wishes)
        assert shim.hello(daemon.socket, job["token"], daemon.uuid()) == "welcome"
        return shim, str(job["job"])

    careful, careful_job = begin("careful", reserve=300 * MIB)
    other, _ = begin("other")
    assert other.view()["quota"] == daemon.total  # all fits on the device, as long as nobody has anything there
    other.want(250 * MIB)
    greedy, greedy_job = begin("greedy")
    until(lambda: greedy.view()["quota"] == 262 * MIB)  # what is left of the device beside the other's
    until(lambda: careful.view()["quota"] == 350 * MIB)
    with pytest.raises(RefusedError, match="cannot be kept: the host memory budget leaves 50 MiB"):
        limits(daemon, greedy_job, reserve=51 * MIB)
    assert limits(daemon, greedy_job, reserve=50 * MIB)["limits"]["reserve"] == 50 * MIB
    assert limits(daemon, careful_job, reserve=None)["limits"]["reserve"] == 0
