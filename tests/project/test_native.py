# SPDX-License-Identifier: Apache-2.0
"""The C unit tests, through CMake and ctest as `cmake -S native` alone would do; plainly and with sanitizers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


def tool(name: str) -> str:
    """cmake or ctest: of the environment, else of the system."""
    own = Path(sysconfig.get_path("scripts")) / name
    found = str(own) if own.exists() else shutil.which(name)
    if found is None:
        pytest.skip(f"no {name}: pip install cmake")
    return found


def call(*command: str | Path) -> str:
    done = subprocess.run(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False,
        env={**os.environ, "CTEST_OUTPUT_ON_FAILURE": "1", "CTEST_PARALLEL_LEVEL": "2"},
    )  # fmt: skip
    if done.returncode != 0:
        pytest.fail(f"{' '.join(map(str, command))}\n{done.stdout[-8000:]}", pytrace=False)
    return done.stdout


@pytest.mark.timeout(900)
@pytest.mark.parametrize("sanitizers", ["", "address,undefined"], ids=["plain", "asan-ubsan"])
def test_c_units(sanitizers: str) -> None:
    if not (ROOT / "tests" / "native" / "CMakeLists.txt").exists():
        pytest.skip("no C unit tests")
    folder = ROOT / "build" / ("native-sanitized" if sanitizers else "native-tests")
    call(
        tool("cmake"), "-S", ROOT / "native", "-B", folder, "-G", "Unix Makefiles", "-DGPUVIRT_TESTS=ON",
        f"-DGPUVIRT_SANITIZE={sanitizers}", f"-DPython_EXECUTABLE={sys.executable}",
    )  # fmt: skip
    call(tool("cmake"), "--build", folder, "--parallel", "2")
    output = call(tool("ctest"), "--test-dir", folder)
    ran = re.search(r"tests? passed.*out of (\d+)|100% tests passed", output)
    assert ran is not None, output
    assert "No tests were found" not in output
