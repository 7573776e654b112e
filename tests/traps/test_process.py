# SPDX-License-Identifier: Apache-2.0
"""Traps of the process: what the shim does to the program that it is a guest of."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest

from gpuvirt import paths
from support.host import PROGRAMS, Host, host
from support.traps import Edit, trap

NOT_INITIALIZED, OUT_OF_MEMORY, NOT_PERMITTED = 3, 2, 800
OURS_FROM = 48  # native/shim/connection.c
FD_CLOEXEC = 1
# What a process has at its first own instruction: threads, descriptors, mapped files.
PRESENT = """
import json, os
print(json.dumps({
    "threads": len(os.listdir("/proc/self/task")),
    "descriptors": len(os.listdir("/proc/self/fd")),
    "files": sorted({line.split()[5] for line in open("/proc/self/maps") if len(line.split()) > 5}),
}))
"""


@pytest.fixture
def machine() -> Iterator[Host]:
    with host() as ready:
        yield ready


def present(**environ: str) -> dict[str, Any]:
    done = subprocess.run(
        [sys.executable, "-c", PRESENT], env=environ, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stderr == ""
    answer: dict[str, Any] = json.loads(done.stdout)
    return answer


def only_client(machine: Host) -> int:
    """The pid of the one client there is."""
    pids = [pid for job in machine.status()["jobs"] for pid in job["pids"]]
    assert len(pids) == 1, pids
    return int(pids[0])


@trap(
    "The library opens the driver in a constructor, in every shell and compiler of a job.",
    Edit(
        "native/shim/session.c",
        "int gv_session_refused(void)",
        "__attribute__((constructor)) static void early(void) { cuInit(0); }\nint gv_session_refused(void)",
    ),
)
def test_work_in_constructors() -> None:
    shim, driver = paths.library("libgpuvirt-shim.so"), paths.library("softgpu/libcuda.so.1")
    plain = present()
    under = present(LD_PRELOAD=str(shim), GPUVIRT_DRIVER=str(driver), GPUVIRT_SOCKET="/nowhere", GPUVIRT_JOB="x")
    assert (under["threads"], under["descriptors"]) == (plain["threads"], plain["descriptors"])
    assert [name for name in under["files"] if name not in plain["files"]] == [str(shim)]


@trap(
    "A forked child keeps the locks, the socket and the state of its parent.",
    Edit(
        "native/shim/session.c",
        "!fork_handler_set && pthread_atfork(NULL, NULL, forget_in_child) == 0",
        "!fork_handler_set",
    ),
)
def test_fork_with_locks_sockets_threads(machine: Host) -> None:
    program = machine.job("guest.py", "forks", "4")
    assert program.wait(30) == 0, program.text
    children = [json.loads(line) for line in program.lines if line.startswith("{")]
    assert len(children) == 4, program.text
    for child in children:
        assert [number for number in child["ours"] if number >= OURS_FROM] == []
        assert (child["alloc"], child["synchronise"], child["attach"]) == (NOT_INITIALIZED,) * 3, "as without gpuvirt"
        assert child["threads"] == 1


@trap(
    "A lock that outlives its holder: after a kill -9 in the wrong moment nobody gets memory any more.",
    Edit(
        "native/shim/memory.c",
        '#include "memory.h"\n',
        '#include "memory.h"\n#include "environment.h"\nstatic char shared[128];\n'
        "#include <stdio.h>\n#include <sys/stat.h>\n#include <unistd.h>\n",
    ),
    Edit(
        "native/shim/memory.c",
        "    pthread_mutex_lock(&gv_memory.lock);\n    struct gv_range *const range = gv_ranges_take(region,",
        '    snprintf(shared, sizeof shared, "%s.lock", gv_environment()->socket);\n'
        "    while (mkdir(shared, 0700) != 0)\n        usleep(100);\n    usleep(2000);\n    rmdir(shared);\n"
        "    pthread_mutex_lock(&gv_memory.lock);\n    struct gv_range *const range = gv_ranges_take(region,",
    ),
)
def test_killed_with_a_lock_held(machine: Host) -> None:
    victims = [machine.job("guest.py", "hold", "8", name=f"victim{number}") for number in range(4)]
    for victim in victims:
        victim.wait_for("holds")
    for victim in victims:
        victim.kill()
    machine.until(lambda: machine.device_used() == 0, "the memory of the killed to be free", 5.0)
    after = machine.job("guest.py", "goes_on", "0.3")
    assert after.wait(10) == 0, after.text
    assert "done True" in after.text


@trap(
    "A lock is held across a call of the driver: who allocates waits for somebody else's free.",
    Edit(
        "native/shim/extents.c",
        "    REAL(cuMemUnmap)(gv_piece_address(extent), gv_piece_bytes(extent));\n",
        "    pthread_mutex_lock(&gv_memory.lock);\n"
        "    REAL(cuMemUnmap)(gv_piece_address(extent), gv_piece_bytes(extent));\n"
        "    pthread_mutex_unlock(&gv_memory.lock);\n",
    ),
)
def test_driver_call_under_a_mutex(machine: Host) -> None:
    slow = "cuMemUnmap:1+:delay=800ms"
    program = machine.job("guest.py", "frees_slowly", GPUVIRT_SOFTGPU_FAULTS=slow)
    assert program.wait(30) == 0, program.text
    assert "busy True waited False" in program.text


@trap(
    "Attaching changes the umask, takes over a signal and writes into the environment.",
    Edit(
        "native/shim/connection.c",
        "    const int handle = socket(",
        "    umask(0);\n    signal(SIGUSR1, SIG_IGN);\n"
        '    setenv("GPUVIRT_ATTACHED", "1", 1);\n    const int handle = socket(',
    ),
    Edit(
        "native/shim/connection.c",
        "#include <errno.h>\n",
        "#include <errno.h>\n#include <signal.h>\n#include <stdlib.h>\n#include <sys/stat.h>\n",
    ),
)
def test_umask_signals_atexit_environment(machine: Host) -> None:
    seen = {}
    for name, start in (("job", machine.job), ("bare", machine.bare)):
        program = start("guest.py", "leave_alone")
        assert program.wait(30) == 0, program.text
        assert len(program.lines) == 1, program.text  # nothing of ours at the end either
        seen[name] = json.loads(program.text)
    for told in seen.values():
        before, after = told["before"], told["after"]
        told["changed"] = {key: value for key, value in after.items() if value != before[key]}
    job = seen["job"]
    assert job["changed"] == seen["bare"]["changed"], "what the driver itself changes"
    assert set(job["changed"]) <= {"SigCgt"}
    assert job["lost"] == []
    assert job["errno"] == 77  # alone on a new GPU: the soft driver looks after the ended with calls that may fail
    ours = [entry for entry in job["new"] if entry[0] >= OURS_FROM]
    assert ours
    assert all(flags & FD_CLOEXEC for _, _, flags in ours), ours
    others = [target for number, target, _ in job["new"] if number < OURS_FROM]
    assert all("gpuvirt-softgpu" in target for target in others), "low numbers are the program's and the driver's"


@trap(
    "The program ends because the daemon did.",
    Edit(
        "native/shim/control.c",
        "static void disconnect(int error)\n{\n",
        "#include <stdlib.h>\nstatic void disconnect(int error)\n{\n    exit(1);\n",
    ),
)
def test_exit_on_daemon_loss(machine: Host) -> None:
    program = machine.job("guest.py", "goes_on", "1.2")
    program.wait_for("works")
    assert machine.daemon is not None
    machine.daemon.kill(signal.SIGKILL)
    machine.daemon.wait(10)
    machine.start_daemon()
    assert program.wait(30) == 0, program.text
    assert "done True" in program.text


@trap(
    "A descriptor without CLOEXEC: after an exec the process has the agent of its old program beside the new one.",
    Edit("native/shim/connection.c", "SOCK_SEQPACKET | SOCK_CLOEXEC", "SOCK_SEQPACKET"),
    Edit(
        "native/shim/connection.c",
        "int moved = fcntl(descriptor, F_DUPFD_CLOEXEC, OURS_FROM)",
        "int moved = fcntl(descriptor, F_DUPFD, OURS_FROM)",
    ),
)
def test_exec_keeps_the_preload(machine: Host) -> None:
    program = machine.job("guest.py", "execs", "2", name="again")
    machine.until(lambda: not program.running or program.text.count("attached ") == 3, "three programs", 20.0)
    pids = set(re.findall(r"attached (\d+)", program.text))
    counts = re.findall(r"descriptors (\d+)", program.text)
    assert len(pids) == 1 and len(counts) == 3, program.text
    assert len(set(counts)) == 1, "no descriptor of the old program is left"
    assert only_client(machine) == int(pids.pop())
    machine.until(lambda: machine.job_named("again")["charged"] == 32 << 20, "what the last one has to be all", 5.0)


@trap(
    "The limit lies in the environment of the job, which can change it.",
    Edit(
        "native/shim/memory.c",
        "    const uint64_t quota = gv_load64(&gv_gate.lease->quota_bytes);\n",
        "    uint64_t quota = gv_load64(&gv_gate.lease->quota_bytes);\n"
        '    if (getenv("GPUVIRT_MEMORY") != NULL)\n        quota = strtoull(getenv("GPUVIRT_MEMORY"), NULL, 10);\n',
    ),
    Edit("native/shim/memory.c", '#include "memory.h"\n', '#include "memory.h"\n#include <stdlib.h>\n'),
)
def test_limits_in_the_environment(machine: Host) -> None:
    program = machine.job("guest.py", "over", "128", "again", options=("--memory", "64M"))
    assert program.wait(30) == 0, program.text
    assert f"total 64 answer {OUT_OF_MEMORY}" in program.text


@trap(
    "A child without our variables (ssh, sudo, env) runs on the GPU ungoverned, and nobody is told.",
    Edit(
        "native/shim/session.c",
        "        return refuse(CUDA_ERROR_NOT_PERMITTED);",
        "        return CUDA_SUCCESS;",
    ),
    Edit(
        "native/shim/gate.c",
        "        if (gv_gate.obstacles & GV_UNATTACHED) {\n",
        "        if (gv_session_attach_current() == CUDA_SUCCESS && (gv_gate.obstacles & GV_UNATTACHED))\n"
        "            return (struct gv_submission){NULL, CUDA_SUCCESS, 0};\n"
        "        if (gv_gate.obstacles & GV_UNATTACHED) {\n",
    ),
)
def test_environment_that_was_lost(machine: Host) -> None:
    guest = (sys.executable, str(PROGRAMS / "guest.py"), "first_call")
    for lost in ("GPUVIRT_JOB", "GPUVIRT_SOCKET"):
        program = machine.run("env", "-u", lost, *guest)
        assert program.wait(20) == 0, program.text
        assert f"attach {NOT_PERMITTED} " in program.text
        said = [line for line in program.lines if line.startswith("gpuvirt[")]
        assert len(said) == 1 and "GPUVIRT_JOB or GPUVIRT_SOCKET is missing" in said[0], program.text


@trap(
    "A copy of the shim in another namespace of the loader takes the place of the first one, which takes it back.",
    Edit(
        "daemon/gpuvirtd/host.py",
        "if not hello.reattach and old is not None and",
        "if not hello.reattach and old is None and",
    ),
)
def test_copy_in_another_namespace(machine: Host) -> None:
    program = machine.job("guest.py", "two_copies")
    program.wait_for("holds", 20)
    assert f"copy {NOT_PERMITTED}" in program.text
    assert "first 0" in program.text
    said = [line for line in program.lines if line.startswith("gpuvirt[")]
    assert len(said) == 1 and "another copy of the shim" in said[0], program.text
    only_client(machine)
