# SPDX-License-Identifier: Apache-2.0
"""What a scheduler knows and writes down: jobs, hosts, queues. PURE.

Values: nothing here is changed in place, a change is another value. The store holds exactly these, as JSON. Units:
bytes, seconds since 1970, thousandths of a GPU and of a core.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

TIERS: Final = ("premium", "standard", "basic")  # the first is served first
FRACTIONS: Final = {"premium": 0.95, "standard": 0.70, "basic": 0.0}  # what is promised of the time that is wanted


@dataclass(frozen=True, slots=True)
class Resources:
    """What is had, asked for or allowed. As a limit, 0 in a field is none."""

    gpu_thousandths: int = 0
    gpu_memory_bytes: int = 0
    cpu_thousandths: int = 0
    memory_bytes: int = 0


@dataclass(frozen=True, slots=True)
class Demand:
    """What one member of a job needs: `gpus` whole GPUs, or `gpu_thousandths` of each of so many."""

    gpus: int = 1
    gpu_thousandths: int = 1000
    gpu_memory_bytes: int = 0  # on each of its GPUs
    cpu_thousandths: int = 0
    memory_bytes: int = 0
    gpu_types: tuple[str, ...] = ()  # any of them; none: any


@dataclass(frozen=True, slots=True)
class Program:
    """What each member runs. They find GPUVIRT_CLUSTER_JOB, GPUVIRT_RANK and GPUVIRT_MEMBERS in their environment."""

    command: tuple[str, ...]
    environment: Mapping[str, str] = field(default_factory=dict)
    folder: str = ""


@dataclass(frozen=True, slots=True)
class Spec:
    """What a user asks for. Checked when it is handed in: whatever is stored is sound."""

    name: str
    queue: str
    user: str
    tier: str
    program: Program
    demand: Demand
    members_min: int = 1  # started together or not at all
    members_max: int = 1
    estimate_seconds: float = 0.0  # 0: nobody knows
    topology: str = ""  # the widest domain for all members: gpu, nvlink, host, rack, zone, region
    regions: tuple[str, ...] = ()
    weight: int = 1
    memory_limit_bytes: int = 0
    restarts: bool = True  # from its beginning, when its host is lost or it cannot be kept


class Phase(StrEnum):
    """Where a job is. What is commanded is written down before it is sent: each phase outlives the scheduler."""

    PENDING = "pending"  # has nothing
    STARTING = "starting"  # has its place; not all members run yet
    RUNNING = "running"
    SUSPENDING = "suspending"
    SUSPENDED = "suspended"  # on its hosts, off their GPUs
    RESUMING = "resuming"
    STOPPING = "stopping"  # then it is what `then` says
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


ENDED: Final = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.CANCELLED})
ON_GPUS: Final = frozenset({Phase.STARTING, Phase.RUNNING, Phase.SUSPENDING, Phase.RESUMING, Phase.STOPPING})


class MemberState(StrEnum):
    """Where a member is, as its host said last."""

    ASSIGNED = "assigned"  # the host has not said yet that it has it
    RUNNING = "running"
    SUSPENDED = "suspended"
    STOPPING = "stopping"  # taken out of the job (shrunk) or the job ends
    ENDED = "ended"


@dataclass(frozen=True, slots=True)
class Member:
    """One rank of a job on one host. Its name there is `job.rank`."""

    rank: int
    node: str
    gpus: tuple[str, ...]  # UUIDs
    attempt: int  # counts the starts of this rank, over the life of the job
    state: MemberState = MemberState.ASSIGNED
    exit: int | None = None


@dataclass(frozen=True, slots=True)
class Served:
    """What a job has had of what it wanted, in slices of time: the promise of its tier is measured on it."""

    until: float = 0.0  # up to here it is counted
    slices: tuple[
        tuple[float, float, float], ...
    ] = ()  # begin, s wanted, s had; the oldest first, none beyond the window
    gpu_seconds: float = 0.0  # had since it was submitted


@dataclass(frozen=True, slots=True)
class Job:
    """A job from its submission to what is remembered of it afterwards."""

    id: str
    request: str  # the id under which it was handed in
    spec: Spec
    submitted: float
    phase: Phase = Phase.PENDING
    then: Phase = Phase.PENDING  # after STOPPING: PENDING (starts again), FAILED or CANCELLED
    reason: str = ""  # why it is where it is, for people
    members: tuple[Member, ...] = ()
    attempts: int = 0  # the highest of any member so far: numbers never come twice
    changed: float = 0.0  # when its phase changed
    started: float | None = None  # first
    ended: float | None = None
    exit: int | None = None
    served: Served = Served()
    held: bool = False  # suspended by its user: not resumed until the user says so
    guaranteed: bool = True  # admission has taken its guarantee on; False: it runs as basic until there is capacity
    suspensions: int = 0
    revision: int = 0


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU of a host."""

    uuid: str
    index: int
    type: str
    memory_bytes: int
    healthy: bool = True


class NodeState(StrEnum):
    """How far a host can be used."""

    READY = "ready"
    DRAINING = "draining"  # no new members; those on it leave
    DRAINED = "drained"
    UNKNOWN = "unknown"  # silent: nothing is started there, nothing of it is started elsewhere
    LOST = "lost"  # its lease has run out and it is fenced: what it had may start elsewhere


@dataclass(frozen=True, slots=True)
class Node:
    """A host with an agent."""

    name: str
    address: str
    gpus: tuple[Gpu, ...] = ()
    cpu_thousandths: int = 0
    memory_bytes: int = 0
    swap_bytes: int = 0  # of memory_bytes, for device memory that is swapped out
    domains: Mapping[str, str] = field(default_factory=dict)  # "rack" -> "r12"
    state: NodeState = NodeState.UNKNOWN
    reason: str = ""
    boot: str = ""
    since: float = 0.0  # when the state changed
    draining: bool = False  # its operator wants it empty, also when it was off meanwhile
    drain_reason: str = ""
    patience_until: float = 0.0  # while draining: then its jobs are suspended or stopped


@dataclass(frozen=True, slots=True)
class Queue:
    """A queue; "org/team" is below "org". What it has not been given by name, it has from the queue above."""

    name: str
    quota: Resources = Resources()  # always its own
    limit: Resources = Resources()  # never exceeded
    weight: int = 1  # in what nobody's quota takes


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator has set."""

    fractions: Mapping[str, float] = field(default_factory=lambda: dict(FRACTIONS))
    window: float = 3600.0  # s over which they are promised
    promise_limit: float = 0.95  # part of all GPU time that may be promised: what switching and packing cost is not
    oversubscribe: float = 1.0  # device memory promised on a GPU over what it has; the rest is swapped
    usage_half_life: float = 0.0  # s; 0: only what is held now counts for fairness
    moves: bool = False  # hosts can move a job with its work
    suspend_seconds: float = 1.0  # what taking a job off its GPUs costs
    resume_seconds: float = 1.0
    move_seconds: float = 10.0
    hysteresis: float = 60.0  # s for which a job that was put on GPUs is not taken off for one of its own tier


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a decision is made from."""

    jobs: Mapping[str, Job]  # those that have not ended
    nodes: Mapping[str, Node]
    queues: Mapping[str, Queue]
    rules: Rules = Rules()
