# SPDX-License-Identifier: Apache-2.0
"""Jobs whose work cannot be taken back in time, or needs the job's own threads to end: others go on, nobody hangs."""

from __future__ import annotations

import pytest

from support.host import Host, Program, host

SETTINGS = '[time]\nquantum = "10ms"'


def beside_a_rival(machine: Host) -> Program:
    """A job that always wants the GPU."""
    rival = machine.job("mixer.py", "--memory", "16", "--seconds", "100", name="rival")
    rival.wait_for("step 1")
    return rival


def steps(program: Program) -> int:
    return sum(line.startswith("step ") for line in program.lines)


def both_get_on(machine: Host, rival: Program, job: Program) -> None:
    """The job comes to its end, and the rival had turns after that, too."""
    assert job.wait(90) == 0, machine.report()
    assert "result: OK" in job.text
    assert machine.job_named("job")["switches"] >= 2, machine.report()
    before = steps(rival)
    machine.until(lambda: steps(rival) > before, "the rival to go on")
    assert rival.running, rival.text


@pytest.mark.timeout(150)
@pytest.mark.parametrize("kind", ["long", "cooperative"])
def test_kernels_longer_than_the_quantum(kind: str) -> None:
    with host(settings=SETTINGS) as machine:
        rival = beside_a_rival(machine)
        job = machine.job("long_work.py", kind, name="job")
        both_get_on(machine, rival, job)


@pytest.mark.timeout(150)
def test_cooperative_kernels_of_two_jobs() -> None:
    """Blocks of one must not wait on the GPU for blocks that are kept out by the other."""
    with host(settings=SETTINGS) as machine:
        jobs = [machine.job("long_work.py", "cooperative", "--milliseconds", "4", name=name) for name in ("one", "two")]
        for job in jobs:
            assert job.wait(90) == 0, machine.report()
            assert "result: OK" in job.text


@pytest.mark.timeout(150)
def test_an_endless_kernel_holds_the_others_until_its_job_is_killed() -> None:
    with host(settings=SETTINGS) as machine:
        job = machine.job("long_work.py", "endless", name="job")
        job.wait_for("launched 1")
        rival = machine.job("mixer.py", "--memory", "16", "--steps", "5", name="rival")
        machine.until(lambda: "drain" in str(machine.job_named("job")["reason"]), "the daemon to say who holds on")
        assert machine.job_named("rival")["state"] == "waiting", machine.report()
        assert steps(rival) == 0, machine.report()
        job.kill()
        assert rival.wait(60) == 0, machine.report()
        assert "result: OK" in rival.text


@pytest.mark.timeout(150)
@pytest.mark.parametrize("kind", ["callbacks", "lock", "interpreter"])
def test_work_that_needs_the_threads_of_its_own_program(kind: str) -> None:
    with host(settings=SETTINGS) as machine:
        rival = beside_a_rival(machine)
        job = machine.job("needs_itself.py", kind, name="job")
        both_get_on(machine, rival, job)
