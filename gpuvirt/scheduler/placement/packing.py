# SPDX-License-Identifier: Apache-2.0
"""GPU packing: GPUs in use first, then free GPUs of nodes in use, then nodes that are free. PURE."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpuvirt.scheduler.model import WHOLE, Demand, Fleet, Integers
from gpuvirt.scheduler.placement.stateless import Stateless


class Packing:
    """Policy."""

    name = "Packing"

    def scorer(self, fleet: Fleet, typical: Sequence[Demand]) -> Stateless:
        """Begins to work on a fleet."""
        return Stateless(fleet, formula)


def formula(fleet: Fleet, nodes: Integers, demand: Demand) -> Integers:
    """50..100 on GPUs in use, 33..50 with some free GPUs, up to 33 on free nodes; the same everywhere without GPU."""
    if demand.gpus == 0:
        return np.zeros(len(nodes), dtype=np.int64)
    left, count = fleet.left[nodes], fleet.gpus[nodes]
    crowded = np.sort(np.where(left >= demand.gpu_milli, left, WHOLE + 1), axis=1)[:, : demand.gpus]
    opened = (crowded == WHOLE).sum(axis=1)
    shared = np.maximum(100 - (crowded.sum(axis=1) * 100 // WHOLE) // 10, 50)
    partly = np.where(opened > 0, np.maximum(50 - opened, 33), shared)
    free = (left == WHOLE).sum(axis=1) == count
    found: Integers = np.where(free, np.maximum(33 - count, count), partly)
    return found
