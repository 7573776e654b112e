# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt soft-gpu`: the CPU stand-in for a GPU, by hand.

Its state of a machine is one file, the board, made at first use and sized by the environment of whoever makes it.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import click

from gpuvirt import paths
from gpuvirt.cli import softgpu_fault
from gpuvirt.cli.child import replace_by
from gpuvirt.cli.output import Column, Row, format_option, mebibytes, show
from gpuvirt.cli.program import NotExecutable, NotFound, find
from gpuvirt.errors import DriverUnavailable, GpuvirtError, UsageError
from gpuvirt.units import format_size, parse_size

BOARD = "GPUVIRT_SOFTGPU_BOARD"
MEMORY = "GPUVIRT_SOFTGPU_MEMORY"
DEVICES = "GPUVIRT_SOFTGPU_DEVICES"
PYTHON = "GPUVIRT_SOFTGPU_PYTHON"
BOARD_MAGIC = b"BVSG"  # GV_BOARD_MAGIC of native/softgpu/board.h
DEVICES_MAX = 16
MEMORY_UNIT = 2 << 20  # bytes: device memory comes in whole pages of this size

_board_option = click.option(
    "--board", metavar="PATH", help=f"File that holds the state. Default: ${BOARD}, else one for each user in /dev/shm."
)
_memory_option = click.option("--memory", metavar="SIZE", help="Memory of each device, for example 512M.")
_devices_option = click.option("--devices", type=click.IntRange(1, DEVICES_MAX), metavar="N", help="How many devices.")


@click.group("softgpu", context_settings={"help_option_names": ["-h", "--help"]})
def command() -> None:
    """A GPU for machines that have none: NVIDIA's driver API and NVML, on the CPU.

    Any CUDA program or test of any project runs on it, without preparation:

    \b
        gpuvirt soft-gpu run -- python my_cuda_test.py
        gpuvirt soft-gpu run --memory 512M -- pytest tests/gpu

    or every program of a shell does:

    \b
        eval "$(gpuvirt soft-gpu env)"

    Kernels are PTX, translated to C and compiled by the system's C compiler at their first use, then cached. It is a
    second implementation of the documented API: real memory, faults, streams, several processes on one device.

    It runs cuda.bindings, cuda.core, numba-cuda, PyCUDA and C programs of the driver API. It does not run what needs
    cubins or NVIDIA's own libraries: CUDA runtime programs, PyTorch, CuPy. It shows whether a program is right, not how
    fast a GPU is.
    """


command.add_command(softgpu_fault.command)


def folder() -> Path:
    """Where its libcuda.so.1 and libnvidia-ml.so.1 are. Raises DriverUnavailable when they are not built."""
    try:
        return paths.library("softgpu/libcuda.so.1").parent
    except FileNotFoundError as error:
        raise DriverUnavailable(str(error), "install gpuvirt with pip, which builds it") from None


def board_path(board: str | None, environ: Mapping[str, str]) -> Path:
    """The board in use: of the option, the environment, else of the user (as native/softgpu/board.c has it)."""
    chosen = board or environ.get(BOARD)
    return Path(chosen).absolute() if chosen else Path(f"/dev/shm/gpuvirt-softgpu-{os.geteuid()}")


def variables(board: Path, memory: int | None, devices: int | None, environ: Mapping[str, str]) -> dict[str, str]:
    """What a program needs in its environment to run on the soft GPU, without gpuvirt."""
    soft = str(folder())
    others = [entry for entry in environ.get("LD_LIBRARY_PATH", "").split(":") if entry and entry != soft]
    result = {"LD_LIBRARY_PATH": ":".join([soft, *others]), BOARD: str(board)}
    if PYTHON not in environ:
        result[PYTHON] = sys.executable  # the one in PATH may be too old to translate kernels
    if memory is not None:
        result[MEMORY] = str(memory)
    if devices is not None:
        result[DEVICES] = str(devices)
    return result


def users(board: Path, proc: Path = Path("/proc")) -> list[int]:
    """Pids of the live processes that have the board mapped, as far as this user may see them."""
    status = board.stat()
    wanted = (f"{os.major(status.st_dev):02x}:{os.minor(status.st_dev):02x}", str(status.st_ino))
    found = []
    for entry in proc.iterdir():
        if entry.name.isdigit():
            try:
                lines = (entry / "maps").read_text(errors="replace").splitlines()
            except OSError:
                continue  # it has ended, or is not ours to see
            if any(tuple(line.split(None, 5)[3:5]) == wanted for line in lines):
                found.append(int(entry.name))
    return sorted(found)


def _size(memory: str | None) -> int | None:
    if memory is None:
        return None
    size = parse_size(memory)
    if size < MEMORY_UNIT:
        raise UsageError(
            f"size '{memory}' is less than one page of the soft GPU", f"give at least {format_size(MEMORY_UNIT)}"
        )
    return size


def _ask(board: Path, memory: int | None = None, devices: int | None = None) -> list[dict[str, Any]]:
    from gpuvirt.cli.nvml_probe import ask

    return ask(environ={**_without_gpuvirt(os.environ), **variables(board, memory, devices, os.environ)})


def _without_gpuvirt(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` as it was outside of `gpuvirt run`, in case this is called inside."""
    result = {
        key: value for key, value in environ.items() if key not in ("GPUVIRT_JOB", "GPUVIRT_SOCKET", "GPUVIRT_DRIVER")
    }
    preload = [e for e in environ.get("LD_PRELOAD", "").replace(":", " ").split() if "gpuvirt-shim" not in e]
    if "LD_PRELOAD" in environ:
        result["LD_PRELOAD"] = ":".join(preload)
    return result


@command.command("create")
@_memory_option
@_devices_option
@_board_option
def create(memory: str | None, devices: int | None, board: str | None) -> None:
    """Make a soft GPU of a given size."""
    path = board_path(board, os.environ)
    size = _size(memory)
    if path.exists():
        raise GpuvirtError(
            f"there is a soft GPU already ({path})", "remove it with 'gpuvirt soft-gpu remove', or name another --board"
        )
    gpus = _ask(path, size, devices)
    if not path.exists():
        raise DriverUnavailable(f"the soft GPU did not make its board {path}", "see 'gpuvirt doctor'")
    made = f"{len(gpus)} device{'s' if len(gpus) != 1 else ''} of {format_size(gpus[0]['memory_total'])}"
    click.echo(f"soft GPU {path}: {made}")


COLUMNS = (
    Column("GPU", lambda row: str(row["index"]), right=True),
    Column("NAME", lambda row: str(row["name"]), shrink=10),
    Column(
        "USED/TOTAL MiB", lambda row: f"{mebibytes(row['memory_used'])}/{mebibytes(row['memory_total'])}", right=True
    ),
    Column("PROCESSES (MiB)", lambda row: _processes(row), shrink=10),
)


def _processes(row: Row) -> str:
    return ", ".join(f"{p['pid']} ({mebibytes(p['memory'])})" for p in row["processes"]) or "-"


@command.command("show")
@_board_option
@format_option()
def show_(board: str | None, output: str) -> None:
    """Show memory and processes of the soft GPU, as NVML tells them."""
    path = board_path(board, os.environ)
    if not path.exists():
        raise GpuvirtError(f"there is no soft GPU yet (no {path})", "make one with 'gpuvirt soft-gpu create'")
    show(_ask(path), output, COLUMNS, COLUMNS, "no devices")


@command.command("remove")
@_board_option
def remove(board: str | None) -> None:
    """Remove the soft GPU, unless a program uses it."""
    path = board_path(board, os.environ)
    try:
        busy = users(path)
    except FileNotFoundError:
        raise GpuvirtError(f"there is no soft GPU (no {path})", "nothing to do") from None
    if busy:
        raise GpuvirtError(f"soft GPU {path} is in use by {', '.join(map(str, busy))}", "end these processes first")
    try:
        with path.open("rb") as file:
            if file.read(4) != BOARD_MAGIC:
                raise GpuvirtError(f"{path} is not the file of a soft GPU", "name the right one with --board")
        path.unlink()
    except OSError as error:
        raise GpuvirtError(f"cannot remove {path} ({error.strerror})", "ask its owner") from None


@command.command("env")
@_memory_option
@_devices_option
@_board_option
def env(memory: str | None, devices: int | None, board: str | None) -> None:
    """Print what makes a shell use the soft GPU: eval "$(gpuvirt soft-gpu env)".

    --memory and --devices count for a soft GPU that is not made yet.
    """
    for key, value in variables(board_path(board, os.environ), _size(memory), devices, os.environ).items():
        click.echo(f"export {key}={shlex.quote(value)}")


@command.command("run", context_settings={"allow_interspersed_args": False})
@_memory_option
@_devices_option
@_board_option
@click.argument("words", metavar="[--] COMMAND...", nargs=-1, type=click.UNPROCESSED)
def run(memory: str | None, devices: int | None, board: str | None, words: tuple[str, ...]) -> int:
    """Run COMMAND on the soft GPU directly, without gpuvirt."""
    if not words:
        raise UsageError("no command given", "write for example 'gpuvirt soft-gpu run -- python train.py'")
    environ = _without_gpuvirt(os.environ)
    environ.update(variables(board_path(board, os.environ), _size(memory), devices, environ))
    try:
        program = find(words[0], environ)
        sys.stdout.flush()
        replace_by(program, words, environ)
    except (NotFound, NotExecutable) as error:
        from gpuvirt.cli.main import fail

        return fail("gpuvirt soft-gpu run", str(error), 127 if isinstance(error, NotFound) else 126)
