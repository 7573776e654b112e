# SPDX-License-Identifier: Apache-2.0
"""What of a job's memory is copied when it is swapped: not zeros, not what is unchanged, nothing twice."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from support.host import MIB, PROGRAMS, Host, host

EACH = 96  # MiB of a job: two do not fit


@pytest.fixture
def machine() -> Iterator[Host]:
    with host(memory=128 * MIB) as running:
        yield running


def finished(machine: Host, *kinds: str, turns: int = 5, memory: int = EACH) -> list[dict[str, Any]]:
    """Runs one job of each kind beside the others; their accounts."""
    jobs = [
        machine.job("pages.py", kind, "--memory", str(memory), "--turns", str(turns), "--seed", str(n), name=f"job{n}")
        for n, kind in enumerate(kinds)
    ]
    for job in jobs:
        assert job.wait() == 0, machine.report()
    accounts = [machine.job_named(f"job{n}") for n in range(len(kinds))]
    for account in accounts:
        assert account["moved"]["hash_errors"] == account["moved"]["verify_errors"] == 0, account
        assert account["switches"] >= 3, account
    return accounts


def left(account: dict[str, Any]) -> dict[str, int]:
    """Bytes that left, by kind, and `all`."""
    out: dict[str, int] = {kind: account["moved"]["out"][kind] for kind in ("copied", "zero", "clean", "duplicate")}
    return {**out, "all": sum(out.values())}


def test_what_is_unchanged_is_copied_once(machine: Host) -> None:
    weights, dirty = (left(account) for account in finished(machine, "weights", "dirty"))
    assert weights["all"] >= 3 * 64 * MIB, weights
    assert weights["copied"] <= (EACH + 4) * MIB, weights  # each page the first time; it shares its extent with nothing
    assert weights["clean"] >= weights["all"] // 2, weights
    assert dirty["copied"] >= 2 * 64 * MIB, dirty


def test_zeros_are_never_copied(machine: Host) -> None:
    zeros, _ = (left(account) for account in finished(machine, "zeros", "dirty"))
    assert zeros["copied"] == 0 and zeros["zero"] == zeros["all"] >= 3 * 64 * MIB, zeros


def test_equal_pages_of_a_process_are_copied_once(machine: Host) -> None:
    """As far as both leave: of a job that is evicted in part, some pages have their equals on the device."""
    replicas, _ = (left(account) for account in finished(machine, "replicas", "dirty"))
    assert replicas["duplicate"] >= 32 * MIB, replicas
    assert replicas["copied"] + replicas["duplicate"] + replicas["clean"] == replicas["all"], replicas


def test_a_single_word_is_noticed(machine: Host) -> None:
    words, _ = (left(account) for account in finished(machine, "words", "dirty", turns=8))
    assert words["all"] >= 3 * 64 * MIB, words


def test_jobs_do_not_share(machine: Host) -> None:
    """Two jobs with the same content: each has it copied for itself."""
    jobs = [
        machine.job("pages.py", "weights", "--memory", str(EACH), "--turns", "4", "--seed", "7", name=f"twin{n}")
        for n in range(2)
    ]
    for job in jobs:
        assert job.wait() == 0, machine.report()
    for n in range(2):
        out = left(machine.job_named(f"twin{n}"))
        assert out["duplicate"] == 0, out
        assert out["copied"] >= 64 * MIB, out


def test_processes_of_a_job_share(machine: Host) -> None:
    """Two replicas in one job: what one has in host memory serves the other."""
    replica = f"{sys.executable} {PROGRAMS / 'pages.py'} weights --memory 48 --turns 8 --seed 3"
    pair = machine.run("sh", "-c", f"{replica} & {replica} && wait $!", name="pair")
    other = machine.job("pages.py", "dirty", "--memory", str(EACH), "--turns", "8", name="other")
    assert pair.wait() == 0, machine.report()
    assert other.wait() == 0, machine.report()
    account = machine.job_named("pair")
    print(account["moved"])
    assert account["moved"]["hash_errors"] == 0


def test_what_is_freed_while_it_leaves_costs_no_host_memory() -> None:
    with host(memory=32 * MIB, settings='[time]\nquantum = "20ms"\nswap_share = 1.0') as machine:
        job = machine.job("giver.py", "--memory", "12", name="job", GPUVIRT_FAILPOINTS="evict_wait:stall=500")
        job.wait_for("ready")
        rival = machine.job("put_by.py", "--memory", "24", "--steps", "100", name="rival")
        job.wait_for("failpoint evict_wait")
        os.kill(job.child_pid(), signal.SIGUSR1)
        job.wait_for("given")

        def holds() -> int:
            answer: dict[str, Any] = machine.admin.call("describe", job=machine.job_named("job")["job"])["job"]
            return sum(int(process["host"]) for process in answer["processes"])

        machine.until(lambda: machine.job_named("job")["arena"] == 0, "its arena to be empty", 5.0)
        machine.until(lambda: holds() == 0, "its page to say so", 5.0)
        os.kill(job.child_pid(), signal.SIGUSR1)
        assert job.wait() == 0 and rival.wait() == 0, machine.report()
