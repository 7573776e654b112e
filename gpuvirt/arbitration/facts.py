# SPDX-License-Identifier: Apache-2.0
"""What the arbiter of one GPU knows.

Plain data; `events` and `lease` change it. Bytes and CLOCK_MONOTONIC nanoseconds.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import Any

from gpuvirt.arbitration.window import Recent

MILLISECOND = 1_000_000
SECOND = 1_000_000_000


class Word(enum.Enum):
    """State of a lease word (enum gv_lease_state)."""

    CLOSED = "closed"
    OPEN = "open"
    GRANTED = "granted"
    DRAIN = "drain"
    STEP = "step"


class Grounds(enum.Enum):
    """On what grounds a contender has the lease."""

    SHARE = "share"  # its turn
    RIGHT = "right"  # a guarantee or a deadline: does not count for its fair share of the rest
    FLOOR = "floor"  # the little that it always has: for a whole quantum


class Move(enum.Enum):
    """Kinds of requests to a client."""

    RESTORE = "restore"
    EVICT = "evict"


@dataclass(slots=True)
class Request:
    """An EVICT or RESTORE that was sent and is not answered."""

    move: Move
    bytes: int  # the target, or the allowance when it is done
    before: int  # the allowance before it
    sent_ns: int  # when the client was last told something, or told something, about it
    late: bool = False  # not answered in time: nobody waits for it any longer, see lease._notice_silence
    by_credit: bool = False  # RESTORE: began with less credit than it needs, so how long it took says nothing
    waits: bool = False  # RESTORE: it said that all its credit is used: nothing moves
    cancelled: bool = False  # RESTORE: the client was told to give it up


@dataclass(slots=True)
class Client:
    """One process of a job on this GPU."""

    number: int
    charged: int = 0
    resident: int = 0
    native: int = 0  # fixed memory: part of both others, and never evicted
    fixed_kinds: tuple[str, ...] = ()  # what that is, in words, the largest first
    allowance: int = 0  # bytes that it may have resident now: what the ledger counts; the credit of a RESTORE
    granularity: int = 1
    restored: bool = True  # everything charged is resident
    drained: bool = True  # none of its work can be on the GPU
    zero_epoch: int = -1  # DRAINED(0) proves something only for this epoch of the job: the one at which it attached
    stuck: bool = False  # it said that the present drain does not end
    waits: bool = False  # and that its program has had work wait for its threads
    waiting: bool = False  # it said WANT and was not served
    idle: bool = True  # its page (a hint) or an IDLE message says so
    connected: bool = True
    request: Request | None = None
    evict_not_before: int = 0  # after a failed EVICT: leave it alone until then
    evict_status: int = 0  # CUresult of the last EVICT
    copies: float = 1.0  # part of its bytes that must be copied when it leaves, learned (victims.learned_copies)
    stays_until: int = 0  # it was brought in at a price: before this it is not the first to leave

    @property
    def moving(self) -> bool:
        """It was asked to move memory, and does not wait for room."""
        return self.request is not None and not self.request.waits

    @property
    def restoring(self) -> bool:
        """A RESTORE is under way that may still be done."""
        return self.request is not None and self.request.move is Move.RESTORE and not self.request.cancelled

    @property
    def evictable(self) -> int:
        """Bytes of its allowance that an EVICT can take back."""
        return max(0, self.allowance - self.native)

    @property
    def swapped(self) -> int:
        """At most this much of it is in host memory (while not restored)."""
        return 0 if self.restored else max(0, self.charged - self.resident)

    @property
    def shortfall(self) -> int:
        """Allowance that it lacks to have everything resident, or credit for its RESTORE to be done."""
        need = self.request.bytes if self.restoring and self.request is not None else self.charged
        return max(0, need - self.allowance)


@dataclass(frozen=True, slots=True)
class Summons:
    """Its drain on another GPU waits for threads of the job: they go on here, too (drain.follow)."""

    times: int  # Contender.given_back there
    all_on: bool
    until: int


@dataclass(slots=True)
class Gang:
    """What a job with processes on several GPUs knows on each of them of the others (together.py; gang.py heeds it)."""

    called: bool = False  # it waits on another of its GPUs, so it wants this one as well
    busy: bool = False  # it is not idle on another
    contested: bool = False  # somebody else wants one of its GPUs
    since: int | None = None  # when it began to wait for the first of them
    elected: bool = False  # its turn has come here: it waits for that on the others
    elected_at: int = 0
    asked: bool = False  # nobody has looked yet whether it is elected everywhere
    ready: bool = False  # all is prepared here; only the grant is missing
    released: bool = False  # and on all others, too: grant
    leave: bool = False  # it drains on another
    close: bool = False  # it has drained on all
    summons: Summons | None = None


@dataclass(slots=True)
class Contender:
    """One job on one GPU: what holds, waits for and loses the lease."""

    key: str
    weight: int = 1
    tenant: str = ""  # whose it is: shares are first those of tenants
    priority: int = 0  # the larger goes first where the policy knows priorities; 0: ordinary
    tier: str = ""  # name of its service tier (Rules.tiers); empty: what those leave
    due_in: int = 0  # ns in which its bursts of work are to be done, from when they are ready; 0: no deadline
    soft: int | None = None  # bytes on the device beyond which it is the first to be swapped; None: no such limit
    clients: dict[int, Client] = field(default_factory=dict)
    word: Word = Word.CLOSED
    epoch: int = 0
    vtime: int = 0  # within its tenant: charged time / weight, scaled (fairshare.SCALE)
    waiting_since: int | None = None
    granted_ns: int = 0
    charge_from: int | None = None  # held time is charged up to here; None: it does not hold the lease
    switch_cost: int = 0  # time that is expected to be lost when it is brought in (quantum.expected_cost)
    quantum: int = 0
    grounds: Grounds = Grounds.SHARE  # of its last grant
    deadline: int = 0  # 0: none
    window: int = 0  # W as its lease page says it (in_flight.py)
    last_run_ns: int = 0
    tries: int = 0  # RESTOREs that failed in a row
    refusals: int = 0  # attempts to make room that failed in a row
    given_back: int = 0  # times that it got the lease back since it last drained, because the drain did not end
    asked_ns: int = 0  # since when the lease is asked back, also where it was given back for moments; 0: it is not
    aside_since: int | None = None  # its work has been on the GPU beside that of another holder since (aside.py)
    stopped: bool = False  # its processes were stopped, because its drain did not end (ladder.py)
    killed: bool = False  # or killed
    suspended: bool = False  # somebody said so: it gets no lease (suspension.py)
    all_on_first: bool = False  # such a drain ends when all its threads go on (drain.learn)
    must_drain: bool = False  # its own processes hold the room that another of them needs
    not_before: int = 0  # do not offer the GPU before
    reason: str = ""  # why it waits, beyond its turn
    held_ns: int = 0  # while others waited too
    open_ns: int = 0  # while nobody else wanted the GPU
    wait_ns: int = 0
    waits: int = 0
    switches: int = 0  # grants
    overruns: int = 0
    overrun_ns: int = 0
    debt_ns: int = 0  # overrun that it has not made up for (debt.py)
    recent: Recent = field(default_factory=Recent)
    ready_since: int | None = None  # when its present burst of work began (bursts.py)
    burst_ns: int = 0  # GPU time of this burst so far
    work_ns: int = 0  # what a burst is expected to take; 0: not known
    gang: Gang | None = None  # None: all its processes are on this GPU

    @property
    def waiting(self) -> bool:
        return self.waits_here or (self.gang is not None and self.gang.called)

    @property
    def waits_here(self) -> bool:
        """One of its processes on this GPU waits for it."""
        return self.stopped or any(client.waiting for client in self.clients.values())

    @property
    def may_launch(self) -> bool:
        return self.word in (Word.OPEN, Word.GRANTED, Word.STEP)

    @property
    def silent(self) -> bool:
        """A request to one of its processes is overdue."""
        return any(client.request is not None and client.request.late for client in self.clients.values())

    @property
    def idle(self) -> bool:
        return self.idle_here and not (self.gang is not None and self.gang.busy)

    @property
    def idle_here(self) -> bool:
        """Nothing of it is on this GPU, or about to be."""
        return all(client.idle for client in self.clients.values())

    def wants(self, gpu: Gpu) -> bool:
        """It waits for the GPU, or has it."""
        return self.key == gpu.holder or self.waiting


@dataclass(slots=True)
class Tenant:
    """One user on one GPU, with all its jobs there."""

    weight: int = 1
    vtime: int = 0  # charged time of all its jobs / weight, scaled
    vnow: int = 0  # virtual time among its jobs: that of the one that was granted last


@dataclass(slots=True)
class Level:
    """Tenants whose virtual times are compared: those of one priority where that counts, else all."""

    vnow: int = 0  # virtual time: that of the tenant that was granted last
    tenants: dict[str, Tenant] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Rules:
    """The configured constants of arbitration."""

    quantum: int = 20 * MILLISECOND
    quantum_max: int = 10 * SECOND  # however slow swapping is
    swap_share: float = 0.05  # swapping may take this part of the time
    idle_hold: int = MILLISECOND // 5
    minimum_run: int = MILLISECOND
    window_max: int = 5 * MILLISECOND  # work in flight while others wait; 0: no bound (in_flight.py)
    window_urgent: int = MILLISECOND // 2  # the same beside a job that must not wait
    drain_budget: int = 500 * MILLISECOND  # a drain that takes longer is reported as overrun
    on_overrun: str = "wait"  # ladder.OnOverrun: what happens to a job that does not give the GPU back
    overrun_after: int = 10 * SECOND  # when, after it was asked
    overlap: str = "priority"  # aside.Overlap
    give_back: int = 10 * MILLISECOND  # the lease for a job whose drain waits for its own threads; doubled each time
    retry: int = 250 * MILLISECOND  # after room could not be made
    answer_budget: int = 5 * SECOND  # for an EVICT or RESTORE, besides twice the time that the bytes take
    stall: int = SECOND  # after RESTORE failed restore_tries times
    restore_tries: int = 3
    slack: float = 0.25  # allowance beyond the need, to save round trips
    window: int = 10 * SECOND  # over which floors and guarantees hold
    floor: float = 0.1  # of the time, for those that others go before
    tiers: tuple[tuple[str, float], ...] = (("premium", 0.95), ("standard", 0.70))  # guaranteed parts of the time
    tenant_weights: tuple[tuple[str, int], ...] = ()  # of those tenants that have not 1

    def weight_of(self, tenant: str) -> int:
        return dict(self.tenant_weights).get(tenant, 1)

    def share_of(self, tier: str) -> float:
        """The guaranteed part of a tier; 0 for what is none."""
        return next((share for name, share in self.tiers if name == tier), 0.0)


@dataclass(slots=True)
class Gpu:
    """One GPU and everybody on it."""

    name: str
    capacity: int
    rules: Rules = field(default_factory=Rules)
    policy: str = "fair"  # a name in policies.POLICIES
    contenders: dict[str, Contender] = field(default_factory=dict)
    levels: dict[int, Level] = field(default_factory=dict)
    owner: str | None = None  # who has it for itself (policies/exclusive.py)
    holder: str | None = None
    next: str | None = None
    reserved: str | None = None  # a gang whose GPUs are all being freed: nobody else gets this one beyond reserved_at
    reserved_at: int = 0
    handed: str | None = None  # who has the lease already, by foresight.successor, since the holder has drained
    epoch: int = 0
    reserve: int = 0  # beyond the capacity: for a job that fitted until somebody else's context took room
    penalty: int = 0  # room that a client did not find although the ledger had it; forgotten at the next grant
    host_room: int = 1 << 62  # bytes that may still be swapped out; set by the owner before each decision
    hold_until: int = 0  # recovery: no grants before
    idle_since: int | None = None
    drain_since: int = 0
    drain_due: int = 0
    switch_from: int = 0  # since when `next` is being prepared
    switch_moved: int = 0  # bytes that this preparation moved; more than 0 if anything was asked to move
    link_rate: float = 8e9  # bytes per second, learned
    switches: int = 0
    last_switch_ns: int = 0
    tape: Any = field(default=None, repr=False, compare=False)  # no fact: tape.Tape, which records them

    def clients(self) -> list[Client]:
        return [client for contender in self.contenders.values() for client in contender.clients.values()]


@dataclass(frozen=True, slots=True)
class Store:
    """Write the lease word of a contender and wake its waiters."""

    contender: str
    word: Word
    epoch: int
    deadline: int
    fits: bool
    window: int = 0  # ns of GPU time that may be in flight; 0: no bound


@dataclass(frozen=True, slots=True)
class Send:
    """Send RESTORE or EVICT to a client."""

    client: int
    move: Move
    bytes: int
    credit: int = 0  # RESTORE: of the bytes, what may be resident now


@dataclass(frozen=True, slots=True)
class Credit:
    """Send CREDIT to a client whose RESTORE is under way."""

    client: int
    bytes: int  # that may be resident from now on
    cancelled: bool = False


@dataclass(frozen=True, slots=True)
class WakeUp:
    """Send WAKE: the lease word changed."""

    client: int


class Signals(enum.Enum):
    """What may be done to the processes of a contender."""

    STOP = "stop"
    CONTINUE = "continue"
    KILL = "kill"


@dataclass(frozen=True, slots=True)
class Signal:
    """Send a signal to all processes of a contender."""

    contender: str
    kind: Signals


@dataclass(frozen=True, slots=True)
class Note:
    """Something for the log. level: debug, info, warning."""

    level: str
    event: str
    contender: str
    details: tuple[tuple[str, int | str], ...] = ()


Action = Store | Send | Credit | WakeUp | Signal | Note


@dataclass(slots=True)
class Decision:
    """What is to be done, in this order, and when to decide again (None: at the next event)."""

    actions: list[Action] = field(default_factory=list)
    wake_at: int | None = None

    def wake(self, when: int) -> None:
        """Decide again at `when` at the latest."""
        self.wake_at = when if self.wake_at is None else min(self.wake_at, when)

    def note(self, level: str, event: str, contender: str, **details: int | str) -> None:
        self.actions.append(Note(level, event, contender, tuple(details.items())))
