# SPDX-License-Identifier: Apache-2.0
"""Equal shares by weight: start-time fair queueing on charged time.

Every contender has a virtual time that grows by charged time / weight. The waiter with the smallest one is next. Who
comes back from idleness is set to the present virtual time less at most one quantum of credit, so that sleepers
cannot hoard (Goyal, Vin, Cheng: Start-time Fair Queuing, SIGCOMM 1996; the clamp is ours).
"""

from __future__ import annotations

from collections.abc import Iterable

from gpuvirt.arbitration.facts import Contender, Gpu, Word

SCALE = 1000  # keeps integer division of ns by a weight (1..1000) exact enough


def charged_vtime(duration_ns: int, weight: int) -> int:
    """Virtual time of `duration_ns` of held time."""
    return duration_ns * SCALE // weight


def vtime_on_wake(vtime: int, vnow: int, quantum: int, weight: int) -> int:
    """Virtual time of a contender that starts to wait: at most one quantum behind the present one."""
    return max(vtime, vnow - charged_vtime(quantum, weight))


def charge(gpu: Gpu, holder: Contender, now: int) -> None:
    """Account the time that a holder had the lease since the last call.

    Time alone is charged, too, and carries the present virtual time along: whoever comes to a GPU that one job had
    for itself is not behind that job, and is not ahead by more than its credit.
    """
    if holder.charge_from is None:
        return
    duration = now - holder.charge_from
    holder.charge_from = now
    holder.vtime += charged_vtime(duration, holder.weight)
    if holder.word is Word.OPEN:
        holder.open_ns += duration
        gpu.vnow = max(gpu.vnow, holder.vtime)
    else:
        holder.held_ns += duration


def choose(contenders: Iterable[Contender]) -> Contender | None:
    """Whose turn it is: smallest virtual time, then who waits longest, then the key. None if there is nobody."""

    def order(contender: Contender) -> tuple[int, int, str]:
        return (contender.vtime, contender.waiting_since or 0, contender.key)

    return min(contenders, key=order, default=None)
