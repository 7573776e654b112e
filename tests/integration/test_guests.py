# SPDX-License-Identifier: Apache-2.0
"""The shim as a guest: whatever the process does with itself, its state is right, and nobody else is hurt."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from gpuvirt import paths
from support.host import PROGRAMS, Host, host
from support.native import call

MIB = 1 << 20
NOT_READY = 802


@pytest.fixture
def machine() -> Iterator[Host]:
    with host() as ready:
        yield ready


def pids(machine: Host) -> list[int]:
    return [pid for job in machine.status()["jobs"] for pid in job["pids"]]


def is_empty(machine: Host) -> None:
    """Nobody is a client, nothing is on the device."""
    machine.until(lambda: not pids(machine), "the clients to be gone", 5)
    machine.until(lambda: machine.device_used() == 0, "the device to be empty", 5)


@pytest.mark.parametrize(
    ("how", "code"),
    [("_exit", 5), ("exit", 5), ("quick_exit", 5), ("abort", -signal.SIGABRT), ("kill", -signal.SIGKILL)],
)
def test_every_way_to_end(machine: Host, how: str, code: int) -> None:
    """With threads in the middle of allocations and launches. The other job goes on, and the GPU is free at once."""
    other = machine.job("guest.py", "goes_on", "0.5", name="other")
    program = machine.job("guest.py", "ends", how)
    assert program.wait(30) == code, program.text
    assert [line for line in program.lines if line != "now"] == []
    assert other.wait(30) == 0, other.text
    is_empty(machine)


def test_children_that_use_no_cuda(machine: Host) -> None:
    """Forked, spawned and through a shell: no clients. One that uses it is; one that sleeps is in nobody's way."""
    program = machine.job("guest.py", "spawns", "3", name="parent")
    program.wait_for("holds", 20)
    sleeper = int(re.findall(r"sleeper (\d+)", program.text)[0])
    assert "attach 0 work 0" in program.text
    machine.until(lambda: len(pids(machine)) == 1, "the parent to be the only client", 5)
    parent = pids(machine)[0]
    assert parent != sleeper
    os.kill(parent, signal.SIGKILL)
    # The child lives, and has whatever the fork left in it: the parent's end is seen all the same.
    machine.until(lambda: not pids(machine), "the parent's end to be seen", 2)
    machine.until(lambda: machine.device_used() == 0, "its memory to be free", 2)
    assert Path(f"/proc/{sleeper}").exists()
    os.kill(sleeper, signal.SIGKILL)


def test_many_at_once(machine: Host) -> None:
    """Processes of several jobs attach at the same moment."""
    guest = f"'{sys.executable}' '{PROGRAMS / 'guest.py'}' first_call"
    line = " & ".join([guest] * 4) + " & wait"
    programs = [machine.run("sh", "-c", line, name=f"many{number}") for number in range(2)]
    for program in programs:
        assert program.wait(60) == 0, program.text
        assert program.lines == ["attach 0 work 0"] * 4
    is_empty(machine)


def test_daemonised_child(machine: Host) -> None:
    """The starter ends, its child in another session, which has attached, goes on as the job's."""
    log = machine.folder / "log"
    line = (
        f"setsid '{sys.executable}' '{PROGRAMS / 'guest.py'}' hold 8 >{log} 2>&1 & "
        f"until grep -q holds {log}; do sleep 0.05; done"
    )
    program = machine.run("sh", "-c", line, name="service", options=("-q",))
    assert program.wait(20) == 0, program.text
    (pid,) = machine.until(lambda: pids(machine), "the child to attach", 20)
    assert machine.job_named("service")["state"] != "ended"
    os.kill(pid, signal.SIGKILL)
    is_empty(machine)
    machine.until(lambda: machine.job_named("service")["state"] == "ended", "the job to end", 5)


def test_descriptors_are_used_up(machine: Host) -> None:
    """One line that says what to do, and at once; with a few left it attaches."""
    program = machine.job("guest.py", "few_descriptors", "1", options=("-q",))
    assert program.wait(30) == 0, program.text
    said, answer = program.lines
    assert "Too many open files" in said and "ulimit -n" in said
    assert answer == f"attach {NOT_READY} soon True"
    program = machine.job("guest.py", "few_descriptors", "12")
    assert program.wait(30) == 0, program.text
    assert program.lines == ["attach 0 soon True"]


def test_descriptors_are_closed(machine: Host) -> None:
    """A program that closes what it does not know: we attach again, and do not spin meanwhile."""
    program = machine.job("guest.py", "closes_ours")
    assert program.wait(30) == 0, program.text
    assert program.lines == ["quiet True work 0"]


@pytest.mark.parametrize("closed", ["<&-", "2>&-", "<&- 2>&-"])
def test_without_standard_descriptors(machine: Host, closed: str) -> None:
    """Ours do not take their numbers: what the program writes there does not go to the daemon."""
    line = f"exec '{sys.executable}' '{PROGRAMS / 'guest.py'}' first_call {closed}"
    program = machine.run("sh", "-c", line)
    assert program.wait(30) == 0, program.text
    assert program.lines == ["attach 0 work 0"]


def test_last_words(machine: Host) -> None:
    """CUDA after a dlclose, in the last destructor of a thread and in atexit: as without gpuvirt."""
    bare, program = machine.bare("guest.py", "last_words"), machine.job("guest.py", "last_words")
    assert (bare.wait(30), program.wait(30)) == (0, 0), program.text
    assert program.lines == bare.lines == ["closed 0", "destructor 0", "atexit 0"]


def test_shim_without_a_preload(machine: Host) -> None:
    """Found by its folder only, loaded and closed by a program: its thread lives on, so the code must."""
    code = (
        "import _ctypes, ctypes, time; cu = ctypes.CDLL('libcuda.so.1'); c = ctypes.c_void_p(); "
        "print(cu.cuInit(0), cu.cuDevicePrimaryCtxRetain(ctypes.byref(c), 0)); _ctypes.dlclose(cu._handle); "
        "_ctypes.dlclose(cu._handle); time.sleep(0.7); print('lives')"
    )
    program = machine.run("env", "-u", "LD_PRELOAD", sys.executable, "-c", code)
    assert program.wait(30) == 0, program.text
    assert program.lines == ["0 0", "lives"]


@pytest.fixture(scope="module")
def gate_guest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    program = tmp_path_factory.mktemp("guest") / "gate_guest"
    include = call(sys.executable, "native/generate/find_headers.py").strip()
    driver = paths.library("softgpu/libcuda.so.1")
    source = PROGRAMS / "gate_guest.c"
    subprocess.run(["cc", "-I", include, str(source), "-o", str(program), str(driver), "-lpthread"], check=True)
    return program


@pytest.mark.parametrize("how", ["jump", "cancel"])
def test_interrupted_at_the_gate(gate_guest: Path, how: str) -> None:
    with host(settings='[time]\nquantum = "400ms"') as machine:
        other = machine.job("guest.py", "goes_on", "6", name="other")
        other.wait_for("works")
        program = machine.run(str(gate_guest), how)
        assert program.wait(20) == 0, program.text
        jumped, memset, synchronised = map(int, re.findall(r" (\d+)", program.lines[-1]))
        assert (memset, synchronised) == (0, 0)
        assert jumped == (how == "jump"), program.text
        other.kill()
