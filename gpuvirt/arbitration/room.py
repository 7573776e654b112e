# SPDX-License-Identifier: Apache-2.0
"""Makes room in device memory and brings a contender's memory back. Part of lease.decide."""

from __future__ import annotations

import enum
from collections.abc import Iterable

from gpuvirt.arbitration import ledger
from gpuvirt.arbitration.events import CUDA_ERROR_OUT_OF_MEMORY
from gpuvirt.arbitration.facts import Client, Contender, Credit, Decision, Gpu, Move, Request, Send
from gpuvirt.arbitration.policies import turns
from gpuvirt.arbitration.victims import candidates, choose_victims
from gpuvirt.units import format_size


class Room(enum.Enum):
    """Outcome of an attempt to make room."""

    THERE = enum.auto()
    COMING = enum.auto()  # requests are out; decide again at their answers
    NONE = enum.auto()  # nothing is left that could be evicted now


def needs(client: Client) -> bool:
    """True if the client must get a RESTORE before its job may launch."""
    return not client.restored or client.shortfall > 0


def available(gpu: Gpu, contender: Contender) -> int:
    """Bytes that may be promised to this contender now; negative when too much is promised already.

    A job that fills the capacity as it was, before a new context took room, may use the reserve: else it would never
    run again.
    """
    beyond = sum(client.charged for client in contender.clients.values()) - gpu.capacity
    return ledger.free(gpu) + max(0, min(gpu.reserve, beyond))


def deficit(gpu: Gpu, contender: Contender, clients: Iterable[Client]) -> int:
    """Bytes that must be freed before these clients can have everything resident (0: there is room)."""
    shortfall = sum(client.shortfall for client in clients)
    if shortfall == 0 and gpu.penalty == 0:
        return 0
    return max(0, shortfall - available(gpu, contender))


def make_room(gpu: Gpu, contender: Contender, clients: list[Client], now: int, out: Decision) -> Room:
    """Evict others until these clients' shortfall fits. Sends at most one round of EVICTs."""
    requests = [client.request for client in gpu.clients() if client.request is not None]
    if any(request.move is Move.EVICT and not request.late for request in requests):
        return Room.COMING
    missing = deficit(gpu, contender, clients)
    # Promises above the capacity, which shrank after they were made (a context was created, a stranger came): taken
    # back at the next opportunity, so that the reserve is there for the next context. Nobody waits for it.
    excess = 0 if missing else -ledger.free(gpu)
    if missing == 0 and excess <= 0:
        return Room.THERE
    able = candidates(gpu.contenders.values(), contender.key, now, turns(gpu, now))
    if missing == 0:
        missing = min(excess, sum(client.evictable for other, client in able if other is not contender))
    plan = choose_victims(able, contender.key, missing, gpu.host_room, real=gpu.penalty > 0)
    if plan is None and excess > 0:
        return Room.THERE
    if plan is None:
        return Room.COMING if _others_restore(gpu, contender, now, out) else Room.NONE
    if not plan:
        return Room.THERE
    for eviction in plan:
        client = eviction.client
        gpu.host_room -= max(0, min(client.charged, client.resident) - eviction.target)
        client.request = Request(Move.EVICT, eviction.target, client.allowance, now)
        out.actions.append(Send(client.number, Move.EVICT, eviction.target))
    return Room.COMING


def _others_restore(gpu: Gpu, contender: Contender, now: int, out: Decision) -> bool:
    """True if somebody else is about to be restored: it cannot be evicted before it has answered.

    One that waits for credit would wait for ever: it is told to give up.
    """
    any_open = False
    for other in gpu.contenders.values():
        if other is not contender:
            for client in other.clients.values():
                if client.restoring and client.shortfall > 0:
                    _cancel(client, now, out)
                any_open = any_open or (client.request is not None and not client.request.late)
    return any_open


def cancel_restores(contender: Contender, now: int, out: Decision) -> None:
    """It cannot have its memory now: its processes stop waiting for it."""
    for client in contender.clients.values():
        if client.restoring and client.shortfall > 0:
            _cancel(client, now, out)


def _cancel(client: Client, now: int, out: Decision) -> None:
    assert client.request is not None
    client.request.cancelled = True
    client.request.sent_ns = now
    out.actions.append(Credit(client.number, client.allowance, cancelled=True))


def send_restore(gpu: Gpu, contender: Contender, client: Client, now: int, out: Decision, ahead: bool = False) -> None:
    """RESTORE with what is needed and some slack, if there is plenty. What there is now is promised from now on.

    ahead: of its turn, so without slack.
    """
    need = max(client.charged, client.allowance)
    spare = max(0, ledger.free(gpu) - client.shortfall - _owed(contender, client))
    if gpu.penalty or ahead:
        spare = 0  # the ledger was wrong a moment ago: nothing beyond the need
    alone = len(gpu.clients()) == 1
    extra = spare if alone else min(spare, int(client.charged * gpu.rules.slack))
    allowance = need + extra
    credit = min(allowance, client.allowance + max(0, available(gpu, contender)))
    client.request = Request(Move.RESTORE, allowance, client.allowance, now, by_credit=credit < allowance)
    client.allowance = credit
    out.actions.append(Send(client.number, Move.RESTORE, allowance, credit))


def give_credit(gpu: Gpu, contender: Contender, now: int, out: Decision) -> None:
    """What others have left since goes to those of its clients that are being restored."""
    for client in contender.clients.values():
        if not client.restoring or client.request is None:
            continue
        more = min(client.shortfall, available(gpu, contender))
        if more <= 0 or (more < client.granularity and more < client.shortfall):
            continue  # less than an extent would bring nothing in
        client.allowance += more
        client.request.sent_ns = now
        client.request.waits = False
        out.actions.append(Credit(client.number, client.allowance))


def restore_ahead(gpu: Gpu, contender: Contender, now: int, out: Decision) -> None:
    """It is next, and somebody else still runs: room that nobody has is filled meanwhile."""
    clients = contender.clients.values()
    give_credit(gpu, contender, now, out)
    lacking = [client for client in clients if needs(client)]
    if (
        gpu.penalty
        or contender.tries
        or any(client.request is not None or not client.connected or not client.drained for client in clients)
    ):
        return
    for client in lacking:
        room = available(gpu, contender)
        if room >= min(client.shortfall, client.granularity):
            send_restore(gpu, contender, client, now, out, ahead=True)


def _owed(contender: Contender, client: Client) -> int:
    """Room that the other clients of the same contender still need."""
    return sum(other.shortfall for other in contender.clients.values() if other is not client)


def unavailable(gpu: Gpu, contender: Contender) -> str:
    """Why there is no room, for people."""
    need = sum(client.charged for client in contender.clients.values())
    silent = sum(
        max(client.allowance, client.resident)
        for other in gpu.contenders.values()
        if other.key != contender.key
        for client in other.clients.values()
        if not client.connected or not client.drained or (client.request is not None and client.request.late)
    )
    able = sum(
        max(0, min(client.charged, client.resident) - client.native)
        for other in gpu.contenders.values()
        if other.key != contender.key
        for client in other.clients.values()
    )
    fixed = fixed_of_others(gpu, contender)
    there = format_size(gpu.capacity - gpu.penalty)
    if fixed and need + sum(held for _, held, _ in fixed) > gpu.capacity - gpu.penalty:
        holders = ", ".join(
            f"job {key} holds {format_size(held)} that cannot be moved{': ' if kinds else ''}{', '.join(kinds)}"
            for key, held, kinds in fixed
        )
        return f"needs {format_size(need)} of {there}; {holders}"
    if able > gpu.host_room:
        return f"needs {format_size(need)}; the host memory budget has room for {format_size(gpu.host_room)} more"
    if not silent and any(client.evict_status == CUDA_ERROR_OUT_OF_MEMORY for client in gpu.clients()):
        return f"needs {need} bytes; the host has no memory left for what others would have to swap out"
    return f"needs {format_size(need)} of {there}; {format_size(silent)} are held by processes that do not answer"


def fixed_of_others(gpu: Gpu, contender: Contender) -> list[tuple[str, int, tuple[str, ...]]]:
    """(job, bytes, kinds in words) of everybody else's fixed memory, the largest first."""
    found = []
    for other in gpu.contenders.values():
        held = sum(client.native for client in other.clients.values())
        if other is not contender and held > 0:
            kinds = dict.fromkeys(kind for client in other.clients.values() for kind in client.fixed_kinds)
            found.append((other.key, held, tuple(kinds)))
    return sorted(found, key=lambda row: (-row[1], row[0]))
