# SPDX-License-Identifier: Apache-2.0
"""A switch fails at every single step. No surviving job loses a word, the accounts are right, and everybody goes on.

The jobs check every word of their memory in every step (tests/native/shim/swapper.c). One of them, or the daemon, fails
at a named step (native/shim/failpoints.h, daemon/gpuvirtd/failpoints.py) in one of four ways.
"""

from __future__ import annotations

import contextlib
import re
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support.host import MIB, Host, Program, host
from support.swapping import LIMIT, Rig, Swapper

ROOT = Path(__file__).resolve().parents[2]
QUICK = '[time]\nquantum = "5ms"\nswap_share = 1.0\nrecovery_grace = "1s"'
POINTS = re.findall(r'^    X\([A-Z_]+, "(\w+)"\)', (ROOT / "native/shim/failpoints.h").read_text(), re.M)
DAEMON_POINTS = re.findall(r'^    [A-Z_]+ = "(\w+)"$', (ROOT / "daemon/gpuvirtd/failpoints.py").read_text(), re.M)
SIZE = 24  # MiB of each job: each piece of another kind
ACTIONS = ("fail", "kill", "stall=150", "stop")


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """32 MiB of device memory; nothing may be left of all that failed in this file."""
    with host(32 * MIB, settings=QUICK) as machine:
        made = Rig(machine)
        try:
            yield made
            for job in made.jobs:
                if job.program.running:
                    job.finish()
            made.nothing_is_left()
        finally:
            made.close()


@pytest.fixture(scope="module")
def healthy(rig: Rig) -> Swapper:
    """A job that runs through all of this file."""
    job = rig.start("healthy", SIZE)
    job.program.wait_for("step 1", LIMIT)
    return job


@pytest.fixture
def start(rig: Rig) -> Iterator[Callable[..., Swapper]]:
    """Starts jobs of one test: whatever is still running after it is in nobody's way."""
    before = len(rig.jobs)
    yield lambda name, **extra: rig.start(name, SIZE, **extra)
    for job in rig.jobs[before:]:
        if job.program.running:
            job.program.stop()


def hit(job: Swapper, point: str) -> None:
    job.program.wait_for(f"failpoint {point}", LIMIT)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("point", POINTS)
def test_a_client_fails(rig: Rig, healthy: Swapper, start: Callable[..., Swapper], point: str, action: str) -> None:
    victim = start("victim", GPUVIRT_FAILPOINTS=f"{point}:{action}")
    hit(victim, point)
    if action == "kill":
        assert victim.program.wait(LIMIT) != 0
    elif action == "stop":
        time.sleep(0.1)
        victim.signal(signal.SIGCONT)
    healthy.advances()
    if action != "kill":
        victim.advances()
    rig.accounts()
    if action != "kill":
        victim.finish()


# ---- the daemon


@pytest.fixture(scope="module")
def pair(rig: Rig, healthy: Swapper) -> tuple[Swapper, Swapper]:
    """Two jobs that outlive every daemon of this file."""
    other = rig.start("other", SIZE)
    other.program.wait_for("step 1", LIMIT)
    return healthy, other


def restart(rig: Rig, failpoints: str = "", wait: bool = True) -> Program:
    """Kills the daemon and starts another, which may fail before it has answered anybody: do not `wait` for it then."""
    daemon = rig.machine.daemon
    assert daemon is not None
    daemon.kill()
    daemon.wait()
    return rig.machine.start_daemon(wait=wait, GPUVIRT_FAILPOINTS=failpoints)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("point", DAEMON_POINTS)
def test_the_daemon_fails(
    rig: Rig, pair: tuple[Swapper, Swapper], start: Callable[..., Swapper], point: str, action: str
) -> None:
    jobs = list(pair)
    # Not at the first time, which is at the moment that both come back; but there is only one WELCOME for each.
    asks = point.startswith("back")
    daemon = restart(rig, f"{point}:{action}:{1 if asks or point == 'welcome_sent' else 3}", wait=asks)
    if asks:  # the others have all the host memory that they need
        jobs.append(start("newcomer"))
    daemon.wait_for(f"failpoint {point}", LIMIT)
    if action == "kill":
        daemon.wait(LIMIT)
        restart(rig)
    elif action == "stop":
        time.sleep(0.1)
        daemon.kill(signal.SIGCONT)
    for job in jobs:
        job.advances()
    rig.accounts()


# ---- the driver


NEITHER_WAY = ("cuEventRecord", "cuEventSynchronize", "cuStreamSynchronize")  # each move out and in needs them


@pytest.mark.parametrize(
    ("rule", "acted"),
    [
        ("cuMemCreate:*:OUT_OF_MEMORY", 3),
        ("cuMemMap:*:OUT_OF_MEMORY", 3),
        ("cuMemSetAccess:*:OUT_OF_MEMORY", 3),
        ("cuMemSetAccess:*:INVALID_VALUE", 3),
        ("cuMemcpyHtoD*Async*:*:UNKNOWN", 3),
        ("cuMemcpyDtoH*Async*:*:UNKNOWN", 3),
        ("cuMemHostRegister*:*:OUT_OF_MEMORY", 1),
        ("cuEventRecord*:*:UNKNOWN", 3),
        ("cuEventSynchronize:*:UNKNOWN", 3),
        ("cuStreamSynchronize:*:UNKNOWN", 3),
        ("copy.to_device:*:rate=100M", 2),
        ("copy.from_device:*:rate=100M", 2),
        ("cuMemMap:*:delay=20ms", 5),
        ("cuMemUnmap:*:delay=20ms", 5),
    ],
)
def test_the_driver_fails_for_a_while(
    rig: Rig, healthy: Swapper, start: Callable[..., Swapper], rule: str, acted: int
) -> None:
    """Again and again, to one of two jobs; whatever it was, afterwards both go on with all their words."""
    if "HostRegister" in rule:
        victim = start("victim", GPUVIRT_SOFTGPU_FAULTS=rule)  # the arena is pinned early
        victim.program.wait_for("step 3", LIMIT)
    else:
        victim = start("victim")
        victim.program.wait_for("step 1", LIMIT)
        with rig.broken(rule, job=victim, acted=acted):
            if not rule.startswith(NEITHER_WAY):  # there, half in, both may have to wait until the driver is well
                before = victim.steps + healthy.steps
                rig.machine.until(lambda: victim.steps + healthy.steps > before, "one of both to go on", LIMIT)
    healthy.advances()
    victim.advances()
    rig.accounts()
    victim.finish()


# ---- the host


def all_come_to_their_end(rig: Rig, jobs: list[Swapper]) -> None:
    """Some may have to wait for others, and none may fail: always one at least goes on, and ends when it has."""
    left = list(jobs)
    while left:
        steps = {job: job.steps for job in left}

        def going(steps: dict[Swapper, int] = steps) -> list[Swapper]:
            assert all(job.program.running for job in steps), rig.machine.report()
            return [job for job, before in steps.items() if job.steps >= before + 3]

        for job in rig.machine.until(going, "one of them to go on", LIMIT):
            job.finish()
            left.remove(job)
    rig.nothing_is_left()


def three(machine: Host, *options: str) -> tuple[Rig, list[Swapper]]:
    rig = Rig(machine)
    first = rig.start("first", SIZE, *options)
    first.program.wait_for("step 1", LIMIT)
    return rig, [first, *(rig.start(name, SIZE, *options) for name in ("second", "third"))]


@pytest.mark.parametrize("budget", ["8M", "20M", "36M"])
def test_the_host_budget_is_too_small(budget: str) -> None:
    """For all three at once: more than it is never taken, whoever waits says why, and all end with what they had."""
    with host(32 * MIB, settings=f'{QUICK}\n[memory]\nhost_budget = "{budget}"') as machine:
        rig, jobs = three(machine, "--memory", f"{SIZE}M")
        for _ in range(20):
            assert rig.arena_bytes() <= int(budget[:-1]) * MIB + MIB
            time.sleep(0.02)
        all_come_to_their_end(rig, jobs)
        rig.close()


MOUNT = 'mount -t tmpfs -o size=$1 none "$2" && shift 2 && exec "$@"'


@pytest.fixture
def narrow(tmp_path: Path) -> Iterator[Host]:
    """A host whose arenas lie on a file system of 56 MiB that nobody else sees."""
    under = ("unshare", "-m", "sh", "-c", MOUNT, "sh", "56M", str(tmp_path))
    if subprocess.run([*under, "true"], capture_output=True, check=False).returncode != 0:
        pytest.skip("no mounts of its own for a process here")
    machine = Host(32 * MIB, f'{QUICK}\n[memory]\narena_folder = "{tmp_path}"')
    machine.under = under
    try:
        machine.start_daemon()
        yield machine
    finally:
        machine.close()


@pytest.mark.root
def test_the_host_file_is_full(narrow: Host, tmp_path: Path) -> None:
    """Somebody else fills the folder of the arenas: found before anything is unmapped, never a SIGBUS; all wait."""
    rig = Rig(narrow)
    jobs = [rig.start(name, SIZE, "--memory", f"{SIZE}M") for name in ("first", "second")]
    for job in jobs:
        job.advances()
    assert narrow.daemon is not None
    budget = narrow.status()["daemon"]["host_budget"]
    assert budget <= 56 * MIB, "no more is promised than there is"
    # The file system as the daemon sees it.
    filler = Path(f"/proc/{narrow.daemon.pid}/root{tmp_path}/filler")
    with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(1 << 16))

    def reasons() -> list[str]:
        return [narrow.job_named(job.name)["reason"] for job in jobs]

    # They may have had all that they need; else they wait, and say for what.
    before = [job.steps for job in jobs]
    narrow.until(
        lambda: (
            all(job.steps > count + 4 for job, count in zip(jobs, before, strict=True))
            or any("the host has no memory left" in reason for reason in reasons())
        ),
        "both to go on, or the reason why not",
        LIMIT,
    )
    filler.unlink()
    for job in jobs:
        job.advances()
    rig.accounts()
    for job in jobs:
        job.finish()
    rig.nothing_is_left()
    rig.close()
