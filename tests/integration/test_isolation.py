# SPDX-License-Identifier: Apache-2.0
"""What one tenant had in device memory or in its arena is never seen by another, and gets into no core file."""

from __future__ import annotations

import mmap
import os
import signal
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.host import BIN, MIB, Host, Program, host
from support.native import build
from support.swapping import LIMIT, Rig, Swapper, arena_fds, flags_of_mappings

SETTINGS = '[time]\nquantum = "5ms"\nswap_share = 1.0'
STRANGER = 65534
WORD = (1 << 64) - 1


@pytest.fixture
def machine() -> Iterator[Host]:
    with host(64 * MIB, settings=SETTINGS, options={"GPUVIRT_SOFTGPU_BOARD_MODE": "0666"}) as ready:
        ready.folder.chmod(0o755)  # other users may be tenants
        ready.runtime.chmod(0o755)
        yield ready


def looker(machine: Host, verb: str, size: int, name: str, uid: int = -1) -> Program:
    """tests/native/shim/looker.c as a job of a user."""
    command = [str(build("") / "tests" / "shim" / "looker"), verb, str(size)]
    if uid < 0:
        return machine.run(*command, name=name)
    return machine.start([*as_user(uid), str(BIN / "gpuvirt"), "run", "--name", name, "--", *command])


def as_user(uid: int) -> list[str]:
    return ["setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups"]


@pytest.mark.parametrize("uid", [-1, pytest.param(STRANGER, marks=pytest.mark.root)], ids=["same-user", "other-user"])
def test_new_memory_is_empty_whoever_had_it(machine: Host, uid: int) -> None:
    first = looker(machine, "fill", 40, "first")
    first.wait_for("holds", LIMIT)
    # While the first is swapped out by and by: what it had is what the second gets.
    second = looker(machine, "look", 40, "second", uid)
    second.wait_for("looked at", LIMIT)
    assert (machine.job_named("first")["uid"] == machine.job_named("second")["uid"]) == (uid < 0)
    assert machine.job_named("first")["out_bytes"] + machine.job_named("second")["out_bytes"] > 0
    # Never written, swapped out, brought back in.
    for number in (1, 2):
        third = looker(machine, "look", 40, f"third-{number}", uid)
        third.wait_for("looked at", LIMIT)
        third.kill()
        third.wait()
        os.kill(machine.job_named("second")["pids"][0], signal.SIGUSR1)
        machine.until(lambda n=number: second.text.count("again") == n, "a second look", LIMIT)
    # The pattern is what it was, and when its owner ends its memory is given to others at once.
    os.kill(machine.job_named("first")["pids"][0], signal.SIGTERM)
    assert first.wait(LIMIT) == 0, first.text
    fourth = looker(machine, "look", 48, "fourth", uid)
    fourth.wait_for("looked at", LIMIT)
    for job in ("second", "fourth"):
        os.kill(machine.job_named(job)["pids"][0], signal.SIGTERM)
    assert (second.wait(LIMIT), fourth.wait(LIMIT)) == (0, 0)


# ---- arenas


def swapped_out(rig: Rig) -> tuple[Swapper, Swapper]:
    """A job that sleeps, with its memory in its arena; and the one that took its place."""
    victim = rig.start("victim", 40)
    victim.program.wait_for("step 1", LIMIT)
    victim.signal(signal.SIGUSR1)
    victim.program.wait_for("paused", LIMIT)
    other = rig.start("other", 60)
    other.program.wait_for("step 1", LIMIT)
    rig.machine.until(lambda: rig.machine.job_named(victim.name)["resident"] == 0, "all of it to be swapped out", LIMIT)
    return victim, other


@pytest.fixture
def rig(machine: Host) -> Iterator[Rig]:
    made = Rig(machine)
    yield made
    made.close()


def test_an_arena_is_its_owners_alone(rig: Rig) -> None:
    machine = rig.machine
    victim, other = swapped_out(rig)
    assert machine.daemon is not None
    mine = arena_fds(victim.pid)
    assert mine, "the arena of the job is open in it"
    for entry in mine:
        facts = entry.stat()
        assert facts.st_mode & 0o077 == 0
        assert facts.st_uid in (os.getuid(), victim_uid(victim))
    inodes = {(entry.stat().st_dev, entry.stat().st_ino) for entry in mine}
    assert not inodes & {(e.stat().st_dev, e.stat().st_ino) for e in arena_fds(other.pid)}, "in another job"
    named = {(path.stat().st_dev, path.stat().st_ino) for path in Path("/dev/shm").iterdir() if path.exists()}
    assert not inodes & named, "it has a name"
    if os.geteuid() == 0:
        for pid in (victim.pid, machine.daemon.pid):
            for entry in arena_fds(pid):
                done = subprocess.run(
                    [*as_user(STRANGER), "head", "-c1", entry],
                    capture_output=True, text=True, check=False,
                )  # fmt: skip
                assert done.returncode != 0 and "Permission denied" in done.stderr, done
    other.finish()
    victim.finish()


def victim_uid(job: Swapper) -> int:
    return Path(f"/proc/{job.pid}").stat().st_uid


def words_of(seed: int, piece: int, step: int, count: int) -> bytes:
    """As tests/native/shim/swapper.c has them, from word 1000 on."""
    key = 0x9E3779B97F4A7C15
    for word in (seed, piece, step):
        key = (key ^ word) * 0xD6E8FEB86659FD93 & WORD
        key ^= key >> 32
    return struct.pack(f"<{count}Q", *((key + i * 0xC2B2AE3D27D4EB4F) & WORD for i in range(1000, 1000 + count)))


def test_an_arena_gets_into_no_core_file(rig: Rig, tmp_path: Path) -> None:
    machine = rig.machine
    swapper = build("") / "tests" / "shim" / "swapper"
    limits = f"cd {tmp_path} && ulimit -c unlimited && exec {swapper} 40 77"
    victim = machine.run("bash", "-c", limits, name="victim")
    victim.wait_for("step 1", LIMIT)
    pid = int(machine.job_named("victim")["pids"][0])
    os.kill(pid, signal.SIGUSR1)
    victim.wait_for("paused", LIMIT)
    last = max(int(line.split()[1]) for line in victim.lines if line.startswith("step "))
    other = rig.start("other", 60)
    other.program.wait_for("step 1", LIMIT)
    machine.until(lambda: machine.job_named("victim")["resident"] == 0, "all of it to be swapped out", LIMIT)
    inodes = {entry.stat().st_ino for entry in arena_fds(pid)}
    flags = flags_of_mappings(pid, inodes)
    assert flags, "the arena is mapped"
    assert all("dd" in words for words in flags), flags
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if pattern.startswith("|") or "/" in pattern:
        other.finish()
        pytest.skip(f"core files go to '{pattern}' here; the mapping is marked, which was looked at")
    os.kill(pid, signal.SIGABRT)
    victim.wait(LIMIT)
    cores = list(tmp_path.iterdir())
    if not cores:
        other.finish()
        pytest.skip("no core file was written here (its limit?); the mapping is marked, which was looked at")
    with cores[0].open("rb") as file, mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ) as core:
        assert core.find(words_of(77, 9, last + 1, 8)) >= 0, "a real core: the program's own copy of a piece is in it"
        for piece in (1, 2, 4, 5, 6, 7, 8):
            assert core.find(words_of(77, piece, 0 if piece == 1 else last + 1, 8)) < 0, f"piece {piece} is in the core"
    other.finish()
