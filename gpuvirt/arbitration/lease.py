# SPDX-License-Identifier: Apache-2.0
"""The lease of one GPU as a state machine: decide(gpu, now) looks at the facts, changes them and says what is to be
done.

              nobody else wants it     somebody waits        quantum over, or idle
    CLOSED ------------------> OPEN ----------------> GRANTED ----------------> DRAIN ----> CLOSED
      ^                         '--- nobody waits <-----'                                      |
      |                                                                                        v
      '---- all memory is in <---- RESTORE (the next job) <---- EVICT (others) <---- choose who is next
                                       '-- cannot have its memory now: another waiter, later again --^
                                       '-- nobody answers: another waiter ---------------------------^

    DRAIN ----> STEP ----> DRAIN: it waits for what the threads of the job may not submit (drain.give_back)

Level-triggered: it asks what the facts are, never what happened last, so it may be called at any time, any number of
times, and after any interruption (a death in the middle of anything, a request that failed).

Invariants (tests/unit/gpuvirt/arbitration): one contender at a time may launch; a grant comes only when every other
client is drained and all memory of the job is resident; EVICT goes only to drained clients; promises are never
raised above capacity.
"""

from __future__ import annotations

from gpuvirt.arbitration.aside import find as find_aside
from gpuvirt.arbitration.bursts import begin_burst
from gpuvirt.arbitration.drain import drain, draining
from gpuvirt.arbitration.facts import Contender, Decision, Gpu, WakeUp, Word
from gpuvirt.arbitration.fairshare import advance, charge
from gpuvirt.arbitration.gang import elect, is_kept, is_new, kept_until, offered
from gpuvirt.arbitration.grant import switching
from gpuvirt.arbitration.in_flight import expected_until
from gpuvirt.arbitration.policies import choose, policy_of, revoke_at
from gpuvirt.arbitration.quantum import idle_hold_ns
from gpuvirt.arbitration.room import Room, deficit, make_room, needs, restore_ahead, send_restore, unavailable
from gpuvirt.arbitration.suspension import leave, must_drain
from gpuvirt.arbitration.transitions import close, close_aside, renew_window, rivals, stall, store

SLOWEST_LINK = 1e9  # bytes/s: no client can say that its link is slower to gain time


def decide(gpu: Gpu, now: int) -> Decision:
    """Actions that follow from the facts at `now`, already applied to the facts, and when to look again."""
    if gpu.tape is not None:
        decision: Decision = gpu.tape.decided(gpu, now, lambda: _decide(gpu, now))
        return decision
    return _decide(gpu, now)


def _decide(gpu: Gpu, now: int) -> Decision:
    out = Decision()
    for contender in gpu.contenders.values():
        if contender.gang is not None:
            contender.gang.ready = False
    _notice_silence(gpu, now, out)
    leave(gpu, now, out)
    for _ in range(4 + 4 * len(gpu.contenders)):  # each contender is closed, chosen, stalled or granted at most once
        if not _step(gpu, now, out):
            break
    leave(gpu, now, out)  # those that this decision has closed
    _notice_silence(gpu, now, out)  # requests that this decision made: look again when they are due
    return out


def _notice_silence(gpu: Gpu, now: int, out: Decision) -> None:
    """Marks requests that are overdue: their process is stopped or hangs, and the others go on without it.

    Its promise stays booked, so the answer may come at any time later (or never: its death closes the account).
    """
    for contender in gpu.contenders.values():
        for client in contender.clients.values():
            request = client.request
            if request is None or request.late or (client.restoring and client.shortfall > 0):
                continue  # who waits for credit has nothing to answer
            due = (
                request.sent_ns + gpu.rules.answer_budget + int(2e9 * client.charged / max(gpu.link_rate, SLOWEST_LINK))
            )
            if now < due:
                out.wake(due)
                continue
            request.late = True
            gpu.switch_from, gpu.switch_moved = now, 0  # the time lost here says nothing about what a switch costs
            contender.reason = f"does not answer {request.move.value.upper()}: client {client.number}"
            out.note("warning", "answer_overdue", contender.key, client=client.number, move=request.move.value)


def _step(gpu: Gpu, now: int, out: Decision) -> bool:
    """One transition; True if another may follow at once."""
    aside = find_aside(gpu)
    if aside is not None and all(client.drained for client in aside.clients.values()):
        close_aside(gpu, aside, now, out)
        return True
    if gpu.holder is not None:
        holder = gpu.contenders[gpu.holder]
        if not holder.clients:
            close(gpu, holder, now, out)
            return True
        if holder.word is Word.DRAIN:
            return draining(gpu, holder, now, out)
        _grow(gpu, holder, now, out)
        if holder.word is Word.STEP and now < holder.deadline and not holder.must_drain:
            out.wake(holder.deadline)
            return False
        return _held(gpu, holder, now, out)
    return switching(gpu, now, out)


def _held(gpu: Gpu, holder: Contender, now: int, out: Decision) -> bool:
    if holder.must_drain or must_drain(holder, now, out) or (holder.gang is not None and holder.gang.leave):
        holder.must_drain = False
        drain(gpu, holder, now, out)
        return False
    waiters = rivals(gpu, now, out, without=holder.key)
    if not waiters and holder.gang is not None and holder.gang.contested:
        _go_along(gpu, holder, now, out)
        return False
    if not waiters:
        if holder.word is not Word.OPEN:
            charge(gpu, holder, now)
            holder.deadline = 0
            gpu.idle_since = None
            store(gpu, holder, Word.OPEN, now, out)
        renew_window(gpu, holder, now, out)
        if now < (until := expected_until(gpu, holder)):
            out.wake(until)
        return False
    if holder.word is Word.STEP:
        drain(gpu, holder, now, out)
        return True
    if holder.word is Word.OPEN:
        charge(gpu, holder, now)
        holder.deadline = max(holder.granted_ns + holder.quantum, now + gpu.rules.minimum_run)
        store(gpu, holder, Word.GRANTED, now, out)
        out.actions += [WakeUp(number) for number in holder.clients]  # so that they say whether they are idle
        begin_burst(holder, now)  # or long ago: nobody knows
        gpu.idle_since = None
    renew_window(gpu, holder, now, out)
    if not holder.idle:
        if gpu.idle_since is not None:
            begin_burst(holder, now)
        gpu.idle_since = None
    elif gpu.idle_since is None:
        gpu.idle_since = now
    charge(gpu, holder, now)
    waiters = offered(gpu, waiters, now)
    best = choose(gpu, waiters, now)
    if best is None:  # those that wait do so for other GPUs, too
        if now >= holder.deadline:
            _another_quantum(gpu, holder, now, out)
        out.wake(holder.deadline)
        return False
    hold = idle_hold_ns(gpu.rules.idle_hold, deficit(gpu, best, best.clients.values()), gpu.link_rate)
    idle_end = holder.deadline if gpu.idle_since is None else gpu.idle_since + hold
    end = min(kept_until(gpu, holder), idle_end)
    revoke = revoke_at(gpu, holder, best, now)
    if revoke is not None:
        runs = 0 if holder.idle else max(gpu.rules.minimum_run, holder.switch_cost)  # idle: nothing is interrupted
        end = min(end, max(revoke, holder.granted_ns + runs))
    if now < end:
        restore_ahead(gpu, best, now, out)
        out.wake(end)
        return False
    if not holder.idle and not is_kept(gpu, best) and choose(gpu, [holder, *waiters], now) is holder:
        _another_quantum(gpu, holder, now, out)
        out.wake(holder.deadline)
        return False
    if is_new(gpu, best):
        elect(gpu, best, now, out)
        return False
    drain(gpu, holder, now, out)
    return True  # somebody may have it before that ends


def _another_quantum(gpu: Gpu, holder: Contender, now: int, out: Decision) -> None:
    """Its weight entitles it to more in a row, or nobody else can have the GPU yet: no hand-over."""
    holder.deadline = now + holder.quantum
    advance(gpu, holder)
    holder.grounds = policy_of(gpu).grounds(gpu, holder, now)
    store(gpu, holder, Word.GRANTED, now, out)


def _go_along(gpu: Gpu, holder: Contender, now: int, out: Decision) -> None:
    """Nobody wants this GPU of a gang, but another one of it: that is where its turn ends, and this says when it is
    idle.
    """
    charge(gpu, holder, now)
    if holder.word is Word.GRANTED and now < holder.deadline:
        out.wake(holder.deadline)
        return
    if holder.word is Word.OPEN:
        out.actions += [WakeUp(number) for number in holder.clients]
    holder.deadline = now + max(holder.quantum, gpu.rules.minimum_run)
    store(gpu, holder, Word.GRANTED, now, out)
    out.wake(holder.deadline)


def _grow(gpu: Gpu, holder: Contender, now: int, out: Decision) -> None:
    """The holder needs more than its allowance: it keeps the lease while room is made among the others."""
    asking = [client for client in holder.clients.values() if client.waiting and client.request is None]
    if not asking:
        return
    for client in asking:
        client.waiting = needs(client)
    asking = [client for client in asking if client.waiting and client.connected]
    if not asking:
        return
    if holder.not_before > now:
        out.wake(holder.not_before)
        return
    if holder.tries >= gpu.rules.restore_tries:
        stall(gpu, holder, now, out)
        return
    room = make_room(gpu, holder, asking, now, out)
    if room is Room.THERE:
        for client in asking:
            send_restore(gpu, holder, client, now, out)
    elif room is Room.NONE:
        siblings = [client for client in holder.clients.values() if client not in asking]
        if sum(max(0, client.allowance - client.charged) for client in siblings) >= deficit(gpu, holder, asking):
            holder.must_drain = True  # promises can only be taken back from processes that do not run
        else:
            stall(gpu, holder, now, out, unavailable(gpu, holder))
