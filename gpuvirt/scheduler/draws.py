# SPDX-License-Identifier: Apache-2.0
"""Chance comes from outside, so that the same seed gives the same result. `random.Random` is one. PURE."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol, TypeVar

T = TypeVar("T")


class Draws(Protocol):
    """What is drawn here."""

    def randrange(self, stop: int, /) -> int:
        """One of 0 to stop - 1."""

    def choice(self, one_of: Sequence[T], /) -> T:
        """One of some."""

    def sample(self, some_of: Sequence[T], count: int, /) -> list[T]:
        """Several different ones."""

    def shuffle(self, items: list[Any], /) -> None:
        """Any order, in place."""
