# SPDX-License-Identifier: Apache-2.0
"""A private soft GPU for one run of a benchmark, and the folder that holds everything temporary of that run."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

from gpuvirt import paths
from gpuvirt.units import format_size

SHARED_MEMORY = Path("/dev/shm")


def driver_folder() -> Path:
    """The folder of the soft GPU's libcuda.so.1 and libnvidia-ml.so.1. Raises FileNotFoundError when not built."""
    return paths.library("softgpu/libcuda.so.1").parent


def free_bytes(folder: Path) -> int:
    """Bytes that an ordinary user may still write there; 0 when there is no such folder."""
    try:
        state = os.statvfs(folder)
    except OSError:
        return 0
    return state.f_bavail * state.f_frsize


KEPT = ("GPUVIRT_SOFTGPU_CACHE", "GPUVIRT_SOFTGPU_CC", "GPUVIRT_SOFTGPU_PYTHON")  # where this machine has its tools


def kernel_cache(environ: Mapping[str, str], scratch: Path) -> Path | None:
    """Where translated kernels go when the soft GPU's own choice, a folder below $HOME, cannot be made; else None."""
    if environ.get("GPUVIRT_SOFTGPU_CACHE"):
        return None
    base = environ.get("XDG_CACHE_HOME", "")
    folder = Path(base) if base.startswith("/") else Path(environ.get("HOME") or "/tmp") / ".cache"
    folder = folder / "gpuvirt" / "softgpu"
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError:
        return scratch / "kernels"
    return None if os.access(folder, os.W_OK | os.X_OK) else scratch / "kernels"


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without what would lead a child to another daemon, driver or shim than ours."""
    return {k: v for k, v in environ.items() if not k.startswith("GPUVIRT_") and k != "LD_PRELOAD"}


class Scratch:
    """A private folder, removed at the end: in `place`, or in memory, or on disk when /dev/shm has not `room` bytes."""

    def __init__(self, prefix: str, room: int = 0, place: Path | None = None) -> None:
        if place is None and os.access(SHARED_MEMORY, os.W_OK) and free_bytes(SHARED_MEMORY) >= room:
            place = SHARED_MEMORY
        self.path = Path(tempfile.mkdtemp(prefix=prefix, dir=place))

    def __enter__(self) -> Path:
        return self.path

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        shutil.rmtree(self.path, ignore_errors=True)


@dataclass(frozen=True)
class Device:
    """How programs reach the GPU of this run: environment variables on top of a clean environment."""

    name: str
    memory: int  # bytes
    variables: Mapping[str, str]
    drivers: Path | None = None  # folder of libcuda.so.1 and libnvidia-ml.so.1; None: the system's

    def environ(self, extra: Mapping[str, str] | None = None) -> dict[str, str]:
        """The whole environment of a child."""
        return {**clean(os.environ), "PYTHONUNBUFFERED": "1", **self.variables, **(extra or {})}


def soft_gpu(scratch: Path, memory: int, options: Mapping[str, str] | None = None, board: str = "board") -> Device:
    """A soft GPU of `memory` bytes that only children with this environment can see. `board`: its file in `scratch`.

    Raises FileNotFoundError when gpuvirt is not built.
    """
    folder = driver_folder()
    inherited = os.environ.get("LD_LIBRARY_PATH")
    cache = kernel_cache(os.environ, scratch)
    variables = {
        **{name: os.environ[name] for name in KEPT if os.environ.get(name)},
        **({"GPUVIRT_SOFTGPU_CACHE": str(cache)} if cache is not None else {}),
        "LD_LIBRARY_PATH": f"{folder}:{inherited}" if inherited else str(folder),
        "GPUVIRT_SOFTGPU_BOARD": str(scratch / board),
        "GPUVIRT_SOFTGPU_MEMORY": f"{memory >> 20}M",
        **(options or {}),
    }
    return Device(f"soft GPU of {format_size(memory)}", memory, variables, folder)
