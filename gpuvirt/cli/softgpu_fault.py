# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt soft-gpu fault`: make the soft GPU fail, hang or slow down on request.

The board holds the faults; the soft NVML library exports functions for tools that change them
(native/softgpu/fault_tools.c).
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path
from typing import Any

import click

from gpuvirt.cli.output import Column, format_option, show
from gpuvirt.errors import GpuvirtError, UsageError
from gpuvirt.units import parse_size

ROOM = 65536  # bytes for a list in text
WORD = 2**32 - 1  # the largest number that the board has room for
PID_MAX = 2**31 - 1
RULE_KEYS = ("id", "rule", "calls", "acted")
EVENT_KEYS = ("number", "time_ns", "device", "type", "data", "pid")
EVENT_TYPES = {1: "ECC corrected", 2: "ECC uncorrected", 8: "Xid"}


class FaultBoard:
    """The faults of one board. The board of a process is the first that it opens: use one object, one path."""

    def __init__(self, board: Path, library: Path) -> None:
        """Raises GpuvirtError when there is no board at that path."""
        if not board.exists():
            raise GpuvirtError(f"there is no soft GPU yet (no {board})", "make one with 'gpuvirt soft-gpu create'")
        os.environ["GPUVIRT_SOFTGPU_BOARD"] = str(board)
        self._library = ctypes.CDLL(str(library))

    def add(self, rule: str) -> int:
        """The id of the new rule. Raises UsageError when it is none, or there are too many."""
        message = ctypes.create_string_buffer(512)
        number: int = self._library.gv_softgpu_fault_add(os.fsencode(rule), message, ctypes.c_size_t(len(message)))
        if number == 0:
            raise UsageError(_line(message), "see 'gpuvirt soft-gpu fault --help'")
        return number

    def clear(self, number: int = 0) -> int:
        """Removes one rule, or all; how many there were."""
        removed: int = self._library.gv_softgpu_fault_clear(ctypes.c_uint32(number))
        return removed

    def device(self, device: int, what: str, first: int = 0, second: int = 0) -> None:
        """A fault of a device, as in fault_tools.c. Raises UsageError when the board refuses it."""
        message = ctypes.create_string_buffer(512)
        done = self._library.gv_softgpu_fault_device(
            ctypes.c_uint32(device), what.encode(), ctypes.c_uint64(first), ctypes.c_uint64(second), message,
            ctypes.c_size_t(len(message)),
        )  # fmt: skip
        if not done:
            raise UsageError(_line(message), "see 'gpuvirt soft-gpu show'")

    def rules(self) -> list[dict[str, Any]]:
        """Rules with the number of matching calls, and of those that something was done to."""
        rows = [dict(zip(RULE_KEYS, words, strict=True)) for words in self._lines("gv_softgpu_fault_list")]
        return [{**row, **{key: int(row[key]) for key in ("id", "calls", "acted")}} for row in rows]

    def events(self) -> list[dict[str, Any]]:
        """The last 128 events of all devices; `time_ns` is monotonic time."""
        lines = self._lines("gv_softgpu_events")
        return [dict(zip(EVENT_KEYS, map(int, words), strict=True)) for words in lines]

    def _lines(self, function: str) -> list[list[str]]:
        text = ctypes.create_string_buffer(ROOM)
        getattr(self._library, function)(text, ctypes.c_size_t(ROOM))
        return [line.split("\t") for line in text.value.decode(errors="replace").splitlines()]


def _line(message: ctypes.Array[ctypes.c_char]) -> str:
    """What the library says as one line; it repeats words of the user, and may have cut them anywhere."""
    return " ".join(message.value.decode(errors="replace").split())


def open_board(board: str | None) -> FaultBoard:
    """The board of the option, the environment, else of the user. Raises GpuvirtError when there is none."""
    from gpuvirt.cli import softgpu

    path = softgpu.board_path(board, os.environ)
    faults = FaultBoard(path, softgpu.folder() / "libnvidia-ml.so.1")
    softgpu.describe(path)  # says what is wrong with the file: here it would look like a board without faults
    return faults


class DeviceFirst(click.Command):
    """A command whose first argument, the device, may be left out though others follow."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """As click's own, with device 0 put in when there is one argument less than there are places."""
        places = [parameter for parameter in self.params if isinstance(parameter, click.Argument)]
        values, _, _ = self.make_parser(ctx).parse_args(list(args))
        given = [place for place in places if isinstance(values.get(place.name or ""), str)]
        return super().parse_args(ctx, ["0", *args] if len(given) == len(places) - 1 else args)


_board_option = click.option("--board", metavar="PATH", help="File that holds the soft GPU's state.")
_device = click.argument("device", type=click.IntRange(0, WORD), default=0)
_uncorrected = click.option("--uncorrected/--corrected", default=True, show_default=True, help="Kind of error.")
_count = click.option("--count", type=click.IntRange(1, WORD), default=1, show_default=True, help="How many.")


@click.group("fault", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """Make the soft GPU fail, hang or slow down, while programs use it.

    A rule is WHAT:WHEN:ACTION, with :pid=N or :device=N behind it to be for these alone:

    \b
        gpuvirt soft-gpu fault add cuMemCreate:3:OUT_OF_MEMORY          the third call
        gpuvirt soft-gpu fault add 'cuMemcpyHtoD*:1+:delay=200ms'       every one, from the first
        gpuvirt soft-gpu fault add 'nvmlDeviceGet*:*:hang'              until the rule is cleared
        gpuvirt soft-gpu fault add 'kernel.*:1:ILLEGAL_ADDRESS:pid=42'  the next kernel of process 42
        gpuvirt soft-gpu fault add copy.to_device:*:rate=100M           a slow link, one way

    WHAT names an entry point of the driver or of NVML, or a glob of them; or a place inside the device: kernel.NAME,
    copy.to_device, copy.from_device, copy.on_device, checkpoint.save, checkpoint.restore. WHEN is 3, 3+ or *. ACTION is
    an error, delay=TIME, hang, kill, rate=BYTES (a second) or corrupt. The same words in GPUVIRT_SOFTGPU_FAULTS,
    separated by ";", count for one process. The other verbs are faults of a device.
    """


@command.command("add")
@click.argument("rules", metavar="RULE...", nargs=-1, required=True)
@_board_option
def add(rules: tuple[str, ...], board: str | None) -> None:
    """Add fault rules; prints their ids."""
    faults = open_board(board)
    for rule in rules:
        click.echo(faults.add(rule))


@command.command("list")
@_board_option
@format_option()
def list_(board: str | None, output: str) -> None:
    """Show the fault rules and what they did."""
    columns = (
        Column("ID", lambda row: str(row["id"]), right=True),
        Column("RULE", lambda row: str(row["rule"]), shrink=20),
        Column("CALLS", lambda row: str(row["calls"]), right=True),
        Column("ACTED", lambda row: str(row["acted"]), right=True),
    )
    show(open_board(board).rules(), output, columns, columns, "no fault rules")


@command.command("clear")
@click.argument("ids", metavar="[ID...]", type=click.IntRange(1, WORD), nargs=-1)
@_board_option
def clear(ids: tuple[int, ...], board: str | None) -> None:
    """Remove fault rules, all when no id is given. What hangs by them goes on."""
    faults = open_board(board)
    for number in ids or (0,):
        if faults.clear(number) == 0 and number != 0:
            raise GpuvirtError(f"there is no fault rule {number}", "see 'gpuvirt soft-gpu fault list'")


@command.command("lose")
@_device
@_board_option
def lose(device: int, board: str | None) -> None:
    """Let DEVICE fall off the bus: Xid 79, its contexts are dead, NVML says that it is lost."""
    open_board(board).device(device, "lose")


@command.command("recover")
@_device
@_board_option
def recover(device: int, board: str | None) -> None:
    """Reset a lost DEVICE: new contexts work, those of before stay dead."""
    open_board(board).device(device, "recover")


@command.command("withhold", cls=DeviceFirst)
@_device
@click.argument("size", metavar="SIZE")
@_board_option
def withhold(device: int, size: str, board: str | None) -> None:
    """Take SIZE of the memory of DEVICE away, 0 to give it back."""
    open_board(board).device(device, "withhold", parse_size(size) if size != "0" else 0)


@command.command("stranger", cls=DeviceFirst)
@_device
@click.argument("pid", type=click.IntRange(1, PID_MAX))
@click.argument("size", metavar="SIZE")
@_board_option
def stranger(device: int, pid: int, size: str, board: str | None) -> None:
    """Let NVML list a process PID that holds SIZE of DEVICE; 0 removes it."""
    open_board(board).device(device, "stranger", pid, parse_size(size) if size != "0" else 0)


@command.command("xid", cls=DeviceFirst)
@_device
@click.argument("number", type=click.IntRange(1, WORD))
@click.option("--pid", type=click.IntRange(0, PID_MAX), default=0, help="Process to blame.")
@_board_option
def xid(device: int, number: int, pid: int, board: str | None) -> None:
    """Raise Xid NUMBER on DEVICE."""
    open_board(board).device(device, "xid", number, pid)


@command.command("ecc")
@_device
@_uncorrected
@_count
@_board_option
def ecc(device: int, uncorrected: bool, count: int, board: str | None) -> None:
    """Count ECC errors of DEVICE, with their events."""
    open_board(board).device(device, "ecc", int(uncorrected), count)


@command.command("remap")
@_device
@_uncorrected
@_count
@_board_option
def remap(device: int, uncorrected: bool, count: int, board: str | None) -> None:
    """Remap rows of the memory of DEVICE, pending until its reset."""
    open_board(board).device(device, "remap", int(uncorrected), count)


@command.command("events")
@_board_option
@format_option()
def events(board: str | None, output: str) -> None:
    """Show the last events of all devices."""
    columns = (
        Column("NO", lambda row: str(row["number"]), right=True),
        Column("GPU", lambda row: str(row["device"]), right=True),
        Column("EVENT", lambda row: EVENT_TYPES.get(row["type"], str(row["type"]))),
        Column("DATA", lambda row: str(row["data"]), right=True),
        Column("PID", lambda row: str(row["pid"] or "-"), right=True),
    )
    show(open_board(board).events(), output, columns, columns, "no events")
