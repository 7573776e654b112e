# SPDX-License-Identifier: Apache-2.0
"""Frugal, the default: fragments as in FGD, what a node can still hold, CPU and memory for its GPUs. PURE.

FGD does not see that room for two is worth more than room for one, nor that CPU given away today starves the GPUs
beside it later; both carry this policy. Scores are fine, so that few nodes are equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np

from gpuvirt.scheduler.model import Demand, Fleet, Integers
from gpuvirt.scheduler.placement.potential import Potential, Weights

WEIGHTS: Final = Weights(fragments=1.0, copies=0.5, starved=1.0, cpu_per_gpu=8_000, memory=True, share=1.0)
FINE: Final = 1000  # of a score that is one thousandth of a GPU


class Frugal:
    """Policy."""

    name = "Frugal"

    def __init__(self, weights: Weights = WEIGHTS) -> None:
        self.weights = weights

    def scorer(self, fleet: Fleet, typical: Sequence[Demand]) -> FrugalScorer:
        """Begins to work on a fleet."""
        return FrugalScorer(Potential(fleet, typical, self.weights))


class FrugalScorer:
    """How much the potential of a node sinks."""

    def __init__(self, potential: Potential) -> None:
        self.potential = potential

    def changed(self, node: int) -> None:
        """Keeps up with one node."""
        self.potential.changed(node)

    def scores(self, nodes: Integers, demand: Demand) -> tuple[Integers, Integers]:
        """Of nodes with room."""
        after, gpus = self.potential.after(nodes, demand)
        return np.round((self.potential.now[nodes] - after) * FINE).astype(np.int64), gpus
