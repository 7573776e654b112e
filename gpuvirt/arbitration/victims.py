# SPDX-License-Identifier: Apache-2.0
"""Whom to evict, and how far: only the deficit, cheapest first.

Fixed memory (Client.native) stays where it is: no target is below it. What is taken, in this order:

1. Room that is promised but not used: costs no copy.
2. What a job has on the device beyond its soft limit.
3. The rest. Those that do not wait go before those that do. Of the idle ones the one that is least worth keeping:
   idle for long, of little weight, cheap to move. Of the waiting ones who is served last (under a round robin the
   one that ran last comes again last, so the usual least-recently-used order would evict exactly who is next).

Against thrash: an idle one that was brought in at a price stays for a while (`residence_ns`). It goes last of the
idle ones, but it goes: nobody waits for ever behind somebody else's patience. (Before those that wait, all the same:
they will surely need their memory again, it perhaps not.)
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from gpuvirt.arbitration.facts import SECOND, Client, Contender

RESIDENCE = 2  # times as long as it took to bring it in
RESIDENCE_LIMIT = 10 * SECOND
NEW_SHARE = 0.5  # weight of the newest switch in what is believed of a client's cost


@dataclass(frozen=True, slots=True)
class Eviction:
    """Lower a client's allowance to `target` bytes."""

    client: Client
    target: int


def residence_ns(restore_ns: int) -> int:
    """For how long a client that was brought in within `restore_ns` should not be the first to leave."""
    return min(RESIDENCE_LIMIT, RESIDENCE * restore_ns)


def learned_copies(share: float, copied: int, elided: int) -> float:
    """Part of a client's bytes that must really be copied when it leaves, learned from its last switches.

    copied: bytes that went over the link; elided: zero, clean and duplicate ones. In [0, 1].
    """
    if copied + elided <= 0:
        return share
    return (1 - NEW_SHARE) * share + NEW_SHARE * copied / (copied + elided)


def worth(contender: Contender, client: Client, now: int) -> float:
    """What it is worth to keep a byte of an idle client on the device; without unit, only to compare.

    Its cost to move (out: what is really copied; in: everything) and how likely it is to be needed soon: a job with
    twice the weight runs twice as often, and who was idle for twice as long will probably stay so for twice as long.
    """
    idle = max(1, now - contender.last_run_ns)
    return contender.weight * (1.0 + client.copies) / idle


def candidates(
    contenders: Iterable[Contender], excluded: str, now: int, turns: Mapping[str, int]
) -> list[tuple[Contender, Client]]:
    """Clients that can be evicted now, best first. Of the `excluded` job itself only unused promises can be taken.

    turns: the place in the queue of everybody who waits.
    """
    able = [
        (contender, client)
        for contender in contenders
        for client in contender.clients.values()
        if client.connected and client.drained and client.request is None and now >= client.evict_not_before
    ]

    def order(pair: tuple[Contender, Client]) -> tuple[bool, bool, float, int, int]:
        contender, client = pair
        keep = -turns.get(contender.key, 0) if contender.waiting else worth(contender, client, now)
        fresh = not contender.waiting and now < client.stays_until
        return (contender.waiting, fresh, keep, -client.resident, client.number)

    return sorted(able, key=order)


def choose_victims(
    able: list[tuple[Contender, Client]], excluded: str, deficit: int, host_room: int, real: bool = False
) -> list[Eviction] | None:
    """Evictions that free `deficit` bytes of promises and swap at most `host_room`; None if that cannot be done.

    real: free as many bytes of the device itself. The device was found fuller than the ledger says, so a promise that
    nobody has used yet gives no room.
    """
    held = {client.number: client.resident if real else client.allowance for _, client in able}
    taken = dict.fromkeys(held, 0)
    missing = deficit
    for contender, client in able:
        # What a process of the job that is to run has swapped out comes back in a moment: it keeps the room for it.
        swapped = 0 if contender.key == excluded else client.swapped
        unused = held[client.number] - max(client.native, client.charged - swapped)
        taken[client.number] = max(0, min(unused, missing))
        missing -= taken[client.number]
    others = [(contender, client) for contender, client in able if contender.key != excluded]
    excess = soft_excess(others, {number: held[number] - taken[number] for number in held})
    for bounded in (True, False):
        for contender, client in others:
            movable = held[client.number] - taken[client.number] - client.native
            if bounded:
                movable = min(movable, excess.get(contender.key, 0))
            copied = max(0, min(movable, missing, host_room))
            taken[client.number] += copied
            missing -= copied
            host_room -= copied
            if bounded and copied:
                excess[contender.key] -= copied
    if missing > 0:
        return None
    return [
        Eviction(client, held[client.number] - taken[client.number]) for _, client in able if taken[client.number] > 0
    ]


def soft_excess(able: Iterable[tuple[Contender, Client]], held: dict[int, int]) -> dict[str, int]:
    """Bytes that each contender has on the device beyond its soft limit; only those that have any."""
    excess: dict[str, int] = {}
    for contender, _ in able:
        if contender.soft is not None:
            have = sum(held.get(client.number, client.resident) for client in contender.clients.values())
            if have > contender.soft:
                excess[contender.key] = have - contender.soft
    return excess
