# SPDX-License-Identifier: Apache-2.0
"""Jobs whose work cannot be taken back in time, or needs the job's own threads to end: others go on, nobody hangs."""

from __future__ import annotations

import signal
import subprocess

import pytest

from support.host import BIN, Host, Program, host

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


LADDER = f'{SETTINGS}\ndrain_budget = "50ms"\noverrun_after = "300ms"\n'


def shown(machine: Host, *words: str) -> str:
    """What `gpuvirt` says, on a wide screen."""
    command = [str(BIN / "gpuvirt"), *words]
    done = subprocess.run(
        command, env=machine.environ(COLUMNS="250"), capture_output=True, text=True, timeout=60, check=True
    )
    return done.stdout


@pytest.mark.timeout(150)
def test_an_endless_kernel_is_killed_where_the_administrator_says_so() -> None:
    with host(settings=f'{LADDER}on_overrun = "kill"') as machine:
        rival = beside_a_rival(machine)
        job = machine.job("long_work.py", "endless", name="job")
        assert job.wait(90) == -signal.SIGKILL, machine.report()
        row = machine.until(
            lambda: (row := machine.job_named("job"))["exit"] is not None and row, "its starter to say how it ended"
        )
        assert (row["state"], row["exit"]) == ("ended", -signal.SIGKILL)
        before = steps(rival)
        machine.until(lambda: steps(rival) > before, "the rival to go on")
        why = "killed by gpuvirtd: its work was on the GPU "
        [line] = [line for line in shown(machine, "ps", "-a").splitlines() if why in line]
        assert " job " in line and "after others wanted it" in line
        described = shown(machine, "describe", "job")
        assert why in described and "overrun killed: its work was on the GPU" in described


@pytest.mark.timeout(150)
def test_an_endless_kernel_is_stopped_where_the_administrator_says_so() -> None:
    """The others have their turns; it has its own, which ends in another stop, until somebody ends it."""
    with host(settings=f'{LADDER}on_overrun = "stop"') as machine:
        rival = beside_a_rival(machine)
        job = machine.job("long_work.py", "endless", name="job")
        job.wait_for("launched 1")
        for times in (1, 2):
            machine.until(lambda times=times: stops(machine) >= times, f"stop {times}", 60)
            before = steps(rival)
            machine.until(lambda before=before: steps(rival) > before, "the rival to go on")
        assert "overrun stopped: its work was on the GPU" in shown(machine, "describe", "job")
        assert job.running and rival.running, machine.report()
        job.kill()
        before = steps(rival)
        machine.until(lambda: steps(rival) > before, "the rival to go on alone")


def stops(machine: Host) -> int:
    """How often the job was stopped."""
    events = machine.admin.call("describe", job="job")["job"]["events"]
    return sum(event["count"] for event in events if "overrun stopped" in event["text"])


@pytest.mark.timeout(150)
@pytest.mark.parametrize("kind", ["callbacks", "lock", "interpreter"])
def test_work_that_needs_the_threads_of_its_own_program(kind: str) -> None:
    with host(settings=SETTINGS) as machine:
        rival = beside_a_rival(machine)
        job = machine.job("needs_itself.py", kind, name="job")
        both_get_on(machine, rival, job)
