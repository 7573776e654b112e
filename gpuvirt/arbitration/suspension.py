# SPDX-License-Identifier: Apache-2.0
"""Jobs that are suspended: they get no lease, and what they have on the device goes to the host. Part of lease.decide.

A suspended holder drains as at the end of its quantum; afterwards nobody waits for the room, so its memory goes as far
as the host has space, and no one else is held up by it. Whether its processes are stopped as well is the caller's.
"""

from __future__ import annotations

from gpuvirt.arbitration.facts import Client, Contender, Decision, Gpu, Move, Request, Send, Word
from gpuvirt.arbitration.room import cancel_restores


def leave(gpu: Gpu, now: int, out: Decision) -> None:
    """Sends what suspended jobs have on the device to the host."""
    for contender in gpu.contenders.values():
        if not contender.suspended or contender.word is not Word.CLOSED or contender.key == gpu.holder:
            continue
        cancel_restores(contender, now, out)
        for client in contender.clients.values():
            if client.request is not None or not client.drained or not client.connected:
                continue
            target = _target(gpu, client)
            if target >= client.allowance:
                continue
            if now < client.evict_not_before:
                out.wake(client.evict_not_before)
                continue
            gpu.host_room -= max(0, min(client.charged, client.resident) - target)
            client.request = Request(Move.EVICT, target, client.allowance, now)
            out.actions.append(Send(client.number, Move.EVICT, target))


def must_drain(holder: Contender, now: int, out: Decision) -> bool:
    """A suspended holder gives the GPU back now. Not within the moment that its own threads need to let it drain."""
    if not holder.suspended:
        return False
    if holder.given_back and now < holder.deadline:
        out.wake(holder.deadline)
        return False
    return True


def is_away(gpu: Gpu, key: str) -> bool:
    """Nothing of the job runs on this GPU or is about to, and nothing more of it can leave the device."""
    contender = gpu.contenders.get(key)
    if contender is None:
        return True
    if contender.word is not Word.CLOSED or gpu.holder == key:
        return False
    return all(
        client.drained and client.request is None and (not client.connected or _target(gpu, client) >= client.allowance)
        for client in contender.clients.values()
    )


def _target(gpu: Gpu, client: Client) -> int:
    """Bytes that stay: what cannot be moved, and what the host has no room for."""
    movable = max(0, min(client.charged, client.resident) - client.native)
    return client.native + max(0, movable - max(0, gpu.host_room))
