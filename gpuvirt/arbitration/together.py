# SPDX-License-Identifier: Apache-2.0
"""The gangs of a host: what the decisions on one GPU must know of the others.

`coordinate` looks at the facts of all GPUs and writes Contender.gang, Gpu.reserved and Gpu.reserved_at; each GPU is
still decided by itself (lease.decide). `settle` goes back and forth between the two until nothing changes.

- A reservation is of all GPUs of a gang or of none, in the order in which gangs were elected on the last of theirs; who
  comes later does not pass one before it that wants one of the same GPUs. So nobody waits in a circle, and nobody
  starves.
- Reserved GPUs are given back at one time, when the last of their holders would have: until then they are used.
- A gang drains on all its GPUs when it drains on one, and closes on all when it has drained on all. When a drain does
  not end, because what is on one GPU waits for a thread that is kept from another, it goes on for a while on all.
- A gang that holds some of its GPUs only (a process came to one more) gets the others before everybody else: what it
  has on the first ones may wait for them.

Pure. Where nobody has processes on several GPUs nothing is changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from gpuvirt.arbitration.facts import Contender, Decision, Gang, Gpu, Summons, Word
from gpuvirt.arbitration.fairshare import charge, wake
from gpuvirt.arbitration.transitions import rivals

ROUNDS = 8  # for each GPU; each gang is elected, made ready, granted and asked back at most once in a moment


@dataclass(frozen=True, slots=True)
class Place:
    """A gang on one of its GPUs."""

    gpu: Gpu
    here: Contender
    gang: Gang

    @property
    def held(self) -> bool:
        return self.gpu.holder == self.here.key

    @property
    def drained(self) -> bool:
        return self.here.word is Word.DRAIN and all(client.drained for client in self.here.clients.values())


def form(gpus: Iterable[Gpu]) -> bool:
    """Says of each job whether it is a gang. To be called when processes came or went; True if there are gangs."""
    present: dict[str, list[tuple[Gpu, Contender]]] = {}
    for gpu in gpus:
        for contender in gpu.contenders.values():
            present.setdefault(contender.key, []).append((gpu, contender))
    gangs = False
    for parts in present.values():
        several = sum(bool(here.clients) for _, here in parts) > 1
        for gpu, here in parts:
            if several and here.clients:
                here.gang = here.gang or Gang()
                gangs = True
            elif here.gang is not None:
                here.gang = None
                gpu.reserved = None if gpu.reserved == here.key else gpu.reserved
    return gangs


def settle(gpus: Sequence[Gpu], decide: Callable[[Gpu], None], now: Callable[[], int]) -> bool:
    """To be called after a decision on any GPU. True when nothing is left to do; `decide` is called for the rest."""
    for _ in range(ROUNDS * len(gpus)):
        changed = coordinate(gpus, now())
        if not changed:
            return True
        for gpu in changed:
            decide(gpu)
    return False


def coordinate(gpus: Sequence[Gpu], now: int) -> list[Gpu]:
    """Brings what GPUs know of each other up to date; those where something has changed are to be decided again."""
    gangs = _places(gpus)
    before = {gpu.name: _known(gpu) for gpu in gpus}
    asked = {place.gpu.name for places in gangs.values() for place in places if place.gang.asked}
    queue: list[tuple[int, str, list[Place]]] = []
    for key, places in sorted(gangs.items()):
        _tell(places, now)
        held, rest = [place for place in places if place.held], [place for place in places if not place.held]
        closes = _hold_together(held)
        if held and rest and not closes:
            queue.append((0, key, rest))
        elif not held and _is_elected(places, now):
            queue.append((max(place.gang.elected_at for place in places), key, rest))
    reserved = _reserve(gpus, sorted(queue, key=lambda one: one[:2]), now)
    for key, places in gangs.items():
        _release(places, key in reserved)
    return [gpu for gpu in gpus if gpu.name in asked or _known(gpu) != before[gpu.name]]


def _places(gpus: Iterable[Gpu]) -> dict[str, list[Place]]:
    found: dict[str, list[Place]] = {}
    for gpu in gpus:
        for here in gpu.contenders.values():
            if here.gang is not None:
                found.setdefault(here.key, []).append(Place(gpu, here, here.gang))
    return found


def _known(gpu: Gpu) -> tuple[object, ...]:
    """What is written here."""
    gangs = {key: replace(one.gang) for key, one in gpu.contenders.items() if one.gang is not None}
    return gpu.reserved, gpu.reserved_at, gangs


def _tell(places: list[Place], now: int) -> None:
    """What a gang does on the others."""
    waits = {place.gpu.name for place in places if place.here.waits_here}
    busy = {place.gpu.name for place in places if not place.here.idle_here}
    rivalled = any(rivals(place.gpu, now, Decision(), without=place.here.key) for place in places)
    for place in places:
        name = place.gpu.name
        called = bool(waits - {name}) and not place.here.may_launch
        if called and not place.here.waiting:
            _begin_to_wait(place, now)
        place.gang.called, place.gang.busy, place.gang.contested = called, bool(busy - {name}), rivalled
        place.gang.asked = False
        if not place.here.waiting and not place.held:
            place.gang.elected = False
            place.here.waiting_since = None
    since = min((one for place in places if (one := place.here.waiting_since) is not None), default=None)
    for place in places:
        place.gang.since = since


def _begin_to_wait(place: Place, now: int) -> None:
    """As if it had said so there (events.want)."""
    gpu, here = place.gpu, place.here
    if here.word is Word.CLOSED:
        if gpu.holder is not None:
            charge(gpu, gpu.contenders[gpu.holder], now)
        wake(gpu, here)
    if here.waiting_since is None:
        here.waiting_since = now


def _hold_together(held: list[Place]) -> bool:
    """What it holds it gives back at one time. True if it does now."""
    times = max((place.here.given_back for place in held), default=0)
    closes = bool(held) and all(place.drained for place in held)
    draining = [place.here.given_back for place in held if place.here.word is Word.DRAIN]
    leader = next((one.here for one in held if one.here.given_back == times and one.here.word is not Word.DRAIN), None)
    for place in held:
        drains, behind = place.here.word is Word.DRAIN, place.here.given_back < times
        place.gang.close = closes
        place.gang.leave = not drains and any(there >= place.here.given_back for there in draining)
        place.gang.summons = (
            Summons(times, leader.word is Word.GRANTED, leader.deadline)
            if drains and behind and leader is not None and not closes
            else None
        )
    return closes


def _is_elected(places: list[Place], now: int) -> bool:
    """It wants its GPUs, its turn has come on each, and none of them is refused to it."""
    return all(place.gang.elected and place.here in rivals(place.gpu, now, Decision()) for place in places)


def _reserve(gpus: Iterable[Gpu], queue: list[tuple[int, str, list[Place]]], now: int) -> set[str]:
    """Gives GPUs to gangs in the order of the queue: all or none, and nobody passes."""
    first: dict[str, str] = {}
    for _, key, places in queue:
        for place in places:
            first.setdefault(place.gpu.name, key)
    kept = {key: places for _, key, places in queue if all(first[place.gpu.name] == key for place in places)}
    owners = {place.gpu.name: key for key, places in kept.items() for place in places}
    until = {key: max(_natural_end(place, now) for place in places) for key, places in kept.items()}
    for gpu in gpus:
        owner = owners.get(gpu.name)
        if owner is None:
            gpu.reserved, gpu.reserved_at = None, 0
        elif gpu.reserved != owner:
            gpu.reserved, gpu.reserved_at = owner, until[owner]
        else:  # ends do not move away: what is due now was due before
            gpu.reserved_at = min(gpu.reserved_at, until[owner])
    return set(kept)


def _natural_end(place: Place, now: int) -> int:
    """When the GPU would be given back without a hurry."""
    holder = place.gpu.contenders.get(place.gpu.holder) if place.gpu.holder is not None else None
    if holder is None or holder.word is Word.DRAIN or holder.idle:
        return now
    if place.gang.elected and holder.granted_ns < place.gang.elected_at and holder.word is not Word.STEP:
        return now  # its quantum was over then
    return max(now, holder.deadline or holder.granted_ns + holder.quantum)


def _release(places: list[Place], reserved: bool) -> None:
    """All that it lacks is ready: it may have it."""
    rest = [place for place in places if not place.held]
    ready = reserved and bool(rest) and all(place.gang.ready for place in rest)
    for place in places:
        place.gang.released = ready and (not place.held or place.here.word is Word.DRAIN)
