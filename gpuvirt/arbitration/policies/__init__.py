# SPDX-License-Identifier: Apache-2.0
"""PURE policies: who of those that want a GPU gets it. One file each.

    base.py        the Protocol
    fair.py        shares by weight, tenant > job

A new one: its file, its line in POLICIES, its test.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from gpuvirt.arbitration.facts import Contender, Gpu
from gpuvirt.arbitration.policies.base import Policy
from gpuvirt.arbitration.policies.fair import Fair

POLICIES: Final[dict[str, Policy]] = {policy.name: policy for policy in (Fair(),)}


def policy_of(gpu: Gpu) -> Policy:
    """The policy of a GPU."""
    return POLICIES[gpu.policy]


def choose(gpu: Gpu, candidates: Iterable[Contender], now: int) -> Contender | None:
    """Whose turn it is; None if there is nobody."""
    policy = policy_of(gpu)
    return min(candidates, key=lambda contender: policy.rank(gpu, contender, now), default=None)


def queue(gpu: Gpu, candidates: Iterable[Contender], now: int) -> list[Contender]:
    """All of them in the order in which they would have their turns if nothing changed."""
    policy = policy_of(gpu)
    return sorted(candidates, key=lambda contender: policy.rank(gpu, contender, now))


def turns(gpu: Gpu, now: int) -> dict[str, int]:
    """Place in the queue (0: next) of everybody who waits and does not hold the GPU, by key."""
    waiting = [one for one in gpu.contenders.values() if one.waiting and one.key != gpu.holder]
    return {contender.key: place for place, contender in enumerate(queue(gpu, waiting, now))}
