# SPDX-License-Identifier: Apache-2.0
"""The translator's version: a hash, so that no cache of translated modules can be stale."""

from __future__ import annotations

import hashlib
import os

_HEADERS = (
    "kernel_abi.h",
    "kernel_float.h",
    "kernel_lockstep.h",
    "kernel_mbarrier.h",
    "kernel_runtime.h",
    "kernel_threads.h",
)
_PACKAGE = os.path.dirname(os.path.abspath(__file__))
_HEADER_FOLDERS = ("", "../lib/softgpu", "../lib/softgpu/include", "../../native/softgpu")


def translator_version(include: str = "") -> str:
    """16 hexadecimal digits over all .py files and the headers (in `include`, or where installations have them)."""
    digest = hashlib.sha256()
    for folder, folders, files in os.walk(_PACKAGE):
        folders[:] = sorted(name for name in folders if not name.startswith((".", "__")))
        for name in sorted(files):
            if name.endswith(".py"):
                _add(digest, os.path.join(folder, name), os.path.relpath(os.path.join(folder, name), _PACKAGE))
    for folder in [include] if include else [os.path.join(_PACKAGE, f) for f in _HEADER_FOLDERS]:
        if os.path.exists(os.path.join(folder, "kernel_runtime.h")):
            for name in _HEADERS:
                _add(digest, os.path.join(folder, name), name)
            break
    return digest.hexdigest()[:16]


def _add(digest: hashlib._Hash, path: str, name: str) -> None:
    with open(path, "rb") as file:
        digest.update(name.encode() + b"\0" + file.read() + b"\0")
