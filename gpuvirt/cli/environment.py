# SPDX-License-Identifier: Apache-2.0
"""The environment in which a program meets the shim instead of the driver."""

from __future__ import annotations

import os
import platform
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from gpuvirt.errors import AttachError

_LOADER_CONFIGURATION = Path("/etc/ld.so.conf")
_TRUSTED = ("/lib", "/lib64", "/usr/lib", "/usr/lib64")
_TRIPLET = f"{platform.machine()}-linux-gnu"


@dataclass(frozen=True)
class Attachment:
    """What the daemon says about how a job's processes attach."""

    preload: Path  # the shim
    library_path: Path  # folder with libcuda.so and libcuda.so.1, links to the shim; the same for NVML and its shim
    nvml: Path | None  # the NVML library of the driver in use
    environment: Mapping[str, str]
    nvml_preload: Path | None = None  # the shim of NVML; None: the daemon has none, and jobs see the driver's own
    job: str | None = None  # its id at the daemon


def inherited() -> dict[str, str]:
    """The environment as this process was given it.

    In the C locale Python sets LC_CTYPE for itself and its children (PEP 538); the program is not to see that.
    """
    result = dict(os.environ)
    try:
        block = Path("/proc/self/environ").read_bytes()  # what execve gave; setenv does not change it
    except OSError:
        return result
    given = dict(entry.split(b"=", 1) for entry in block.split(b"\0") if b"=" in entry)
    if b"LC_CTYPE" in given:
        result["LC_CTYPE"] = os.fsdecode(given[b"LC_CTYPE"])
    else:
        result.pop("LC_CTYPE", None)
    return result


def preload_entry(shim: Path, link: Path) -> str:
    """A shim as LD_PRELOAD can name it (it has no quoting for spaces and colons), else its link. Raises AttachError."""
    for path in (shim, link):
        if not any(separator in str(path) for separator in " :\t\n"):
            return str(path)
    raise AttachError(
        f"LD_PRELOAD cannot name the shim '{shim}' (space or colon in the path)",
        "install gpuvirt, or put GPUVIRT_RUNTIME, into a folder without them",
    )


def system_folders(configuration: Path = _LOADER_CONFIGURATION) -> frozenset[str]:
    """Folders that the loader searches by itself (ld.so.conf and what it includes)."""
    found = {*_TRUSTED, *(f"{folder}/{_TRIPLET}" for folder in _TRUSTED)}
    waiting, seen = [configuration], set()
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        try:
            lines = path.read_text(errors="replace").splitlines()
        except OSError:
            continue
        for line in lines:
            words = line.split("#", 1)[0].split()
            if words[:1] == ["include"]:
                for pattern in words[1:]:
                    base = Path("/") if pattern.startswith("/") else path.parent
                    waiting += base.glob(pattern.lstrip("/"))
            elif words:
                found.add(words[0].rstrip("/"))
    return frozenset(found)


def governed(environ: Mapping[str, str], attachment: Attachment, system: Iterable[str]) -> dict[str, str]:
    """`environ` with the shims in front of every way to the driver and to NVML. Raises AttachError."""
    result = {**environ, **attachment.environment}
    shims = [preload_entry(attachment.preload, attachment.library_path / "libcuda.so.1")]
    if attachment.nvml_preload is not None:
        shims.append(preload_entry(attachment.nvml_preload, attachment.library_path / "libnvidia-ml.so.1"))
    old = [entry for entry in environ.get("LD_PRELOAD", "").replace(":", " ").split() if entry not in shims]
    # The address sanitizer's run-time refuses to start unless it is the first library of all.
    sanitizers = [entry for entry in old if Path(entry).name.startswith("libasan")]
    others = [entry for entry in old if entry not in sanitizers]
    result["LD_PRELOAD"] = ":".join([*sanitizers, *shims, *others])
    folders = [str(attachment.library_path)]
    folders += [entry for entry in environ.get("LD_LIBRARY_PATH", "").split(":") if entry and entry not in folders]
    found_by_itself = attachment.nvml_preload is not None  # it opens the real one by its path
    if attachment.nvml is not None and not found_by_itself and str(attachment.nvml.parent) not in {*folders, *system}:
        folders.append(str(attachment.nvml.parent))  # last: it may hold a libcuda.so.1 too
    result["LD_LIBRARY_PATH"] = ":".join(folders)
    return result
