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


def clean(environ: Mapping[str, str]) -> dict[str, str]:
    """`environ` without what would lead a child to another daemon, driver or shim than ours."""
    return {k: v for k, v in environ.items() if not k.startswith("GPUVIRT_") and k != "LD_PRELOAD"}


class Scratch:
    """A private folder, removed at the end: in `place`, or in memory, or on disk when /dev/shm has not `room` bytes."""

    def __init__(self, prefix: str, room: int = 0, place: Path | None = None) -> None:
        if place is None and os.access(SHARED_MEMORY, os.W_OK):
            state = os.statvfs(SHARED_MEMORY)
            if state.f_bavail * state.f_frsize >= room:
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


def soft_gpu(scratch: Path, memory: int, options: Mapping[str, str] | None = None) -> Device:
    """A soft GPU of `memory` bytes that only children with this environment can see.

    Raises FileNotFoundError when gpuvirt is not built.
    """
    folder = driver_folder()
    inherited = os.environ.get("LD_LIBRARY_PATH")
    variables = {
        "LD_LIBRARY_PATH": f"{folder}:{inherited}" if inherited else str(folder),
        "GPUVIRT_SOFTGPU_BOARD": str(scratch / "board"),
        "GPUVIRT_SOFTGPU_MEMORY": f"{memory >> 20}M",
        **(options or {}),
    }
    return Device(f"soft GPU of {format_size(memory)}", memory, variables, folder)
