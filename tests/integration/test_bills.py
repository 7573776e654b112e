# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt usage` with real programs: what they used is on the bill of their user, also when the daemon is killed."""

from __future__ import annotations

import json
import signal
import subprocess
from typing import Any

import pytest

from support.host import BIN, Host


def usage(machine: Host, by: str) -> list[dict[str, Any]]:
    """`gpuvirt usage --by BY -o json`."""
    done = subprocess.run(
        [str(BIN / "gpuvirt"), "usage", "--since", "1h", "--by", by, "-o", "json"],
        env=machine.environ(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, "")
    rows: list[dict[str, Any]] = json.loads(done.stdout)
    return rows


def test_two_programs_and_a_daemon_that_dies(machine: Host) -> None:
    programs = [machine.job("mixer.py", "--memory", "32", "--seconds", "250", name=name) for name in "ab"]
    for program in programs:
        program.wait_for("step 3")

    def both_have_one() -> list[dict[str, Any]]:
        rows = [row for row in usage(machine, "job") if row["held_s"] > 0]
        return rows if len(rows) == 2 else []

    before = {row["name"]: row for row in machine.until(both_have_one, "a bill of each")}
    assert set(before) == {"a", "b"}
    assert machine.daemon is not None
    machine.daemon.kill(signal.SIGKILL)
    machine.daemon.wait()
    machine.start_daemon()
    machine.until(lambda: all(machine.job_named(name)["switches"] for name in "ab"), "turns after the restart")
    for program in programs:
        program.kill()
    machine.until(lambda: {job["state"] for job in machine.status()["jobs"]} == {"ended"}, "the end of both")
    rows = {row["name"]: row for row in usage(machine, "job")}
    assert set(rows) == {"a", "b"}, "each has one line, however many daemons there were"
    for name, row in rows.items():
        assert row["ended"] and row["switches"] > before[name]["switches"]
        for sums in ("held_s", "alone_s", "busy_s", "wait_s", "gpu_s"):
            assert row[sums] >= before[name][sums], (name, sums)
    (tenant,), (gpu,) = usage(machine, "tenant"), usage(machine, "gpu")
    for whole in (tenant, gpu):
        assert whole["jobs"] == 2
        assert whole["gpu_s"] == pytest.approx(sum(row["gpu_s"] for row in rows.values()))
    table = subprocess.run(
        [str(BIN / "gpuvirt"), "usage", "--by", "job"],
        env=machine.environ(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert {line.split()[1] for line in table.stdout.splitlines()[1:3]} == {"a", "b"}
    assert table.stdout.splitlines()[-1].startswith("all ")
