# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt soft-gpu`: the CPU stand-in for a GPU, by hand.

Its state of a machine is one file, the board, made at first use and sized by the environment of whoever makes it.
"""

from __future__ import annotations

import functools
import os
import secrets
import shlex
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import click

from gpuvirt import paths
from gpuvirt.cli import softgpu_fault
from gpuvirt.cli.child import Child, end_like, replace_by
from gpuvirt.cli.output import Column, Row, format_option, mebibytes, show
from gpuvirt.cli.program import NotExecutable, NotFound, find
from gpuvirt.errors import DriverUnavailable, GpuvirtError, UsageError
from gpuvirt.units import format_size, parse_size

BOARD = "GPUVIRT_SOFTGPU_BOARD"
MEMORY = "GPUVIRT_SOFTGPU_MEMORY"
DEVICES = "GPUVIRT_SOFTGPU_DEVICES"
PROFILE = "GPUVIRT_SOFTGPU_PROFILE"
SCALE = "GPUVIRT_SOFTGPU_MEMORY_SCALE"
MODEL = "GPUVIRT_SOFTGPU_MODEL"
PYTHON = "GPUVIRT_SOFTGPU_PYTHON"
BOARD_MAGIC = b"BVSG"  # GV_BOARD_MAGIC of native/softgpu/board.h
DEVICES_MAX = 16
MEMORY_UNIT = 2 << 20  # bytes: device memory comes in whole pages of this size

_board_option = click.option(
    "--board", metavar="PATH", help=f"File that holds the state. Default: ${BOARD}, else one for each user in /dev/shm."
)
_SHAPE = (
    click.option("--memory", metavar="SIZE", help="Memory of each device, for example 512M."),
    click.option("--devices", type=click.IntRange(1, DEVICES_MAX), metavar="N", help="How many devices."),
    click.option(
        "--profile",
        metavar="NAME[,NAME...]",
        help="Sizes and limits of a card, for each device: h100-80gb, h200, b200, a100-80gb, l40s, t4.",
    ),
    click.option(
        "--memory-scale", type=click.FloatRange(0, 1000, min_open=True), metavar="X", help="Of the card's memory: 0.01."
    ),
    click.option(
        "--model",
        multiple=True,
        metavar="NAME[=VALUE]",
        help="Let calls cost what they cost on the card: all, or link, vmm, pin, reserved, context, init, launch.",
    ),
)


def _shape_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Adds the options that say how a soft GPU shall be; the function gets what they set in `shape`."""

    @functools.wraps(function)
    def with_shape(
        memory: str | None,
        devices: int | None,
        profile: str | None,
        memory_scale: float | None,
        model: tuple[str, ...],
        **rest: Any,
    ) -> Any:
        wanted = {
            MEMORY: _size(memory),
            DEVICES: devices,
            PROFILE: profile,
            SCALE: memory_scale,
            MODEL: ",".join(model) or None,
        }
        return function(shape={key: str(value) for key, value in wanted.items() if value is not None}, **rest)

    for option in reversed(_SHAPE):
        with_shape = option(with_shape)
    return with_shape


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


def variables(board: Path, shape: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """What a program needs in its environment to run on the soft GPU, without gpuvirt. `shape`: of one to be made."""
    soft = str(folder())
    others = [entry for entry in environ.get("LD_LIBRARY_PATH", "").split(":") if entry and entry != soft]
    result = {"LD_LIBRARY_PATH": ":".join([soft, *others]), BOARD: str(board)}
    if PYTHON not in environ:
        result[PYTHON] = sys.executable  # the one in PATH may be too old to translate kernels
    return {**result, **shape}


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


def describe(board: Path, shape: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What the board holds; when there is none it is made, with that shape. Raises DriverUnavailable."""
    from gpuvirt.cli.softgpu_probe import describe as ask

    environ = {**_without_gpuvirt(os.environ), **variables(board, shape or {}, os.environ)}
    return ask(folder() / "libnvidia-ml.so.1", environ)


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
@_shape_options
@_board_option
def create(shape: dict[str, str], board: str | None) -> None:
    """Make a soft GPU of a given size, or like a given card.

    \b
        gpuvirt soft-gpu create --memory 512M --devices 2
        gpuvirt soft-gpu create --profile h100-80gb --memory-scale 0.01 --model all
        gpuvirt soft-gpu create --profile t4,l40s --model link=12:13 --model reserved

    A profile sets what programs are told (multiprocessors, memory, shared memory, clocks, ...) and where launches are
    refused; kernels run as fast as this machine can. Models make copies, VMM calls, page-locking, contexts, cuInit and
    launches take the time and the memory that they take on the card.
    """
    path = board_path(board, os.environ)
    if path.exists():
        raise GpuvirtError(
            f"there is a soft GPU already ({path})",
            "remove it with 'gpuvirt soft-gpu remove', or name another --board",
        )
    gpus = describe(path, shape)["devices"]
    if not path.exists():
        raise DriverUnavailable(f"the soft GPU did not make its board {path}", "see 'gpuvirt doctor'")
    sizes = dict.fromkeys(format_size(gpu["memory_total"]) for gpu in gpus)
    made = f"{len(gpus)} device{'s' if len(gpus) != 1 else ''} of {' and '.join(sizes)}"
    click.echo(f"soft GPU {path}: {made}")


COLUMNS = (
    Column("GPU", lambda row: str(row["index"]), right=True),
    Column("PROFILE", lambda row: str(row["profile"])),
    Column(
        "USED/TOTAL MiB", lambda row: f"{mebibytes(row['memory_used'])}/{mebibytes(row['memory_total'])}", right=True
    ),
    Column("ENGINE", lambda row: f"{row['utilisation']} %", right=True),
    Column("TO/FROM MiB", lambda row: _traffic(row), right=True),
    Column("PROCESSES (MiB, engine)", lambda row: _processes(row), shrink=10),
)
WIDE = (*COLUMNS, Column("MODELS", lambda row: ",".join(row["models"]) or "-"), Column("UUID", lambda row: row["uuid"]))


def _traffic(row: Row) -> str:
    return f"{mebibytes(row['link']['to_bytes'])}/{mebibytes(row['link']['from_bytes'])}"


def _processes(row: Row) -> str:
    return ", ".join(f"{p['pid']} ({mebibytes(p['memory'])}, {p['engine_percent']} %)" for p in row["processes"]) or "-"


@command.command("show")
@_board_option
@format_option()
def show_(board: str | None, output: str) -> None:
    """Show what the soft GPU is and does: profile, memory, share of the engine, bytes over the link, processes."""
    path = board_path(board, os.environ)
    if not path.exists():
        raise GpuvirtError(f"there is no soft GPU yet (no {path})", "make one with 'gpuvirt soft-gpu create'")
    show(describe(path)["devices"], output, COLUMNS, WIDE, "no devices")


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
@_shape_options
@_board_option
def env(shape: dict[str, str], board: str | None) -> None:
    """Print what makes a shell use the soft GPU: eval "$(gpuvirt soft-gpu env)".

    All but --board counts for a soft GPU that is not made yet.
    """
    for key, value in variables(board_path(board, os.environ), shape, os.environ).items():
        click.echo(f"export {key}={shlex.quote(value)}")


@command.command("run", context_settings={"allow_interspersed_args": False})
@_shape_options
@_board_option
@click.argument("words", metavar="[--] COMMAND...", nargs=-1, type=click.UNPROCESSED)
def run(shape: dict[str, str], board: str | None, words: tuple[str, ...]) -> int:
    """Run COMMAND on the soft GPU, without gpuvirt between them.

    With options that say how the GPU shall be, COMMAND gets one of its own, which ends with it. Otherwise it shares the
    user's with other programs.
    """
    if not words:
        raise UsageError("no command given", "write for example 'gpuvirt soft-gpu run -- python train.py'")
    path = board_path(board, os.environ)
    if shape and board is not None and path.exists():
        raise GpuvirtError(
            f"soft GPU {path} has its shape already", "leave the other options out, or name another --board"
        )
    own = bool(shape) and board is None
    if own:
        # Not by the pid alone: containers may share the folder, and one that was killed leaves its file there.
        path = Path(f"/dev/shm/gpuvirt-softgpu-{os.geteuid()}-run-{os.getpid()}-{secrets.token_hex(4)}")
    environ = _without_gpuvirt(os.environ)
    environ.update(variables(path, shape, environ))
    try:
        program = find(words[0], environ)
        sys.stdout.flush()
        if shape:
            describe(path, shape)  # made here: the program would only say that there is no driver
        if not own:
            replace_by(program, words, environ)
        return end_like(_run_and_remove(program, words, environ, path))
    except (NotFound, NotExecutable) as error:
        from gpuvirt.cli.main import fail

        return fail("gpuvirt soft-gpu run", str(error), 127 if isinstance(error, NotFound) else 126)


def _run_and_remove(program: Path, words: tuple[str, ...], environ: Mapping[str, str], board: Path) -> int:
    """Runs the program to its end; its wait status. Its soft GPU is gone then."""
    child = Child(program, words, environ)
    try:
        child.release()
        return child.finish()
    finally:
        board.unlink(missing_ok=True)
