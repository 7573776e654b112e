# SPDX-License-Identifier: Apache-2.0
"""Who gets the GPU when its holder has drained, said while it drains: the hand-over itself then waits for no decision.

Only where nothing has to be done for it in between: no memory moves, nobody else drains, the next one has all it needs.
Whoever acts on it tells `events.handed_over`, and `decide` takes it from there; any other event voids it.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpuvirt.arbitration import ledger
from gpuvirt.arbitration.facts import Contender, Decision, Gpu, Word
from gpuvirt.arbitration.in_flight import window_ns
from gpuvirt.arbitration.policies import choose
from gpuvirt.arbitration.quantum import expected_cost, quantum_ns
from gpuvirt.arbitration.room import needs
from gpuvirt.arbitration.transitions import next_epoch, rivals


@dataclass(frozen=True, slots=True)
class Successor:
    """The hand-over that comes next: CLOSED for the giver, `word` for the taker."""

    giver: str
    epoch: int  # that the giver drains
    taker: str
    taker_epoch: int
    word: Word
    length: int  # ns of the taker's quantum; 0: none
    fits: bool
    window: int  # ns


def successor(gpu: Gpu, now: int) -> Successor | None:
    """None where it cannot be known, or something has to be done first. Facts stay as they are."""
    giver = gpu.contenders.get(gpu.holder) if gpu.holder is not None else None
    if giver is None or not _merely_drains(giver) or now < gpu.hold_until or gpu.penalty or ledger.free(gpu) < 0:
        return None
    if any(other.gang is not None for other in gpu.contenders.values()):
        return None  # other GPUs have a say
    if not all(other is giver or _stands_still(other) for other in gpu.contenders.values()):
        return None
    waiters = rivals(gpu, now, Decision(), without=giver.key)
    if giver.waiting:
        waiters.append(giver)
    taker = choose(gpu, waiters, now)
    if taker is None or taker is giver or not _ready(taker):
        return None
    word = Word.GRANTED if len(waiters) > 1 else Word.OPEN
    rules = gpu.rules
    length = quantum_ns(rules.quantum, expected_cost(taker.switch_cost, 0), rules.swap_share, rules.quantum_max)
    return Successor(
        giver.key, giver.epoch, taker.key, next_epoch(gpu), word, length if word is Word.GRANTED else 0,
        ledger.fits(gpu), window_ns(gpu, taker, Word.GRANTED, now),  # OPEN: the giver may be back soon
    )  # fmt: skip


def _merely_drains(giver: Contender) -> bool:
    """Its drain is the first since it had the lease, and nothing is asked of its processes."""
    if giver.word is not Word.DRAIN or giver.suspended or giver.stopped or giver.given_back or not giver.clients:
        return False
    return not any(client.stuck or client.request is not None for client in giver.clients.values())


def _stands_still(other: Contender) -> bool:
    if other.word is not Word.CLOSED or other.suspended or other.stopped:
        return False
    return all(client.drained and client.request is None for client in other.clients.values())


def _ready(taker: Contender) -> bool:
    return taker.tries == 0 and all(client.connected and not needs(client) for client in taker.clients.values())
