# SPDX-License-Identifier: Apache-2.0
"""Who uses a GPU without gpuvirt is named: started so, or a job's process that has lost the shim."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator

import pytest

from gpuvirt import paths
from support.host import BIN, PROGRAMS, Host, host

GUEST = (sys.executable, str(PROGRAMS / "guest.py"))


@pytest.fixture
def machine() -> Iterator[Host]:
    with host(settings='[gpus]\npoll = "200ms"') as ready:
        yield ready


def notes(machine: Host) -> str:
    done = subprocess.run(
        [str(BIN / "gpuvirt"), "ps"], env=machine.environ(), capture_output=True, text=True, check=True
    )
    return done.stderr


def test_a_client_is_no_stranger(machine: Host) -> None:
    program = machine.job("guest.py", "hold", "8")
    program.wait_for("holds")
    machine.until(lambda: machine.gpu()["processes"], "NVML to list it", 5)
    assert machine.gpu()["strangers"] == []
    assert notes(machine) == ""


def test_a_program_without_gpuvirt(machine: Host) -> None:
    program = machine.bare("guest.py", "hold", "8")
    program.wait_for("holds")
    (stranger,) = machine.until(lambda: machine.gpu()["strangers"], "the stranger to be seen", 5)
    assert (stranger["pid"], stranger["job"]) == (program.pid, None)
    assert f"process {program.pid} (" in notes(machine)
    assert "uses GPU 0 without gpuvirt\n" in notes(machine)
    program.kill()
    machine.until(lambda: not machine.gpu()["strangers"], "it to be gone", 5)


def test_a_process_that_lost_the_shim(machine: Host) -> None:
    """As after ssh or sudo: neither preload nor folder, the real driver in their place."""
    driver = paths.library("softgpu/libcuda.so.1").parent
    program = machine.run("env", "-u", "LD_PRELOAD", f"LD_LIBRARY_PATH={driver}", *GUEST, "hold", "8", name="lost")
    program.wait_for("holds")
    (stranger,) = machine.until(lambda: machine.gpu()["strangers"], "the escapee to be seen", 5)
    assert stranger["job"] == machine.job_named("lost")["job"]
    assert f"it was started by job {stranger['job']} and has lost the shim" in notes(machine)
