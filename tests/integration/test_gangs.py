# SPDX-License-Identifier: Apache-2.0
"""Jobs of several processes on two GPUs whose work ends only when that of all ranks runs: nobody hangs."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from support.host import Host, Program, host

TWO = {"GPUVIRT_SOFTGPU_DEVICES": "2"}


@pytest.fixture
def two_gpus() -> Iterator[Host]:
    with host(settings='[time]\nquantum = "30ms"', options=TWO) as machine:
        yield machine


def rounds(program: Program) -> int:
    found = re.search(r"result: OK rounds=(\d+)", program.text)
    assert found is not None, program.text
    return int(found[1])


@pytest.mark.timeout(180)
def test_two_jobs_of_four_ranks_on_two_gpus(two_gpus: Host) -> None:
    jobs = [two_gpus.job("collective.py", "--seconds", "6", name=name) for name in ("one", "two")]
    for job in jobs:
        job.wait_for("ready")
    two_gpus.until(lambda: all(two_gpus.job_named(name)["switches"] >= 8 for name in ("one", "two")), "turns of both")
    for job in jobs:
        assert job.wait(90) == 0, two_gpus.report()
        assert rounds(job) > 20


@pytest.mark.timeout(180)
def test_two_jobs_whose_kernels_spin(two_gpus: Host) -> None:
    jobs = [two_gpus.job("collective.py", "--ranks", "2", "--spin", "--seconds", "5", name=name) for name in "ab"]
    for job in jobs:
        assert job.wait(90) == 0, two_gpus.report()
        assert rounds(job) > 20


@pytest.mark.timeout(180)
def test_beside_a_job_on_one_of_its_gpus(two_gpus: Host) -> None:
    """It gives both GPUs back for a job that wants one, and the other way round."""
    other = two_gpus.job("mixer.py", "--memory", "16", "--seconds", "60", name="other")
    other.wait_for("ready")
    gang = two_gpus.job("collective.py", "--seconds", "5", name="gang")
    assert gang.wait(90) == 0, two_gpus.report()
    assert rounds(gang) > 20
    assert two_gpus.job_named("other")["switches"] >= 2, two_gpus.report()
    assert other.running, other.text


@pytest.mark.timeout(180)
def test_a_rank_is_killed(two_gpus: Host) -> None:
    """What is left of its job spins for ever; the others go on when that is killed."""
    gang = two_gpus.job("collective.py", "--seconds", "60", name="gang")
    two_gpus.until(lambda: two_gpus.status()["jobs"] and two_gpus.job_named("gang")["switches"] >= 1, "its first turn")
    other = two_gpus.job("collective.py", "--seconds", "2", name="other")
    other.wait_for("ready")
    two_gpus.until(lambda: two_gpus.job_named("other")["switches"] >= 4, "turns of the other")
    gang.kill()
    assert other.wait(60) == 0, two_gpus.report()


@pytest.mark.timeout(180)
def test_the_daemon_is_killed_in_between(two_gpus: Host) -> None:
    jobs = [two_gpus.job("collective.py", "--seconds", "8", name=name) for name in ("one", "two")]
    two_gpus.until(lambda: len(two_gpus.status()["jobs"]) == 2, "both jobs")
    two_gpus.until(lambda: all(two_gpus.job_named(name)["switches"] >= 4 for name in ("one", "two")), "turns of both")
    assert two_gpus.daemon is not None
    two_gpus.daemon.kill()
    two_gpus.daemon.wait()
    two_gpus.start_daemon()
    for job in jobs:
        assert job.wait(90) == 0, two_gpus.report()
        assert rounds(job) > 20
