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

    DRAIN ----> STEP ----> DRAIN: what is to be drained waits for what the job's threads may not submit (see _give_back)

Level-triggered: it asks what the facts are, never what happened last, so it may be called at any time, any number of
times, and after any interruption (a death in the middle of anything, a request that failed).

Invariants (tests/unit/gpuvirt/arbitration): one contender at a time may launch; a grant comes only when every other
client is drained and all memory of the job is resident; EVICT goes only to drained clients; promises are never
raised above capacity.
"""

from __future__ import annotations

from gpuvirt.arbitration import ledger
from gpuvirt.arbitration.facts import Client, Contender, Decision, Gpu, Store, WakeUp, Word
from gpuvirt.arbitration.fairshare import charge, choose
from gpuvirt.arbitration.quantum import expected_cost, idle_hold_ns, quantum_ns
from gpuvirt.arbitration.room import (
    Room,
    cancel_restores,
    deficit,
    give_credit,
    make_room,
    needs,
    restore_ahead,
    send_restore,
    unavailable,
)
from gpuvirt.units import format_size

EPOCH_LIMIT = 1 << 29
BACKOFF_LIMIT = 5
PATIENCE_LIMIT = 11
STEPS = 4  # tries in which only streams that have finished get work
SLOWEST_LINK = 1e9  # bytes/s: no client can say that its link is slower to gain time


def decide(gpu: Gpu, now: int) -> Decision:
    """Actions that follow from the facts at `now`, already applied to the facts, and when to look again."""
    out = Decision()
    _notice_silence(gpu, now, out)
    for _ in range(4 + 4 * len(gpu.contenders)):  # each contender is closed, chosen, stalled or granted at most once
        if not _step(gpu, now, out):
            break
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
    if gpu.holder is not None:
        holder = gpu.contenders[gpu.holder]
        if not holder.clients:
            _close(gpu, holder, now, out)
            return True
        if holder.word is Word.DRAIN:
            return _draining(gpu, holder, now, out)
        _grow(gpu, holder, now, out)
        if holder.word is Word.STEP and now < holder.deadline and not holder.must_drain:
            out.wake(holder.deadline)
            return False
        return _held(gpu, holder, now, out)
    return _switching(gpu, now, out)


def rivals(gpu: Gpu, now: int, out: Decision, without: str | None = None) -> list[Contender]:
    """Contenders that want the GPU and may be offered it now."""
    ready = []
    for contender in gpu.contenders.values():
        if contender.key == without or not contender.waiting:
            continue
        need = sum(client.charged for client in contender.clients.values())
        if need > gpu.capacity + gpu.reserve:
            contender.reason = f"needs {format_size(need)}, the GPU has {format_size(gpu.capacity)} for jobs"
            continue
        if contender.silent:
            continue
        if contender.not_before > now:
            out.wake(contender.not_before)
            continue
        ready.append(contender)
    return ready


def _store(gpu: Gpu, contender: Contender, word: Word, out: Decision) -> None:
    contender.word = word
    deadline = contender.deadline if word is Word.GRANTED else 0
    out.actions.append(Store(contender.key, word, contender.epoch, deadline, ledger.fits(gpu)))


def _close(gpu: Gpu, holder: Contender, now: int, out: Decision) -> None:
    """The holder is drained or dead: nothing of it is on the GPU."""
    charge(gpu, holder, now)
    holder.charge_from = None
    holder.last_run_ns = now
    holder.deadline = 0
    holder.given_back = 0
    if holder.word is Word.DRAIN and now > gpu.drain_due:
        holder.overrun_ns += now - gpu.drain_due
    _store(gpu, holder, Word.CLOSED, out)
    if holder.waiting and holder.waiting_since is None:
        holder.waiting_since = now
    gpu.holder = None
    gpu.idle_since = None
    gpu.switch_from = now
    gpu.switch_moved = 0


def _draining(gpu: Gpu, holder: Contender, now: int, out: Decision) -> bool:
    if all(client.drained for client in holder.clients.values()):
        if not any(client.request is not None and client.request.late for client in holder.clients.values()):
            holder.reason = ""  # it was late to drain, and has
        _close(gpu, holder, now, out)
        return True
    if now >= gpu.drain_due and not holder.reason:
        late = sorted(client.number for client in holder.clients.values() if not client.drained)
        holder.overruns += 1
        holder.reason = f"does not drain yet: {', '.join(f'client {number}' for number in late)}"
        out.note("warning", "drain_overdue", holder.key, epoch=holder.epoch, clients=str(late))
    if holder.waiting and any(map(_is_stuck, holder.clients.values())):
        # The second time it must wait, then twice as long each time: a job whose work is only long drains meanwhile.
        times = min(holder.given_back, PATIENCE_LIMIT)
        patience = gpu.rules.drain_budget // 16 << times if times else 0
        if now >= gpu.drain_since + patience:
            _give_back(gpu, holder, now, out)
            return True
        out.wake(gpu.drain_since + patience)
    out.wake(max(gpu.drain_due, now + gpu.rules.drain_budget))
    return False


def _held(gpu: Gpu, holder: Contender, now: int, out: Decision) -> bool:
    if holder.must_drain:
        holder.must_drain = False
        _drain(gpu, holder, now, out)
        return False
    waiters = rivals(gpu, now, out, without=holder.key)
    if not waiters:
        if holder.word is not Word.OPEN:
            charge(gpu, holder, now)
            holder.deadline = 0
            gpu.idle_since = None
            _store(gpu, holder, Word.OPEN, out)
        return False
    if holder.word is Word.STEP:
        _drain(gpu, holder, now, out)
        return False
    if holder.word is Word.OPEN:
        charge(gpu, holder, now)
        holder.deadline = max(holder.granted_ns + holder.quantum, now + gpu.rules.minimum_run)
        _store(gpu, holder, Word.GRANTED, out)
        out.actions += [WakeUp(number) for number in holder.clients]  # so that they say whether they are idle
        gpu.idle_since = None
    if not holder.idle:
        gpu.idle_since = None
    elif gpu.idle_since is None:
        gpu.idle_since = now
    charge(gpu, holder, now)
    best = choose(waiters)
    assert best is not None
    hold = idle_hold_ns(gpu.rules.idle_hold, deficit(gpu, best, best.clients.values()), gpu.link_rate)
    idle_end = holder.deadline if gpu.idle_since is None else gpu.idle_since + hold
    end = min(holder.deadline, idle_end)
    if now < end:
        restore_ahead(gpu, best, now, out)
        out.wake(end)
        return False
    if not holder.idle and choose([holder, *waiters]) is holder:
        # Its weight entitles it to more in a row: no hand-over, another quantum.
        holder.deadline = now + holder.quantum
        gpu.vnow = max(gpu.vnow, holder.vtime)
        _store(gpu, holder, Word.GRANTED, out)
        out.wake(holder.deadline)
        return False
    _drain(gpu, holder, now, out)
    return False


def _drain(gpu: Gpu, holder: Contender, now: int, out: Decision) -> None:
    gpu.drain_since = now
    gpu.drain_due = now + gpu.rules.drain_budget
    holder.reason = ""
    _store(gpu, holder, Word.DRAIN, out)
    out.actions += [WakeUp(number) for number in holder.clients]
    out.wake(gpu.drain_due)


def _give_back(gpu: Gpu, holder: Contender, now: int, out: Decision) -> None:
    """What is on the GPU may wait for what the job's own threads cannot give it: let them, for a moment, in STEP.

    There only streams that have nothing to do get work, so that what waits for itself comes to an end. If that does not
    help, a thread may have to give more to the very stream that waits before it comes to what ends the wait: every
    second time all may go on, if work waits for values. (If it is merely long, there would only be more of it.)
    Nobody else was granted anything meanwhile, so all its memory is where it was. The time is charged as ever.
    """
    charge(gpu, holder, now)
    first = gpu.rules.give_back
    window = min(first << min(holder.given_back, PATIENCE_LIMIT), max(holder.quantum, first))
    all_on = holder.given_back >= STEPS and holder.given_back % 2 == 0
    all_on = all_on and any(client.waits and not client.drained for client in holder.clients.values())
    if all_on:  # it must reach what ends the wait
        window = max(window, 4 * first)
    holder.given_back += 1
    holder.reason = ""
    holder.granted_ns = now
    holder.deadline = now + window
    _renew(gpu, holder)
    _store(gpu, holder, Word.GRANTED if all_on else Word.STEP, out)
    out.wake(holder.deadline)
    out.note("info", "drain_stuck", holder.key, epoch=holder.epoch, times=holder.given_back, window_ns=window)


def _renew(gpu: Gpu, chosen: Contender) -> None:
    """A new epoch: whatever was said of the one before counts no more."""
    gpu.epoch = gpu.epoch % (EPOCH_LIMIT - 1) + 1  # never 0: DRAINED(0) means something else
    gpu.idle_since = None
    chosen.epoch = gpu.epoch
    chosen.waiting_since = None
    for client in chosen.clients.values():
        client.waiting = client.idle = client.drained = client.stuck = False


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
        _stall(gpu, holder, now, out)
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
            _stall(gpu, holder, now, out, unavailable(gpu, holder))


def _stall(gpu: Gpu, contender: Contender, now: int, out: Decision, reason: str = "") -> None:
    """It cannot have its memory now: say why once, leave the GPU to others, try again later."""
    if reason and contender.reason != reason:
        contender.reason = reason
        out.note("warning", "no_room", contender.key, reason=reason)
    elif not reason:
        contender.reason = contender.reason or "its memory does not fit beside what others use on the GPU"
        out.note("warning", "restore_failed", contender.key, reason=contender.reason, tries=contender.tries)
    delay = gpu.rules.stall if not reason else gpu.rules.retry << min(BACKOFF_LIMIT, contender.refusals)
    contender.refusals += 1
    contender.tries = 0
    contender.not_before = now + delay
    gpu.penalty = 0
    out.wake(contender.not_before)


def _switching(gpu: Gpu, now: int, out: Decision) -> bool:
    """Nobody holds the GPU: choose who is next, make room for it, bring it in, grant."""
    if now < gpu.hold_until:
        out.wake(gpu.hold_until)
        return False
    waiters = rivals(gpu, now, out)
    chosen = gpu.contenders.get(gpu.next) if gpu.next is not None else None
    if chosen is None or chosen not in waiters:
        chosen = choose(waiters)
        gpu.next = None if chosen is None else chosen.key
        gpu.switch_from, gpu.switch_moved = (now, 0) if gpu.switch_from == 0 else (gpu.switch_from, gpu.switch_moved)
    if chosen is None:
        gpu.switch_from = 0
        return False
    # Somebody who came back and has not proved yet that nothing of its work is on the GPU.
    undrained = [one for one in gpu.contenders.values() if any(not client.drained for client in one.clients.values())]
    if undrained:
        if len(undrained) > 1 or undrained[0] not in waiters or not any(map(_is_stuck, undrained[0].clients.values())):
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
        _give_back(gpu, chosen, now, out)
    else:
        _grant(gpu, chosen, now, out)
    return True


def _is_stuck(client: Client) -> bool:
    return client.stuck and not client.drained


def _give_way(gpu: Gpu, chosen: Contender, now: int, out: Decision, reason: str = "") -> None:
    """Who was to be next cannot have its memory: what it waits for is called off, and another may be chosen."""
    cancel_restores(chosen, now, out)
    _stall(gpu, chosen, now, out, reason)
    gpu.next = None


def _grant(gpu: Gpu, chosen: Contender, now: int, out: Decision) -> None:
    gpu.next = None
    gpu.holder = chosen.key
    gpu.vnow = max(gpu.vnow, chosen.vtime)
    gpu.penalty = 0
    gpu.switches += 1
    gpu.last_switch_ns = now - gpu.switch_from if gpu.switch_from else 0
    swap = gpu.last_switch_ns if gpu.switch_moved else 0
    rules = gpu.rules
    chosen.switch_cost = expected_cost(chosen.switch_cost, swap)
    chosen.quantum = quantum_ns(rules.quantum, chosen.switch_cost, rules.swap_share, rules.quantum_max)
    chosen.granted_ns = chosen.charge_from = now
    chosen.switches += 1
    chosen.tries = chosen.refusals = 0
    chosen.not_before = 0
    chosen.reason = ""
    if chosen.waiting_since is not None:
        chosen.waits += 1
        chosen.wait_ns += now - chosen.waiting_since
    _renew(gpu, chosen)
    gpu.switch_from = 0
    if rivals(gpu, now, out, without=chosen.key):
        chosen.deadline = now + chosen.quantum
        _store(gpu, chosen, Word.GRANTED, out)
        out.wake(chosen.deadline)
    else:
        chosen.deadline = 0
        _store(gpu, chosen, Word.OPEN, out)
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
