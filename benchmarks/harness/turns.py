# SPDX-License-Identifier: Apache-2.0
"""Turns of jobs on one GPU, as the jobs saw them (probes/spin.c), and hand-overs between them. Pure functions."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Span = tuple[int, int]  # CLOCK_MONOTONIC ns: first and last completed launch of a turn


@dataclass(frozen=True)
class HandOver:
    """The GPU went from one job to the other; `gap` is the time in ns in which neither completed anything."""

    giver: str
    taker: str
    gap: int
    at: int  # when the giver completed its last


def window(jobs: Mapping[str, Sequence[Span]]) -> Span:
    """The time in which all jobs were there: from the last first turn to the first last one."""
    return max(spans[0][0] for spans in jobs.values()), min(spans[-1][1] for spans in jobs.values())


def within(spans: Sequence[Span], limits: Span) -> list[Span]:
    """The parts of the turns inside `limits`."""
    cut = [(max(start, limits[0]), min(end, limits[1])) for start, end in spans]
    return [(start, end) for start, end in cut if end > start]


def hand_overs(jobs: Mapping[str, Sequence[Span]]) -> list[HandOver]:
    """All hand-overs while all jobs were there, in order. A negative gap means that both were on the GPU at once."""
    limits = window(jobs)
    order = sorted((span, name) for name, spans in jobs.items() for span in within(spans, limits))
    return [
        HandOver(giver, taker, after[0] - before[1], before[1])
        for (before, giver), (after, taker) in itertools.pairwise(order)
        if giver != taker
    ]


def shares(jobs: Mapping[str, Sequence[Span]]) -> dict[str, float]:
    """Part of the time on the GPU that each job had while all were there."""
    limits = window(jobs)
    held = {name: sum(end - start for start, end in within(spans, limits)) for name, spans in jobs.items()}
    total = sum(held.values())
    return {name: time / total if total else 0.0 for name, time in held.items()}
