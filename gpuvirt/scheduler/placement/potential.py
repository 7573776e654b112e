# SPDX-License-Identifier: Apache-2.0
"""What a node's idle GPUs are worth to the demands that are expected. PURE.

For each typical class c, with weight w_c, on a node:

    fragments   idle GPU thousandths that c cannot use: all when it does not fit, else those of GPUs too full for it
    copies      GPU thousandths that c would take if only c came from now on
    starved     idle GPU thousandths beyond what the node's CPU feeds at `cpu_per_gpu` (no matter which class)

    potential = fragments x sum w_c fragments_c  -  copies x sum w_c copies_c  +  starved x starved

Lower is better: a placement is good that raises it least. FGD is fragments alone, without memory.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from gpuvirt.scheduler.model import WHOLE, Demand, Flags, Fleet, Integers, Reals


@dataclass(frozen=True, slots=True)
class Weights:
    """How the parts of the potential are weighed, and which demands are typical."""

    fragments: float = 1.0
    copies: float = 0.0
    starved: float = 0.0
    cpu_per_gpu: int = 12_000  # thousandths of a core that one GPU needs
    memory: bool = False  # whether a class without room in memory does not fit
    share: float = 0.95  # part of the demands that the typical classes cover


def classes(typical: Sequence[Demand], memory: bool, share: float) -> list[tuple[Demand, float]]:
    """The most frequent kinds of demand, until they cover `share` of all, with weights that add up to 1."""
    counted = Counter(
        one if memory else Demand(one.cpu_milli, 0, one.gpus, one.gpu_milli, one.models) for one in typical
    )
    found, covered = [], 0
    for kind, count in counted.most_common():
        if covered >= share * len(typical):
            break
        found.append((kind, count))
        covered += count
    return [(kind, count / covered) for kind, count in found]


class Potential:
    """The potential of the nodes of a fleet, kept for each, and what it would be after a placement."""

    def __init__(self, fleet: Fleet, typical: Sequence[Demand], weights: Weights) -> None:
        self.fleet = fleet
        self.weights = weights
        found = classes(typical, weights.memory, weights.share)
        self.blind = sum(weight for kind, weight in found if kind.gpus == 0)  # classes that use no idle GPU
        asking = [(kind, weight) for kind, weight in found if kind.gpus]
        self.cpu: Integers = np.array([kind.cpu_milli for kind, _ in asking], dtype=np.int64)
        self.memory: Integers = np.array([kind.memory_mib for kind, _ in asking], dtype=np.int64)
        self.gpus: Integers = np.array([kind.gpus for kind, _ in asking], dtype=np.int64)
        self.weight: Reals = np.array([weight for _, weight in asking])
        total = np.array([kind.total_milli for kind, _ in asking], dtype=np.float64)
        self.copy_weight: Reals = self.weight * total * weights.copies
        self.accepts: Flags = (
            np.array([fleet.accepted(kind) for kind, _ in asking], dtype=np.bool_)
            .reshape(len(asking), len(fleet.models))
            .T.copy()
        )
        milli = np.array([kind.gpu_milli for kind, _ in asking], dtype=np.int64)
        room = np.arange(WHOLE + 1)[:, None]  # rows: what a GPU has left, 0 to 1000
        fits = room >= milli
        self.fit: Integers = np.vstack([fits, 0 * milli]).astype(np.int64)  # last row: no such GPU
        self.small: Integers = np.vstack([np.where(fits, 0, room), 0 * milli]).astype(np.int64)
        self.holds: Integers = np.vstack([room // np.maximum(milli, 1), 0 * milli]).astype(np.int64)
        self.fitting: Integers = self.fit[fleet.left].sum(axis=1)
        self.wasted: Integers = self.small[fleet.left].sum(axis=1)
        self.held: Integers = self.holds[fleet.left].sum(axis=1)
        self.now: Reals = self.value(
            fleet.model, fleet.cpu, fleet.memory, fleet.idle, self.fitting, self.wasted, self.held
        )

    def changed(self, node: int) -> None:
        """Keeps up with one node."""
        fleet, left = self.fleet, self.fleet.left[node]
        self.fitting[node] = self.fit[left].sum(axis=0)
        self.wasted[node] = self.small[left].sum(axis=0)
        self.held[node] = self.holds[left].sum(axis=0)
        one = slice(node, node + 1)
        self.now[one] = self.value(
            fleet.model[one], fleet.cpu[one], fleet.memory[one], fleet.idle[one],
            self.fitting[one], self.wasted[one], self.held[one],
        )  # fmt: skip

    def value(
        self,
        model: Integers,
        cpu: Integers,
        memory: Integers,
        idle: Integers,
        fitting: Integers,
        wasted: Integers,
        held: Integers,
    ) -> Reals:
        """The potential of states of nodes, a row each; fitting, wasted, held: sums over GPUs, a column a class."""
        weights = self.weights
        open_to = self.accepts[model] & (cpu[:, None] >= self.cpu)
        if weights.memory:
            open_to &= memory[:, None] >= self.memory
        lost = np.where(open_to & (fitting >= self.gpus), wasted, idle[:, None])
        found: Reals = weights.fragments * (lost @ self.weight + self.blind * idle)
        if weights.copies:
            copies = np.minimum(held // self.gpus, cpu[:, None] // np.maximum(self.cpu, 1))
            if weights.memory:
                copies = np.minimum(copies, memory[:, None] // np.maximum(self.memory, 1))
            found -= np.where(self.accepts[model], copies, 0) @ self.copy_weight
        if weights.starved:
            found += weights.starved * np.maximum(idle - cpu * (WHOLE / weights.cpu_per_gpu), 0)
        return found

    def after(self, nodes: Integers, demand: Demand) -> tuple[Reals, Integers]:
        """The potential of each node with a demand where it is best there, and that GPU (-1: the engine's choice)."""
        fleet = self.fleet
        cpu, memory = fleet.cpu[nodes] - demand.cpu_milli, fleet.memory[nodes] - demand.memory_mib
        idle, model = fleet.idle[nodes] - demand.total_milli, fleet.model[nodes]
        if demand.shares:
            return self._after_sharing(nodes, demand, cpu, memory, idle, model)
        fitting, wasted, held = self.fitting[nodes], self.wasted[nodes], self.held[nodes]
        if demand.gpus:
            left = fleet.left[nodes]
            crowded = np.where(left >= demand.gpu_milli, left, WHOLE + 1)
            before = np.sort(crowded, axis=1, kind="stable")[:, : demand.gpus]
            then = before - demand.gpu_milli
            fitting = fitting + (self.fit[then] - self.fit[before]).sum(axis=1)
            wasted = wasted + (self.small[then] - self.small[before]).sum(axis=1)
            held = held + (self.holds[then] - self.holds[before]).sum(axis=1)
        return self.value(model, cpu, memory, idle, fitting, wasted, held), nodes * 0 - 1

    def _after_sharing(
        self, nodes: Integers, demand: Demand, cpu: Integers, memory: Integers, idle: Integers, model: Integers
    ) -> tuple[Reals, Integers]:
        """Every GPU with room is tried; the first of the best."""
        left = self.fleet.left[nodes]
        row, gpu = np.nonzero(left >= demand.gpu_milli)
        before = left[row, gpu]
        then = before - demand.gpu_milli
        at = nodes[row]
        tried = self.value(
            model[row],
            cpu[row],
            memory[row],
            idle[row],
            self.fitting[at] + self.fit[then] - self.fit[before],
            self.wasted[at] + self.small[then] - self.small[before],
            self.held[at] + self.holds[then] - self.holds[before],
        )
        found = np.full(left.shape, np.inf)
        found[row, gpu] = np.round(tried, 6)  # so that equals are equal, however the sum was made
        best = found.argmin(axis=1)
        return found[np.arange(len(nodes)), best], best
