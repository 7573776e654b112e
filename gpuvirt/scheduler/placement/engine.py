# SPDX-License-Identifier: Apache-2.0
"""Finds the best node for a demand without looking at every node. PURE.

For each kind of demand a heap of (score, number of the node) over the nodes that are in use. A placement changes one
node; a kind of demand looks at the nodes that have changed when it is asked for next, all of them in one go. What is on
top of its heap and no longer true is dropped. Nodes with nothing on them are alike when they are of one shape: the
first of each shape stands for all of them.

                    kind A: heap, seen the log up to here ──┐
    log of changes: n7 n7 n3 n7 n12 n3 n3 n7 n12 n12 ...    ▼
                                   ▲
                    kind B ────────┘
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence

import numpy as np

from gpuvirt.scheduler.model import Demand, Flags, Fleet, Integers, Placed
from gpuvirt.scheduler.placement.base import Policy, gpus_for

SHIFT = 40  # low bits of a key: the node's number


class Kind:
    """What is known about the nodes for one kind of demand."""

    __slots__ = ("accepted", "gpus", "heap", "keys", "seen", "shapes", "unknown")

    def __init__(self, accepted: Flags) -> None:
        self.accepted = accepted
        self.seen = 0  # how much of the log
        self.heap: list[int] = []
        self.keys: dict[int, int] = {}  # of nodes in use with room
        self.gpus: dict[int, int] = {}
        self.shapes: list[tuple[int, int, int]] = []  # shape with room on an empty node: its score, GPU, number
        self.unknown: list[int] = []  # shapes that no empty node has shown yet


class Engine:
    """Places demands on a fleet by a policy."""

    def __init__(self, fleet: Fleet, policy: Policy, typical: Sequence[Demand]) -> None:
        """The fleet's contents are the engine's from now on: change them only through it."""
        self.fleet = fleet
        self.scorer = policy.scorer(fleet, typical)
        self._kinds: dict[Demand, Kind] = {}
        self._log: list[int] = []
        self._shape_of: list[int] = []
        self._empty: list[list[int]] = []  # by shape, a heap; also numbers of nodes that are in use again
        self._sort()

    def find(self, demand: Demand) -> Placed | None:
        """Where a demand would go; None: no node has room."""
        kind = self._kind(demand)
        self._look(kind, demand)
        best, chosen = self._best_in_use(kind), -1
        for score, gpu, shape in kind.shapes:
            head = self._head(shape)
            if head >= 0:
                key = head - (score << SHIFT)
                if best is None or key < best:
                    best, chosen = key, gpu
        if best is None:
            return None
        node = best & ((1 << SHIFT) - 1)
        gpu = chosen if self.fleet.empty(node) else kind.gpus[node]
        return Placed(node, gpus_for(self.fleet, node, demand, gpu))

    def place(self, demand: Demand) -> Placed | None:
        """Finds a place and takes it."""
        placed = self.find(demand)
        if placed is not None:
            self.put(demand, placed)
        return placed

    def put(self, demand: Demand, placed: Placed) -> None:
        """Takes a place; raises ConfigError when there is no room."""
        self.fleet.place(demand, placed)
        self._changed(placed.node)

    def release(self, demand: Demand, placed: Placed) -> None:
        """Gives a place back."""
        self.fleet.release(demand, placed)
        if self.fleet.empty(placed.node):
            heapq.heappush(self._empty[self._shape_of[placed.node]], placed.node)
        self._changed(placed.node)

    def _sort(self) -> None:
        """Shapes of nodes, and which are empty."""
        numbers: dict[tuple[int, int, int, str], int] = {}
        for index, node in enumerate(self.fleet.nodes):
            shape = (node.cpu_milli, node.memory_mib, node.gpus, node.model)
            number = numbers.setdefault(shape, len(numbers))
            if number == len(self._empty):
                self._empty.append([])
            self._shape_of.append(number)
            if self.fleet.empty(index):
                self._empty[number].append(index)  # ascending: a heap
            else:
                self._log.append(index)

    def _head(self, shape: int) -> int:
        """The first empty node of a shape; -1: none."""
        nodes = self._empty[shape]
        while nodes and not self.fleet.empty(nodes[0]):
            heapq.heappop(nodes)
        return nodes[0] if nodes else -1

    def _kind(self, demand: Demand) -> Kind:
        kind = self._kinds.get(demand)
        if kind is None:
            kind = self._kinds[demand] = Kind(self.fleet.accepted(demand))
            kind.unknown = list(range(len(self._empty)))
        return kind

    def _changed(self, node: int) -> None:
        self.scorer.changed(node)
        self._log.append(node)
        if len(self._log) > 4 * len(self.fleet) + 100_000:
            self._shorten()

    def _shorten(self) -> None:
        """Drops what is old of the log: who has not seen it starts again."""
        self._kinds.clear()
        self._log = [node for node in range(len(self.fleet)) if not self.fleet.empty(node)]

    def _look(self, kind: Kind, demand: Demand) -> None:
        """Scores what has changed since this kind was asked for last."""
        heads = {shape: head for shape in kind.unknown if (head := self._head(shape)) >= 0}
        if kind.seen == len(self._log) and not heads:
            return
        news = set(self._log[kind.seen :])
        kind.seen = len(self._log)
        used = [node for node in news if not self.fleet.empty(node)]
        for node in news:
            kind.keys.pop(node, None)
        if heads:
            kind.unknown = [shape for shape in kind.unknown if shape not in heads]
        nodes = np.array(used + list(heads.values()), dtype=np.int64)
        if not len(nodes):
            return
        fits = self.fleet.fits(nodes, demand, kind.accepted)
        if not fits.any():
            return
        nodes = nodes[fits]
        scores, gpus = self.scorer.scores(nodes, demand)
        self._remember(kind, nodes, scores, gpus)

    def _remember(self, kind: Kind, nodes: Integers, scores: Integers, gpus: Integers) -> None:
        fleet, heap, keys, chosen = self.fleet, kind.heap, kind.keys, kind.gpus
        for node, score, gpu in zip(nodes.tolist(), scores.tolist(), gpus.tolist(), strict=True):
            if fleet.empty(node):
                shape = self._shape_of[node]
                kind.shapes.append((score, gpu, shape))
                continue
            key = node - (score << SHIFT)
            keys[node] = key
            chosen[node] = gpu
            heapq.heappush(heap, key)
        if len(heap) > 64 + 4 * len(keys):
            kind.heap = list(keys.values())
            heapq.heapify(kind.heap)

    def _best_in_use(self, kind: Kind) -> int | None:
        """The key on top that is still true."""
        heap, keys = kind.heap, kind.keys
        while heap:
            key = heap[0]
            if keys.get(key & ((1 << SHIFT) - 1)) == key:
                return key
            heapq.heappop(heap)
        return None
