# SPDX-License-Identifier: Apache-2.0
"""Whom to evict, and how far: only the deficit, cheapest first.

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


def unused_promise(client: Client) -> int:
    """Part of its allowance that the client gives up without copying anything."""
    return max(0, client.allowance - max(0, client.charged - client.swapped))


def choose_victims(
    able: list[tuple[Contender, Client]], excluded: str, deficit: int, host_room: int
) -> list[Eviction] | None:
    """Evictions that free `deficit` bytes of promises and swap at most `host_room`; None if that cannot be done."""
    slack: dict[int, int] = {}
    missing = deficit
    for contender, client in able:
        # What a process of the job that is to run has swapped out comes back in a moment: it keeps the room for it.
        unused = unused_promise(client) if contender.key != excluded else max(0, client.allowance - client.charged)
        slack[client.number] = min(unused, missing)
        missing -= slack[client.number]
    taken: dict[int, int] = {}
    for contender, client in able:
        used = client.allowance - slack[client.number] if contender.key != excluded else 0
        taken[client.number] = max(0, min(used, missing, host_room))
        missing -= taken[client.number]
        host_room -= taken[client.number]
    if missing > 0:
        return None
    return [
        Eviction(client, client.allowance - slack[client.number] - taken[client.number])
        for _, client in able
        if slack[client.number] + taken[client.number] > 0
    ]
