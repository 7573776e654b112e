# SPDX-License-Identifier: Apache-2.0
"""Nobody holds the GPU: who is next, room for its memory, its memory, the lease."""

from __future__ import annotations

from gpuvirt.arbitration.aside import find as find_aside
from gpuvirt.arbitration.aside import go_on, may_go_beside, settle, step_back
from gpuvirt.arbitration.debt import repay
from gpuvirt.arbitration.drain import give_back, is_stuck
from gpuvirt.arbitration.facts import Contender, Decision, Gpu, Grounds, Word
from gpuvirt.arbitration.fairshare import advance
from gpuvirt.arbitration.gang import catch_up, elect, filler, is_new, offered
from gpuvirt.arbitration.policies import choose, policy_of
from gpuvirt.arbitration.quantum import expected_cost, quantum_ns
from gpuvirt.arbitration.room import Room, cancel_restores, give_credit, make_room, needs, send_restore, unavailable
from gpuvirt.arbitration.transitions import renew, rivals, stall, store


def switching(gpu: Gpu, now: int, out: Decision) -> bool:
    """Nobody holds the GPU: choose who is next, make room for it, bring it in, grant."""
    if gpu.handed is not None:
        return _handed(gpu, now, out)
    if now < gpu.hold_until:
        out.wake(gpu.hold_until)
        return False
    everybody = rivals(gpu, now, out)
    waiters = offered(gpu, everybody, now)
    chosen = gpu.contenders.get(gpu.next) if gpu.next is not None else None
    if chosen is not None and chosen.gang is not None and chosen not in waiters:
        cancel_restores(chosen, now, out)  # another of its GPUs is not to be had: others are next
    if chosen is not None and chosen in waiters:
        chosen = _overtaken(gpu, chosen, waiters, now, out)
    else:
        chosen = choose(gpu, waiters, now)
        gpu.next = None if chosen is None else chosen.key
        gpu.switch_from, gpu.switch_moved = (now, 0) if gpu.switch_from == 0 else (gpu.switch_from, gpu.switch_moved)
    if chosen is None:
        gpu.switch_from = 0
        alone = find_aside(gpu)
        if alone is not None:
            step_back(gpu, alone, now, out)
        return alone is not None
    if is_new(gpu, chosen):
        gpu.next = None
        elect(gpu, chosen, now, out)
        return False
    aside = find_aside(gpu)
    meanwhile = filler(gpu, chosen, everybody, now) if aside is None else None
    if meanwhile is not None:
        _grant(gpu, meanwhile, now, out)
        return True
    if aside is not None and not may_go_beside(gpu, aside, chosen, now):
        step_back(gpu, aside, now, out)
        return True
    go_on(chosen, out)  # else it could not answer
    # Somebody who came back and has not proved yet that nothing of its work is on the GPU.
    undrained = [
        one
        for one in gpu.contenders.values()
        if one is not aside and any(not client.drained for client in one.clients.values())
    ]
    if undrained:
        if len(undrained) > 1 or undrained[0] not in everybody or not any(map(is_stuck, undrained[0].clients.values())):
            chosen.reason = "a process that attached again has not drained yet"
            return False
        chosen = undrained[0]  # nobody can have the GPU before its own threads have gone on
        gpu.next = chosen.key
    clients = list(chosen.clients.values())
    if any(client.request is not None and not client.restoring for client in clients):
        return False
    if chosen.tries >= gpu.rules.restore_tries:
        _give_way(gpu, chosen, now, out)
        return True
    lacking = [client for client in clients if client.request is None and needs(client)]
    if any(not client.connected for client in lacking):
        _give_way(gpu, chosen, now, out, "a process whose memory must be restored lost its connection")
        return True
    restoring = [client for client in clients if client.restoring]
    room = make_room(gpu, chosen, [*lacking, *restoring], now, out)
    if room is Room.NONE:
        _give_way(gpu, chosen, now, out, unavailable(gpu, chosen))
        return True
    give_credit(gpu, chosen, now, out)
    for client in lacking:
        if client.request is None:  # else its own unused promises go first
            send_restore(gpu, chosen, client, now, out)
    if lacking or restoring or room is Room.COMING:
        return False
    if undrained:
        gpu.next, gpu.holder, gpu.switch_from = None, chosen.key, 0
        chosen.charge_from = now
        give_back(gpu, chosen, now, out)
    elif chosen.gang is not None and not chosen.gang.released:
        chosen.gang.ready = True
        return False
    else:
        _grant(gpu, chosen, now, out)
    return True


def _overtaken(gpu: Gpu, chosen: Contender, waiters: list[Contender], now: int, out: Decision) -> Contender:
    """While one is prepared another may come that could take the GPU from it at once: it is prepared instead."""
    best = choose(gpu, waiters, now)
    if best is None or best is chosen:
        return chosen
    when = policy_of(gpu).revoke_at(gpu, chosen, best, now)
    if when is None or when > now or policy_of(gpu).grounds(gpu, chosen, now) is Grounds.FLOOR:
        return chosen
    cancel_restores(chosen, now, out)
    gpu.next = best.key
    return best


def _handed(gpu: Gpu, now: int, out: Decision) -> bool:
    """Somebody has the lease already: the facts follow."""
    taker = gpu.contenders.get(gpu.handed) if gpu.handed is not None else None
    gpu.handed = None
    if taker is not None:
        _grant(gpu, taker, now, out)
    return True


def _give_way(gpu: Gpu, chosen: Contender, now: int, out: Decision, reason: str = "") -> None:
    """Who was to be next cannot have its memory: what it waits for is called off, and another may be chosen."""
    cancel_restores(chosen, now, out)
    stall(gpu, chosen, now, out, reason)
    gpu.next = None


def _grant(gpu: Gpu, chosen: Contender, now: int, out: Decision) -> None:
    chosen.grounds = policy_of(gpu).grounds(gpu, chosen, now)
    gpu.next = None
    gpu.holder = chosen.key
    if chosen.gang is not None:
        catch_up(gpu, chosen)
    advance(gpu, chosen)
    gpu.penalty = 0
    gpu.switches += 1
    gpu.last_switch_ns = now - gpu.switch_from if gpu.switch_from else 0
    swap = gpu.last_switch_ns if gpu.switch_moved else 0
    rules = gpu.rules
    chosen.switch_cost = expected_cost(chosen.switch_cost, swap)
    chosen.quantum = quantum_ns(rules.quantum, chosen.switch_cost, rules.swap_share, rules.quantum_max)
    settle(gpu, chosen, now)
    length = repay(chosen, chosen.quantum, rules)
    if gpu.reserved not in (None, chosen.key):
        length = min(length, gpu.reserved_at - now)
    chosen.granted_ns = chosen.charge_from = now
    chosen.asked_ns = chosen.given_back = 0
    chosen.switches += 1
    chosen.tries = chosen.refusals = 0
    chosen.not_before = 0
    chosen.reason = ""
    if chosen.waiting_since is not None:
        chosen.waits += 1
        chosen.wait_ns += now - chosen.waiting_since
        chosen.recent.waited.add(chosen.waiting_since, now, rules.window)
    renew(gpu, chosen)
    gpu.switch_from = 0
    if rivals(gpu, now, out, without=chosen.key) or (chosen.gang is not None and chosen.gang.contested):
        chosen.deadline = now + length
        store(gpu, chosen, Word.GRANTED, now, out)
        out.wake(chosen.deadline)
    else:
        chosen.deadline = 0
        store(gpu, chosen, Word.OPEN, now, out)
    out.note(
        "debug",
        "grant",
        chosen.key,
        epoch=chosen.epoch,
        switch_ns=gpu.last_switch_ns,
        moved=gpu.switch_moved,
        quantum_ns=chosen.quantum,
    )
    gpu.switch_moved = 0
