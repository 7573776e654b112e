# SPDX-License-Identifier: Apache-2.0
"""What a scheduler decides. PURE.

A plan is carried out whole or not at all: its actions are written down in one transaction, then sent. What an action
takes for granted (a victim's GPUs are free) need not be true at once: a member's host starts it when it can, and the
service sends Start and Resume to a host only when the Suspends and Stops that the plan has there are done.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from gpuvirt.scheduler.state import Member


@dataclass(frozen=True, slots=True)
class Start:
    """All members of a pending job, at once."""

    job: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Grow:
    """More members for a running job."""

    job: str
    members: tuple[Member, ...]


@dataclass(frozen=True, slots=True)
class Shrink:
    """Some members of a running job stop; not fewer than members_min stay."""

    job: str
    ranks: tuple[int, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Suspend:
    """All members leave their GPUs and stay on their hosts, with all their work."""

    job: str
    why: str


@dataclass(frozen=True, slots=True)
class Resume:
    """A suspended job gets the very GPUs back that its members were on."""

    job: str


@dataclass(frozen=True, slots=True)
class Move:
    """A running or suspended job goes to other GPUs with its work. Only where the rules allow moves."""

    job: str
    members: tuple[Member, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Requeue:
    """A job is stopped and waits to start again from its beginning (or, with `fail`, has failed)."""

    job: str
    why: str
    fail: bool = False


Action = Start | Grow | Shrink | Suspend | Resume | Move | Requeue


@dataclass(frozen=True, slots=True)
class Miss:
    """A host, or a domain, that nearly would have done."""

    node: str
    lacks: str  # in words: "GPU memory 12 GiB short"


@dataclass(frozen=True, slots=True)
class Explanation:
    """Why a job is where it is, from the decision itself."""

    reason: str
    misses: tuple[Miss, ...] = ()  # the best first, a few
    position: int = 0  # in its queue, from 1; 0: it does not wait
    estimate_seconds: float = 0.0  # until it starts; 0: not known


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to happen. `guaranteed`: jobs whose guarantee admission takes on, or no longer can."""

    actions: tuple[Action, ...] = ()
    explanations: Mapping[str, Explanation] = field(default_factory=dict)
    guaranteed: Mapping[str, bool] = field(default_factory=dict)
    again_at: float = float("inf")  # decide again then, whatever happens
