# SPDX-License-Identifier: Apache-2.0
"""The C unit tests, through CMake and ctest as `cmake -S native` alone would do; plainly and with sanitizers."""

from __future__ import annotations

import re

import pytest

from support.native import build, call, tool


@pytest.mark.timeout(900)
@pytest.mark.parametrize("sanitizers", ["", "address,undefined"], ids=["plain", "asan-ubsan"])
def test_c_units(sanitizers: str) -> None:
    output = call(tool("ctest"), "--test-dir", build(sanitizers))
    ran = re.search(r"tests? passed.*out of (\d+)|100% tests passed", output)
    assert ran is not None, output
    assert "No tests were found" not in output


@pytest.mark.timeout(900)
def test_stress_without_races() -> None:
    """Eight threads in the soft driver. The plain and the address-sanitized run are among the C units.

    The kernels are compiled while it runs, without the sanitizer: their own accesses are not looked at.
    """
    folder = build("thread", "softgpu_stress")
    output = call(tool("ctest"), "--test-dir", folder, "-R", "^softgpu_stress$")
    assert re.search(r"100% tests passed", output), output
