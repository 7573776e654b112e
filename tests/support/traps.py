# SPDX-License-Identifier: Apache-2.0
"""A trap: a mistake that other projects made in the same place, as a test that would find it here.

    @trap("cuInit calls back into the wrapper: pthread_once deadlocks", Edit("native/shim/real_driver.c", "old", "new"))
    def test_init_that_comes_back(...): ...

The edit puts the mistake into our source; with it the test must fail. `make traps` does that for each trap in a copy of
the tree. A test of the suite checks that each `old` is found exactly once, so that the edits do not go stale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pytest

F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True)
class Edit:
    """One mistake: in `path` (from the root of the repository) the only occurrence of `old` becomes `new`."""

    path: str
    old: str
    new: str


def trap(mistake: str, *edits: Edit) -> Callable[[F], F]:
    """Marks a test as the proof that `mistake` (one sentence) is not made here. With all `edits` it must fail."""
    return pytest.mark.trap(mistake=mistake, edits=edits)
