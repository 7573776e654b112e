# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt describe JOB`: everything that the daemon knows of one job."""

from __future__ import annotations

import sys
import time
from typing import Any

import click

from gpuvirt.cli import connection, switches
from gpuvirt.cli.completion import complete_job
from gpuvirt.cli.output import (
    Column,
    Row,
    brief,
    cut,
    format_option,
    mebibytes,
    plain,
    print_json,
    seconds,
    table,
    terminal_width,
)
from gpuvirt.cli.weight import standing_text
from gpuvirt.errors import UsageError

_FIXED = (
    Column("KIND", lambda row: str(row["kind"])),
    Column("MiB", lambda row: mebibytes(row["bytes"]), right=True),
    Column("PIECES", lambda row: str(row["pieces"]), right=True),
    Column("WHY IT STAYS", lambda row: str(row["reason"])),
)
_PROCESSES = (
    Column("PID", lambda row: str(row["pid"]), right=True),
    Column("GPU", lambda row: str(row["gpu"]), right=True),
    Column("STATE", lambda row: str(row["state"])),
    Column("MEM", lambda row: mebibytes(row["charged"]), right=True),
    Column("RES", lambda row: mebibytes(row["resident"]), right=True),
    Column("HOST", lambda row: mebibytes(row.get("host")), right=True),
    Column("FIXED", lambda row: mebibytes(row["fixed"]), right=True),
    Column("PINNED", lambda row: mebibytes(row["pinned"]), right=True),
    Column("BUSY", lambda row: seconds(row["busy_s"]), right=True),
    Column("AT GATE", lambda row: seconds(row["gate_s"]), right=True),
    Column("CALLS", lambda row: str(row["submitted"]), right=True),
)
_KINDS = {"zero": "zero", "clean": "unchanged", "duplicate": "there twice"}
_ERRORS = {
    "hash_errors": "unequal pages had equal hashes",
    "verify_errors": "pages came back with another content: its results cannot be trusted",
}
_LABEL = 14  # columns
_NAME_LIMIT = 64  # of a job's name, as `gpuvirt run` takes it


def _size(value: int | None) -> str:
    return "-" if value is None else f"{mebibytes(value)} MiB"


def _clock(value: float | None) -> str:
    return "-" if value is None else time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value))


def _facts(job: Row) -> list[tuple[str, str]]:
    """What is one value each, with its label. Keys that an older daemon lacks are left out as None."""
    get = job.get
    share = get("share")
    pinned = _size(get("pinned")) + (f" of {_size(get('pinned_quota'))} a process" if get("pinned_quota") else "")
    ended = f", ended {_clock(get('ended'))}" if get("ended") else ""
    return [
        ("job", f"{get('job')} ({get('name')}), of {get('user')}"),
        ("state", f"{get('state')}{': ' if get('reason') else ''}{get('reason') or ''}"),
        ("command", " ".join(str(word) for word in get("command") or [])),
        ("since", f"{_clock(get('since'))}{ended}"),
        ("GPUs", ", ".join(str(index) for index in get("gpu") or []) or "-"),
        ("weight", f"{standing_text(job)}{'' if share is None else f', share {100 * share:.0f}%'}"),
        ("limit", _limits(job)),
        ("memory", f"{_size(get('charged'))}: {_size(get('resident'))} on the device, {_size(get('swapped'))} swapped"),
        ("fixed", f"{_size(get('native'))} of it cannot be moved" if get("native") else "nothing"),
        ("host pinned", pinned),
        *_moved(job),
        ("GPU time", f"{seconds(get('held_s'))} held, {seconds(get('busy_s'))} busy, {get('switches')} turns"),
        ("waited", f"{seconds(get('wait_s'))} for a turn, {seconds(get('gate_s'))} of its threads at the gate"),
        ("overran", f"{get('overruns')} times, {seconds(get('overrun_s'))}" if get("overruns") else "never"),
        ("calls", f"{get('submitted')} gated, {get('passed_calls', 0)} passed through"),
        ("unknown", f"{get('unknown_names', 0)} names that this gpuvirt does not know"),
    ]


def _limits(job: Row) -> str:
    """ "400 MiB (no --memory), first to be swapped beyond 100 MiB, 50 MiB set aside for it"."""
    parts = [f"{_size(job.get('memory_quota'))}{'' if job.get('memory') else ' (no --memory)'}"]
    if job.get("memory_soft"):
        parts.append(f"first to be swapped beyond {_size(job['memory_soft'])}")
    if job.get("memory_reserve"):
        parts.append(f"{_size(job['memory_reserve'])} set aside for it")
    return ", ".join(parts)


def _moved(job: Row) -> list[tuple[str, str]]:
    """What swapping has moved, and what that cost the job."""
    moved = job.get("moved")
    if not moved:  # a daemon of before
        return [("moved", f"{_size(job.get('out_bytes'))} out, {_size(job.get('in_bytes'))} in")]
    lines = [
        ("host memory", f"{_size(job.get('arena'))} for what is, or was, swapped out"),
        ("moved out", _flow(moved["out"])),
        ("moved in", _flow(moved["in"])),
    ]
    if moved["copy_s"] or moved["map_s"]:
        took = (
            f"{brief(moved['copy_s'])}, of it {brief(moved['hash_s'])} for hashes; {brief(moved['map_s'])} for mapping"
        )
        lines.append(("moving took", took))
    lines.append(
        ("lost", f"{seconds(job.get('lost_s'))} to switching, {100 * (job.get('lost_share') or 0):.1f}% of its time")
    )
    errors = [f"{moved[key]} {words}" for key, words in _ERRORS.items() if moved.get(key)]
    return [*lines, *([("ERRORS", "; ".join(errors))] if errors else [])]


def _flow(flow: Row) -> str:
    """ "10 MiB copied (2 MiB of it early); not copied: 3 MiB zero, 4 MiB unchanged"."""
    early = f" ({_size(flow['early'])} of it early)" if flow.get("early") else ""
    kinds = [f"{_size(flow[kind])} {words}" for kind, words in _KINDS.items() if flow.get(kind)]
    return f"{_size(flow['copied'])} copied{early}" + (f"; not copied: {', '.join(kinds)}" if kinds else "")


def _event(event: Row) -> str:
    """ "2026-11-23 17:20:01  memory  pid 101: no room (3 times since 17:19:40)"."""
    who = f"pid {event['pid']}: " if event.get("pid") else ""
    count = event.get("count", 1)
    often = f" ({count} times since {_clock(event['first'])[-8:]})" if count > 1 and event.get("first") else ""
    return f"{_clock(event['at'])}  {event.get('kind', 'client'):<7}  {who}{plain(event['text'])}{often}"


@click.command("describe")
@click.argument("job", shell_complete=complete_job)
@format_option(("table", "json"))
def command(job: str, output: str) -> None:
    """Show all that is known of JOB: its name, its id (j3) or its number (3).

    Memory that cannot be moved is listed with the reason: it stays on the GPU while others run. "lost" is the time that
    the job wanted the GPU and only memory that moved kept it from it. More switches: gpuvirt switches JOB.
    """
    if not 0 < len(job) <= _NAME_LIMIT:
        raise UsageError(f"'{cut(job, _NAME_LIMIT)}' is no name of a job", "see: gpuvirt ps -a")
    answer: dict[str, Any] = connection.connect().call("describe", job=job).get("job", {})
    if output == "json":
        print_json(answer)
        return
    lines = [f"{label:<{_LABEL}}{plain(text)}" for label, text in _facts(answer)]
    width = terminal_width(sys.stdout)
    last = list(reversed(answer.get("last_switches") or []))
    sections = (
        ("Memory that stays", _FIXED, answer.get("fixed")),
        ("Processes (memory in MiB)", _PROCESSES, answer.get("processes")),
        ("Last switches that moved memory", switches.narrow(last), last),
    )
    for title, columns, rows in sections:
        if rows:
            lines += ["", title, *table(columns, rows, width)]
    if answer.get("events"):
        lines += ["", "Events"]
        lines += [_event(event) for event in answer["events"]]
    print("\n".join(lines))
