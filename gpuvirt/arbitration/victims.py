# SPDX-License-Identifier: Apache-2.0
"""Whom to evict, and how far: only the deficit, cheapest first.

Fixed memory (Client.native) stays where it is: no target is below it.

Order: room that is promised but not used (costs no copy) before bytes; contenders that do not wait before those that
do; of the idle ones who ran longest ago; of the waiting ones who is served last (largest virtual time: under a round
robin the one that ran last comes again last, so the usual least-recently-used order would evict exactly who is
next); then the biggest.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gpuvirt.arbitration.facts import Client, Contender


@dataclass(frozen=True, slots=True)
class Eviction:
    """Lower a client's allowance to `target` bytes."""

    client: Client
    target: int


def candidates(contenders: Iterable[Contender], excluded: str, now: int) -> list[tuple[Contender, Client]]:
    """Clients that can be evicted now, best first. Of the `excluded` job itself only unused promises can be taken."""
    able = [
        (contender, client)
        for contender in contenders
        for client in contender.clients.values()
        if client.connected and client.drained and client.request is None and now >= client.evict_not_before
    ]

    def order(pair: tuple[Contender, Client]) -> tuple[bool, int, int, int]:
        contender, client = pair
        age = -contender.vtime if contender.waiting else contender.last_run_ns
        return (contender.waiting, age, -client.resident, client.number)

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
    for contender, client in able:
        if contender.key != excluded:
            movable = held[client.number] - taken[client.number] - client.native
            copied = max(0, min(movable, missing, host_room))
            taken[client.number] += copied
            missing -= copied
            host_room -= copied
    if missing > 0:
        return None
    return [
        Eviction(client, held[client.number] - taken[client.number]) for _, client in able if taken[client.number] > 0
    ]
