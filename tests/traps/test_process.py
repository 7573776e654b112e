# SPDX-License-Identifier: Apache-2.0
"""Traps of the process: what the shim does to the program that it is a guest of."""

from __future__ import annotations

import json
import subprocess
import sys

from gpuvirt import paths
from support.traps import Edit, trap

SHIM = paths.library("libgpuvirt-shim.so")
# What a process has at its first own instruction: threads, descriptors, mapped files.
PRESENT = """
import json, os
print(json.dumps({
    "threads": len(os.listdir("/proc/self/task")),
    "descriptors": len(os.listdir("/proc/self/fd")),
    "files": sorted({line.split()[5] for line in open("/proc/self/maps") if len(line.split()) > 5}),
}))
"""


def present(**environ: str) -> dict[str, object]:
    done = subprocess.run(
        [sys.executable, "-c", PRESENT], env=environ, capture_output=True, text=True, check=True, timeout=30
    )
    assert done.stderr == ""
    answer: dict[str, object] = json.loads(done.stdout)
    return answer


@trap(
    "The library opens the driver in a constructor, in every shell and compiler of a job.",
    Edit(
        "native/shim/session.c",
        "int gv_session_refused(void)",
        "__attribute__((constructor)) static void early(void) { gv_open_driver(NULL); }\nint gv_session_refused(void)",
    ),
)
def test_work_in_constructors() -> None:
    driver = paths.library("softgpu/libcuda.so.1")
    plain = present()
    under = present(LD_PRELOAD=str(SHIM), GPUVIRT_DRIVER=str(driver), GPUVIRT_SOCKET="/nowhere", GPUVIRT_JOB="x")
    assert (under["threads"], under["descriptors"]) == (plain["threads"], plain["descriptors"])
    files, before = under["files"], plain["files"]
    assert isinstance(files, list) and isinstance(before, list)
    assert [name for name in files if name not in before] == [str(SHIM)]
