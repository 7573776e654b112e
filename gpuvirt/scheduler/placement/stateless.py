# SPDX-License-Identifier: Apache-2.0
"""Policies that only look at what the fleet has left need nothing but their formula. PURE."""

from __future__ import annotations

from collections.abc import Callable

from gpuvirt.scheduler.model import Demand, Fleet, Integers
from gpuvirt.scheduler.placement.base import no_gpu

Formula = Callable[[Fleet, Integers, Demand], Integers]


class Stateless:
    """A scorer that remembers nothing; the engine chooses the GPU."""

    def __init__(self, fleet: Fleet, formula: Formula) -> None:
        self.fleet = fleet
        self.formula = formula

    def changed(self, node: int) -> None:
        """Nothing to keep."""

    def scores(self, nodes: Integers, demand: Demand) -> tuple[Integers, Integers]:
        """By the formula."""
        return self.formula(self.fleet, nodes, demand), no_gpu(nodes)
