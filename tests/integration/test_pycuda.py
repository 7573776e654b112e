# SPDX-License-Identifier: Apache-2.0
"""PyCUDA on the soft GPU, alone and under gpuvirt. It has no wheel: CONTRIBUTING.md says how to build it."""

from __future__ import annotations

import importlib.util

import pytest

from support.host import Host

pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("pycuda") is None, reason="PyCUDA is not installed (CONTRIBUTING.md, optional)"
)


def test_driver_api_on_the_soft_gpu(machine: Host) -> None:
    program = machine.bare("pycuda_driver.py")
    assert program.wait() == 0, program.text
    assert "result: OK" in program.text


def test_driver_api_under_gpuvirt(machine: Host) -> None:
    program = machine.job("pycuda_driver.py")
    assert program.wait() == 0, program.text
    assert "result: OK" in program.text
