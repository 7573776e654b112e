# SPDX-License-Identifier: Apache-2.0
"""Builds and runs the C tests of the gate (tests/native/shim) against the installed libraries, without CMake."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

from gpuvirt import paths
from support.native import ROOT

FLAGS = ("-std=gnu11", "-O1", "-D_GNU_SOURCE", "-Wno-deprecated-declarations")
LIMIT = 60.0


def _call(*command: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        env={**os.environ, **environ},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
        timeout=LIMIT,
    )


def run(name: str, *arguments: str) -> str:
    """Output of test_NAME with the shim before its driver. AssertionError when it does not end with 0."""
    source = ROOT / "tests" / "native" / "shim"
    generate = ROOT / "native" / "generate"
    with tempfile.TemporaryDirectory(prefix="gpuvirt-test-") as scratch:
        folder = Path(scratch)
        headers = _call(sys.executable, str(generate / "find_headers.py")).stdout.strip()
        include = (
            f"-isystem{headers}",
            f"-I{folder}",
            *(f"-I{ROOT / at}" for at in ("native/include", "tests/native")),
        )

        def compile_c(output: str, *files: str) -> Path:
            done = _call("cc", *FLAGS, *include, f"-I{source}", "-o", str(folder / output), *files, "-ldl", "-pthread")
            assert done.returncode == 0, done.stdout
            return folder / output

        driver = paths.library("softgpu/libcuda.so.1")
        if name == "gated":
            made = _call(sys.executable, str(generate / "gate_cases.py"), "--include", headers, "--output", str(folder))
            assert made.returncode == 0, made.stdout
            attach = str(source / "watched_driver_attach.c")
            driver = compile_c(
                "watched.so", "-shared", "-fPIC", "-Wl,-Bsymbolic", str(folder / "watched_driver.c"), attach
            )
        program = compile_c(name, str(source / f"test_{name}.c"), str(source / "peer.c"))
        shim = paths.library("libgpuvirt-shim.so")
        done = _call(
            str(program), str(shim), str(driver), *arguments, GPUVIRT_SOFTGPU_PYTHON=sys.executable, LD_PRELOAD=""
        )
        assert done.returncode == 0, done.stdout
        return done.stdout
