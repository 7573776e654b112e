# SPDX-License-Identifier: Apache-2.0
"""Random: any node with room, any GPU with room. PURE: the numbers come from outside."""

from __future__ import annotations

import numpy as np

from gpuvirt.scheduler.draws import Draws
from gpuvirt.scheduler.model import Demand, Flags, Fleet, Integers, Placed


class RandomEngine:
    """Places demands by a generator; it keeps no index, for every node is as good as another."""

    name = "Random"

    def __init__(self, fleet: Fleet, generator: Draws) -> None:
        self.fleet = fleet
        self.generator = generator
        self._everywhere: Integers = np.arange(len(fleet), dtype=np.int64)
        self._accepted: dict[Demand, Flags] = {}

    def find(self, demand: Demand) -> Placed | None:
        """A node with room and GPUs on it; None: no node has room."""
        accepted = self._accepted.get(demand)
        if accepted is None:
            accepted = self._accepted[demand] = self.fleet.accepted(demand)
        fitting = np.flatnonzero(self.fleet.fits(self._everywhere, demand, accepted))
        if not len(fitting):
            return None
        node = int(fitting[self.generator.randrange(len(fitting))])
        gpus = np.flatnonzero(self.fleet.left[node] >= demand.gpu_milli).tolist() if demand.gpus else []
        return Placed(node, tuple(sorted(self.generator.sample(gpus, demand.gpus))))

    def place(self, demand: Demand) -> Placed | None:
        """Finds a place and takes it."""
        placed = self.find(demand)
        if placed is not None:
            self.fleet.place(demand, placed)
        return placed

    def release(self, demand: Demand, placed: Placed) -> None:
        """Gives a place back."""
        self.fleet.release(demand, placed)
