# SPDX-License-Identifier: Apache-2.0
"""Programs that do everything at once, in turns as short as can be; and orders that only look alike."""

from __future__ import annotations

import time

import pytest

from support.host import Host, host
from support.native import build

HASTY = '[time]\nquantum = "5ms"\nswap_share = 1.0'


def storm(seed: int, seconds: int = 4) -> tuple[str, ...]:
    """Four seconds of five threads with 160 MiB, every second one with contexts of its own."""
    program = build("") / "tests" / "shim" / "storm"
    return (str(program), str(seconds), str(seed), "160", "5", "own")


@pytest.mark.timeout(600)
@pytest.mark.parametrize("killed", [False, True], ids=["calm", "daemon-killed"])
def test_threads_streams_and_contexts_with_too_little_memory(killed: bool) -> None:
    build("")
    with host(settings=HASTY) as machine:
        assert machine.run(*storm(2, seconds=0)).wait() == 0  # compiles the kernels: the others start together
        jobs = [machine.run(*storm(seed), name=f"storm{seed}") for seed in range(2)]
        for job in jobs:
            job.wait_for("ready")
        if killed:
            assert machine.daemon is not None
            time.sleep(1.5)
            machine.daemon.kill()
            machine.daemon.wait()
            machine.start_daemon()
        for job in jobs:
            assert job.wait() == 0, machine.report()
            assert "result: OK" in job.text
        if not killed:  # a job may end before the next daemon is there
            assert sum(machine.job_named(f"storm{seed}")["out_bytes"] for seed in range(2)) > 0
        machine.until(lambda: machine.device_used() == 0, "the soft GPU to be empty")


@pytest.mark.parametrize("others", ["threads", "contexts", "streams"])
def test_stream_order_holds_for_the_very_stream_only(machine: Host, others: str) -> None:
    program = machine.job("reuse.py", others)
    assert program.wait() == 0, program.text
    assert "result: OK" in program.text


def test_a_lost_context_does_not_take_the_memory_of_another(machine: Host) -> None:
    program = machine.job("lost.py", name="lost")
    program.wait_for("lost: CUDA_ERROR_ILLEGAL_ADDRESS")
    rival = machine.job("mixer.py", "--memory", "176", "--seconds", "2")
    assert program.wait() == 0, program.text
    assert rival.wait() == 0, rival.text
    assert machine.job_named("lost")["out_bytes"] > 0
