# SPDX-License-Identifier: Apache-2.0
"""When a job that waits will probably have the GPU: the same decisions as ever, on a copy of the facts, ahead of time.

Nothing is known of what will come, so it is assumed: nobody comes or ends; who waits has work for a turn as its turns
have been (or for all of every turn: `whole`), and is back after a pause as its pauses have been; memory moves at the
rate that was learned, and a drain takes as long as `drain_ns`. What does not answer now (a stopped process, work that
does not end) will not, and then there is no answer.
"""

from __future__ import annotations

import copy
import heapq
from collections.abc import Mapping
from dataclasses import dataclass, field

from gpuvirt.arbitration import events
from gpuvirt.arbitration.facts import SECOND, Client, Contender, Gpu, Move, Send, Store, Word
from gpuvirt.arbitration.lease import decide

HORIZON = 3600 * SECOND  # beyond this nothing is said
STEPS = 500  # decisions; each takes some 20 us of the daemon's time
STALE = 4  # pauses; who has been away for longer is not coming back
WHOLE = 0.9  # of its quantum: who had that much on the average would have gone on


@dataclass(frozen=True, slots=True)
class Forecast:
    """wait_ns: from now on; None: it cannot be said. ahead: who will have the GPU before, in this order."""

    wait_ns: int | None
    ahead: tuple[str, ...] = ()


@dataclass(slots=True)
class _World:
    """The copy, and what will be heard in it."""

    gpu: Gpu
    now: int
    whole: bool
    drain_ns: int
    pauses: Mapping[str, int]
    due: list[tuple[int, int, str, int, int]] = field(default_factory=list)  # (when, order, what, client, epoch)
    count: int = 0
    coming: set[int] = field(default_factory=set)  # clients whose RESTORE has all its credit: its end is known

    def later(self, delay: int, what: str, number: int, epoch: int = 0) -> None:
        self.count += 1
        heapq.heappush(self.due, (self.now + max(0, delay), self.count, what, number, epoch))


def forecast(
    gpu: Gpu, key: str, now: int, drain_ns: int, pauses: Mapping[str, int] | None = None, whole: bool = False
) -> Forecast:
    """For a job on this GPU; `gpu` stays as it is. One that could launch already waits for 0.

    pauses: by job, how long it usually has no work between two turns (ns); one that is not there does not come back.
    """
    if key not in gpu.contenders or gpu.contenders[key].may_launch:
        return Forecast(0)
    world = _World(copy.deepcopy(gpu), now, whole, drain_ns, pauses or {})
    _begin(world)
    ahead: list[str] = []
    for _ in range(STEPS):
        decision = decide(world.gpu, world.now)
        for action in decision.actions:
            if isinstance(action, Store):
                if action.word in (Word.OPEN, Word.GRANTED, Word.STEP) and action.contender == key:
                    return Forecast(world.now - now, tuple(ahead))
                _stored(world, action, ahead)
            elif isinstance(action, Send):
                _asked(world, action.client)
        _credited(world)
        if not _advance(world, decision.wake_at) or world.now - now > HORIZON:
            break
    return Forecast(None, tuple(ahead))


def typical_turn(contender: Contender) -> int | None:
    """How long a job kept the GPU on the average (ns); None: as long as it may, or nothing is known."""
    total, turns = contender.held_ns + contender.open_ns, contender.switches
    if contender.charge_from is not None:  # the turn that goes on says nothing yet
        total, turns = total - (contender.charge_from - contender.granted_ns), turns - 1
    if turns <= 0 or contender.quantum == 0:
        return None
    mean = max(0, total) // turns
    return mean if mean < WHOLE * contender.quantum else None


def _begin(world: _World) -> None:
    """What is under way now."""
    gpu = world.gpu
    gpu.reserved = None
    for contender in gpu.contenders.values():  # a gang as if it were here only: what others do with their GPUs is open
        waits, contender.gang = contender.waiting, None
        for client in list(contender.clients.values())[: int(waits and not contender.waiting)]:
            client.waiting = True
    holder = gpu.contenders.get(gpu.holder) if gpu.holder is not None else None
    if holder is not None and holder.word is not Word.DRAIN and not holder.idle:
        _will_work(world, holder, world.now - holder.granted_ns)
    for contender in gpu.contenders.values():
        if contender.word is Word.DRAIN and not contender.reason:  # else it is late already, and who knows
            _will_drain(world, contender)
        pause, away = world.pauses.get(contender.key), world.now - contender.last_run_ns
        if pause is not None and not contender.waiting and not contender.may_launch and away < STALE * pause:
            _will_be_back(world, contender, pause - away)
    for client in gpu.clients():
        if client.request is not None and not client.request.late and not client.restoring:
            _asked(world, client.number)


def _will_work(world: _World, contender: Contender, already: int = 0) -> None:
    typical = None if world.whole else typical_turn(contender)
    if typical is not None:
        for number in contender.clients:
            world.later(typical - already, "idle", number, contender.epoch)


def _will_be_back(world: _World, contender: Contender, pause: int) -> None:
    for number in contender.clients:
        world.later(pause, "back", number)


def _will_drain(world: _World, contender: Contender) -> None:
    for client in contender.clients.values():
        if not client.idle:  # it has more to do, and says so at the gate
            world.later(0, "want", client.number)
        if client.connected:
            world.later(world.drain_ns, "drained", client.number, contender.epoch)


def _stored(world: _World, action: Store, ahead: list[str]) -> None:
    contender = world.gpu.contenders[action.contender]
    if action.word is Word.DRAIN:
        _will_drain(world, contender)
    elif (
        action.word is not Word.CLOSED and contender.granted_ns == world.now
    ):  # a new turn; otherwise the one that it has goes on
        ahead.append(contender.key)
        for client in contender.clients.values():
            client.idle = False
        _will_work(world, contender)


def _asked(world: _World, number: int) -> None:
    """An EVICT is answered when its bytes have been moved; a RESTORE when it has its credit, see _credited."""
    client = events.find(world.gpu, number)[1]
    if client.request is not None and client.request.move is Move.EVICT and client.connected:
        world.later(_time(world, max(0, client.resident - client.request.bytes)), "moved", number)


def _credited(world: _World) -> None:
    for client in world.gpu.clients():
        complete = client.restoring and client.shortfall == 0 and client.connected
        if complete and client.number not in world.coming and client.request is not None and not client.request.late:
            world.coming.add(client.number)
            world.later(_time(world, max(0, client.charged - client.resident)), "moved", client.number)


def _time(world: _World, size: int) -> int:
    return int(size / max(world.gpu.link_rate, 1e6) * SECOND)


def _advance(world: _World, wake_at: int | None) -> bool:
    """To the next thing that happens; False: nothing will."""
    if not world.due and wake_at is None:
        return False
    when = min([world.due[0][0]] if world.due else [], default=wake_at)
    assert when is not None
    world.now = max(world.now, min(when, wake_at) if wake_at is not None else when)
    while world.due and world.due[0][0] <= world.now:
        _, _, what, number, epoch = heapq.heappop(world.due)
        contender, client = events.find(world.gpu, number)
        if what == "back" and contender.may_launch:  # nobody has taken it meanwhile
            client.idle = False
            _will_work(world, contender)
        elif what in ("want", "back"):
            events.want(world.gpu, number, client.charged, client.resident, world.now, client.native)
        elif what == "idle" and contender.epoch == epoch and contender.may_launch:
            events.idle(world.gpu, number)
            if contender.key in world.pauses:
                world.later(world.pauses[contender.key], "back", number)
        elif what == "drained":
            events.drained(world.gpu, number, epoch)
        elif what == "moved" and client.request is not None:
            _moved(world, client)
    return True


def _moved(world: _World, client: Client) -> None:
    request = client.request
    assert request is not None
    if request.move is Move.RESTORE:
        world.coming.discard(client.number)
        resident = client.charged
    else:
        resident = max(client.native, min(client.resident, request.bytes))
    moved = abs(resident - client.resident)
    took = _time(world, moved)
    events.moved(
        world.gpu, client.number, request.move, 0, client.charged, resident, moved, 0, took, world.now, client.native
    )
