# SPDX-License-Identifier: Apache-2.0
"""What there is and what is asked for: nodes, their GPUs in thousandths, demands. PURE.

A fleet is held in arrays, a row a node, so that a policy can look at many nodes at once. The order of the nodes is the
order in which equals are chosen (whoever wants another order builds the fleet in it).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt

from gpuvirt.errors import ConfigError

Integers: TypeAlias = npt.NDArray[np.int64]
Flags: TypeAlias = npt.NDArray[np.bool_]
Reals: TypeAlias = npt.NDArray[np.float64]

WHOLE: Final = 1000  # thousandths of a GPU


@dataclass(frozen=True, slots=True)
class Node:
    """A host: thousandths of a core, MiB, GPUs of one model."""

    name: str
    cpu_milli: int
    memory_mib: int
    gpus: int
    model: str

    def __post_init__(self) -> None:
        if min(self.cpu_milli, self.memory_mib, self.gpus) < 0:
            raise ConfigError(f"node '{self.name}' has less than nothing")


@dataclass(frozen=True, slots=True)
class Demand:
    """What a job needs on one node: `gpus` GPUs, `gpu_milli` thousandths of each, of one of `models` (none: any)."""

    cpu_milli: int
    memory_mib: int
    gpus: int = 0
    gpu_milli: int = 0
    models: frozenset[str] = field(default=frozenset())

    def __post_init__(self) -> None:
        if min(self.cpu_milli, self.memory_mib, self.gpus, self.gpu_milli) < 0:
            raise ConfigError("a demand asks for less than nothing")
        if (self.gpus > 0) != (self.gpu_milli > 0) or self.gpu_milli > WHOLE:
            raise ConfigError(f"a demand asks for {self.gpus} GPUs with {self.gpu_milli} thousandths each")

    @property
    def total_milli(self) -> int:
        """Thousandths of all its GPUs together."""
        return self.gpus * self.gpu_milli

    @property
    def shares(self) -> bool:
        """Whether it asks for a part of one GPU."""
        return self.gpus == 1 and self.gpu_milli < WHOLE

    @property
    def tag(self) -> int:
        """Its kind among those that ask for GPUs: 0 for a part of one, else how many."""
        return 0 if self.shares else self.gpus


@dataclass(frozen=True, slots=True)
class Placed:
    """Where a demand went: number of the node, numbers of its GPUs there."""

    node: int
    gpus: tuple[int, ...]


class Fleet:
    """What is left on each node. Rows are nodes in the order given; missing GPUs have -1 left."""

    def __init__(self, nodes: Sequence[Node]) -> None:
        """A fleet with nothing on it; raises ConfigError when there are no nodes."""
        if not nodes:
            raise ConfigError("a fleet without nodes")
        self.nodes = tuple(nodes)
        self.models = tuple(sorted({node.model for node in nodes}))
        number = {model: index for index, model in enumerate(self.models)}
        self.slots = max([1, *(node.gpus for node in nodes)])
        self.cpu: Integers = np.array([node.cpu_milli for node in nodes], dtype=np.int64)
        self.memory: Integers = np.array([node.memory_mib for node in nodes], dtype=np.int64)
        self.model: Integers = np.array([number[node.model] for node in nodes], dtype=np.int64)
        self.gpus: Integers = np.array([node.gpus for node in nodes], dtype=np.int64)
        self.left: Integers = np.where(np.arange(self.slots) < self.gpus[:, None], WHOLE, -1).astype(np.int64)
        self.idle: Integers = self.gpus * WHOLE
        self.cpu_total: Integers = self.cpu.copy()
        self.memory_total: Integers = self.memory.copy()
        self.tags: list[dict[int, int]] = [{} for _ in nodes]  # of what is there and asks for GPUs
        self.resident: list[int] = [0] * len(nodes)  # demands on each node
        self.capacity_milli = int(self.idle.sum())

    def __len__(self) -> int:
        return len(self.nodes)

    def accepted(self, demand: Demand) -> Flags:
        """By number of a model: may the demand use it?"""
        return np.array([not demand.models or model in demand.models for model in self.models], dtype=np.bool_)

    def fits(self, nodes: Integers, demand: Demand, accepted: Flags) -> Flags:
        """Which of some nodes have room for a demand now."""
        room = (self.cpu[nodes] >= demand.cpu_milli) & (self.memory[nodes] >= demand.memory_mib)
        if demand.gpus == 0:
            return room & accepted[self.model[nodes]] if demand.models else room
        room &= (self.left[nodes] >= demand.gpu_milli).sum(axis=1) >= demand.gpus
        if demand.models:
            room &= accepted[self.model[nodes]]
        return room

    def place(self, demand: Demand, placed: Placed) -> None:
        """Takes what a demand needs; raises ConfigError, and takes nothing, when it is not there."""
        node, gpus = placed.node, placed.gpus
        left = self.left[node]
        enough = self.cpu[node] >= demand.cpu_milli and self.memory[node] >= demand.memory_mib
        enough = enough and all(left[gpu] >= demand.gpu_milli for gpu in gpus)
        enough = enough and (not demand.models or self.nodes[node].model in demand.models)
        if not enough or len(set(gpus)) != demand.gpus:
            raise ConfigError(f"node '{self.nodes[node].name}' has no room for {demand}")
        self._take(demand, placed, 1)

    def release(self, demand: Demand, placed: Placed) -> None:
        """Gives back what `place` took."""
        self._take(demand, placed, -1)

    def empty(self, node: int) -> bool:
        """Whether nothing is on a node."""
        return self.resident[node] == 0

    def allocated_milli(self) -> int:
        """Thousandths of GPUs in use."""
        return self.capacity_milli - int(self.idle.sum())

    def _take(self, demand: Demand, placed: Placed, sign: int) -> None:
        node = placed.node
        self.cpu[node] -= sign * demand.cpu_milli
        self.memory[node] -= sign * demand.memory_mib
        self.resident[node] += sign
        if demand.gpus:
            for gpu in placed.gpus:
                self.left[node, gpu] -= sign * demand.gpu_milli
            self.idle[node] -= sign * demand.total_milli
            tags = self.tags[node]
            count = tags.get(demand.tag, 0) + sign
            if count:
                tags[demand.tag] = count
            else:
                tags.pop(demand.tag, None)


def fullest_fitting(left: Integers, demand: Demand) -> tuple[int, ...]:
    """The GPUs of a node, by what each has left, that fit with the least room; the lowest numbers among equals."""
    fitting = sorted((int(room), gpu) for gpu, room in enumerate(left) if room >= demand.gpu_milli)
    return tuple(sorted(gpu for _, gpu in fitting[: demand.gpus]))


def requested_milli(demands: Iterable[Demand]) -> int:
    """Thousandths of GPUs that some demands ask for together."""
    return sum(demand.total_milli for demand in demands)
