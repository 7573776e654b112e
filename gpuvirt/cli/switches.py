# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt switches`: the last times that a GPU went from job to job, and what moving memory cost."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from typing import Any

import click

from gpuvirt.cli import connection
from gpuvirt.cli.completion import complete_job
from gpuvirt.cli.output import Column, Row, brief, format_option, gigabytes, mebibytes, show, size

_SAVED = ("zero", "clean", "duplicate")


def _flow(way: str, key: str) -> Any:
    return lambda row: row[way].get(key)


def _clock(row: Row) -> str:
    return time.strftime("%H:%M:%S", time.localtime(row["at"]))


def _day(row: Row) -> str:
    return time.strftime("%Y-%m-%d ", time.localtime(row["at"])) + _clock(row) + f"{row['at'] % 1:.3f}"[1:]


def _copied(way: str) -> Any:
    return lambda row: size(row[way]["copied"])


def _saved(row: Row) -> str:
    return size(sum(row[way][kind] for way in ("out", "in") for kind in _SAVED))


def _rates(row: Row) -> str:
    """Out and in, "0.95/1.10"; "-" for a way that nothing was copied."""
    rates = [gigabytes(row[way]["rate"]) for way in ("out", "in")]
    return "-" if rates == ["-", "-"] else "/".join(rates)


def _note(row: Row) -> str:
    """What is not as in an ordinary turn."""
    failed = row["out"]["failed"] + row["in"]["failed"]
    notes = ["made room"] if row["kind"] == "room" else []
    return ", ".join(notes + ([f"{failed} failed"] if failed else []))


def _sum(key: str) -> Any:
    return lambda row: brief(row["out"][key] + row["in"][key])


def _mib(way: str, kind: str, title: str) -> Column:
    read = _flow(way, kind)
    return Column(title, lambda row: mebibytes(read(row)), right=True)


TIME = Column("TIME", _clock)
GPU = Column("GPU", lambda row: str(row["gpu"]), right=True)
FROM = Column("FROM", lambda row: str(row["from"] or "-"), shrink=4)
TO = Column("TO", lambda row: str(row["to"]), shrink=4)
DELAY = Column("DELAY", lambda row: brief(row["delay_s"]), right=True)
DRAIN = Column("DRAIN", lambda row: brief(row["drain_s"]), right=True)
OUT = Column("OUT", _copied("out"), right=True)
IN = Column("IN", _copied("in"), right=True)
SAVED = Column("SAVED", _saved, right=True)
RATES = Column("GB/s", _rates, right=True)
NOTE = Column("NOTE", _note, shrink=4, colour=lambda row: "red" if "failed" in _note(row) else None)
WIDE = (
    Column("TIME", _day), GPU, FROM, TO, DELAY, DRAIN,
    _mib("out", "copied", "OUT MiB"), _mib("out", "zero", "ZERO"), _mib("out", "clean", "CLEAN"),
    _mib("out", "duplicate", "DUP"),
    _mib("in", "copied", "IN MiB"), _mib("in", "zero", "ZERO"), _mib("in", "duplicate", "DUP"),
    Column("STAYED", lambda row: mebibytes(row["stayed"]), right=True),
    Column("MOVE", _sum("copy_s"), right=True),
    Column("HASH", _sum("hash_s"), right=True),
    Column("MAP", _sum("map_s"), right=True),
    Column("OUT GB/s", lambda row: gigabytes(row["out"]["rate"]), right=True),
    Column("IN GB/s", lambda row: gigabytes(row["in"]["rate"]), right=True),
    NOTE,
)  # fmt: skip


def narrow(rows: Sequence[Row]) -> tuple[Column, ...]:
    """The columns of a table that fits: the GPU only where there are several, notes only where there are any."""
    gpu = (GPU,) if len({row["gpu"] for row in rows}) > 1 else ()
    note = (NOTE,) if any(_note(row) for row in rows) else ()
    return (TIME, *gpu, FROM, TO, DELAY, DRAIN, OUT, IN, SAVED, RATES, *note)


@click.command("switches")
@click.argument("job", required=False, shell_complete=complete_job)
@click.option("--gpu", metavar="INDEX", type=click.IntRange(0), help="Only of this GPU.")
@click.option(
    "-n", "count", metavar="N", type=click.IntRange(1, 1000), default=20, show_default=True, help="How many at most."
)
@click.option("-a", "--all", "everything", is_flag=True, help="Also those that moved no memory.")
@format_option()
def command(job: str | None, gpu: int | None, count: int, everything: bool, output: str) -> None:
    """Show the last switches of the GPUs, or of JOB, that moved memory; the last one at the end.

    DELAY is the time from asking the GPU back until the next job could go on; DRAIN is the part of it in which work
    that had been given ended. OUT and IN were copied, SAVED left or came without a copy: zeros, what host memory held
    already, what another page of the job had. GB/s: what was copied, over the time that moving took from its first page
    to its last, out and in. "made room": the job held the GPU and needed more memory.

    -w shows each kind by itself (in MiB): ZERO, CLEAN (unchanged) and DUP (there twice) beside what was copied that
    way; what the job before kept on the device (STAYED); and the time that moving took (MOVE), what of it was spent on
    hashes (HASH), and the time in calls that map memory (MAP), of all processes together. The daemon keeps the last 128
    that moved memory and the last 32 others of each GPU, as long as it runs.
    """
    arguments: dict[str, Any] = {"count": count, "all": everything, "gpu": gpu, "job": job}
    rows = list(reversed(connection.connect().call("switches", **arguments).get("switches", [])))
    show(rows, output, narrow(rows), WIDE, "no memory has moved yet" if not everything else "no switch yet")
    sys.stdout.flush()
