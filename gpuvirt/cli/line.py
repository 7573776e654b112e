# SPDX-License-Identifier: Apache-2.0
"""Waits in the daemon's line until a job may start; says so on standard error, and again when its place changes."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

from gpuvirt.errors import DaemonUnavailable, GpuvirtError

if TYPE_CHECKING:
    from gpuvirt.admin import AdminClient

AGAIN_S = 0.5  # before a daemon that is away, or answers at once, is asked again


class WouldWait(GpuvirtError):
    """The job would have to wait, and was told not to."""

    exit_code = 75  # EX_TEMPFAIL: try again later


def wait_in_line(client: AdminClient, job: str, queued: dict[str, Any] | None, quiet: bool) -> None:
    """Returns when the job may start. `queued`: the daemon's answer to create_job. Raises RefusedError."""
    began = time.monotonic()
    told = 0
    gone = False
    while queued is not None:
        position = int(queued.get("position", 1))
        if position != told and not quiet:
            say(f"job {job} waits in line, {place(position, queued)}")
        told = position
        asked = time.monotonic()
        try:
            answer = client.call("await_start", job=job, position=position)
            gone = False
        except DaemonUnavailable:
            if not gone and not quiet:
                say(f"job {job} waits in line; gpuvirtd has gone, waiting for it to come back")
            gone = True
            time.sleep(AGAIN_S)
            continue
        queued = answer.get("queued")
        if answer.get("unchanged") and time.monotonic() - asked < AGAIN_S:
            client.close()  # it has no place to keep us waiting
            time.sleep(4 * AGAIN_S)
    if told and not quiet:
        say(f"job {job} starts after {duration(time.monotonic() - began)} in line")


def place(position: int, queued: dict[str, Any]) -> str:
    """ "place 2: the budget is taken ...; about 4 min"."""
    estimate = queued.get("estimate_s")
    when = "no estimate yet" if estimate is None else f"about {duration(float(estimate))}"
    return f"place {position}: {queued.get('reason', '')}; {when}"


def duration(seconds: float) -> str:
    """ "8 s", "4 min", "3.5 h": as exact as an estimate can be."""
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    if seconds < 90 * 60:
        return f"{round(seconds / 60)} min"
    return f"{seconds / 3600:.1f} h"


def say(text: str) -> None:
    """One line on standard error."""
    sys.stderr.write(f"gpuvirt run: {' '.join(text.split())}\n")
    sys.stderr.flush()
