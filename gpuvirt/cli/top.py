# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt top`: who holds the GPUs, who waits, what moves; again and again, or once."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from typing import TYPE_CHECKING

import click

from gpuvirt.cli import connection, overview
from gpuvirt.cli.output import cut, format_option, print_json, terminal_width, wants_colour
from gpuvirt.errors import GpuvirtError

if TYPE_CHECKING:
    from gpuvirt.admin import AdminClient
    from gpuvirt.cli.terminal import Screen

_WINDOW_S = 5.0  # shares are of the last seconds, however often the picture changes
_ESCAPE = "\x1b"  # alone: arrows and the like begin with it


@click.command("top")
@click.option("--once", is_flag=True, help="Print one picture and end; also when the output is no terminal.")
@click.option(
    "-i", "--interval", metavar="S", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True,
    help="Seconds between two looks; with --once, what the shares are of.",
)  # fmt: skip
@format_option(("table", "json"))
def command(once: bool, interval: float, output: str) -> int | None:
    """Show GPUs and jobs on a screen that keeps itself up to date. q ends it.

    Of a GPU: the memory in use, what its jobs have swapped out, the part of the link to the host that swapping takes,
    turns a second, who holds it and who waits. Of a job: SHARE, the part of the last seconds that it had the GPU; WAIT,
    the part in which it waited for it; LOST, the part in which it wanted the GPU and only memory that moved kept it
    from it; its memory (MEM), what of that is on the device (RES), and the host memory that holds what is swapped out
    (HOST). Where there is room: its weight (WT), where weights differ, and how long it waits for each turn (EACH, the
    median of the last ones). Why it waits now: gpuvirt why JOB.
    """
    client = connection.connect()
    if output == "json" or once or not _screen_there():
        before = _look(client)
        time.sleep(interval)
        now = _look(client)
        if output == "json":
            gpus, jobs = overview.compared(before, now)
            print_json({"seconds": now.at - before.at, "gpus": gpus, "jobs": jobs})
        else:
            width, colour = terminal_width(sys.stdout), wants_colour(sys.stdout, os.environ)
            print("\n".join(overview.lines(before, now, time.time(), width, colour=colour)))
        return None
    from gpuvirt.cli.terminal import Ended, screen

    try:
        with screen() as shown:
            _run(shown, client, interval)
    except Ended as ended:
        return 128 + ended.number
    except KeyboardInterrupt:  # the other ordinary way to leave
        return None
    return None


def _screen_there() -> bool:
    from gpuvirt.cli.terminal import usable

    return usable(sys.stdout, os.environ)


def _look(client: AdminClient) -> overview.Look:
    answer = client.call("status", all=False)
    return overview.Look(time.monotonic(), answer)


def _run(screen: Screen, client: AdminClient, interval: float) -> None:
    """Until somebody ends it. A daemon that is away is waited for; what was seen last stays on the screen."""
    colour = wants_colour(sys.stdout, os.environ)
    looks: deque[overview.Look] = deque()
    trouble, due = "", 0.0
    client.timeout_s = max(1.0, min(interval, 5.0))
    while True:
        if time.monotonic() >= due:
            due = time.monotonic() + interval
            try:
                looks.append(_look(client))
                trouble = ""
            except GpuvirtError as error:
                trouble = f"trying again: {error.message}"
            while len(looks) > 2 and looks[-1].at - looks[1].at >= _WINDOW_S:
                looks.popleft()
        columns, rows = screen.size()
        picture = [] if not looks else overview.lines(
            looks[0], looks[-1], time.time(), columns, rows - bool(trouble), colour
        )  # fmt: skip
        screen.show([*picture, *([cut(trouble, columns)] if trouble else [])])
        key = screen.wait(max(0.0, due - time.monotonic()))
        if key == _ESCAPE or key[:1] in ("q", "Q"):
            return
        if key == " ":
            due = 0.0
