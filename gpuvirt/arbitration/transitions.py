# SPDX-License-Identifier: Apache-2.0
"""Steps of the lease of one GPU that several of its states share: who may be offered it, its word, its end, a stall."""

from __future__ import annotations

from gpuvirt.arbitration import ledger
from gpuvirt.arbitration.aside import go_on, settle
from gpuvirt.arbitration.debt import owe
from gpuvirt.arbitration.facts import Contender, Decision, Gpu, Store, Word
from gpuvirt.arbitration.fairshare import charge
from gpuvirt.arbitration.in_flight import window_ns
from gpuvirt.arbitration.policies import policy_of
from gpuvirt.units import format_size

EPOCH_LIMIT = 1 << 29
BACKOFF_LIMIT = 5


def rivals(gpu: Gpu, now: int, out: Decision, without: str | None = None) -> list[Contender]:
    """Contenders that want the GPU and may be offered it now."""
    ready = []
    for contender in gpu.contenders.values():
        if contender.key == without or not contender.waiting or contender.suspended:
            continue
        need = sum(client.charged for client in contender.clients.values())
        if need > gpu.capacity + gpu.reserve:
            contender.reason = f"needs {format_size(need)}, the GPU has {format_size(gpu.capacity)} for jobs"
            continue
        if contender.silent or policy_of(gpu).admits(gpu, contender):
            continue
        if contender.not_before > now:
            out.wake(contender.not_before)
            continue
        ready.append(contender)
    return ready


def store(gpu: Gpu, contender: Contender, word: Word, now: int, out: Decision) -> None:
    contender.word = word
    contender.window = window_ns(gpu, contender, word, now)
    deadline = contender.deadline if word is Word.GRANTED else 0
    out.actions.append(Store(contender.key, word, contender.epoch, deadline, ledger.fits(gpu), contender.window))


def renew_window(gpu: Gpu, holder: Contender, now: int, out: Decision) -> None:
    """Somebody came, left, or changed rank: the bound of what runs now changes with it."""
    if holder.may_launch and window_ns(gpu, holder, holder.word, now) != holder.window:
        store(gpu, holder, holder.word, now, out)


def close(gpu: Gpu, holder: Contender, now: int, out: Decision) -> None:
    """The holder is drained or dead: nothing of it is on the GPU."""
    charge(gpu, holder, now)
    holder.charge_from = None
    holder.last_run_ns = now
    holder.deadline = 0
    holder.given_back = holder.asked_ns = 0
    if holder.word is Word.DRAIN and now > gpu.drain_due:
        holder.overrun_ns += now - gpu.drain_due
        owe(holder, now - gpu.drain_due)
    store(gpu, holder, Word.CLOSED, now, out)
    if holder.waiting and holder.waiting_since is None:
        holder.waiting_since = now
    gpu.holder = None
    gpu.idle_since = None
    gpu.switch_from = now
    gpu.switch_moved = 0


def close_aside(gpu: Gpu, contender: Contender, now: int, out: Decision) -> None:
    """What stood aside is drained or dead. Whom its memory was in the way of may try again."""
    settle(gpu, contender, now)
    if contender.clients:
        go_on(contender, out)
    contender.stopped = False
    contender.reason = ""
    contender.deadline = contender.given_back = contender.asked_ns = 0
    store(gpu, contender, Word.CLOSED, now, out)
    if not contender.waiting:
        contender.waiting_since = None
    for other in gpu.contenders.values():
        other.not_before = other.refusals = 0


def next_epoch(gpu: Gpu) -> int:
    """That of the next grant. Never 0: DRAINED(0) means something else."""
    return gpu.epoch % (EPOCH_LIMIT - 1) + 1


def renew(gpu: Gpu, chosen: Contender) -> None:
    """A new epoch: whatever was said of the one before counts no more."""
    gpu.epoch = next_epoch(gpu)
    gpu.idle_since = None
    chosen.epoch = gpu.epoch
    chosen.waiting_since = None
    for client in chosen.clients.values():
        client.waiting = client.idle = client.drained = client.stuck = False


def stall(gpu: Gpu, contender: Contender, now: int, out: Decision, reason: str = "") -> None:
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
