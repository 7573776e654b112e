# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt ps`: which job holds which GPU, who waits and why."""

from __future__ import annotations

from typing import Any

import click

from gpuvirt.cli import connection
from gpuvirt.cli.output import Column, Row, format_option, mebibytes, percent, seconds, show

_COLOURS = {"running": "green", "waiting": "yellow", "new": "dim", "ended": "dim", "lost": "red"}
_ENDED = "ended"


def _state(row: Row) -> str:
    return str(row.get("state", "-"))


def _memory(row: Row) -> str:
    """Resident of charged MiB: how much of what the job has is on the device now."""
    return f"{mebibytes(row.get('resident'))}/{mebibytes(row.get('charged'))}"


def _text(key: str) -> Any:
    return lambda row: "-" if row.get(key) in (None, "") else str(row[key])


def _list(key: str) -> Any:
    return lambda row: ",".join(str(value) for value in row.get(key) or []) or "-"


JOB = Column("JOB", _text("job"), shrink=6)
NAME = Column("NAME", _text("name"), shrink=8)
USER = Column("USER", _text("user"), shrink=5)
GPU = Column("GPU", _text("gpu"), right=True)
STATE = Column("STATE", _state, colour=lambda row: _COLOURS.get(_state(row)))
SHARE = Column("SHARE", lambda row: percent(row.get("share")), right=True)
BUSY = Column("BUSY", lambda row: seconds(row.get("busy_s")), right=True)
WAIT = Column("WAITED", lambda row: seconds(row.get("wait_s")), right=True)
MEMORY = Column("RES/MEM MiB", _memory, right=True)
SWITCHES = Column("SWITCHES", _text("switches"), right=True)
REASON = Column("REASON", _text("reason"), shrink=8)
WIDE = (
    JOB, NAME, USER, GPU, STATE,
    Column("PIDS", _list("pids")),
    Column("WEIGHT", _text("weight"), right=True),
    SHARE, BUSY,
    Column("HELD", lambda row: seconds(row.get("held_s")), right=True),
    WAIT, MEMORY,
    Column("QUOTA MiB", lambda row: mebibytes(row.get("memory_quota")), right=True),
    Column("SWAPPED MiB", lambda row: mebibytes(row.get("swapped")), right=True),
    SWITCHES,
    Column("OUT MiB", lambda row: mebibytes(row.get("out_bytes")), right=True),
    Column("IN MiB", lambda row: mebibytes(row.get("in_bytes")), right=True),
    REASON,
    Column("COMMAND", lambda row: " ".join(str(word) for word in row.get("command") or [])),
)  # fmt: skip
NARROW = (JOB, NAME, USER, GPU, STATE, SHARE, BUSY, WAIT, MEMORY, REASON)


@click.command("ps")
@click.option(
    "-a", "--all", "everything", is_flag=True, help="Also jobs that have ended, as far as the daemon knows them."
)
@format_option()
def command(everything: bool, output: str) -> None:
    """Show the jobs of this host: who holds a GPU, who waits and why.

    RES/MEM is the job's memory that is on the device now, and all that it has allocated. SHARE is its part of the GPU
    time, BUSY its GPU time, WAITED how long it has waited for its turn.
    """
    rows = connection.connect().call("status").get("jobs", [])
    if not everything:
        rows = [row for row in rows if _state(row) != _ENDED]
    show(rows, output, NARROW, WIDE, "no jobs; start one with 'gpuvirt run -- COMMAND'")
