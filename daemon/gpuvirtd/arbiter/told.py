# SPDX-License-Identifier: Apache-2.0
"""What clients say, as facts. Figures are theirs: nobody is believed more than the device holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from gpuvirt.arbitration import events
from gpuvirt.arbitration.facts import Move
from gpuvirt.control import fixed, messages
from gpuvirtd.jobs import Member

if TYPE_CHECKING:
    from gpuvirtd.arbiter.arbiter import Arbiter


def tell(arbiter: Arbiter, member: Member, message: messages.Message, now: int) -> None:
    """A message of an attached client. Raises UnexpectedAnswer for an answer that nobody asked for."""
    gpu, number = arbiter.gpu, member.number
    match message:
        case messages.Want():
            charged, resident = _bytes(arbiter, message.charged_bytes), _bytes(arbiter, message.resident_bytes)
            native = _native(arbiter, member, message.native_bytes)
            events.want(gpu, number, charged, resident, now, native)
        case messages.Idle():
            events.idle(gpu, number)
        case messages.Drained():
            events.drained(gpu, number, message.epoch)
        case messages.Stuck():
            events.stuck(gpu, number, message.epoch, bool(message.waits))
        case messages.Memory():
            memory(arbiter, member, message.charged_bytes, message.resident_bytes, message.native_bytes)
        case messages.Progress():
            events.progress(gpu, number, _bytes(arbiter, message.resident_bytes), now)
        case messages.Restored() | messages.Evicted():
            move = Move.RESTORE if isinstance(message, messages.Restored) else Move.EVICT
            events.moved(
                gpu,
                number,
                move,
                message.status,
                _bytes(arbiter, message.charged_bytes),
                _bytes(arbiter, message.resident_bytes),
                message.moved_bytes,
                message.short_bytes,
                message.duration_ns,
                now,
                _native(arbiter, member, message.native_bytes),
                message.zero_bytes + message.clean_bytes + message.duplicate_bytes,
            )
            arbiter.switches.heard(member.job.id, move, message, now)
            arbiter.timeline.answered(number, message)
            arbiter.log.debug(
                "restored" if move is Move.RESTORE else "evicted",
                job=member.job.id,
                client=number,
                status=message.status,
                moved=message.moved_bytes,
                resident=message.resident_bytes,
                ns=message.duration_ns,
                map_ns=message.map_ns,
                copy_ns=message.copy_ns,
                hash_ns=message.hash_ns,
            )


def memory(arbiter: Arbiter, member: Member, charged: int, resident: int, native: int) -> None:
    """Bytes that a client has."""
    charged, resident = _bytes(arbiter, charged), _bytes(arbiter, resident)
    events.memory(arbiter.gpu, member.number, charged, resident, _native(arbiter, member, native))


def _bytes(arbiter: Arbiter, claimed: int) -> int:
    """No client has more than the device: a larger figure would let one liar starve the others."""
    return min(claimed, arbiter.device.memory_total)


def _native(arbiter: Arbiter, member: Member, claimed: int) -> int:
    """Fixed memory of a client; when it changed, its page says of what kinds that is."""
    native = _bytes(arbiter, claimed)
    if native != member.facts.native:
        report = member.refresh(arbiter.clock.now())
        member.facts.fixed_kinds = tuple(kind.noun for kind, _, _ in fixed.kinds_of(report.fixed))
    return native
