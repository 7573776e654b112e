# SPDX-License-Identifier: Apache-2.0
"""A floor for those that others go before: a small part of the time is theirs whatever the others want.

It comes in whole quanta that are evenly spread, so that nobody who is before them waits for more than one, and it is no
credit: who has slept gets no more of it, and who had its part between the others' turns gets nothing extra.
"""

from __future__ import annotations

from collections.abc import Iterable

from gpuvirt.arbitration.facts import Contender, Gpu


def patience_ns(gpu: Gpu, contender: Contender, floor: float) -> int:
    """How long a group waits for a quantum that makes up `floor` of the time; at most half of the window."""
    quantum = max(contender.quantum, gpu.rules.quantum)
    return min(int(quantum * (1 / floor - 1)), gpu.rules.window // 2)


def neglected(gpu: Gpu, contender: Contender, group: Iterable[Contender], floor: float, now: int) -> bool:
    """True if `contender` is to be served before everybody, because the group that it belongs to gets too little.

    It, and its whole group, had nothing for some time, and the group had less than `floor` of the time that it wanted
    the GPU within the window.
    """
    if contender.waiting_since is None or floor <= 0:
        return False
    patience = patience_ns(gpu, contender, floor)
    if now - contender.waiting_since < patience:
        return False
    members = list(group)
    if any(one.key == gpu.holder or now - one.last_run_ns < patience for one in members):
        return False
    length = gpu.rules.window
    alone = [one.recent.alone.used(now, length) for one in members]
    had = sum(alone) + sum(one.recent.held.used(now, length) for one in members)
    wanted = max(wanted_ns(gpu, one, now) + before for one, before in zip(members, alone, strict=True))
    return had < floor * min(length, wanted)


def wanted_ns(gpu: Gpu, contender: Contender, now: int) -> int:
    """For how long of the window it wanted the GPU while others did, too."""
    length = gpu.rules.window
    waits = now - contender.waiting_since if contender.waiting_since is not None else 0
    past = contender.recent.held.used(now, length) + contender.recent.waited.used(now, length)
    return min(length, past + waits)
