# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt ps`: which job holds which GPU, who waits and why."""

from __future__ import annotations

import sys
from typing import Any

import click

from gpuvirt.cli import connection
from gpuvirt.cli.output import (
    GIB_FROM,
    Column,
    Row,
    format_option,
    mebibytes,
    percent,
    plain,
    seconds,
    show,
    terminal_width,
)

_ROOMY = 100  # characters a line: from here on there is room for one more column
_COLOURS = {
    "running": "green",
    "swapping": "cyan",
    "waiting": "yellow",
    "queued": "yellow",
    "suspended": "yellow",
    "recovering": "yellow",
    "new": "dim",
    "idle": "dim",
    "ended": "dim",
}


def _state(row: Row) -> str:
    return str(row.get("state", "-"))


def _memory(row: Row) -> str:
    """Resident of charged: how much of what the job has is on the device now, "300/350M" or "79.5/160.0G"."""
    resident, charged = row.get("resident"), row.get("charged")
    if charged is not None and charged >= GIB_FROM:
        return f"{(resident or 0) / (1 << 30):.1f}/{charged / (1 << 30):.1f}G"
    return f"{mebibytes(resident)}/{mebibytes(charged)}M"


def saved(row: Row) -> int | None:
    """Bytes that left or came without being copied, in all; None from a daemon that does not tell."""
    moved = row.get("moved")
    if not moved:
        return None
    return sum(
        int(flow.get(kind, 0)) for flow in (moved["out"], moved["in"]) for kind in ("zero", "clean", "duplicate")
    )


def _text(key: str) -> Any:
    return lambda row: "-" if row.get(key) in (None, "") else str(row[key])


def _list(key: str) -> Any:
    return lambda row: ",".join(str(value) for value in row.get(key) or []) or "-"


JOB = Column("JOB", _text("job"), shrink=4)
NAME = Column("NAME", _text("name"), shrink=8)
USER = Column("USER", _text("user"), shrink=5)
GPU = Column("GPU", _list("gpu"), right=True)
STATE = Column("STATE", _state, colour=lambda row: _COLOURS.get(_state(row)))
SHARE = Column("SHARE", lambda row: percent(row.get("share")), right=True)
BUSY = Column("BUSY", lambda row: seconds(row.get("busy_s")), right=True)
WAIT = Column("WAITED", lambda row: seconds(row.get("wait_s")), right=True)
MEMORY = Column("RES/MEM", _memory, right=True)
SWITCHES = Column("SWITCHES", _text("switches"), right=True)
LOST = Column("LOST", lambda row: percent(row.get("lost_share")), right=True)
REASON = Column("REASON", _text("reason"), shrink=8)
WIDE = (
    JOB, NAME, USER, GPU, STATE,
    Column("PIDS", _list("pids")),
    Column("WEIGHT", _text("weight"), right=True),
    SHARE, BUSY,
    Column("HELD", lambda row: seconds(row.get("held_s")), right=True),
    WAIT,
    LOST,
    Column("LOST TIME", lambda row: seconds(row.get("lost_s")), right=True),
    MEMORY,
    Column("QUOTA MiB", lambda row: mebibytes(row.get("memory_quota")), right=True),
    Column("SWAPPED MiB", lambda row: mebibytes(row.get("swapped")), right=True),
    Column("HOST MiB", lambda row: mebibytes(row.get("arena")), right=True),
    SWITCHES,
    Column("OUT MiB", lambda row: mebibytes(row.get("out_bytes")), right=True),
    Column("IN MiB", lambda row: mebibytes(row.get("in_bytes")), right=True),
    Column("SAVED MiB", lambda row: mebibytes(saved(row)), right=True),
    REASON,
    Column("COMMAND", lambda row: " ".join(str(word) for word in row.get("command") or [])),
)  # fmt: skip
NARROW = (JOB, NAME, USER, GPU, STATE, SHARE, WAIT, MEMORY, REASON)
MEDIUM = (JOB, NAME, USER, GPU, STATE, SHARE, WAIT, LOST, MEMORY, REASON)


@click.command("ps")
@click.option(
    "-a", "--all", "everything", is_flag=True, help="Also jobs that have ended, as far as the daemon knows them."
)
@format_option()
def command(everything: bool, output: str) -> None:
    """Show the jobs of this host: who holds a GPU, who waits and why.

    RES/MEM is the job's memory that is on the device now, and all that it has allocated. SHARE is its part of the GPU
    time of the jobs that are there (of one that has ended: that were there then), WAITED how long it has waited for
    its turn in all. LOST (from 100 characters a line on) is the part of its time in which it wanted the GPU and only
    memory that moved kept it from it.

    -w shows everything: also what is in host memory, what was copied out and in, and what was saved because it was
    zero, unchanged or there twice.
    """
    status = connection.connect().call("status", all=everything)
    columns = MEDIUM if terminal_width(sys.stdout) >= _ROOMY else NARROW
    show(status.get("jobs", []), output, columns, WIDE, "no jobs; start one with 'gpuvirt run -- COMMAND'")
    for gpu in status.get("gpus", []):
        for stranger in gpu.get("strangers", []):
            click.echo(f"gpuvirt ps: note: {_stranger(stranger, gpu.get('index'))}", err=True)


def _stranger(row: Row, gpu: Any) -> str:
    """A process that uses a GPU and is no client, in words."""
    escaped = f"; it was started by job {row['job']} and has lost the shim" if row.get("job") else ""
    name, user = plain(row.get("name")), plain(row.get("user"))
    return f"process {row.get('pid')} ({name}) of {user} uses GPU {gpu} without gpuvirt{escaped}"
