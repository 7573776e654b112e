# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt usage`: what tenants, jobs and GPUs have used since some time. The bill."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

import click

from gpuvirt.cli import connection
from gpuvirt.cli.output import Column, Row, format_option, percent, seconds, show
from gpuvirt.errors import UsageError

_AGO = re.compile(r"^(\d+(?:\.\d+)?)\s*([smhdw])$")
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
_SHAPE = "write for example 1h, 7d, 2026-11-01 or 2026-11-01T08:30"
_SUMS = ("gpu_s", "held_s", "alone_s", "busy_s", "wait_s", "overrun_s", "overruns", "switches", "waits")


def moment(text: str, now: float) -> float:
    """Seconds since 1970 of "1h" (before now) or of a date, with a time or not; local unless it says otherwise.

    Raises UsageError.
    """
    ago = _AGO.match(text.strip())
    try:
        if ago is not None:
            return max(0.0, now - timedelta(**{_UNITS[ago[2]]: float(ago[1])}).total_seconds())
        return max(0.0, datetime.fromisoformat(text.strip()).timestamp())
    except (ValueError, OverflowError, OSError):
        raise UsageError(f"'{text}' is neither a time nor how long ago", _SHAPE) from None


def total(rows: Sequence[Row]) -> dict[str, Any]:
    """The sum of rows, as one more row."""
    return {name: sum(row.get(name) or 0 for row in rows) for name in _SUMS}


def _text(key: str, otherwise: str = "-") -> Any:
    return lambda row: otherwise if row.get(key) in (None, "") else str(row[key])


def _seconds(key: str) -> Any:
    return lambda row: seconds(row.get(key))


def _per_switch(row: Row) -> str:
    """GPU time of a turn, on average."""
    held, switches = row.get("held_s"), row.get("switches")
    return seconds(held / switches) if held and switches else "-"


def _since(row: Row) -> str:
    return time.strftime("%Y-%m-%d %H:%M", time.localtime(row["since"])) if row.get("since") else "-"


def _share(whole: float) -> Column:
    return Column("SHARE", lambda row: percent(row["gpu_s"] / whole if whole else None), right=True)


USER = Column("TENANT", _text("user"), shrink=6)
JOBS = Column("JOBS", _text("jobs", ""), right=True)
GPU_TIME = Column("GPU TIME", _seconds("gpu_s"), right=True)
COMMON = (
    Column("HELD", _seconds("held_s"), right=True),
    Column("ALONE", _seconds("busy_s"), right=True),
    Column("WAITED", _seconds("wait_s"), right=True),
    Column("OVERRUN", _seconds("overrun_s"), right=True),
    Column("SWITCHES", _text("switches"), right=True),
)
MORE = (
    Column("OVERRUNS", _text("overruns"), right=True),
    Column("WAITS", _text("waits"), right=True),
    Column("HAD IT ALONE", _seconds("alone_s"), right=True),
    Column("PER TURN", _per_switch, right=True),
)
WHO = {
    "tenant": (USER, JOBS),
    "job": (Column("JOB", _text("job", "")), Column("NAME", _text("name", ""), shrink=8), USER),
    "gpu": (Column("GPU", _text("gpu"), right=True), Column("UUID", _text("uuid", ""), shrink=12), JOBS),
}

WHO_KEY = {"tenant": "user", "job": "job", "gpu": "gpu"}  # the first column


@click.command("usage")
@click.option("--since", metavar="TIME", default="24h", show_default=True, help="How long ago (1h, 7d), or a date.")
@click.option("--until", metavar="TIME", help="The end; the same forms.  [default: now]")
@click.option(
    "--by", type=click.Choice(list(WHO)), default="tenant", show_default=True, help="What a line of the bill is about."
)
@format_option()
def command(since: str, until: str | None, by: str, output: str) -> None:
    """Show what tenants (or jobs, or GPUs) have used since TIME.

    GPU TIME is the bill: the time that a job held a GPU while others wanted it too, by the daemon's clock and up to the
    end of its work (HELD), and the time that it was busy while nobody else wanted it, as its processes say (ALONE).
    WAITED is the time that it wanted a GPU and had none, OVERRUN what its work took too long to end after its turn,
    SWITCHES how often it was given a GPU.

    Whole minutes count, and whole hours for what is more than two days ago. A daemon that was killed has lost nothing.
    """
    now = time.time()
    begin, end = moment(since, now), None if until is None else moment(until, now)
    if begin > (now if end is None else end):
        raise UsageError(f"--since {since} is after {'now' if until is None else f'--until {until}'}", _SHAPE)
    rows = connection.connect().call("usage", since=begin, until=end, by=by).get("rows", [])
    if output not in ("table", "wide"):
        show(rows, output, (), (), "")
        return
    whole = total(rows)
    share = (_share(whole["gpu_s"]),) if rows else ()
    columns = (*WHO[by], GPU_TIME, *share, *COMMON)
    wide = (*columns, *MORE, *((Column("STARTED", _since),) if by == "job" else ()))
    lines = [*rows, {WHO_KEY[by]: "all", **whole}] if len(rows) > 1 else rows
    show(lines, output, columns, wide, f"no GPU time since {since}")
