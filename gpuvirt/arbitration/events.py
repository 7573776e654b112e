# SPDX-License-Identifier: Apache-2.0
"""Folds what was heard from clients into the facts. Decides nothing: call lease.decide afterwards.

What a client says about itself is believed only as far as it harms nobody but itself: an answer that nobody asked
for is an UnexpectedAnswer, and the caller closes the connection.
"""

from __future__ import annotations

from gpuvirt.arbitration.bursts import begin_burst
from gpuvirt.arbitration.facts import Client, Contender, Gpu, Grounds, Move, Request, Word
from gpuvirt.arbitration.fairshare import charge, forget_tenants, rebase, tenant_of, wake
from gpuvirt.arbitration.ledger import promised
from gpuvirt.arbitration.quantum import learned_rate
from gpuvirt.arbitration.tape import recorded
from gpuvirt.arbitration.victims import learned_copies, residence_ns

CUDA_ERROR_OUT_OF_MEMORY = 2


class UnexpectedAnswer(Exception):
    """A client answered what it was not asked."""


def find(gpu: Gpu, number: int) -> tuple[Contender, Client]:
    """The contender and client of a client number. KeyError if it is not on this GPU."""
    for contender in gpu.contenders.values():
        if number in contender.clients:
            return contender, contender.clients[number]
    raise KeyError(number)


@recorded
def attach(
    gpu: Gpu,
    key: str,
    weight: int,
    client: Client,
    tenant: str = "",
    priority: int = 0,
    tier: str = "",
    due_in: int = 0,
) -> Contender:
    """A process joined (or came back under a new number). Its allowance is what it already has on the device."""
    contender = gpu.contenders.get(key)
    if contender is None:
        contender = Contender(key=key, weight=weight, tenant=tenant, priority=priority, tier=tier, due_in=due_in)
        contender.vtime = tenant_of(gpu, contender).vnow
        gpu.contenders[key] = contender
    contender.clients[client.number] = client
    if contender.may_launch:
        client.drained = False
    else:
        client.zero_epoch = contender.epoch
    return contender


@recorded
def gone(gpu: Gpu, number: int) -> None:
    """A process is dead: the driver has its memory back. Room may have become free for those who found none."""
    contender, client = find(gpu, number)
    _answered(gpu, contender, client)
    del contender.clients[number]
    if not contender.waiting:
        contender.waiting_since = None
    room_changed(gpu)


@recorded
def ended(gpu: Gpu, key: str) -> None:
    """A job without clients left the host."""
    gpu.contenders.pop(key, None)
    forget_tenants(gpu)
    gpu.holder = None if gpu.holder == key else gpu.holder
    gpu.next = None if gpu.next == key else gpu.next


@recorded
def set_policy(gpu: Gpu, name: str, now: int) -> None:
    """Another policy from now on. Nobody is ahead or behind for what happened under the one before."""
    if gpu.holder is not None:
        charge(gpu, gpu.contenders[gpu.holder], now)
    gpu.policy = name
    gpu.owner = gpu.holder
    rebase(gpu)
    for contender in gpu.contenders.values():
        contender.grounds = Grounds.SHARE


@recorded
def set_weight(gpu: Gpu, key: str, weight: int, now: int) -> None:
    """Another weight for a job from now on; what it has had was charged by the one before."""
    contender = gpu.contenders.get(key)
    if contender is not None:
        charge(gpu, contender, now)
        contender.weight = weight


@recorded
def set_suspended(gpu: Gpu, key: str, suspended: bool) -> None:
    """A job is to have no lease from now on, or may have it again."""
    contender = gpu.contenders.get(key)
    if contender is not None:
        contender.suspended = suspended
        if suspended and gpu.owner == key:
            gpu.owner = None
        contender.not_before = contender.refusals = 0
        contender.reason = ""


@recorded
def room_changed(gpu: Gpu) -> None:
    """Capacity or promises changed: let everybody who failed for want of room try again."""
    for contender in gpu.contenders.values():
        contender.not_before = 0
        contender.refusals = 0


def _answered(gpu: Gpu, contender: Contender, client: Client) -> Request | None:
    """Takes the open request from a client. One that was overdue had kept room from others: they may try again."""
    request, client.request = client.request, None
    if request is not None and request.late:
        contender.reason = ""
        room_changed(gpu)
    return request


@recorded
def lost(gpu: Gpu, number: int) -> None:
    """The connection broke but the process lives:

    Its memory stays charged, it may come back. Its answers will not come.
    """
    contender, client = find(gpu, number)
    client.connected = False
    if _answered(gpu, contender, client) is not None:  # nobody knows how far it got: it may hold all that it may
        client.restored = False


@recorded
def want(gpu: Gpu, number: int, charged: int, resident: int, now: int, native: int = 0) -> None:
    """WANT: a thread waits at the gate or for room, or the client needs more memory while its job holds the lease."""
    contender, client = find(gpu, number)
    memory(gpu, number, charged, resident, native)
    if contender.idle and not contender.waiting:
        begin_burst(contender, now)
    client.idle = False
    if contender.may_launch:
        # It needs memory. (A WANT that crossed the grant on its way needs no answer: the futex woke the thread
        # already.)
        client.waiting = not client.restored or client.shortfall > 0
        return
    if not contender.waiting:
        if gpu.holder is not None:
            charge(gpu, gpu.contenders[gpu.holder], now)  # brings the present virtual time up to date
        wake(gpu, contender)
    if contender.waiting_since is None:
        contender.waiting_since = now
    client.waiting = True


@recorded
def memory(gpu: Gpu, number: int, charged: int, resident: int, native: int) -> None:
    """MEMORY: new figures of a client.

    More resident than allowed is not believed: a lie would starve others, and what is really there shows as residue
    in NVML.
    """
    _, client = find(gpu, number)
    _figures(client, charged, resident, native)
    if charged > resident:
        client.restored = False
    if client.restoring and client.request is not None:
        client.request.waits = client.shortfall > 0


def _figures(client: Client, charged: int, resident: int, native: int) -> None:
    """Nobody has more fixed memory than it has resident, and nobody has more resident than it was allowed."""
    client.charged, client.resident = charged, min(resident, client.allowance)
    client.native = min(native, charged, client.resident)


@recorded
def idle(gpu: Gpu, number: int) -> None:
    """IDLE: nothing submitted is unfinished, nobody waits at the gate."""
    _, client = find(gpu, number)
    client.idle = True


@recorded
def drained(gpu: Gpu, number: int, epoch: int) -> None:
    """DRAINED: work of the client up to this epoch is finished and no more can come.

    Epoch 0 (right after WELCOME) counts only if the job could not launch from the WELCOME until now.
    """
    contender, client = find(gpu, number)
    if contender.may_launch:
        return
    if epoch == contender.epoch or (epoch == 0 and client.zero_epoch == contender.epoch):
        client.drained = True


@recorded
def handed_over(gpu: Gpu, taker: str) -> None:
    """The holder has drained, and `taker` was given the lease at once, as foresight.successor said it would be."""
    giver = gpu.contenders.get(gpu.holder) if gpu.holder is not None else None
    for client in giver.clients.values() if giver is not None else ():
        client.drained = True
    gpu.handed = taker


@recorded
def stuck(gpu: Gpu, number: int, epoch: int, waits: bool = False) -> None:
    """STUCK: the drain of this epoch takes long; what is on the GPU may wait for what waits at the gate.

    Epoch 0: the drain after the WELCOME of a process that attached again.

    `waits`: the program has had work wait for values; else it may merely be long.
    """
    contender, client = find(gpu, number)
    again = epoch == 0 and client.zero_epoch == contender.epoch and not contender.may_launch
    if (contender.word is Word.DRAIN and epoch == contender.epoch) or again:
        client.stuck = True
        client.waits = waits


@recorded
def progress(gpu: Gpu, number: int, resident: int, now: int) -> None:
    """PROGRESS: an EVICT has come so far, and no more than this will be resident again. What has left is free.

    Raises UnexpectedAnswer if no EVICT is open.
    """
    _, client = find(gpu, number)
    request = client.request
    if request is None or request.move is not Move.EVICT:
        raise UnexpectedAnswer("PROGRESS was told, but no EVICT is under way")
    allowance = max(request.bytes, min(resident, client.allowance))
    if client.allowance - allowance >= client.granularity or allowance == request.bytes:
        request.sent_ns = now  # it is not silent
    if request.late and allowance < client.allowance:
        room_changed(gpu)
    client.allowance = allowance
    client.resident = min(client.resident, allowance)


@recorded
def moved(
    gpu: Gpu,
    number: int,
    move: Move,
    status: int,
    charged: int,
    resident: int,
    moved_bytes: int,
    short_bytes: int,
    duration_ns: int,
    now: int,
    native: int = 0,
    elided: int = 0,
) -> None:
    """RESTORED or EVICTED. Raises UnexpectedAnswer if no such request is open.

    elided: bytes that left or came without being copied.
    """
    contender, client = find(gpu, number)
    request = client.request
    if request is None or request.move is not move:
        raise UnexpectedAnswer(f"{move.value.upper()} was answered, but not asked")
    _answered(gpu, contender, client)
    _figures(client, charged, resident, native)
    if move is Move.EVICT:
        client.evict_status = status
    if status == 0:
        if not request.by_credit:
            gpu.link_rate = learned_rate(gpu.link_rate, moved_bytes, duration_ns)
        gpu.switch_moved += max(1, moved_bytes)  # hashing and mapping take time, too
        if move is Move.RESTORE:
            client.restored = True
            gpu.penalty = 0
            if moved_bytes > 0:
                client.stays_until = now + residence_ns(duration_ns)
        else:
            client.copies = learned_copies(client.copies, moved_bytes, elided)
            client.restored = client.restored and resident >= charged
            client.allowance = max(request.bytes, client.resident)
            if resident > request.bytes:
                # It said done and is not (its fixed memory grew meanwhile, or it lies): do not ask it in a circle.
                client.evict_not_before = now + gpu.rules.stall
        return
    # What has been moved stays moved: what an EVICT had told by PROGRESS, what a RESTORE has brought in.
    client.restored = client.restored and resident >= charged
    if move is Move.EVICT:
        client.evict_not_before = now + gpu.rules.stall
        return
    client.allowance = min(client.allowance, max(request.before, client.resident))
    client.restored = False
    if request.cancelled:
        return
    contender.tries += 1
    if status == CUDA_ERROR_OUT_OF_MEMORY and charged > request.bytes:
        # It charged more meanwhile than it was allowed: that says nothing about the device.
        return
    if status == CUDA_ERROR_OUT_OF_MEMORY:
        # The device had less room than the ledger thought. The penalty makes up the difference, so that the next
        # attempt evicts exactly what was missing.
        short = max(client.granularity, min(short_bytes, request.bytes))
        unpromised = gpu.capacity - promised(gpu.clients())
        gpu.penalty = max(0, min(gpu.capacity, unpromised - client.shortfall + short))
    else:
        contender.tries = max(contender.tries, gpu.rules.restore_tries)
        contender.reason = f"its memory could not be restored: CUresult {status}"
