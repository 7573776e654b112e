# SPDX-License-Identifier: Apache-2.0
"""The lease is asked back: until all that was given to the GPU has ended, or the job must go on for a while."""

from __future__ import annotations

from gpuvirt.arbitration.aside import find as find_aside
from gpuvirt.arbitration.aside import may_go_beside, step_aside
from gpuvirt.arbitration.facts import SECOND, Client, Contender, Decision, Gpu, Summons, WakeUp, Word
from gpuvirt.arbitration.fairshare import charge
from gpuvirt.arbitration.gang import offered
from gpuvirt.arbitration.ladder import climb
from gpuvirt.arbitration.policies import choose
from gpuvirt.arbitration.transitions import close, renew, rivals, store

PATIENCE_LIMIT = 11
STEPS = 4  # tries in which only streams that have finished get work
ALL_ON_LIMIT = 2 * SECOND
OFTEN = 4  # tries before a job whose work waits for values has to wait longer
UNKNOWN_STEPS = 8  # the same for a program that is not known to have work wait for its threads (a kernel may)


def drain(gpu: Gpu, holder: Contender, now: int, out: Decision) -> None:
    gpu.drain_since = now
    holder.asked_ns = holder.asked_ns or now
    gpu.drain_due = now + gpu.rules.drain_budget
    holder.reason = ""
    store(gpu, holder, Word.DRAIN, now, out)
    out.actions += [WakeUp(number) for number in holder.clients]
    out.wake(gpu.drain_due)


def draining(gpu: Gpu, holder: Contender, now: int, out: Decision) -> bool:
    if holder.gang is not None and holder.gang.summons is not None:
        follow(gpu, holder, holder.gang.summons, now, out)
        return True
    if holder.gang is not None and holder.gang.released:
        resume(gpu, holder, now, out)
        return True
    if all(client.drained for client in holder.clients.values()):
        if holder.gang is not None and not holder.gang.close:
            return False  # what it has on its other GPUs may need it here once more
        if not any(client.request is not None and client.request.late for client in holder.clients.values()):
            holder.reason = ""  # it was late to drain, and has
        learn(holder)
        close(gpu, holder, now, out)
        return True
    best = choose(gpu, offered(gpu, rivals(gpu, now, out, without=holder.key), now), now)
    if best is not None and find_aside(gpu) is None and may_go_beside(gpu, holder, best, now):
        step_aside(gpu, holder, now)
        return True
    if now >= gpu.drain_due and not holder.reason:
        late = sorted(client.number for client in holder.clients.values() if not client.drained)
        holder.overruns += 1
        holder.reason = f"does not drain yet: {', '.join(f'client {number}' for number in late)}"
        out.note("warning", "drain_overdue", holder.key, epoch=holder.epoch, clients=str(late))
    if climb(gpu, holder, now, out):
        return True
    if holder.waiting and any(map(is_stuck, holder.clients.values())):
        # The second time it must wait, then twice as long each time: a job whose work is only long drains meanwhile.
        # (One that has work wait for values, as ranks for each other, is cut off in the middle again and again: it
        # drains when a cut happens to fall between two waits, so it is tried often.)
        times = min(holder.given_back // OFTEN if _waits(holder) else holder.given_back, PATIENCE_LIMIT)
        patience = gpu.rules.drain_budget // 16 << times if times else 0
        if now >= gpu.drain_since + patience:
            give_back(gpu, holder, now, out)
            return True
        out.wake(gpu.drain_since + patience)
    out.wake(max(gpu.drain_due, now + gpu.rules.drain_budget))
    return False


def give_back(gpu: Gpu, holder: Contender, now: int, out: Decision) -> None:
    """What is on the GPU may wait for what the job's own threads cannot give it: let them, for a moment, in STEP.

    There only streams that have nothing to do get work, so that what waits for itself comes to an end. If that does not
    help, a thread may have to give more to the very stream that waits before it comes to what ends the wait: every
    second time all may go on, soon if the program has work wait for its threads. (If it is merely long, there would
    only be more of it.) A program that needed that once gets it first the next time.
    Nobody else was granted anything meanwhile, so all its memory is where it was. The time is charged as ever.
    """
    charge(gpu, holder, now)
    first = gpu.rules.give_back
    window = min(first << min(holder.given_back, PATIENCE_LIMIT), max(holder.quantum, first))
    waits = _waits(holder)
    if waits:
        window = first
    steps = UNKNOWN_STEPS if not waits else 0 if holder.all_on_first else STEPS
    all_on = holder.given_back >= steps and holder.given_back % 2 == 0
    if all_on:  # it must reach what ends the wait, on a busy host, too
        grown = (holder.given_back - steps) // (2 if waits else 1)
        window = max(window, min(4 * first << grown, ALL_ON_LIMIT))
    _go_on(gpu, holder, holder.given_back + 1, all_on, now + window, now, out)
    out.note("info", "drain_stuck", holder.key, epoch=holder.epoch, times=holder.given_back, window_ns=window)


def follow(gpu: Gpu, holder: Contender, summons: Summons, now: int, out: Decision) -> None:
    """The drain of a gang is stuck on another of its GPUs: what it waits for may have to come from here."""
    assert holder.gang is not None
    holder.gang.summons = None
    charge(gpu, holder, now)
    _go_on(gpu, holder, summons.times, summons.all_on, max(summons.until, now + gpu.rules.give_back // 2), now, out)


def resume(gpu: Gpu, holder: Contender, now: int, out: Decision) -> None:
    """A gang that had this GPU only has all of them now: what was stuck here has a whole turn to come to its end."""
    assert holder.gang is not None
    holder.gang.released = False
    holder.asked_ns = 0
    charge(gpu, holder, now)
    _go_on(gpu, holder, 0, True, now + holder.quantum, now, out)


def _go_on(gpu: Gpu, holder: Contender, times: int, all_on: bool, until: int, now: int, out: Decision) -> None:
    holder.given_back = times
    holder.reason = ""
    holder.granted_ns = now
    holder.deadline = until
    renew(gpu, holder)
    store(gpu, holder, Word.GRANTED if all_on else Word.STEP, now, out)
    out.wake(holder.deadline)


def _waits(holder: Contender) -> bool:
    return any(client.waits and not client.drained for client in holder.clients.values())


def learn(holder: Contender) -> None:
    """The drain has ended: whether it is better next time to let all threads of the job go on at once."""
    if holder.given_back:
        holder.all_on_first = holder.given_back <= 2 * STEPS if holder.all_on_first else holder.given_back > STEPS


def is_stuck(client: Client) -> bool:
    return client.stuck and not client.drained
