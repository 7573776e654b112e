# SPDX-License-Identifier: Apache-2.0
"""Runs every file of cases/ against each driver there is: soft GPU, shim over soft GPU, real GPU.

A case that differs on a real GPU is a bug of the soft GPU. `make conformance` runs the same by itself.
"""

from __future__ import annotations

import pytest

from support.conformance import FILES, run_file


def check(target: str, file: str) -> None:
    outcome = run_file(target, file)
    if outcome.failed:
        pytest.fail(f"{outcome.failed}\n{outcome.output[-8000:]}", pytrace=False)
    assert outcome.passed + len(outcome.differs) + len(outcome.skipped) > 0, f"{file} has no cases"


@pytest.mark.parametrize("file", FILES)
def test_soft_gpu(file: str) -> None:
    check("soft", file)


@pytest.mark.parametrize("file", FILES)
def test_shim_over_soft_gpu(file: str) -> None:
    check("shim-over-soft", file)


@pytest.mark.gpu
@pytest.mark.parametrize("file", FILES)
def test_real_gpu(file: str) -> None:
    check("real", file)
