# SPDX-License-Identifier: Apache-2.0
"""The shim's assembler for AArch64, cross-built and run in an emulator where this machine has both.

GPUVIRT_TEST_AARCH64_CC and GPUVIRT_TEST_AARCH64_RUN name others than Debian's (gcc-aarch64-linux-gnu, qemu-user).
"""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
SHIM, TESTS = ROOT / "native" / "shim", ROOT / "tests" / "native"


def tool(variable: str, *known: str) -> list[str]:
    """A command line."""
    if os.environ.get(variable):
        return shlex.split(os.environ[variable])
    for command in known:
        words = shlex.split(command)
        if shutil.which(words[0]):
            return words
    pytest.skip(f"no {known[0].split()[0]}, and {variable} is not set")


def call(*command: str | Path) -> None:
    done = subprocess.run(list(map(str, command)), capture_output=True, text=True, check=False, timeout=240)
    assert done.returncode == 0, f"{shlex.join(map(str, command))}\n{done.stdout}{done.stderr}"


@pytest.mark.timeout(600)
def test_forwarders_in_an_emulator(tmp_path: Path) -> None:
    """Each forwarder leads to its function with all arguments, also when the first call opens a talkative driver."""
    compiler = [*tool("GPUVIRT_TEST_AARCH64_CC", "aarch64-linux-gnu-gcc"), "-O1", "-UNDEBUG", "-w", "-std=gnu11"]
    library = [*compiler, "-fPIC", "-shared", "-Wl,-soname,libcuda.so.1"]
    emulator = tool(
        "GPUVIRT_TEST_AARCH64_RUN",
        "qemu-aarch64 -L /usr/aarch64-linux-gnu",
        "qemu-aarch64-static -L /usr/aarch64-linux-gnu",
    )
    found = subprocess.run(
        [sys.executable, ROOT / "native" / "generate" / "find_headers.py"], capture_output=True, text=True, check=False
    )
    if found.returncode != 0:
        pytest.skip(found.stderr.strip())
    headers, generated = found.stdout.strip(), tmp_path / "generated"
    call(
        sys.executable, ROOT / "native" / "generate" / "entry_points.py", "--include", headers, "--output", generated,
        "--hooks", SHIM / "hooked_functions.h", "--architecture", "aarch64",
    )  # fmt: skip
    include = ["-I", generated, "-I", ROOT / "native" / "include", "-isystem", headers, "-I", TESTS]
    libraries = ["-ldl", "-lpthread"]
    shim = tmp_path / "shim.so"
    sources = [*sorted(SHIM.glob("*.c")), SHIM / "real_driver_aarch64.S"]
    sources += [generated / name for name in ("shim_gates.c", "shim_symbols.c", "shim_forwarders.S")]
    call(*library, "-fvisibility=hidden", "-ftls-model=initial-exec", "-Wl,-Bsymbolic", "-I", SHIM, *include, *sources,
         f"-Wl,--version-script={SHIM / 'shim.map'}", "-o", shim, *libraries)  # fmt: skip
    for test, driver in (("test_forwarders", "numbered_driver"), ("test_forwarding", "recording_driver")):
        driver_file, program = tmp_path / f"{driver}.so", tmp_path / test
        call(*library, "-Wl,-Bsymbolic", *include, TESTS / "shim" / f"{driver}.c", "-o", driver_file, *libraries)
        call(*compiler, *include, TESTS / "shim" / f"{test}.c", "-o", program, *libraries)
        call(*emulator, program, shim, driver_file)
