# SPDX-License-Identifier: Apache-2.0
"""What operators see of two jobs that do not fit together: every verb, and that the figures agree with each other."""

from __future__ import annotations

import json
import subprocess
from typing import Any

from support.host import BIN, MIB, Host

MEMORY = 160


def gpuvirt(machine: Host, *arguments: str, **environ: str) -> str:
    command, variables = [str(BIN / "gpuvirt"), *arguments], machine.environ(**environ)
    done = subprocess.run(
        command, env=variables, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def swapping(machine: Host, turns: int) -> list[dict[str, Any]]:
    """Starts two jobs of 160 MiB on 256, and waits for so many switches that moved memory."""
    for name in ("first", "second"):
        machine.job("mixer.py", "--memory", str(MEMORY), "--seconds", "100", name=name).wait_for("step 1")

    def rows() -> list[dict[str, Any]] | None:
        found: list[dict[str, Any]] = machine.admin.call("switches")["switches"]
        return found if len(found) >= turns else None

    found: list[dict[str, Any]] = machine.until(rows, f"{turns} switches", 60)
    return found


def test_a_switch_in_figures(machine: Host) -> None:
    rows = swapping(machine, 4)
    jobs = {machine.job_named(name)["job"] for name in ("first", "second")}
    for row in rows:
        assert row["to"] in jobs and row["kind"] in ("turn", "room")
        assert row["out"]["failed"] == row["in"]["failed"] == 0
        assert 0 <= row["drain_s"] <= row["delay_s"] < 60
        for way in ("out", "in"):
            flow = row[way]
            left = sum(flow[kind] for kind in ("copied", "zero", "clean", "duplicate"))
            assert 0 <= left <= MEMORY * MIB and left % MIB == 0
            assert flow["rate"] is None or flow["rate"] > 1e6
    last = rows[0]
    assert last["out"]["requests"] >= 1
    assert {last["from"], last["to"]} == jobs
    link = machine.gpu()["link"]
    assert sum(row["out"]["copied"] for row in rows) <= link["out_bytes"] + MEMORY * MIB
    assert 0 <= link["share"] <= 1 and link["measured"]


def test_what_is_lost_is_less_than_what_is_waited(machine: Host) -> None:
    swapping(machine, 4)
    for name in ("first", "second"):
        job = machine.job_named(name)
        assert 0 < job["lost_s"] <= job["wait_s"] + 0.1, "a job that loses time waits"
        assert 0 < job["lost_share"] < 1
        assert job["moved"]["out"]["copied"] == job["out_bytes"] and job["moved"]["in"]["copied"] == job["in_bytes"]
        assert job["moved"]["hash_errors"] == job["moved"]["verify_errors"] == 0
    gpu = machine.gpu()
    assert 0 < gpu["lost_s"] < machine.status()["daemon"]["uptime_s"]
    alone = machine.job("mixer.py", "--memory", "8", "--seconds", "1", name="small")
    alone.wait_for("result: OK")


def test_tables_of_swapping_jobs_fit_and_have_everything(machine: Host) -> None:
    swapping(machine, 3)
    for columns in ("80", "100", "140"):
        for verb in (("ps",), ("gpus",), ("top", "--once", "-i", "0.2"), ("switches",)):
            text = gpuvirt(machine, *verb, COLUMNS=columns)
            assert max(map(len, text.splitlines())) <= int(columns), text
            assert "None" not in text and "nan" not in text
    text = gpuvirt(machine, "describe", "first", COLUMNS="100")
    for words in ("moved out", "moved in", "lost", "host memory", "Last switches that moved memory", "Processes"):
        assert words in text, text
    assert max(map(len, text.split("\n\n", 1)[1].splitlines())) <= 100, text
    top = json.loads(gpuvirt(machine, "top", "-i", "0.5", "-o", "json"))
    assert {job["name"] for job in top["jobs"]} == {"first", "second"}
    assert sum(job["share"] for job in top["jobs"]) <= 1.05, "of one GPU"
    wide = gpuvirt(machine, "switches", "-w").splitlines()
    assert len(wide) >= 4 and "STAYED" in wide[0]


def test_a_daemon_that_comes_back_goes_on_counting(machine: Host) -> None:
    swapping(machine, 6)
    assert machine.daemon is not None
    moved = machine.gpu()["link"]["out_bytes"]
    before = machine.job_named("first")["out_bytes"]
    machine.daemon.kill()
    machine.daemon.wait()
    machine.start_daemon()
    machine.until(lambda: machine.job_named("first")["out_bytes"] >= before, "what its process has counted")
    link = machine.gpu()["link"]
    assert link["out_bytes"] < moved, "the new daemon counts what it sees moved"
    machine.until(lambda: machine.gpu()["link"]["out_bytes"] > link["out_bytes"], "a swap under the new daemon", 60)
    machine.until(lambda: machine.admin.call("switches")["switches"], "a record of its own")


def test_what_is_saved_is_the_same_wherever_it_is_told(machine: Host) -> None:
    """A job of zeros beside one that is all new each time: its account, the records, the metrics."""
    zeros = machine.job("pages.py", "zeros", "--memory", "160", "--turns", "4", name="zeros")
    dirty = machine.job("pages.py", "dirty", "--memory", "160", "--turns", "4", "--seed", "2", name="dirty")
    assert (zeros.wait(), dirty.wait()) == (0, 0), machine.report()
    accounts = {name: machine.job_named(name) for name in ("zeros", "dirty")}
    told = machine.admin.call("switches", count=1000)["switches"]
    for way in ("out", "in"):
        for kind in ("copied", "zero", "clean", "duplicate"):
            of_jobs = sum(job["moved"][way][kind] for job in accounts.values())
            of_records = sum(row[way][kind] for row in told)
            # What moved after the last switch is in no record.
            assert of_jobs - 160 * MIB <= of_records <= of_jobs, (way, kind, of_jobs, of_records)
    assert accounts["zeros"]["moved"]["out"]["zero"] > 0
    assert accounts["zeros"]["moved"]["out"]["copied"] == 0
    assert "MiB zero" in gpuvirt(machine, "describe", "zeros")
    assert any(row["out"]["zero"] and not row["out"]["copied"] for row in told)
