# SPDX-License-Identifier: Apache-2.0
"""Work that is still on the GPU while somebody else has the lease already.

A contender whose word is DRAIN and which is not the holder stands *aside*: it may launch nothing more, and what it has
launched runs beside the work of the holder; the hardware divides the time. That happens

- in a hand-over by overlap: to a job that must not wait, when nothing has to be moved;
- to a job whose processes were stopped because its drain did not end (ladder.py).

Memory of one that stands aside stays where it is: nobody is evicted before it has drained. There is one at a time.
"""

from __future__ import annotations

import enum

from gpuvirt.arbitration import ledger
from gpuvirt.arbitration.facts import Contender, Decision, Gpu, Signal, Signals, Word
from gpuvirt.arbitration.fairshare import charge, charged_vtime, tenant_of
from gpuvirt.arbitration.rank import outranks
from gpuvirt.arbitration.room import needs

DEBT_QUANTA = 4  # what it has on the GPU while another one holds it is charged up to so many quanta


class Overlap(enum.Enum):
    """Who gets the GPU when the holder begins to drain, and not when it has drained. Always: if all memory fits."""

    NEVER = "never"
    PRIORITY = "priority"  # a job that goes before the holder
    ALWAYS = "always"


def find(gpu: Gpu) -> Contender | None:
    """Who stands aside."""
    for contender in gpu.contenders.values():
        if contender.word is Word.DRAIN and contender.key != gpu.holder:
            return contender
    return None


def may_go_beside(gpu: Gpu, draining: Contender, chosen: Contender, now: int) -> bool:
    """May `chosen` have the GPU while work of `draining` is still on it?"""
    if draining.stopped or chosen is draining:
        return True
    if draining.gang is not None or chosen.gang is not None:
        return False  # it has all its GPUs at one time
    if gpu.rules.overlap == Overlap.NEVER.value:
        return False
    if gpu.rules.overlap == Overlap.PRIORITY.value and not outranks(gpu, chosen, draining, now):
        return False
    if draining.given_back or any(client.stuck for client in draining.clients.values()):
        return False  # what is on the GPU waits for its own threads: they need the lease
    moves = any(client.request is not None for client in gpu.clients())
    return not moves and ledger.fits(gpu) and not any(needs(client) for client in chosen.clients.values())


def step_aside(gpu: Gpu, holder: Contender, now: int) -> None:
    """The GPU is free for others, but for what the holder has on it."""
    charge(gpu, holder, now)
    holder.charge_from = None
    holder.aside_since = holder.last_run_ns = now
    if holder.waiting and holder.waiting_since is None:
        holder.waiting_since = now
    gpu.holder = None
    gpu.idle_since = None
    gpu.switch_from, gpu.switch_moved = gpu.drain_since, 0


def step_back(gpu: Gpu, contender: Contender, now: int, out: Decision) -> None:
    """It drains as the holder again: nobody else may have the GPU before it has."""
    settle(gpu, contender, now)
    go_on(contender, out)
    contender.charge_from = now
    gpu.holder = contender.key


def settle(gpu: Gpu, contender: Contender, now: int) -> None:
    """What it had on the GPU beside others is its debt: it counts for its turn. Time is billed to the holder alone."""
    if contender.aside_since is None:
        return
    beside = now - contender.aside_since
    contender.aside_since = None
    contender.overrun_ns += beside
    limit = DEBT_QUANTA * max(contender.quantum, gpu.rules.quantum)
    tenant = tenant_of(gpu, contender)
    contender.vtime += charged_vtime(min(beside, limit), contender.weight)
    tenant.vtime += charged_vtime(min(beside, limit), tenant.weight)


def go_on(contender: Contender, out: Decision) -> None:
    """Its processes run again."""
    if contender.stopped:
        contender.stopped = False
        out.actions.append(Signal(contender.key, Signals.CONTINUE))
