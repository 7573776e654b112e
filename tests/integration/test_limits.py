# SPDX-License-Identifier: Apache-2.0
"""Limits, refusals with their reason, the line: real programs on the soft GPU."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from typing import Any

import pytest

from support.host import BIN, MIB, PROGRAMS, Host, Program, host

TAKER = [sys.executable, str(PROGRAMS / "taker.py")]


class Taker:
    """A program that takes memory as it is told, as a job."""

    def __init__(self, machine: Host, name: str, *options: str) -> None:
        command = [str(BIN / "gpuvirt"), "run", "--name", name, *options, "--", *TAKER]
        self._process = subprocess.Popen(
            command, env=machine.environ(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __call__(self, line: str) -> str:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(line + "\n")
        self._process.stdin.flush()
        said, _, answer = self._process.stdout.readline().strip().partition(": ")
        assert said == line, said
        return answer

    def close(self) -> int:
        assert self._process.stdin is not None
        self._process.stdin.close()
        return self._process.wait(20)


def gpuvirt(machine: Host, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [str(BIN / "gpuvirt"), *words], env=machine.environ(), capture_output=True, text=True, timeout=60, check=False
    )


def refusals(machine: Host, job: str) -> list[str]:
    done = gpuvirt(machine, "describe", job, "-o", "json")
    assert done.returncode == 0, done.stderr
    return [event["text"] for event in json.loads(done.stdout)["events"] if event["kind"] == "refused"]


def test_limits_of_a_running_job(machine: Host) -> None:
    taker = Taker(machine, "limited", "--memory", "64M")
    assert taker("info") == "64 of 64"
    assert taker("take 48") == "OK"
    assert taker("take 32") == "CUDA_ERROR_OUT_OF_MEMORY"
    [reason] = refusals(machine, "limited")
    assert reason == (
        "allocation of 32 MiB beside 48 MiB refused: the limit of the job is 64 MiB "
        "(raise it with: gpuvirt limit j1 --memory SIZE)"
    )
    assert gpuvirt(machine, "limit", "limited", "--memory", "100M").stdout.startswith("j1: memory 100 MiB")
    assert taker("take 32") == "OK"
    assert taker("info") == "20 of 100"
    lowered = gpuvirt(machine, "limit", "1", "--memory", "40M")
    assert "80 MiB are allocated already: they stay" in lowered.stdout
    assert taker("take 2") == "CUDA_ERROR_OUT_OF_MEMORY"
    assert taker("work") == "OK"
    assert taker("free") == "OK"
    assert taker("take 2") == "CUDA_ERROR_OUT_OF_MEMORY"  # 48 MiB are still more than 40
    assert taker("free") == "OK"
    assert taker("take 40") == "OK"
    assert taker("work") == "OK"
    refused = gpuvirt(machine, "limit", "limited", "--memory", "20G")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--memory 20 GiB is more than the largest GPU has (256 MiB)" in refused.stderr
    assert taker.close() == 0
    assert "job j1 has ended" in gpuvirt(machine, "limit", "limited", "--memory", "1M").stderr


def test_limits_survive_a_restart_of_the_daemon(machine: Host) -> None:
    taker = Taker(machine, "limited", "--memory", "64M")
    assert taker("take 8") == "OK"
    assert gpuvirt(machine, "limit", "limited", "--memory", "32M", "--soft", "16M").returncode == 0
    assert machine.daemon is not None
    machine.daemon.kill(signal.SIGKILL)
    machine.daemon.wait(10)
    machine.start_daemon()
    machine.until(lambda: machine.job_named("limited")["memory_quota"] == 32 * MIB, "the job to be back")
    assert machine.job_named("limited")["memory_soft"] == 16 * MIB
    assert taker("take 32") == "CUDA_ERROR_OUT_OF_MEMORY"
    assert taker("take 24") == "OK"
    assert taker.close() == 0


def test_larger_than_the_device_is_refused_where_it_can_never_fit(machine: Host) -> None:
    """Beside a job that has all of the device: what fits alone waits, what can never fit fails at once."""
    other = machine.job("mixer.py", "--memory", "200", "--seconds", "4", name="other")
    other.wait_for("step 1")
    taker = Taker(machine, "large")
    assert taker("take 150") == "OK"
    assert taker("take 150") == "CUDA_ERROR_OUT_OF_MEMORY"
    [reason] = refusals(machine, "large")
    assert re.search(
        r"allocation of 150 MiB beside 15\d MiB refused: GPU 0 has \S+ MiB for jobs, and a job alone", reason
    )
    assert taker("take 1000000") == "CUDA_ERROR_OUT_OF_MEMORY"
    assert taker("work") == "OK"
    assert other.wait() == 0, other.text
    assert taker.close() == 0


@pytest.mark.parametrize("options", [(), ("--memory", "96M")])
def test_processes_of_one_job_never_have_more_than_fits_together(machine: Host, options: tuple[str, ...]) -> None:
    """Each takes all that it can get, at the same time. Nothing may wait for ever afterwards."""
    gang = machine.job("taker.py", "--processes", "3", "--memory", "6", name="gang", options=options)
    assert gang.wait(90) == 0, gang.text
    taken = [int(found) for found in re.findall(r"\d has (\d+)", gang.text)]
    assert len(taken) == 3, gang.text
    limit = 96 if options else 256
    assert sum(taken) <= limit
    assert sum(taken) > limit // 2  # nobody is refused what is there
    assert len(re.findall(r"\d done", gang.text)) == 3


def test_the_budget_is_named_as_the_reason() -> None:
    with host(settings='[time]\nquantum = "30ms"\nswap_share = 0.6\n[memory]\nhost_budget = "200M"') as small:
        first, second = Taker(small, "first"), Taker(small, "second")
        assert first("take 150") == "OK"
        assert first("work") == "OK"
        small.until(lambda: small.job_named("first")["charged"] >= 150 * MIB, "the daemon to hear of it")
        free = int(second("info").split()[0])
        assert 40 <= free <= 106  # what the budget leaves, or the device beside the first one's
        assert second("take 120") == "CUDA_ERROR_OUT_OF_MEMORY"
        [reason] = refusals(small, "second")
        assert "the host memory budget (200 MiB, memory.host_budget) leaves" in reason
        assert re.search(r"leaves \S+ MiB for this job beside 15\d MiB of others", reason)
        assert second("take 40") == "OK"
        assert second("work") == "OK"
        assert first("work") == "OK"
        assert (first.close(), second.close()) == (0, 0)


def test_jobs_wait_in_line_and_start_by_themselves() -> None:
    with host(settings='[memory]\nhost_budget = "300M"') as small:
        first = Taker(small, "first", "--memory", "200M")
        assert first("take 100") == "OK"
        second = small.job("mixer.py", "--memory", "32", "--steps", "2", name="second", options=("--memory", "150M"))
        line = second.wait_for("waits in line")
        third = small.job("mixer.py", "--memory", "32", "--steps", "2", name="third", options=("--memory", "240M"))
        assert "place 1: the host memory budget of 300 MiB is taken: 200 MiB by 1 job that runs" in line
        assert "this one declares 150 MiB" in line
        assert "place 2" in third.wait_for("waits in line")
        shown = gpuvirt(small, "ps").stdout
        assert shown.count("queued") == 2, shown
        none = gpuvirt(small, "run", "--memory", "200M", "--no-wait", "--", "true")
        assert none.returncode == 75
        assert first.close() == 0
        assert second.wait() == 0, second.text
        assert "starts after" in second.text
        assert third.wait() == 0, third.text
        assert "waits in line, place 1" in third.text


def test_ctrl_c_leaves_the_line() -> None:
    with host(settings='[memory]\nhost_budget = "300M"') as small:
        first = Taker(small, "first", "--memory", "250M")
        assert first("take 10") == "OK"
        waiting: Program = small.run("true", name="waiting", options=("--memory", "200M"))
        waiting.wait_for("waits in line")
        behind = small.run("true", name="behind", options=("--memory", "100M"))
        behind.wait_for("place 2")
        waiting.kill(signal.SIGINT)
        assert waiting.wait() == 130
        behind.wait_for("place 1")
        rows: list[dict[str, Any]] = small.status()["jobs"]
        assert {row["name"]: row["state"] for row in rows}["waiting"] == "ended"
        assert first.close() == 0
        assert behind.wait() == 0
