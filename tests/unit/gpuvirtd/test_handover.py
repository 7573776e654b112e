# SPDX-License-Identifier: Apache-2.0
"""The daemon hands a GPU and its memory from job to job."""

from __future__ import annotations

from fake_shim import MIB, until


def overlaps(first, second):
    """Pairs of intervals of two jobs that overlap."""
    closed = [[pair for pair in intervals if len(pair) == 2] for intervals in (first, second)]
    return [(a, b) for a in closed[0] for b in closed[1] if a[0] < b[1] and b[0] < a[1]]


def test_alone_means_open_and_all_memory(daemon, attach):
    shim, job = attach()
    shim.want(100 * MIB)
    view = until(lambda: (v := shim.view())["word"] == "OPEN" and v, what="OPEN")
    assert view["allowance"] == daemon.total
    assert view["quota"] == daemon.total
    assert view["fits"]
    status = daemon.job(job)
    assert (status["state"], status["charged"], status["resident"]) == ("running", 100 * MIB, 100 * MIB)
    assert daemon.gpu()["holder"] == job


def test_two_jobs_that_do_not_fit_take_turns(daemon, attach):
    (first, a), (second, b) = attach("a"), attach("b")
    for shim in (first, second):
        shim.want(360 * MIB)
    until(lambda: len(second.view()["intervals"]) >= 4 and len(first.view()["intervals"]) >= 4, 10, "four turns each")
    views = first.view(), second.view()
    assert not overlaps(views[0]["intervals"], views[1]["intervals"])
    # Only what is missing moves: 2 x 360 - 512 MiB per switch, never a whole job.
    for view in views:
        assert view["out"] > 0
        assert view["in"] > 0
        assert view["out"] <= len(view["intervals"]) * 208 * MIB
        # It comes in while the other leaves: credit grew in steps, not all at once.
        assert len(view["credits"]) > 2 * view["received"].count("Restore")
        assert view["largest_resident"] <= 512 * MIB
    gpu = daemon.gpu()
    assert gpu["promised"] <= gpu["capacity"]
    assert daemon.job(a)["switches"] >= 4
    assert daemon.job(b)["wait_s"] > 0


def test_jobs_that_fit_take_turns_without_moving_anything(daemon, attach):
    (first, _), (second, _) = attach("a"), attach("b")
    first.want(200 * MIB)
    second.want(200 * MIB)
    until(lambda: len(first.view()["intervals"]) >= 5, 10, "five turns")
    for shim in (first, second):
        assert shim.view()["out"] == 0
        assert shim.view()["fits"]
    assert not overlaps(first.view()["intervals"], second.view()["intervals"])


def test_idle_holder_gives_up_the_gpu_at_once(daemon, attach):
    (first, _), (second, b) = attach("a"), attach("b")
    first.want(10 * MIB)
    until(lambda: first.view()["word"] == "OPEN", what="OPEN")
    first.finish()
    second.want(10 * MIB)
    until(lambda: second.view()["word"] == "OPEN", what="OPEN for the second")
    assert daemon.gpu()["holder"] == b
    assert first.view()["word"] == "CLOSED"


def test_held_time_counts_work_alone_but_not_idleness_alone(daemon, attach):
    shim, job = attach()
    shim.want(10 * MIB)
    until(lambda: shim.view()["word"] == "OPEN" and daemon.job(job)["state"] == "running", what="work")
    until(lambda: daemon.job(job)["held_s"] > 0.05, what="held time of work alone")
    shim.finish()
    until(lambda: daemon.job(job)["state"] == "idle", what="idleness")
    first = daemon.job(job)
    until(lambda: daemon.job(job)["alone_s"] > first["alone_s"] + 0.05, what="time to pass")
    assert daemon.job(job)["held_s"] == first["held_s"] < first["alone_s"]


def test_the_page_says_how_much_work_may_be_in_flight(daemon, attach):
    (first, _), (second, _) = attach("a"), attach("b")
    first.want(10 * MIB)
    until(lambda: first.view()["word"] == "OPEN", what="OPEN")
    assert first.view()["window_us"] == 0  # alone
    second.want(10 * MIB)
    until(lambda: (v := first.view())["word"] == "GRANTED" and v["window_us"] > 0, what="GRANTED with a window")
