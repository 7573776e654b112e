# SPDX-License-Identifier: Apache-2.0
"""Fragmentation gradient descent (Weng et al., USENIX ATC 2023): the node whose idle GPUs get least useless. PURE.

Scores are whole numbers as in its paper's simulator: together with a fixed order of the nodes this fills those that
are open.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpuvirt.scheduler.model import Demand, Fleet, Integers
from gpuvirt.scheduler.placement.potential import Potential, Weights


class Fgd:
    """Policy."""

    name = "FGD"

    def scorer(self, fleet: Fleet, typical: Sequence[Demand]) -> FgdScorer:
        """Begins to work on a fleet."""
        return FgdScorer(Potential(fleet, typical, Weights()))


class FgdScorer:
    """100 x sigmoid of how much less fragmented a node gets, in GPUs."""

    def __init__(self, potential: Potential) -> None:
        self.potential = potential

    def changed(self, node: int) -> None:
        """Keeps up with one node."""
        self.potential.changed(node)

    def scores(self, nodes: Integers, demand: Demand) -> tuple[Integers, Integers]:
        """Of nodes with room."""
        after, gpus = self.potential.after(nodes, demand)
        gain = (self.potential.now[nodes] - after) / 1000
        return np.floor(100 / (1 + np.exp(-gain)) + 1e-9).astype(np.int64), gpus
