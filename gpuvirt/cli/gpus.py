# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt gpus`: the GPUs of this host as the daemon manages them."""

from __future__ import annotations

import click

from gpuvirt.cli import connection
from gpuvirt.cli.output import Column, Row, format_option, gigabytes, mebibytes, percent, seconds, show


def _memory(row: Row) -> str:
    return f"{mebibytes(row.get('memory_used'))}/{mebibytes(row.get('memory_total'))}"


def _state(row: Row) -> str:
    """ "ok", or "unknown" while NVML does not answer."""
    return str(row.get("state", "-"))


def _waiting(row: Row) -> str:
    return str(len(row.get("queue") or []))


def _holder(row: Row) -> str:
    return str(row.get("holder") or "-")


def link(row: Row, key: str) -> float | None:
    """A figure of the GPU's link; None from a daemon that does not tell."""
    found = (row.get("link") or {}).get(key)
    return None if found is None else float(found)


INDEX = Column("GPU", lambda row: str(row.get("index", "-")), right=True)
NAME = Column("NAME", lambda row: str(row.get("name", "-")), shrink=10)
MEMORY = Column("USED/TOTAL MiB", _memory, right=True)
CAPACITY = Column("FOR JOBS MiB", lambda row: mebibytes(row.get("capacity")), right=True)
LINK = Column("LINK", lambda row: percent(link(row, "share")), right=True)
HOLDER = Column("HOLDER", _holder, shrink=8, colour=lambda row: "green" if row.get("holder") else None)
WAITING = Column("WAITING", _waiting, right=True, colour=lambda row: "yellow" if row.get("queue") else None)
SWITCHES = Column("SWITCHES", lambda row: str(row.get("switches", "-")), right=True)
NARROW = (INDEX, NAME, MEMORY, CAPACITY, LINK, HOLDER, WAITING, SWITCHES)
WIDE = (
    INDEX, NAME,
    Column("UUID", lambda row: str(row.get("uuid", "-"))),
    MEMORY, CAPACITY,
    Column("OTHERS MiB", lambda row: mebibytes(row.get("residue")), right=True),
    Column("SWAPPED MiB", lambda row: mebibytes(row.get("swapped")), right=True),
    LINK,
    Column("OUT GB/s", lambda row: gigabytes(link(row, "out_rate")), right=True),
    Column("IN GB/s", lambda row: gigabytes(link(row, "in_rate")), right=True),
    Column("RATE GB/s", lambda row: gigabytes(link(row, "rate")), right=True),
    HOLDER,
    Column("QUEUE", lambda row: ",".join(str(job) for job in row.get("queue") or []) or "-"),
    Column("POLICY", lambda row: str(row.get("policy", "-"))),
    Column("STATE", _state, colour=lambda row: None if _state(row) == "ok" else "red"),
    Column("EPOCH", lambda row: str(row.get("epoch", "-")), right=True),
    SWITCHES,
    Column("LOST TIME", lambda row: seconds(row.get("lost_s")), right=True),
)  # fmt: skip


@click.command("gpus")
@format_option()
def command(output: str) -> None:
    """Show the GPUs of this host, their memory, who holds them and how many wait.

    LINK is the part of the link to the host that swapping took in the last seconds, in the busier direction. -w also
    shows it in GB/s (RATE: what the link is taken to do one way, learned from copies) and the LOST TIME so far:
    nobody could use the GPU because memory moved.
    """
    rows = connection.connect().call("status", all=False).get("gpus", [])
    show(rows, output, NARROW, WIDE, "the daemon has no GPU; see 'gpuvirt doctor'")
