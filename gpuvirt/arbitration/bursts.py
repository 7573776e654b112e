# SPDX-License-Identifier: Apache-2.0
"""Bursts of work: from when a job has something to do until it has nothing, and how much GPU time that takes."""

from __future__ import annotations

from gpuvirt.arbitration.facts import Contender
from gpuvirt.arbitration.quantum import expected_cost


def begin_burst(contender: Contender, now: int) -> None:
    """It had nothing to do and has now. What the burst before took is what this one is expected to take.

    The expectation rises at once and falls slowly: a deadline is missed by too small a guess, not by too large a one.
    """
    if contender.burst_ns:
        contender.work_ns = expected_cost(contender.work_ns, contender.burst_ns)
    contender.burst_ns = 0
    contender.ready_since = now


def remaining_ns(contender: Contender) -> int:
    """GPU time that its burst is expected to need still; 0: not known, or it should be done."""
    return max(0, contender.work_ns - contender.burst_ns)
