# SPDX-License-Identifier: Apache-2.0
"""The command line against a real daemon: what both must mean alike. Alone: tests/unit/gpuvirt/cli."""

from __future__ import annotations

import json
import subprocess
import sys

from gpuvirt.cli import gpus, ps
from support.host import BIN, PROGRAMS, Host

ATTACH = """
import ctypes
cuda = ctypes.CDLL("libcuda.so.1")
context = ctypes.c_void_p()
assert cuda.cuInit(0) == 0
assert cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0) == 0
print("attached", flush=True)
"""
NOTE = "made no CUDA call"


def test_note_only_for_programs_without_a_cuda_call(machine: Host) -> None:
    silent = machine.run("true")
    assert silent.wait() == 0
    assert NOTE in silent.text
    speaking = machine.run(sys.executable, "-c", ATTACH)
    assert speaking.wait() == 0
    assert "attached" in speaking.text
    assert NOTE not in speaking.text


def test_every_column_has_its_key(machine: Host) -> None:
    """A renamed key of the daemon would only show as "-" in a table."""
    assert machine.run("true", name="one").wait() == 0
    jobs = machine.start([str(BIN / "gpuvirt"), "ps", "-a", "-o", "json"])
    devices = machine.start([str(BIN / "gpuvirt"), "gpus", "-o", "json"])
    assert (jobs.wait(), devices.wait()) == (0, 0)
    for text, columns in ((jobs.text, ps.WIDE), (devices.text, gpus.WIDE)):
        row = json.loads(text)[0]
        read: set[str] = set()

        class Spy(dict):  # type: ignore[type-arg]
            def get(self, key: str, default: object = None) -> object:
                read.add(key)  # noqa: B023
                return super().get(key, default)

        for column in columns:
            column.text(Spy(row))
        assert read <= set(row), f"not told by gpuvirtd: {read - set(row)}"


def test_tables_fit(machine: Host) -> None:
    assert machine.run("true", name="a-long-name-of-a-job-that-has-ended").wait() == 0
    for verb in (("ps", "-a"), ("gpus",)):
        shown = machine.start([str(BIN / "gpuvirt"), *verb])
        assert shown.wait() == 0
        assert max(map(len, shown.lines)) <= 80, shown.text


def test_how_a_job_ended_is_kept(machine: Host) -> None:
    """The daemon sees the death before `gpuvirt run` can tell the exit code; both belong to the same job."""
    failed = machine.run("sh", "-c", "exit 3", name="failed", options=("--quiet",))
    assert failed.wait(30) == 3
    row = machine.until(
        lambda: machine.job_named("failed")["exit"] is not None and machine.job_named("failed"), "the exit code"
    )
    assert (row["state"], row["exit"], row["reason"]) == ("ended", 3, "exit code 3")
    killed = machine.run("sh", "-c", "kill -9 $$", name="killed", options=("--quiet",))
    assert killed.wait(30) == -9
    row = machine.until(
        lambda: machine.job_named("killed")["exit"] is not None and machine.job_named("killed"), "the exit code"
    )
    assert row["reason"] == "ended by signal 9"


def test_what_an_ended_job_said_is_kept(machine: Host) -> None:
    code = (
        f"import sys, time, ctypes; sys.path.insert(0, {str(PROGRAMS)!r}); from device import *; open_device()\n"
        "table, uuid = ctypes.c_void_p(), bytes(range(16))\n"
        "ctypes.CDLL('libcuda.so.1').cuGetExportTable(ctypes.byref(table), uuid); time.sleep(1.2)\n"
    )
    assert machine.run(sys.executable, "-c", code, name="talker").wait() == 0
    row = machine.until(lambda: [j for j in machine.status()["jobs"] if j["state"] == "ended"], "it to be ended")[0]
    assert "00010203-0405" in row["events"][0]
    describe = [str(BIN / "gpuvirt"), "describe", "talker"]
    done = subprocess.run(describe, env=machine.environ(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    heading, line = done.stdout.splitlines()[-2:]
    assert heading == "Events" and "00010203-0405" in line and line.startswith("20"), line
    asked = subprocess.run([*describe, "-o", "json"], env=machine.environ(), capture_output=True, text=True, check=True)
    [event] = json.loads(asked.stdout)["events"]
    assert set(event) == {"at", "first", "kind", "pid", "text", "count"}
