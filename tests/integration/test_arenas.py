# SPDX-License-Identifier: Apache-2.0
"""The arena of a job under the real shim: shared, closed to everybody else, gone with the last of its processes."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support.host import MIB, PROGRAMS, Host, Program, host

MIXER = f"{sys.executable} {PROGRAMS / 'mixer.py'}"
QUICK = '[time]\nquantum = "5ms"\nswap_share = 1.0\nrecovery_grace = "5s"\n'


def arena_of(pid: int) -> dict[str, str]:
    """inode and VmFlags of the arena that a process has mapped; empty: none."""
    with contextlib.suppress(OSError):
        for part in re.split(r"(?m)^(?=[0-9a-f]+-[0-9a-f]+ )", Path(f"/proc/{pid}/smaps").read_text()):
            first = part.partition("\n")[0].split(maxsplit=5)
            if len(first) == 6 and re.match(r"/dev/shm/#\d+ \(deleted\)", first[5]):
                flags = re.search(r"(?m)^VmFlags: (.*)$", part)
                return {"inode": first[4], "flags": flags[1] if flags else "", "access": first[1]}
    return {}


def holders(inode: str) -> list[int]:
    """Processes of this host that have the file mapped."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and arena_of(int(name)).get("inode") == inode]


def pids(machine: Host, name: str) -> list[int]:
    with contextlib.suppress(AssertionError):
        return [int(pid) for pid in machine.job_named(name)["pids"]]
    return []


def pair(machine: Host, go: Path) -> Program:
    """A job of two processes, and a third one when `go` exists."""
    late = f"{{ while [ ! -e {go} ]; do sleep 0.05; done; {MIXER} --memory 16 --seed 9 --steps 20; }}"
    both = f"{MIXER} --memory 24 --seconds 6 & {MIXER} --memory 24 --seconds 6 --seed 4 & {late} & wait; wait"
    return machine.run("sh", "-c", both, name="pair")


def test_the_processes_of_a_job_share_one_arena_also_after_a_restart(tmp_path: Path) -> None:
    """The third comes when the daemon that made the file is dead: it gets the file of the others all the same."""
    with host(64 * MIB, settings=QUICK) as machine:
        job = pair(machine, tmp_path / "go")
        machine.until(lambda: len(pids(machine, "pair")) == 2, "two processes")
        rival = machine.job("mixer.py", "--memory", "40", "--seconds", "6", name="rival")
        machine.until(lambda: machine.job_named("pair")["arena"] > 0, "something in the arena")
        first, second = pids(machine, "pair")
        arena = machine.until(lambda: arena_of(first), "an arena")
        assert machine.until(lambda: arena_of(second), "an arena")["inode"] == arena["inode"]
        assert arena["access"] == "rw-s"
        assert {"dd", "dc"} <= set(arena["flags"].split())  # in no core dump, in no forked child
        other = machine.until(lambda: arena_of(pids(machine, "rival")[0]), "the rival's arena")
        assert other["inode"] != arena["inode"]
        assert machine.daemon is not None
        machine.daemon.kill()
        machine.daemon.wait()
        machine.start_daemon()
        (tmp_path / "go").touch()
        third = machine.until(lambda: set(pids(machine, "pair")) - {first, second}, "a third process").pop()
        assert machine.until(lambda: arena_of(third), "its arena")["inode"] == arena["inode"]
        assert (job.wait(), rival.wait()) == (0, 0), machine.report()
        assert job.text.count("result: OK") == 3, job.text
        machine.until(lambda: not holders(arena["inode"]), "the end of the arena")


def test_nothing_is_left_when_everything_is_killed() -> None:
    """The file has no name: with its last holder it is gone, whoever was killed in which order."""
    with host(64 * MIB, settings=QUICK) as machine:
        job = machine.run(
            "sh", "-c", f"{MIXER} --memory 24 --seconds 60 & {MIXER} --memory 24 --seconds 60; wait", name="pair"
        )
        machine.job("mixer.py", "--memory", "40", "--seconds", "60", name="rival")
        machine.until(lambda: len(pids(machine, "pair")) == 2 and machine.job_named("pair")["arena"] > 0, "swapping")
        inode = machine.until(lambda: arena_of(pids(machine, "pair")[0]), "its arena")["inode"]
        machine.until(lambda: len(holders(inode)) == 2, "both in it")
        assert machine.daemon is not None
        assert machine.daemon.pid not in holders(inode)  # it has the file open, not mapped
        machine.daemon.kill(signal.SIGKILL)
        job.kill(signal.SIGKILL)
        machine.until(lambda: not holders(inode), "the end of the arena")
        assert not list(Path("/dev/shm").glob(".gpuvirt-*"))


def test_one_of_two_is_killed_while_they_swap_and_the_other_goes_on() -> None:
    """Its slots and the lock that it may have held are no loss for the survivor."""
    with host(64 * MIB, settings=QUICK) as machine:
        both = f"{MIXER} --memory 24 --seconds 60 & {MIXER} --memory 24 --seconds 5 --seed 4; wait $!"
        job = machine.run("sh", "-c", both, name="pair")
        rival = machine.job("mixer.py", "--memory", "40", "--seconds", "5", name="rival")
        machine.until(lambda: len(pids(machine, "pair")) == 2 and machine.job_named("pair")["arena"] > 0, "swapping")
        doomed = machine.until(
            lambda: [p for p in pids(machine, "pair") if b"--seed" not in Path(f"/proc/{p}/cmdline").read_bytes()], "it"
        )
        os.kill(doomed[0], signal.SIGKILL)
        assert rival.wait() == 0, machine.report()
        job.wait()
        assert job.text.count("result: OK") == 1, job.text


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """A tmpfs of its own, with room for what these tests swap."""
    folder = tmp_path / "small"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=128m,mode=700", "none", folder], check=False).returncode:
        pytest.skip("mounting a tmpfs is not allowed here")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)  # also after a failure


def test_without_host_memory_nothing_is_lost_and_somebody_waits(small: Path) -> None:
    """Somebody fills the file system: whoever has the GPU keeps it to its end, then the other gets it."""
    with host(64 * MIB, settings=QUICK + f'[memory]\narena_folder = "{small}"\n') as machine:
        first = machine.job("mixer.py", "--memory", "48", "--seconds", "3", name="first")
        first.wait_for("step 1")
        ballast = os.open(small, os.O_TMPFILE | os.O_RDWR, 0o600)
        os.posix_fallocate(ballast, 0, 120 * MIB)
        second = machine.job("mixer.py", "--memory", "48", "--steps", "5", name="second")
        machine.until(lambda: any("No space left" in str(job) for job in described(machine)), "the reason in an event")
        assert (first.wait(), second.wait()) == (0, 0), machine.report()
        assert "result: OK" in first.text and "result: OK" in second.text
        os.close(ballast)
        machine.until(lambda: os.statvfs(small).f_bfree == os.statvfs(small).f_blocks, "the end of both arenas")


def described(machine: Host) -> list[dict[str, Any]]:
    """Everything about each job."""
    return [machine.admin.call("describe", job=job["job"]) for job in machine.status()["jobs"]]
