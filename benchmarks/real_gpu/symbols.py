# SPDX-License-Identifier: Apache-2.0
"""Probes of symbol resolution: cuGetProcAddress against dlsym, and RTLD_DEEPBIND with the driver of this machine."""

from __future__ import annotations

import ctypes
import json
import os
import re
import subprocess
import tempfile
from pathlib import Path
from typing import Any

from cuda.bindings import driver

from real_gpu.cuda import CallFailed, check

SUFFIXES = ("", "_v2", "_v3", "_v4")
LEGACY_STREAM, PER_THREAD_STREAM = 1, 2  # flags of cuGetProcAddress
SOURCES = Path(__file__).resolve().parents[1] / "probes"


def driver_path() -> Path:
    """The file of the driver that "libcuda.so.1" loads here. Raises CallFailed."""
    ctypes.CDLL("libcuda.so.1")
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split(maxsplit=5)[-1]
        if path.startswith("/") and Path(path).name.startswith("libcuda.so"):
            return Path(path)
    raise CallFailed("libcuda.so.1 is loaded but in no mapping")


def pointers() -> dict[str, Any]:
    """For every call of the API: whether cuGetProcAddress gives the address of an exported symbol, and of which."""
    check(driver.cuInit(0), "cuInit")
    version = int(check(driver.cuDriverGetVersion(), "cuDriverGetVersion"))
    library = ctypes.CDLL("libcuda.so.1")
    find = library.cuGetProcAddress_v2
    find.argtypes = [
        ctypes.c_char_p,
        ctypes.POINTER(ctypes.c_void_p),
        ctypes.c_int,
        ctypes.c_uint64,
        ctypes.POINTER(ctypes.c_int),
    ]
    names = sorted(name for name in dir(driver) if re.match("cu[A-Z]", name) and callable(getattr(driver, name)))
    found: dict[str, Any] = {"driver_version": version, "names": len(names)}
    for flag, title, tails in (
        (LEGACY_STREAM, "legacy stream", ("",)),
        (PER_THREAD_STREAM, "per-thread stream", ("_ptsz", "_ptds", "")),
    ):
        equal, different, absent, symbols = 0, [], [], []
        for name in names:
            pointer, status = ctypes.c_void_p(), ctypes.c_int()
            code = find(name.encode(), ctypes.byref(pointer), version, flag, ctypes.byref(status))
            if code != 0 or not pointer.value:
                absent.append(name)
                continue
            exported = {
                f"{name}{suffix}{tail}": address(library, f"{name}{suffix}{tail}")
                for suffix in SUFFIXES
                for tail in tails
            }
            same = [symbol for symbol, value in exported.items() if value == pointer.value]
            if same:
                equal += 1
                symbols += [symbol for symbol in same[:1] if symbol != name]
            elif any(exported.values()):
                different.append(name)
            else:
                absent.append(name)
        found[title] = {
            "equal_to_an_exported_symbol": equal,
            "different": different,
            "not_found_or_not_exported": absent,
            "answered_by_a_later_version": symbols,
        }
    return found


def address(library: ctypes.CDLL, symbol: str) -> int | None:
    """Of an exported symbol, None when there is none."""
    try:
        return ctypes.cast(getattr(library, symbol), ctypes.c_void_p).value
    except AttributeError:
        return None


def deepbind() -> dict[str, Any]:
    """Opens the driver behind a preloaded library of the same SONAME, with and without RTLD_DEEPBIND.

    Counts how often the driver's own calls come back to the preloaded library while it initialises (deepbind.c).
    """
    real = driver_path()
    compiler = os.environ.get("CC", "cc")
    found: dict[str, Any] = {"driver": str(real)}
    with tempfile.TemporaryDirectory(prefix="gpuvirt-deepbind-") as text:
        folder = Path(text)
        shim, program = folder / "libcuda.so.1", folder / "deepbind"
        shared = ["-shared", "-fPIC", "-DPRELOADED", "-Wl,-soname,libcuda.so.1"]
        for extra, output in ((shared, shim), (["-DPROGRAM"], program)):
            command = [compiler, "-O2", *extra, "-o", str(output), str(SOURCES / "deepbind.c"), "-ldl"]
            subprocess.run(command, check=True, capture_output=True, text=True)
        for flag in ("deepbind", "plain"):
            environ = {**os.environ, "LD_PRELOAD": str(shim)}
            done = subprocess.run(
                [str(program), str(real), flag], env=environ, capture_output=True, text=True, timeout=60
            )
            if done.returncode == 0:
                found[flag] = json.loads(done.stdout)
            else:
                found[flag] = {"exit_code": done.returncode, "said": (done.stderr or done.stdout).strip()[-300:]}
    return found
