# SPDX-License-Identifier: Apache-2.0
"""For how long a lease lasts, and how long an idle holder keeps it.

A switch costs time in which the GPU computes nothing: from the moment that the last holder has drained until the next
one may launch. That time, not bytes, is what a lease has to pay for: it lasts so long that what was lost before it is
at most the configured share of both.
"""

from __future__ import annotations

HEADROOM = (
    1.25  # costs differ from switch to switch, and short jobs end within a lease: the share is a limit, no target
)
FALL = 0.25  # part of the difference by which an expected cost falls towards a smaller one, a switch


def expected_cost(expected: int, lost: int) -> int:
    """What bringing a job in is expected to cost (ns), after it has cost `lost`.

    It rises at once, so that the lease that follows an expensive switch pays for it, and falls step by step: one
    cheap switch (the others happened to be clean, or idle) does not make the next lease so short that an expensive
    one cannot be paid.
    """
    if lost >= expected:
        return lost
    return expected - max(1, int((expected - lost) * FALL))


def quantum_ns(base: int, swap_ns: int, swap_share: float, maximum: int) -> int:
    """Length of a lease: `base`, or so long that the swap before it took at most `swap_share` of the whole; <= maximum.

    With some room: what the swap after it will cost is known only then. base, swap_ns and maximum in ns; swap_share in
    (0, 1].
    """
    needed = HEADROOM * swap_ns * (1 - swap_share) / swap_share
    return max(base, min(maximum, int(needed)))


def idle_hold_ns(base: int, bytes_to_move: int, rate: float) -> int:
    """How long to leave the GPU with a holder that has nothing to do (ns).

    Ski rental: waiting costs as much per ns as switching away and back would, so half of the cost of a switch bounds
    the loss. bytes_to_move is what the next job's deficit is: it goes out and comes in again, at `rate` bytes/s. 0:
    `base`.
    """
    if bytes_to_move <= 0:
        return base
    switch = 2 * bytes_to_move / rate * 1e9
    return max(base, int(switch / 2))


def learned_rate(rate: float, moved: int, duration_ns: int) -> float:
    """Moving average of the link's bytes/s. Small moves say more about latency than about the link and are left out."""
    if moved < 1 << 20 or duration_ns <= 0:
        return rate
    sample = min(1e12, max(1e6, moved * 1e9 / duration_ns))
    return 0.7 * rate + 0.3 * sample
