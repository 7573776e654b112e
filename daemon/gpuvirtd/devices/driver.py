# SPDX-License-Identifier: Apache-2.0
"""Finds the real CUDA driver library, never our own shim."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Mapping
from pathlib import Path

from gpuvirt.errors import DriverUnavailable

DRIVER = "libcuda.so.1"
NVML = "libnvidia-ml.so.1"
WELL_KNOWN = (
    "/usr/lib/x86_64-linux-gnu",
    "/usr/lib/aarch64-linux-gnu",
    "/usr/lib64",
    "/usr/lib",
    "/usr/local/nvidia/lib64",
    "/usr/local/cuda/compat",
    "/usr/lib/wsl/lib",
    "/run/opengl-driver/lib",
)


def find_driver(setting: str, environ: Mapping[str, str], ours: Iterable[Path]) -> Path:
    """Absolute path of the libcuda.so.1 that jobs are to use.

    `ours`: files that are the shim. Raises DriverUnavailable.
    """
    if setting != "auto":
        path = Path(setting)
        if not path.exists():
            raise DriverUnavailable(f"CUDA driver {path} does not exist", "set driver.library or GPUVIRT_DRIVER")
        if _is_ours(path, ours):
            raise DriverUnavailable(f"CUDA driver {path} is gpuvirt's own shim", "name the real libcuda.so.1")
        return path.resolve()
    for path in _candidates(DRIVER, environ):
        if path.exists() and not _is_ours(path, ours):
            return path.resolve()
    raise DriverUnavailable(
        "no CUDA driver (libcuda.so.1) on this host",
        "install NVIDIA's driver, or name one with GPUVIRT_DRIVER or driver.library; "
        'for the soft GPU: eval "$(gpuvirt soft-gpu env)"',
    )


def find_nvml(setting: str, driver: Path, environ: Mapping[str, str]) -> Path:
    """Absolute path of the NVML library; auto:

    Beside the driver, else where the system has it. Raises DriverUnavailable.
    """
    if setting != "auto":
        if not Path(setting).exists():
            raise DriverUnavailable(f"NVML library {setting} does not exist", "set driver.nvml or GPUVIRT_NVML")
        return Path(setting).resolve()
    beside = driver.parent / NVML
    for path in (beside, *_candidates(NVML, environ)):
        if path.exists():
            return path.resolve()
    raise DriverUnavailable(f"no NVML ({NVML}) beside {driver} or on this host", "set driver.nvml or GPUVIRT_NVML")


def _candidates(name: str, environ: Mapping[str, str]) -> Iterable[Path]:
    for folder in environ.get("LD_LIBRARY_PATH", "").split(":"):
        if folder.startswith("/"):
            yield Path(folder) / name
    yield from _loader_cache(name)
    for folder in WELL_KNOWN:
        yield Path(folder) / name


def _loader_cache(name: str) -> list[Path]:
    """What ld.so would find, 64-bit libraries first."""
    for command in ("/sbin/ldconfig", "/usr/sbin/ldconfig"):
        if os.access(command, os.X_OK):
            break
    else:
        return []
    try:
        listing = subprocess.run([command, "-p"], capture_output=True, text=True, timeout=10, env={"LC_ALL": "C"})
    except (OSError, subprocess.TimeoutExpired):
        return []
    found = []
    for line in listing.stdout.splitlines():
        entry, arrow, path = line.strip().partition(" => ")
        if arrow and entry.split(" ")[0] == name:
            found.append(("64" in entry, Path(path)))
    return [path for _, path in sorted(found, key=lambda pair: not pair[0])]


def _is_ours(path: Path, ours: Iterable[Path]) -> bool:
    return any(own.exists() and path.samefile(own) for own in ours)
