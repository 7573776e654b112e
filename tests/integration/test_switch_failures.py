# SPDX-License-Identifier: Apache-2.0
"""A switch fails at every single step. No surviving job loses a word, the accounts are right, and everybody goes on.

The jobs check every word of their memory in every step (tests/native/shim/swapper.c). One of them, or the daemon, fails
at a named step (native/shim/failpoints.h, daemon/gpuvirtd/failpoints.py) in one of four ways.
"""

from __future__ import annotations

import re
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from support.host import MIB, host
from support.swapping import LIMIT, Rig, Swapper

ROOT = Path(__file__).resolve().parents[2]
QUICK = '[time]\nquantum = "5ms"\nswap_share = 1.0\nrecovery_grace = "1s"'
POINTS = re.findall(r'^    X\([A-Z_]+, "(\w+)"\)', (ROOT / "native/shim/failpoints.h").read_text(), re.M)
DAEMON_POINTS = re.findall(r'^    [A-Z_]+ = "(\w+)"$', (ROOT / "daemon/gpuvirtd/failpoints.py").read_text(), re.M)
ACTIONS = ("fail", "kill", "stall=150", "stop")


@pytest.fixture(scope="module")
def rig() -> Iterator[Rig]:
    """64 MiB of device memory; nothing may be left of all that failed in this file."""
    with host(64 * MIB, settings=QUICK) as machine:
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
    job = rig.start("healthy", 40)
    job.program.wait_for("step 1", LIMIT)
    return job


def hit(job: Swapper, point: str) -> None:
    job.program.wait_for(f"failpoint {point}", LIMIT)


@pytest.mark.parametrize("action", ACTIONS)
@pytest.mark.parametrize("point", POINTS)
def test_a_client_fails(rig: Rig, healthy: Swapper, point: str, action: str) -> None:
    victim = rig.start("victim", 40, GPUVIRT_FAILPOINTS=f"{point}:{action}")
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
