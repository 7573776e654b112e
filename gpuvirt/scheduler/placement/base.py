# SPDX-License-Identifier: Apache-2.0
"""What a placement policy is. PURE."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from gpuvirt.scheduler.model import Demand, Fleet, Integers, Placed, fullest_fitting


class Scorer(Protocol):
    """A policy at work on one fleet."""

    def changed(self, node: int) -> None:
        """What is left on a node is another than before."""

    def scores(self, nodes: Integers, demand: Demand) -> tuple[Integers, Integers]:
        """How good each node with room is for a demand (the highest is taken, the first among equals), and the GPU.

        A GPU of -1 leaves it to the engine: those that fit with the least room.
        """


class Policy(Protocol):
    """How nodes are scored. `typical` are the demands that are expected, each as often as it comes."""

    @property
    def name(self) -> str:
        """As it is called in configuration and results."""

    def scorer(self, fleet: Fleet, typical: Sequence[Demand]) -> Scorer:
        """Begins to work on a fleet."""


@dataclass(frozen=True, slots=True)
class Chosen:
    """What an engine found for a demand."""

    score: int
    placed: Placed


def gpus_for(fleet: Fleet, node: int, demand: Demand, gpu: int) -> tuple[int, ...]:
    """The GPUs of a node that a demand gets: the one chosen, or those that fit with the least room."""
    if demand.gpus == 0:
        return ()
    return (gpu,) if gpu >= 0 and demand.gpus == 1 else fullest_fitting(fleet.left[node], demand)


def no_gpu(nodes: Integers) -> Integers:
    """The engine shall choose the GPU on each of some nodes."""
    chosen: Integers = nodes * 0 - 1
    return chosen
