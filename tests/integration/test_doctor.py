# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt doctor` with a daemon, with and without a command."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from gpuvirt import paths
from support.host import BIN, PROGRAMS, Host

SOFT = paths.library("softgpu/libcuda.so.1").parent


def doctor(machine: Host, *command: str, seconds: float = 20.0) -> tuple[int, dict[str, list[dict[str, Any]]]]:
    """(exit code, findings by name)."""
    words = ["--seconds", str(seconds), "--", *command] if command else []
    done = subprocess.run(
        [str(BIN / "gpuvirt"), "doctor", "-o", "json", *words],
        env=machine.environ(), stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=90, check=False,
    )  # fmt: skip
    assert done.stderr == "", done.stderr
    found: dict[str, list[dict[str, Any]]] = {}
    for finding in json.loads(done.stdout):
        found.setdefault(finding["name"], []).append(finding)
    return done.returncode, found


def states(found: dict[str, list[dict[str, Any]]]) -> dict[str, list[str]]:
    return {name: [finding["state"] for finding in findings] for name, findings in found.items()}


def test_healthy(machine: Host) -> None:
    code, found = doctor(machine)
    assert code == 0, found
    versions = found["versions"][0]
    assert versions["state"] == "ok" and versions["facts"]["headers"] == versions["facts"]["driver"] >= 13000
    doors = found["doors"][0]
    assert doors["state"] == "ok" and len(doors["facts"]) == 6
    assert {Path(path).name for path in doors["facts"].values()} == {"libgpuvirt-shim.so", "libgpuvirt-nvml.so"}
    assert machine.admin.call("status", all=True)["jobs"] == [], "nothing stays of the trial jobs"


def test_somebody_past_gpuvirt(machine: Host) -> None:
    program = machine.bare("mixer.py", "--memory", "16", "--seconds", "60")
    program.wait_for("step 1")
    code, found = doctor(machine)
    assert code == 0
    [stranger] = found["strangers"]
    assert stranger["state"] == "warn" and stranger["facts"] == {"pids": [program.pid]}
    machine.job("mixer.py", "--memory", "16", "--seconds", "60").wait_for("step 1")

    def unmanaged() -> bool:  # NVML is asked again when somebody attaches
        text = str(machine.admin.call("metrics")["text"])
        return any(
            line.startswith("gpuvirt_gpu_unmanaged_processes") and line.endswith(" 1") for line in text.split("\n")
        )

    machine.until(unmanaged, "the metric")


def test_a_program_that_behaves(machine: Host) -> None:
    code, found = doctor(machine, sys.executable, str(PROGRAMS / "mixer.py"), "--memory", "32", "--seconds", "1.5")
    assert code == 0, found
    expected = ("program", "loader", "trial", "loaded", "attached", "escapes", "passed")
    assert {name: states(found)[name][-1] for name in expected} == dict.fromkeys(expected, "ok"), found
    assert "cydriver" in found["loaded"][0]["message"]
    assert found["attached"][0]["facts"]["submitted"] > 0
    assert machine.admin.call("status", all=True)["jobs"] == []


def test_tables_that_a_program_asks_for(machine: Host) -> None:
    code = (
        f"import sys, time, ctypes; sys.path.insert(0, {str(PROGRAMS)!r})\n"
        "from device import *\n"
        "open_device()\n"
        "table, uuid = ctypes.c_void_p(), bytes.fromhex('6bd5fb6c5bf4e74a8987d93912fd9df9')\n"
        "for _ in range(3): assert ctypes.CDLL('libcuda.so.1').cuGetExportTable(ctypes.byref(table), uuid) != 0\n"
        "time.sleep(1.2)\n"
    )
    status, found = doctor(machine, sys.executable, "-c", code)
    assert status == 0, found
    [told] = found["told"]
    assert told["state"] == "ok" and "6bd5fb6c-5bf4-e74a-8987-d93912fd9df9" in told["message"], found
    assert "the driver has none (interface of the CUDA runtime)" in told["message"]


def test_a_program_that_loses_its_environment(machine: Host) -> None:
    command = f"env -u LD_PRELOAD LD_LIBRARY_PATH={SOFT} {sys.executable} {PROGRAMS / 'mixer.py'} --seconds 1; exit 0"
    code, found = doctor(machine, "sh", "-c", command)
    assert code == 1
    [escape] = found["escapes"]
    assert escape["state"] == "fail" and "its environment has lost LD_PRELOAD" in escape["message"], found


def test_a_program_that_loses_all_of_its_environment(machine: Host) -> None:
    code = f"import ctypes, time; ctypes.CDLL('{SOFT}/libcuda.so.1'); time.sleep(1)"
    status, found = doctor(machine, "env", "-i", sys.executable, "-c", code)
    assert status == 1
    [escape] = found["escapes"]
    assert escape["state"] == "fail" and "its environment has lost LD_PRELOAD" in escape["message"], found


def test_a_program_that_opens_the_driver_by_its_path(machine: Host) -> None:
    code = (
        f"import ctypes, time; cuda = ctypes.CDLL('{SOFT}/libcuda.so.1'); cuda.cuInit(0)\n"
        "context = ctypes.c_void_p(); cuda.cuDevicePrimaryCtxRetain(ctypes.byref(context), 0); time.sleep(3)"
    )
    status, found = doctor(machine, sys.executable, "-c", code)
    assert status == 1
    assert any("is no client of gpuvirtd" in finding["message"] for finding in found["escapes"]), found


@pytest.mark.parametrize(
    ("command", "name", "words"),
    [
        (["no-such-program"], "program", "not in PATH"),
        (["sh", "-c", "echo what is wrong; exit 7"], "trial", "exit code 7"),
    ],
)
def test_programs_that_fail(machine: Host, command: list[str], name: str, words: str) -> None:
    code, found = doctor(machine, *command)
    assert code == (1 if name == "program" else 0)
    assert words in found[name][0]["message"], found


def test_a_static_program_is_named(machine: Host) -> None:
    program = machine.folder / "static"
    source = "int main(void) { return 0; }"
    built = subprocess.run(["cc", "-x", "c", "-", "-static", "-o", program], input=source, text=True, check=False)
    if built.returncode != 0:
        pytest.skip("no static libc")
    code, found = doctor(machine, str(program))
    assert code == 1 and "statically linked" in found["program"][0]["message"]


def test_without_a_daemon_the_command_is_not_tried(machine: Host) -> None:
    assert machine.daemon is not None
    machine.daemon.stop()
    code, found = doctor(machine, "touch", str(machine.folder / "tried"))
    assert code == 1 and found["program"][0]["state"] == "fail"
    assert not (machine.folder / "tried").exists()
    assert found["doors"][0]["state"] == "ok", "the shims work without one, too"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_an_impatient_end_leaves_no_process(machine: Host, number: signal.Signals) -> None:
    pids = machine.folder / "pids"
    stubborn = f"trap '' TERM INT HUP; sleep 300 & echo $$ $! > {pids}; wait; sleep 300"
    program = machine.start([str(BIN / "gpuvirt"), "doctor", "--seconds", "200", "--", "sh", "-c", stubborn])
    machine.until(lambda: pids.exists() and len(pids.read_text().split()) == 2, "the program to run", 60)
    for _ in range(3):
        with contextlib.suppress(ProcessLookupError):
            os.kill(program.pid, number)
        time.sleep(0.4)
    assert program.wait(20) == 128 + number, program.text
    assert "Traceback" not in program.text
    left = [pid for pid in pids.read_text().split() if Path(f"/proc/{pid}").exists()]
    assert not left, f"{left} still run"
    machine.until(lambda: not machine.admin.call("status", all=True)["jobs"], "the trial job to end")


def test_a_daemon_that_restarts_meanwhile(machine: Host) -> None:
    code = (
        f"import sys, time; sys.path.insert(0, {str(PROGRAMS)!r}); from device import *; open_device(); time.sleep(4)"
    )
    words = ["doctor", "--seconds", "20", "--", sys.executable, "-c", code]
    program = machine.start([str(BIN / "gpuvirt"), *words])
    machine.until(lambda: any(job["pids"] for job in machine.status()["jobs"]), "the program to attach")
    assert machine.daemon is not None
    machine.daemon.kill()
    machine.daemon.wait(10)
    machine.start_daemon()
    assert program.wait(60) == 0, program.text
    assert "fail" not in program.text
    machine.until(lambda: not machine.admin.call("status", all=True)["jobs"], "the trial jobs to end unseen")
