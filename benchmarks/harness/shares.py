# SPDX-License-Identifier: Apache-2.0
"""Figures of sharing, of what jobs got done together and alone. Pure functions.

The throughput of a job is *normalised* by what it does alone: 0.5 is half as fast. Its share is its part of the sum.
"""

from __future__ import annotations

import math
from collections.abc import Sequence


def normalised(work: Sequence[float], seconds: float, alone: Sequence[float]) -> list[float]:
    """Throughput of each over what it does alone. work: what each did within `seconds`; alone: work per second."""
    return [done / seconds / rate for done, rate in zip(work, alone, strict=True)]


def share_error_pp(throughput: Sequence[float], weights: Sequence[float]) -> float:
    """By how many percentage points the share of one is off what its weight says, at most."""
    total, due = sum(throughput), sum(weights)
    if total <= 0:
        return 100.0
    return max(100 * abs(x / total - w / due) for x, w in zip(throughput, weights, strict=True))


def short_pp(throughput: Sequence[float], weights: Sequence[float]) -> float:
    """By how many percentage points the one worst off did less than its weight's part of what it does alone."""
    due = sum(weights)
    return max(0.0, max(100 * (w / due - x) for x, w in zip(throughput, weights, strict=True)))


def jain(throughput: Sequence[float], weights: Sequence[float]) -> float:
    """Jain's index of throughput by weight: 1 when all get what is due to them, 1/n when one gets everything."""
    parts = [x / w for x, w in zip(throughput, weights, strict=True)]
    squares = sum(part * part for part in parts)
    return sum(parts) ** 2 / (len(parts) * squares) if squares > 0 else 0.0


def loss_pct(throughput: Sequence[float]) -> float:
    """What sharing costs all together: 0 when the normalised throughputs sum to 1; negative when to more."""
    return 100 * (1 - sum(throughput))


def percentile(values: Sequence[float], part: float) -> float:
    """The smallest value that at least `part` (0 to 1] of all do not exceed."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(part * len(ordered)) - 1)]
