# SPDX-License-Identifier: Apache-2.0
"""Clustering: demands of one kind (a part of a GPU, or how many GPUs) side by side. PURE."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gpuvirt.scheduler.model import Demand, Fleet, Integers
from gpuvirt.scheduler.placement.stateless import Stateless

ONLY, AMONG, NONE_YET = 75, 50, 25


class Clustering:
    """Policy."""

    name = "Clustering"

    def scorer(self, fleet: Fleet, typical: Sequence[Demand]) -> Stateless:
        """Begins to work on a fleet."""
        return Stateless(fleet, formula)


def formula(fleet: Fleet, nodes: Integers, demand: Demand) -> Integers:
    """Company on the node, then how full it is; the same everywhere for a demand without GPU."""
    if demand.gpus == 0:
        return np.zeros(len(nodes), dtype=np.int64)
    company = [_company(fleet.tags[node], demand.tag) for node in nodes.tolist()]
    fullness: Integers = 25 * (8000 - fleet.idle[nodes]) // 8000
    return fullness + np.array(company, dtype=np.int64)


def _company(tags: dict[int, int], tag: int) -> int:
    if not tags:
        return NONE_YET
    if tag not in tags:
        return 0
    return ONLY if len(tags) == 1 else AMONG
