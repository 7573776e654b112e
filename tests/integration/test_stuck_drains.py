# SPDX-License-Identifier: Apache-2.0
"""Work of a job that waits for other work of the same job, beside a job that always wants the GPU: nobody hangs."""

from __future__ import annotations

import pytest

from support.host import host


@pytest.mark.timeout(120)
@pytest.mark.parametrize(("memory", "rounds"), [(16, 160), (160, 160)], ids=["fits", "swapped"])
def test_a_job_that_waits_for_its_own_threads(memory: int, rounds: int) -> None:
    with host(settings='[time]\nquantum = "20ms"\nswap_share = 0.6') as machine:
        other = machine.job("mixer.py", "--memory", str(memory), "--seconds", "60", name="other")
        other.wait_for("ready")
        job = machine.job("handshake.py", "--rounds", str(rounds), "--memory", str(memory), name="handshake")
        assert job.wait(60) == 0, machine.report()
        assert f"result: OK rounds={rounds}" in job.text
        turns = machine.job_named("handshake")["switches"]
        assert turns >= 2, machine.report()  # the other one had its turn in between
        assert other.running, other.text


@pytest.mark.timeout(120)
def test_a_thread_that_gives_more_to_a_stream_that_waits_for_it() -> None:
    with host(settings='[time]\nquantum = "20ms"') as machine:
        other = machine.job("mixer.py", "--memory", "16", "--seconds", "90", name="other")
        other.wait_for("ready")
        job = machine.job("own_wait.py", "6", name="own")
        assert job.wait(80) == 0, machine.report()
        assert "result: OK rounds=6" in job.text
        assert other.running, other.text


@pytest.mark.timeout(180)
def test_a_daemon_that_comes_back_while_a_drain_is_stuck() -> None:
    """What waits on the GPU waits for a thread at the gate: the process says so to the new daemon, too."""
    with host(settings='[time]\nquantum = "20ms"\nrecovery_grace = "1s"') as machine:
        other = machine.job("mixer.py", "--memory", "16", "--seconds", "90", name="other")
        other.wait_for("ready")
        job = machine.job("handshake.py", "--rounds", "240", "--memory", "16", name="handshake")
        for number in (16, 56, 96):
            job.wait_for(f"round {number}")
            machine.daemon.kill()
            machine.daemon.wait()
            machine.start_daemon()
        assert job.wait(60) == 0, machine.report()
        assert "result: OK rounds=240" in job.text
        assert other.running, other.text
