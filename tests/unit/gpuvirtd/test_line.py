# SPDX-License-Identifier: Apache-2.0
"""New jobs wait in line while the host has no memory for what they declare."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest
from fake_shim import MIB, until

from gpuvirt.admin import AdminClient
from gpuvirt.errors import RefusedError

CONFIG = '[memory]\nreserve = "0"\nhost_budget = "600M"\n'  # on a device of 512 MiB


@pytest.fixture
def small(new_daemon: Any) -> Any:
    return new_daemon(config=CONFIG).start()


def states(daemon: Any) -> dict[str, str]:
    return {row["name"]: row["state"] for row in daemon.status()["jobs"]}


def test_the_next_starts_when_room_is_there(small: Any, shims: Any) -> None:
    first, second, third = shims(), shims(), shims()
    one = small.create(first, "one", memory=400 * MIB, wait=True)
    assert one["queued"] is None
    two = small.create(second, "two", memory=300 * MIB, wait=True)
    three = small.create(third, "three", wait=True)  # declares nothing, and is behind
    assert two["queued"]["position"] == 1
    assert "the host memory budget of 600 MiB is taken: 400 MiB by 1 job" in two["queued"]["reason"]
    assert "declares 300 MiB" in two["queued"]["reason"]
    assert three["queued"]["position"] == 2
    row = small.job(two["job"])
    assert row["state"] == "queued"
    assert row["reason"].startswith("place 1 in line: the host memory budget")
    with pytest.raises(RefusedError, match="waits in line"):
        small.admin.call("job_started", job=two["job"], pid=second.pid)
    began = time.monotonic()
    first.kill()
    client = AdminClient([small.runtime], timeout_s=15)
    assert client.call("await_start", job=two["job"], position=1) == {"queued": None}
    assert time.monotonic() - began < 3
    assert client.call("await_start", job=three["job"], position=2) == {"queued": None}
    events = small.admin.call("describe", job=two["job"])["job"]["events"]
    assert [event["text"].split(":")[0][:12] for event in events] == ["waits in lin", "starts after"]
    client.close()


def test_who_dies_or_ends_leaves_the_line_and_the_others_hear_of_it(small: Any, shims: Any) -> None:
    one = small.create(shims(), "one", memory=500 * MIB, wait=True)
    assert one["queued"] is None
    leaving, staying = shims(), shims()
    two = small.create(leaving, "two", memory=500 * MIB, wait=True)
    three = small.create(staying, "three", memory=500 * MIB, wait=True)
    assert three["queued"]["position"] == 2
    heard: list[Any] = []

    def listen() -> None:
        with AdminClient([small.runtime], timeout_s=15) as client:
            heard.append(client.call("await_start", job=three["job"], position=2))

    listener = threading.Thread(target=listen)
    listener.start()
    small.admin.call("end_job", job=two["job"])  # as Ctrl-C does; its process may live on for a moment
    listener.join(5)
    assert heard[0]["queued"]["position"] == 1
    staying.kill()
    until(lambda: states(small)["three"] == "ended")
    assert states(small)["two"] == "ended"


def test_without_wait_it_is_refused(small: Any, shims: Any) -> None:
    small.create(shims(), "one", memory=500 * MIB)
    with pytest.raises(RefusedError, match=r"would have to wait in line: the host memory budget of 600 MiB"):
        small.create(shims(), "two", memory=500 * MIB)
    assert states(small)["one"] == "new"


def test_the_line_survives_the_daemon(small: Any, shims: Any) -> None:
    first = shims()
    small.create(first, "one", memory=500 * MIB, wait=True)
    two = small.create(shims(), "two", memory=400 * MIB, wait=True)
    three = small.create(shims(), "three", memory=400 * MIB, wait=True)
    small.stop(kill=True)
    small.start()
    until(lambda: small.job(three["job"])["reason"].startswith("place 2 in line: the host"), 5)
    assert small.job(two["job"])["state"] == "queued"
    first.kill()
    until(lambda: small.job(two["job"])["state"] == "new")
    assert small.job(three["job"])["state"] == "queued"


def test_a_changed_limit_may_let_it_start(small: Any, shims: Any) -> None:
    small.create(shims(), "one", memory=500 * MIB, wait=True)
    two = small.create(shims(), "two", memory=400 * MIB, wait=True)
    assert two["queued"]["position"] == 1
    small.admin.call("limit", job=two["job"], memory=90 * MIB)
    assert small.job(two["job"])["state"] == "new"


def test_estimates_come_from_jobs_that_ended(small: Any, shims: Any) -> None:
    short = shims()
    small.create(short, "short")
    short.kill()
    until(lambda: states(small)["short"] == "ended")
    small.create(shims(), "one", memory=500 * MIB)
    two = small.create(shims(), "two", memory=500 * MIB, wait=True)
    assert 0 <= two["queued"]["estimate_s"] < 30


def test_a_job_that_never_started_says_nothing_about_how_long_jobs_last(small: Any, shims: Any) -> None:
    small.create(shims(), "one", memory=500 * MIB)
    for name in ("two", "three"):
        gone = small.create(shims(), name, memory=500 * MIB, wait=True)
        small.admin.call("end_job", job=gone["job"])
    with pytest.raises(RefusedError):
        small.create(shims(), "four", memory=500 * MIB)
    five = small.create(shims(), "five", memory=500 * MIB, wait=True)
    assert five["queued"]["estimate_s"] is None


def test_places_while_the_daemon_looks_for_the_jobs_of_before(new_daemon: Any, shims: Any) -> None:
    daemon = new_daemon(config=CONFIG + '[time]\nrecovery_grace = "2s"\n[gpus]\npoll = "60s"\n').start()
    straggler = shims()
    job = daemon.create(straggler, "straggler")
    assert straggler.hello(daemon.socket, job["token"], daemon.uuid()) == "welcome"
    large = daemon.create(shims(), "large", memory=500 * MIB)
    for n in range(3):  # the line has seen some before
        earlier = daemon.create(shims(), f"earlier{n}", memory=500 * MIB, wait=True)
        daemon.admin.call("end_job", job=earlier["job"])
    waits = daemon.create(shims(), "waits", memory=500 * MIB, wait=True)
    daemon.stop(kill=True)
    daemon.start()
    assert daemon.job(waits["job"])["reason"].startswith("place 1 in line: the daemon looks")
    daemon.admin.call("limit", job=large["job"], memory=50 * MIB)
    # And it goes on as soon as that is over, however seldom the daemon looks at memory.
    with AdminClient([daemon.runtime], timeout_s=15) as client:
        began = time.monotonic()
        assert client.call("await_start", job=waits["job"], position=1) == {"queued": None}
        assert time.monotonic() - began < 6


def test_what_is_reserved_for_jobs_in_line_is_not_taken_from_those_that_run(new_daemon: Any, shims: Any) -> None:
    daemon = new_daemon(config='[memory]\nreserve = "0"\nhost_budget = "2G"\n').start()
    running = [(shim := shims(), daemon.create(shim, f"r{n}", memory=512 * MIB)) for n in range(4)]
    for shim, job in running[:2]:
        assert shim.hello(daemon.socket, job["token"], daemon.uuid()) == "welcome"
    running[0][0].want(400 * MIB)
    until(lambda: daemon.job(running[0][1]["job"])["charged"] == 400 * MIB)
    for n in range(3):
        waits = daemon.create(shims(), f"w{n}", reserve=512 * MIB, wait=True)
        assert waits["queued"]["position"] == n + 1
    daemon.admin.call("limit", job=waits["job"], soft=1 * MIB)  # quotas are published anew
    assert daemon.job(running[1][1]["job"])["memory_quota"] == 512 * MIB
