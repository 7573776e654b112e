# SPDX-License-Identifier: Apache-2.0
"""Dot product: the node whose rest is least like the demand in size and direction. PURE."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpuvirt.scheduler.model import Demand, Fleet, Integers
from gpuvirt.scheduler.placement.stateless import Stateless

CPU, GPU = 128_000, 8_000  # the largest node


class DotProduct:
    """Policy."""

    name = "DotProd"

    def scorer(self, fleet: Fleet, typical: Sequence[Demand]) -> Stateless:
        """Begins to work on a fleet."""
        return Stateless(fleet, formula)


def formula(fleet: Fleet, nodes: Integers, demand: Demand) -> Integers:
    """100 x (1 - product of what is left before and what is asked for, as parts of the largest node)."""
    cpu = fleet.cpu[nodes] / CPU * (demand.cpu_milli / CPU)
    gpu = fleet.idle[nodes] / GPU * (demand.total_milli / GPU)
    return np.floor(100 * (1 - (cpu + gpu) / 2) + 1e-9).astype(np.int64)
