# SPDX-License-Identifier: Apache-2.0
"""Where gpuvirt keeps its sockets and where its built libraries are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import gpuvirt

SYSTEM_RUNTIME = Path("/run/gpuvirt")
CLIENT_SOCKET = "client.sock"  # SOCK_SEQPACKET, for the shim (messages.h)
ADMIN_SOCKET = "admin.sock"  # SOCK_STREAM, for the command line (admin.py)


def default_runtime(environ: Mapping[str, str], uid: int) -> Path:
    """The runtime folder of a daemon that this user starts: /run/gpuvirt for root, else a private one."""
    if environ.get("GPUVIRT_RUNTIME"):
        return Path(environ["GPUVIRT_RUNTIME"])
    if uid == 0:
        return SYSTEM_RUNTIME
    if environ.get("XDG_RUNTIME_DIR"):
        return Path(environ["XDG_RUNTIME_DIR"]) / "gpuvirt"
    return Path(f"/tmp/gpuvirt-{uid}")


def candidate_runtimes(environ: Mapping[str, str], uid: int) -> list[Path]:
    """Where a client looks for a daemon, in order: GPUVIRT_RUNTIME alone, else its own user's, then the system's."""
    if environ.get("GPUVIRT_RUNTIME"):
        return [Path(environ["GPUVIRT_RUNTIME"])]
    own = default_runtime(environ, uid)
    return [own] if own == SYSTEM_RUNTIME else [own, SYSTEM_RUNTIME]


def library(name: str) -> Path:
    """A built library of this package: "libgpuvirt-shim.so", "softgpu/libcuda.so.1".

    Raises FileNotFoundError when the package was not built.
    """
    for folder in gpuvirt.__path__:
        path = Path(folder) / "lib" / name
        if path.exists():
            return path.resolve()
    raise FileNotFoundError(f"{name} is not built into gpuvirt ({', '.join(map(str, gpuvirt.__path__))})")


def current_runtime() -> Path:
    """default_runtime for this process."""
    return default_runtime(os.environ, os.getuid())
