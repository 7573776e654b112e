# SPDX-License-Identifier: Apache-2.0
"""Runs every file of cases/ against each driver there is: soft GPU, shim over soft GPU, real GPU.

A case that differs on a real GPU is a bug of the soft GPU. `make conformance` runs the same by itself.
"""

from __future__ import annotations

import pytest

from support.conformance import CASES, FILES, Outcome, run_file
from support.coverage import called, named_in


def check(target: str, file: str) -> Outcome:
    outcome = run_file(target, file)
    if outcome.failed:
        pytest.fail(f"{outcome.failed}\n{outcome.output[-8000:]}", pytrace=False)
    assert outcome.passed + len(outcome.differs) + len(outcome.skipped) > 0, f"{file} has no cases"
    return outcome


@pytest.mark.parametrize("file", FILES)
def test_soft_gpu(file: str) -> None:
    outcome = check("soft", file)
    unused = named_in((CASES / file).read_text()) - called(set(outcome.called))
    assert not unused, f"{file} names these but never calls them, so coverage.tsv would be wrong: {sorted(unused)}"


@pytest.mark.parametrize("file", FILES)
def test_shim_over_soft_gpu(file: str) -> None:
    check("shim-over-soft", file)


@pytest.mark.gpu
@pytest.mark.parametrize("file", FILES)
def test_real_gpu(file: str) -> None:
    check("real", file)
