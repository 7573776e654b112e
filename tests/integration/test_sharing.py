# SPDX-License-Identifier: Apache-2.0
"""Real daemon, real shim, real CUDA programs: jobs share a GPU that is too small for them, and nothing is wrong."""

from __future__ import annotations

import re
import sys

import pytest

from support.host import PROGRAMS, Host, host

MIB = 1 << 20


def digest(text: str) -> str:
    found = re.search(r"result: OK steps=\d+ digest=(\w+)", text)
    assert found is not None, text
    return found.group(1)


def accounts_are_zero(machine: Host) -> None:
    """After all jobs: nothing is charged, nothing allocated on the device."""
    machine.until(lambda: all(job["state"] == "ended" for job in machine.status()["jobs"]), "jobs to end")
    machine.until(lambda: machine.device_used() == 0, "the soft GPU to be empty", 10)
    gpu = machine.gpu()
    assert gpu["holder"] is None, gpu
    assert all(job["charged"] == job["resident"] == 0 for job in machine.status()["jobs"])


def test_one_job_runs_and_leaves_nothing(machine: Host) -> None:
    program = machine.job("mixer.py", "--memory", "64", name="alone")
    assert program.wait() == 0, program.text
    assert "result: OK" in program.text
    job = machine.job_named("alone")
    assert job["state"] == "ended"
    assert job["out_bytes"] == 0  # nobody else: nothing moves
    accounts_are_zero(machine)


def test_without_gpuvirt_the_second_is_out_of_memory(machine: Host) -> None:
    first = machine.bare("mixer.py", "--memory", "176", "--seconds", "4")
    first.wait_for("ready")
    second = machine.bare("mixer.py", "--memory", "176")
    assert second.wait() == 3
    assert "CUDA_ERROR_OUT_OF_MEMORY" in second.text
    assert first.wait() == 0, first.text


def test_two_jobs_that_do_not_fit_run_together_with_the_same_results(machine: Host) -> None:
    arguments = ("mixer.py", "--memory", "176", "--steps", "12")
    solo = machine.job(*arguments, "--seed", "5", name="solo")
    assert solo.wait() == 0, solo.text
    one = machine.job(*arguments, "--seed", "5", name="one")
    two = machine.job(*arguments, "--seed", "9", name="two")
    assert one.wait() == 0, machine.report()
    assert two.wait() == 0, machine.report()
    assert digest(one.text) == digest(solo.text)
    assert digest(two.text) != digest(solo.text)
    jobs = [machine.job_named(name) for name in ("one", "two")]
    assert sum(job["out_bytes"] for job in jobs) >= 96 * MIB, jobs  # 352 MiB do not fit into 256
    assert sum(job["switches"] for job in jobs) >= 2, jobs
    accounts_are_zero(machine)


def test_jobs_that_fit_are_not_swapped(machine: Host) -> None:
    one = machine.job("mixer.py", "--memory", "64", "--seconds", "1.5", name="one")
    two = machine.job("mixer.py", "--memory", "64", "--seconds", "1.5", name="two")
    assert one.wait() == 0, one.text
    assert two.wait() == 0, two.text
    for name in ("one", "two"):
        job = machine.job_named(name)
        assert job["out_bytes"] == 0, job
        assert job["switches"] >= 2, job


def test_equal_jobs_get_equal_shares(machine: Host) -> None:
    """Two jobs that always have work: held time within 15 percentage points of half each."""
    one = machine.job("mixer.py", "--memory", "64", "--seconds", "3", name="one")
    two = machine.job("mixer.py", "--memory", "64", "--seconds", "3", name="two")
    assert (one.wait(), two.wait()) == (0, 0)
    held = [machine.job_named(name)["held_s"] for name in ("one", "two")]
    assert 0.35 < held[0] / sum(held) < 0.65, held


def test_three_jobs_of_which_only_one_fits_at_a_time(machine: Host) -> None:
    jobs = [
        machine.job("mixer.py", "--memory", "160", "--steps", "4", "--seed", str(i), name=f"j{i}") for i in range(3)
    ]
    for job in jobs:
        assert job.wait() == 0, machine.report()
    accounts_are_zero(machine)


def test_more_than_the_quota_is_out_of_memory(machine: Host) -> None:
    program = machine.job("mixer.py", "--memory", "96", options=("--memory", "64M"))
    assert program.wait() == 3
    assert "CUDA_ERROR_OUT_OF_MEMORY" in program.text
    fits = machine.job("mixer.py", "--memory", "64", options=("--memory", "64M"))
    assert fits.wait() == 0, fits.text


def test_a_job_that_waits_on_the_host_lets_the_other_run() -> None:
    """It sleeps for 0.3 s after each step; the quantum would let it keep the GPU for as long."""
    with host(settings='[time]\nquantum = "300ms"') as machine:
        lazy = machine.job("mixer.py", "--memory", "32", "--steps", "6", "--pause", "0.3", name="lazy")
        busy = machine.job("mixer.py", "--memory", "32", "--seconds", "4", name="busy")
        assert (lazy.wait(), busy.wait()) == (0, 0)
        assert machine.job_named("lazy")["switches"] >= 3
        assert machine.job_named("lazy")["held_s"] < 0.5 * 6 * 0.3, machine.job_named("lazy")


def test_the_processes_of_a_job_run_together_and_share_its_quota(machine: Host) -> None:
    """Two processes of one job hold one lease; what one has charged the other cannot have."""
    mixer = f"{sys.executable} {PROGRAMS / 'mixer.py'}"
    both = f"{mixer} --memory 48 --seconds 3 & {mixer} --memory 48 --seconds 3 --seed 4; wait $!"
    pair = machine.run("sh", "-c", both, name="pair", options=("--memory", "128M"))
    rival = machine.job("mixer.py", "--memory", "176", "--seconds", "3", name="rival")
    machine.until(lambda: any(len(job["pids"]) == 2 for job in machine.status()["jobs"]), "both processes of the pair")
    assert pair.wait() == 0, machine.report()
    assert rival.wait() == 0, machine.report()
    assert pair.text.count("result: OK") == 2, pair.text
    late = f"{mixer} --memory 64 --seconds 4 & sleep 2; {mixer} --memory 64; wait $!"
    greedy = machine.run("sh", "-c", late, name="greedy", options=("--memory", "96M"))
    assert greedy.wait() == 0, greedy.text
    assert greedy.text.count("result: OK") == 1, greedy.text
    assert "CUDA_ERROR_OUT_OF_MEMORY" in greedy.text
    accounts_are_zero(machine)


@pytest.mark.parametrize("kind", ["plain", "block", "managed"])
def test_what_a_process_gave_back_it_can_take_again_at_once(machine: Host, kind: str) -> None:
    """Beside another process of the job: the daemon may not have heard yet that it was given back."""
    pair = machine.job("quota_pair.py", "--kind", kind, options=("--memory", "64M"))
    assert pair.wait() == 0, pair.text
    assert "rounds" in pair.text
    accounts_are_zero(machine)


def test_a_second_process_finds_what_the_first_took_while_it_was_alone(machine: Host) -> None:
    pair = machine.job("quota_pair.py", "--late", "--memory", "40", options=("--memory", "64M"))
    assert pair.wait() == 0, pair.text
    assert "second: CUDA_ERROR_OUT_OF_MEMORY" in pair.text, pair.text
    free = re.search(r"second free: (\d+)", pair.text)
    assert free is not None and 16 <= int(free[1]) <= 64 - 42, pair.text
    accounts_are_zero(machine)
