# SPDX-License-Identifier: Apache-2.0
"""Programs that manage their memory themselves (cuMemCreate, cuMemMap) are charged and swapped like all others."""

from __future__ import annotations

import os
import re
import signal
import time

from support.host import Host, host

MIB = 1 << 20


def digest(text: str) -> str:
    found = re.search(r"result: OK steps=\d+ digest=(\w+)", text)
    assert found is not None, text
    return found.group(1)


def accounts_are_zero(machine: Host) -> None:
    machine.until(lambda: all(job["state"] == "ended" for job in machine.status()["jobs"]), "jobs to end")
    machine.until(lambda: machine.device_used() == 0, "the soft GPU to be empty", 10)


def test_two_jobs_that_do_not_fit_have_the_same_results(machine: Host) -> None:
    arguments = ("expandable.py", "--memory", "160", "--steps", "5")
    solo = machine.job(*arguments, "--seed", "5", name="solo")
    assert solo.wait() == 0, solo.text
    one = machine.job(*arguments, "--seed", "5", name="one")
    two = machine.job(*arguments, "--seed", "9", name="two")
    assert one.wait() == 0, machine.report()
    assert two.wait() == 0, machine.report()
    assert digest(one.text) == digest(solo.text) != digest(two.text)
    jobs = [machine.job_named(name) for name in ("one", "two")]
    assert sum(job["out_bytes"] for job in jobs) >= 64 * MIB, jobs  # 320 MiB do not fit into 256
    assert sum(job["switches"] for job in jobs) >= 2, jobs
    accounts_are_zero(machine)


def test_beside_ordinary_memory(machine: Host) -> None:
    """One job maps its own memory, the other one allocates: each must give way to the other."""
    one = machine.job("expandable.py", "--memory", "160", "--seconds", "3", name="one")
    two = machine.job("mixer.py", "--memory", "176", "--seconds", "3", name="two")
    assert one.wait() == 0, machine.report()
    assert two.wait() == 0, machine.report()
    assert all(machine.job_named(name)["out_bytes"] > 0 for name in ("one", "two")), machine.report()
    accounts_are_zero(machine)


def test_more_than_the_quota_is_out_of_memory(machine: Host) -> None:
    program = machine.job("expandable.py", "--memory", "96", options=("--memory", "64M"))
    assert program.wait() == 3
    assert "cuMemCreate" in program.text
    assert "CUDA_ERROR_OUT_OF_MEMORY" in program.text
    fits = machine.job("expandable.py", "--memory", "60", options=("--memory", "64M"))
    assert fits.wait() == 0, fits.text
    accounts_are_zero(machine)


def test_a_restore_that_fails_in_the_middle_is_rolled_back(machine: Host) -> None:
    """The driver has no memory for the 30th and the 55th piece, with others of the same restore in place."""
    rules = "cuMemCreate:30:OUT_OF_MEMORY;cuMemCreate:55:OUT_OF_MEMORY"
    rival = machine.job("mixer.py", "--memory", "160", "--seconds", "60", name="rival")
    rival.wait_for("step 1")
    job = machine.job("expandable.py", "--memory", "160", "--steps", "6", name="job", GPUVIRT_SOFTGPU_FAULTS=rules)
    assert job.wait() == 0, machine.report()
    assert "result: OK" in job.text
    rival.stop()
    accounts_are_zero(machine)


def test_threads_map_and_unmap_while_all_of_it_is_swapped(machine: Host) -> None:
    rival = machine.job("mixer.py", "--memory", "240", "--seconds", "60", name="rival")
    rival.wait_for("step 1")
    churn = machine.job("churn.py", "--seconds", "2.5", name="churn")
    assert churn.wait() == 0, machine.report()
    assert "result: OK" in churn.text
    assert machine.job_named("churn")["out_bytes"] > 0, machine.report()
    rival.stop()
    accounts_are_zero(machine)


def test_killed_while_it_is_swapped() -> None:
    with host() as machine:
        survivor = machine.job("mixer.py", "--memory", "176", "--seconds", "4", name="survivor")
        survivor.wait_for("ready")
        for round_ in range(3):
            victim = machine.job("expandable.py", "--memory", "160", "--seconds", "60", name=f"victim{round_}")
            victim.wait_for("step 1")
            time.sleep(0.05 * round_)
            victim.kill(signal.SIGKILL)
            assert victim.wait() != 0
        assert survivor.wait() == 0, machine.report()
        accounts_are_zero(machine)


def test_memory_of_both_kinds_by_turns_beside_another_job() -> None:
    """What is kept of the one for reuse makes room for the other: no turn waits but for its share of the GPU."""
    with host(memory=96 * MIB, settings='[time]\nquantum = "20ms"') as machine:
        rival = machine.job("mixer.py", "--memory", "60", "--seconds", "6", name="rival")
        rival.wait_for("ready")
        program = machine.job("both_kinds.py", name="both", options=("--memory", "64M"))
        assert program.wait(40) == 0, machine.report()
        assert rival.wait() == 0, machine.report()


def test_an_eviction_that_fails_leaves_nothing_at_work() -> None:
    """Hashes run ahead of copies, through a mapping that is not the program's: it may go only when they have ended."""
    with host(32 * MIB, settings='[time]\nquantum = "20ms"\nswap_share = 1.0') as machine:
        job = machine.job(
            "put_by.py",
            "--steps",
            "100",
            name="job",
            GPUVIRT_FAILPOINTS="evict_reserve:fail",
            GPUVIRT_SOFTGPU_FAULTS="kernel.gv_page_hash:*:delay=40ms",
        )
        job.wait_for("ready")
        rival = machine.job("put_by.py", "--memory", "24", "--steps", "20", name="rival")
        job.wait_for("failpoint evict_reserve")
        assert job.wait() == 0, machine.report()
        assert "result: OK" in job.text
        assert rival.wait() == 0, machine.report()


def test_a_program_without_a_context_makes_room() -> None:
    """Its memory outlives its contexts: nobody else may have to wait for that."""
    with host(32 * MIB, settings='[time]\nquantum = "20ms"\nswap_share = 1.0') as machine:
        job = machine.job("put_by.py", "--leave", name="job")
        job.wait_for("ready")
        rival = machine.job("put_by.py", "--memory", "24", "--steps", "10", name="rival")
        assert rival.wait(20) == 0, machine.report()
        os.kill(job.child_pid(), signal.SIGUSR1)
        assert job.wait() == 0, machine.report()
        assert "result: OK" in job.text
        assert machine.job_named("job")["out_bytes"] >= 10 * MIB, machine.report()
        accounts_are_zero(machine)
