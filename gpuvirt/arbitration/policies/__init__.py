# SPDX-License-Identifier: Apache-2.0
"""PURE policies: who of those that want a GPU gets it. One file each.

    base.py        the Protocol
    fair.py        shares by weight, tenant > job
    priority.py    the higher priority first, a floor for the others
    deadline.py    what is due first goes first, while it can be in time
    tiers.py       guaranteed parts of the time, the rest is shared
    exclusive.py   one job after the other
    floor.py       what those have that others go before
    words.py       what they say to people

A new one: its file, its line in POLICIES, its test.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gpuvirt.arbitration.facts import Contender, Gpu, Grounds
from gpuvirt.arbitration.policies.base import Policy
from gpuvirt.arbitration.policies.deadline import Deadline
from gpuvirt.arbitration.policies.exclusive import Exclusive
from gpuvirt.arbitration.policies.fair import Fair
from gpuvirt.arbitration.policies.priority import Priority
from gpuvirt.arbitration.policies.tiers import Tiers

_ALL: Final[tuple[Policy, ...]] = (Fair(), Priority(), Deadline(), Tiers(), Exclusive())
POLICIES: Final[dict[str, Policy]] = {policy.name: policy for policy in _ALL}


def policy_of(gpu: Gpu) -> Policy:
    """The policy of a GPU."""
    return POLICIES[gpu.policy]


def choose(gpu: Gpu, candidates: Iterable[Contender], now: int) -> Contender | None:
    """Whose turn it is; None if there is nobody."""
    policy = policy_of(gpu)
    return min(candidates, key=lambda contender: policy.rank(gpu, contender, now), default=None)


def revoke_at(gpu: Gpu, holder: Contender, best: Contender, now: int) -> int | None:
    """From when on `best` of those that wait may have what is the holder's for a quantum; None: not before its end."""
    if holder.grounds is Grounds.FLOOR:
        return None
    when = policy_of(gpu).revoke_at(gpu, holder, best, now)
    if when is not None and when <= now and choose(gpu, [holder, best], now) is holder:
        return None  # it would only get the GPU back
    return when


def queue(gpu: Gpu, candidates: Iterable[Contender], now: int) -> list[Contender]:
    """All of them in the order in which they would have their turns if nothing changed."""
    policy = policy_of(gpu)
    return sorted(candidates, key=lambda contender: policy.rank(gpu, contender, now))


def turns(gpu: Gpu, now: int) -> dict[str, int]:
    """Place in the queue (0: next) of everybody who waits and does not hold the GPU, by key."""
    waiting = [one for one in gpu.contenders.values() if one.waiting and one.key != gpu.holder]
    return {contender.key: place for place, contender in enumerate(queue(gpu, waiting, now))}
