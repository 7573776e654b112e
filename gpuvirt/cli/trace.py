# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt trace`: what happened on the GPUs lately, as a file for Perfetto."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from gpuvirt import perfetto
from gpuvirt.cli import connection
from gpuvirt.cli.timeline import Part, Track, span, tracks
from gpuvirt.errors import GpuvirtError, UsageError
from gpuvirt.units import format_duration, parse_duration

if TYPE_CHECKING:
    from gpuvirt.admin import AdminClient

_PARTS = 1000  # of one GPU: more than the daemon keeps


@click.command("trace")
@click.option(
    "--last", metavar="TIME", default="30s", show_default=True, help="How much of what has happened, for example 30s."
)
@click.option("--gpu", metavar="INDEX", type=click.IntRange(0), help="Only this GPU.")
@click.option(
    "-o", "output", metavar="FILE", default="gpuvirt.pftrace", show_default=True, help="Where to; - is standard output."
)
def command(last: str, gpu: int | None, output: str) -> None:
    """Write what happened on the GPUs lately into FILE, to be opened at https://ui.perfetto.dev.

    A group of tracks for each GPU: who had it, what memory moved at hand-overs. One for each job: when it held the GPU,
    drained and waited (for its turn, or for memory that moved), what its processes swapped, what it had on the device.
    Arrows go from job to job. The daemon keeps some 30,000 records of each GPU, minutes with turns of 20 ms.
    """
    wanted = parse_duration(last)
    if output == "-" and sys.stdout.isatty():
        raise UsageError("a trace is not for a terminal", "name a file with -o")
    parts = fetch(connection.connect(), gpu, wanted)
    data = encode(parts)
    if output == "-":
        sys.stdout.buffer.write(data)
        sys.stdout.buffer.flush()
        return
    try:
        Path(output).write_bytes(data)
    except OSError as error:
        raise GpuvirtError(f"{output} cannot be written: {error.strerror}", "choose another file with -o") from None
    begin, end = span(parts)
    records = sum(len(part.records) for part in parts)
    print(f"{output}: {format_duration(end - begin)}, {records} records; open it at https://ui.perfetto.dev")


def fetch(client: AdminClient, gpu: int | None, last_ns: int) -> list[Part]:
    """What the daemon has of the last `last_ns`, of one GPU (its index) or of all."""
    chosen = [gpu] if gpu is not None else [row["index"] for row in client.call("status", all=False).get("gpus", [])]
    return [Part.of(_answers(client, index, last_ns)) for index in chosen]


def _answers(client: AdminClient, gpu: int, last_ns: int) -> list[dict[str, Any]]:
    answers = [client.call("trace", gpu=gpu, last_ns=last_ns)]
    while answers[-1].get("next") is not None and len(answers) < _PARTS:
        answers.append(client.call("trace", gpu=gpu, start=answers[-1]["next"]))
    return answers


def encode(parts: Sequence[Part]) -> bytes:
    """The file."""
    clocks = {}
    if parts:
        head = parts[0].head
        clocks = {perfetto.REALTIME: head["clocks"]["realtime"], perfetto.BOOTTIME: head["clocks"]["boottime"]}
        clocks[perfetto.MONOTONIC] = head["now"]
    trace = perfetto.Trace(clocks or {perfetto.MONOTONIC: 0})
    groups: dict[str, int] = {}
    for rank, track in enumerate(tracks(parts)):
        if track.group not in groups:
            groups[track.group] = trace.track(track.group, rank=len(groups))
        _draw(trace, track, groups[track.group], rank)
    return trace.encode()


def _draw(trace: perfetto.Trace, track: Track, parent: int, rank: int) -> None:
    counter = perfetto.BYTES if track.points else None
    number = trace.track(track.name, parent, rank, counter)
    for at, value in track.points:
        trace.count(number, at, value)
    for one in track.slices:
        trace.slice(
            number,
            one.name,
            one.begin,
            one.end,
            one.arguments,
            "gpuvirt",
            flows=[one.flow] if one.flow is not None else [],
            ends=[one.ends] if one.ends is not None else [],
        )
    for at, text in track.notes:
        trace.instant(number, text, at, category="gpuvirt")
