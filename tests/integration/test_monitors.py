# SPDX-License-Identifier: Apache-2.0
"""Monitors of others, unmodified, see the soft GPUs and what runs on them."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterator

import pytest

from support.host import BIN, MIB, Host, Program

PROFILES = {"GPUVIRT_SOFTGPU_PROFILE": "h100-80gb,t4", "GPUVIRT_SOFTGPU_WORKERS": "1"}


@pytest.fixture
def soft() -> Iterator[Host]:
    """Two soft GPUs of 256 MiB without a daemon."""
    machine = Host(256 * MIB, options=PROFILES)
    try:
        yield machine
    finally:
        machine.close()


def busy(machine: Host) -> Program:
    """A process with 32 MiB on the first GPU and kernels one after the other."""
    program = machine.bare("mixer.py", "--memory", "32", "--seconds", "60")
    program.wait_for("step 3")
    return program


def output(machine: Host, *command: str) -> str:
    environ = {**machine.environ(), "COLUMNS": "400", "LINES": "50", "TERM": "dumb"}
    done = subprocess.run(command, env=environ, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def bare(machine: Host, *command: str) -> str:
    """Found by the environment, as in a shell after `gpuvirt soft-gpu env`."""
    return output(machine, str(BIN / command[0]), *command[1:])


def through_run(machine: Host, *command: str) -> str:
    """`gpuvirt soft-gpu run`."""
    name = ("soft-gpu", "run", "--board", str(machine.board), "--")
    return output(machine, str(BIN / "gpuvirt"), *name, str(BIN / command[0]), *command[1:])


@pytest.mark.parametrize("how", [bare, through_run])
def test_nvitop(soft: Host, how: object) -> None:
    assert callable(how)
    program = busy(soft)
    text = how(soft, "nvitop", "--once")
    assert all(part in text for part in ("puvirt) h100-80gb", "GPU (gpuvirt) t4", "00000000:10:00.0", "W / 70W")), text
    used = [line for line in text.splitlines() if "MiB / 256.0MiB" in line or "MiB / 256MiB" in line]
    assert used, text
    rows = [line for line in text.splitlines() if f" {program.pid} " in line]
    assert rows and "mixer.py" in rows[0] and "MiB" in rows[0], text


@pytest.mark.parametrize("how", [bare, through_run])
def test_gpustat(soft: Host, how: object) -> None:
    assert callable(how)
    program = busy(soft)
    first, second = json.loads(how(soft, "gpustat", "--json", "--show-pid", "--show-cmd"))["gpus"]
    assert (first["name"], second["name"]) == ("Soft GPU (gpuvirt) h100-80gb", "Soft GPU (gpuvirt) t4")
    assert first["memory.total"] == 256 and 32 <= first["memory.used"] < 40
    assert (first["enforced.power.limit"], second["enforced.power.limit"]) == (700, 70)
    assert first["fan.speed"] is None and first["utilization.enc"] is None  # what it has not is not 0
    assert first["utilization.gpu"] > 5 and second["utilization.gpu"] == 0
    [process] = first["processes"]
    assert process["pid"] == program.pid and process["gpu_memory_usage"] >= 32
    assert second["processes"] == []


def test_each_process_has_its_share(soft: Host) -> None:
    """What nvitop shows as %SM, from nvmlDeviceGetProcessUtilization with its time stamps."""
    programs = [busy(soft), busy(soft)]
    code = (
        "import json, time, pynvml as n\n"
        "n.nvmlInit(); h = n.nvmlDeviceGetHandleByIndex(0)\n"
        "first = n.nvmlDeviceGetProcessUtilization(h, 0)\n"
        "seen = max(s.timeStamp for s in first)\n"
        "time.sleep(1.0)\n"
        "later = n.nvmlDeviceGetProcessUtilization(h, seen)\n"
        "print(json.dumps([[[s.pid, s.timeStamp, s.smUtil] for s in samples] for samples in (first, later)]))\n"
        "try: n.nvmlDeviceGetProcessUtilization(h, int(time.time() * 1e6))\n"
        "except n.NVMLError_NotFound: print('nothing newer')\n"
    )
    samples, nothing = bare(soft, "python", "-c", code).splitlines()
    first, later = json.loads(samples)
    pids = {program.pid for program in programs}
    assert {pid for pid, _, _ in first} == pids == {pid for pid, _, _ in later}
    assert min(stamp for _, stamp, _ in later) > max(stamp for _, stamp, _ in first)
    assert all(5 < share <= 100 for _, _, share in later) and sum(share for _, _, share in later) <= 103, later
    assert nothing == "nothing newer"
    assert os.getpid() not in pids
