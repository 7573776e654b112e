# SPDX-License-Identifier: Apache-2.0
"""What `gpuvirt top` shows: lines made of two answers to `status`, an earlier one and the present one. Pure."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gpuvirt.cli.gpus import link
from gpuvirt.cli.output import Column, Row, brief, cut, gigabytes, paint, percent, plain, seconds, size, table

_ORDER = {"running": 0, "swapping": 1, "recovering": 2, "waiting": 3, "queued": 4, "suspended": 5, "idle": 6, "new": 7}
_COLOURS = {
    "running": "green",
    "swapping": "cyan",
    "waiting": "yellow",
    "recovering": "yellow",
    "queued": "yellow",
    "suspended": "yellow",
}
_QUEUE = 3  # jobs that are named


@dataclass(frozen=True)
class Look:
    """One answer of the daemon."""

    at: float  # clock of the caller, s; only differences count
    status: Mapping[str, Any]

    def jobs(self) -> dict[str, Row]:
        return {str(job["job"]): job for job in self.status.get("jobs", []) if job.get("state") != "ended"}

    def gpus(self) -> dict[str, Row]:
        return {str(gpu.get("uuid")): gpu for gpu in self.status.get("gpus", [])}


def compared(before: Look, now: Look) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Rows of GPUs and of jobs, with what has happened in between.

    `turns`: a second; `share`, `waited_now`, `lost_now`: parts of the time, 0 to 1; None when no time has passed.
    """
    elapsed = now.at - before.at
    earlier, gpus = before.gpus(), []
    for uuid, gpu in now.gpus().items():
        turns = _grown(gpu, earlier.get(uuid), "switches") / elapsed if elapsed > 0 else None
        gpus.append({**gpu, "turns": turns})
    known, jobs = before.jobs(), []
    for key, job in now.jobs().items():
        old = known.get(key)
        used = max(1, len(job.get("gpu") or []))
        share = _grown(job, old, "held_s") / elapsed / used if elapsed > 0 else None
        lost = _grown(job, old, "lost_s") / elapsed if elapsed > 0 else None
        waited = _grown(job, old, "wait_s") / elapsed / used if elapsed > 0 else None
        parts = {"share": share, "waited_now": waited, "lost_now": lost}
        jobs.append({**job, **{key: _bounded(value) for key, value in parts.items()}})
    return gpus, sorted(jobs, key=_rank)


def _grown(row: Row, before: Row | None, key: str) -> float:
    """By how much a counter has grown; that of one who was not there before has grown from nothing."""
    return max(0.0, float(row.get(key) or 0) - float((before or {}).get(key) or 0))


def _bounded(value: float | None) -> float | None:
    return None if value is None else min(1.0, value)


def _rank(job: Row) -> tuple[int, float, str]:
    return _ORDER.get(str(job.get("state")), 9), -(job.get("share") or 0.0), str(job["job"])


def _queue(row: Row) -> str:
    queue = [str(job) for job in row.get("queue") or []]
    more = f"+{len(queue) - _QUEUE}" if len(queue) > _QUEUE else ""
    return ",".join(queue[:_QUEUE] + ([more] if more else [])) or "-"


def _holds(row: Row) -> str:
    """Who holds it, or "->j2" while it is on its way to j2."""
    return str(row.get("holder") or (f"->{row['next']}" if row.get("next") else "-"))


def _used(row: Row) -> str:
    return f"{size(row.get('memory_used'))}/{size(row.get('memory_total'))}"


def _flow(row: Row) -> str:
    """Out and in, GB/s."""
    return f"{gigabytes(link(row, 'out_rate'))}/{gigabytes(link(row, 'in_rate'))}"


GPUS = (
    Column("GPU", lambda row: str(row.get("index", "-")), right=True),
    Column("NAME", lambda row: str(row.get("name", "-")), shrink=6),
    Column("USED", _used, right=True),
    Column("SWAPPED", lambda row: size(row.get("swapped")), right=True),
    Column("LINK", lambda row: percent(link(row, "share")), right=True),
    Column("OUT/IN GB/s", _flow, right=True),
    Column("TURNS/s", lambda row: "-" if row.get("turns") is None else f"{row['turns']:.1f}", right=True),
    Column("HOLDS", _holds, shrink=5, colour=lambda row: "green" if row.get("holder") else "cyan"),
    Column("WAIT", _queue, shrink=5, colour=lambda row: "yellow" if row.get("queue") else None),
)
JOBS = (
    Column("JOB", lambda row: str(row["job"]), shrink=4),
    Column("NAME", lambda row: str(row.get("name", "-")), shrink=6),
    Column("USER", lambda row: str(row.get("user", "-")), shrink=5),
    Column("GPU", lambda row: ",".join(str(index) for index in row.get("gpu") or []) or "-", right=True),
    Column("WT", lambda row: str(row.get("weight", "-")), right=True),
    Column("STATE", lambda row: str(row.get("state", "-")), colour=lambda row: _COLOURS.get(str(row.get("state")))),
    Column("SHARE", lambda row: percent(row.get("share")), right=True),
    Column("WAIT", lambda row: percent(row.get("waited_now")), right=True),
    Column("EACH", lambda row: brief(row.get("turn_wait_s")), right=True),
    Column("LOST", lambda row: percent(row.get("lost_now")), right=True),
    Column("MEM", lambda row: size(row.get("charged")), right=True),
    Column("RES", lambda row: size(row.get("resident")), right=True),
    Column("HOST", lambda row: size(row.get("arena")), right=True),
    Column("REASON", lambda row: str(row.get("reason") or ""), shrink=6),
)

_SPARE = ("EACH", "WT", "HOST", "USER")  # in this order they are left out of a table that is too wide
_REASON = 14  # characters of a reason that are worth more than those


def _job_columns(jobs: Sequence[Row], gpus: int, width: int) -> list[Column]:
    """What there is room for; the GPU only where there are several, weights where they differ."""
    chosen = [column for column in JOBS if column.title != "GPU" or gpus > 1]
    if len({row.get("weight") for row in jobs}) < 2:
        chosen = [column for column in chosen if column.title != "WT"]
    for title in _SPARE:
        if _least(chosen, jobs) > width:
            chosen = [column for column in chosen if column.title != title]
    return chosen


def _least(columns: Sequence[Column], rows: Sequence[Row]) -> int:
    """Characters that a table needs at least."""
    needed = 0
    for column in columns:
        natural = max([len(column.title), *(len(plain(column.text(row))) for row in rows)])
        smallest = _REASON if column.title == "REASON" else column.shrink
        needed += 2 + (min(natural, smallest) if column.shrink else natural)
    return needed - 2


def _heading(now: Look, elapsed: float, clock: float, width: int) -> str:
    daemon: Mapping[str, Any] = now.status.get("daemon", {})
    budget, used = daemon.get("host_budget"), daemon.get("host_used")
    host = "" if budget is None or used is None else f"host memory for swap {size(used)} of {size(budget)}"
    state = "" if daemon.get("state", "ready") == "ready" else str(daemon["state"])
    parts = [
        f"gpuvirt {time.strftime('%H:%M:%S', time.localtime(clock))}",
        f"last {seconds(elapsed)}" if elapsed > 0 else "",
        host,
        f"up {seconds(daemon['uptime_s'])}" if "uptime_s" in daemon else "",
        state,
    ]
    return cut(plain("  ".join(part for part in parts if part)), width)


def lines(
    before: Look, now: Look, clock: float, width: int, height: int | None = None, colour: bool = False
) -> list[str]:
    """The whole picture, at most `height` lines of at most `width` characters (None: as many as there are).

    clock: the time of day, as time.time() tells it.
    """
    gpus, jobs = compared(before, now)
    found = [paint(_heading(now, now.at - before.at, clock, width), "bold", colour), ""]
    found += table(GPUS, gpus, width, colour) if gpus else ["no GPU; see 'gpuvirt doctor'"]
    found.append("")
    if not jobs:
        found.append("no jobs; start one with 'gpuvirt run -- COMMAND'")
    else:
        columns = _job_columns(jobs, len(gpus), width)
        found += _fitting(table(columns, jobs, width, colour), None if height is None else height - len(found))
    return found if height is None else found[:height]


def _fitting(rows: Sequence[str], room: int | None) -> list[str]:
    """What fits, and a line about what does not."""
    if room is None or len(rows) <= room:
        return list(rows)
    shown = max(1, room - 1)
    return [*rows[:shown], f"... {len(rows) - shown} more jobs: make the window higher, or see 'gpuvirt ps'"]
