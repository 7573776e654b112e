# SPDX-License-Identifier: Apache-2.0
"""Traces for Perfetto (https://ui.perfetto.dev): the few messages of its protobuf format that we need. Pure.

A trace is a message with one field, 1: packets. Field numbers are those of perfetto_trace.proto; tests decode what is
written here with Perfetto's own Python classes.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

SUFFIX = ".pftrace"
REALTIME, MONOTONIC, BOOTTIME = 1, 3, 6  # enum BuiltinClock
SEQUENCE = 1  # trusted_packet_sequence_id: whose packets these are
STATE_CLEARED = 1  # sequence_flags of the first packet: nothing of before counts
BEGIN, END, INSTANT, COUNTER = 1, 2, 3, 4  # enum TrackEvent.Type
EXPLICIT = 3  # enum ChildTracksOrdering: by sibling_order_rank
BYTES = 3  # enum CounterDescriptor.Unit

_VARINT, _FIXED64, _TEXT = 0, 1, 2  # wire types

Value = str | int | float | bool


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; negative numbers as 64-bit two's complement."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def number(field_number: int, value: int) -> bytes:
    """A field with an integer, an enum or a bool."""
    return varint(field_number << 3 | _VARINT) + varint(value)


def text(field_number: int, value: str | bytes) -> bytes:
    """A field with a string or a message."""
    data = value.encode(errors="replace") if isinstance(value, str) else value
    return varint(field_number << 3 | _TEXT) + varint(len(data)) + data


def fixed(field_number: int, value: int) -> bytes:
    """A field of type fixed64."""
    return varint(field_number << 3 | _FIXED64) + struct.pack("<Q", value)


def double(field_number: int, value: float) -> bytes:
    """A field of type double."""
    return varint(field_number << 3 | _FIXED64) + struct.pack("<d", value)


def annotation(name: str, value: Value) -> bytes:
    """A DebugAnnotation: an argument of a slice."""
    if isinstance(value, bool):
        body = number(2, int(value))
    elif isinstance(value, int):
        body = number(4, value)
    elif isinstance(value, float):
        body = double(5, value)
    else:
        body = text(6, value)
    return text(10, name) + body


@dataclass
class Trace:
    """Collects tracks and events; `encode` has them as one file. Times are nanoseconds of CLOCK_MONOTONIC."""

    clocks: Mapping[int, int]  # readings of the same moment, by clock; MONOTONIC is among them
    _tracks: list[bytes] = field(default_factory=list)
    _events: list[tuple[int, int, bytes]] = field(default_factory=list)  # (time, order, packet)

    def track(self, name: str, parent: int = 0, rank: int = 0, counter: int | None = None) -> int:
        """A track below another (0: none), in the order of the ranks; its number. counter: a unit, if it is one."""
        uuid = len(self._tracks) + 1
        body = number(1, uuid) + text(2, name) + number(11, EXPLICIT) + number(12, rank)
        if parent:
            body += number(5, parent)
        if counter is not None:
            body += text(8, number(3, counter))
        self._tracks.append(text(60, body))
        return uuid

    def slice(
        self,
        track: int,
        name: str,
        begin: int,
        end: int | None,
        arguments: Mapping[str, Value] | None = None,
        category: str = "",
        flows: Sequence[int] = (),
        ends: Sequence[int] = (),
    ) -> None:
        """Something that lasts; end None: it goes on. flows: arrows that leave here; ends: that arrive."""
        body = self._event(BEGIN, track, name, category, arguments)
        body += b"".join(fixed(47, flow) for flow in flows) + b"".join(fixed(48, flow) for flow in ends)
        self._add(begin, 1, body)
        if end is not None:
            self._add(end, 0, number(9, END) + number(11, track))

    def instant(
        self, track: int, name: str, at: int, arguments: Mapping[str, Value] | None = None, category: str = ""
    ) -> None:
        """Something that happened."""
        self._add(at, 2, self._event(INSTANT, track, name, category, arguments))

    def count(self, track: int, at: int, value: int) -> None:
        """A counter has this value from now on."""
        self._add(at, 2, number(9, COUNTER) + number(11, track) + number(30, value))

    def encode(self) -> bytes:
        """The file. On a track what ends comes before what begins at the same time."""
        readings = b"".join(text(1, number(1, clock) + number(2, at)) for clock, at in self.clocks.items())
        first = text(6, readings + number(2, BOOTTIME if BOOTTIME in self.clocks else MONOTONIC))
        first += number(8, self.clocks[MONOTONIC]) + number(58, MONOTONIC) + number(13, STATE_CLEARED)
        events = [packet for _, _, packet in sorted(self._events, key=lambda event: event[:2])]
        return b"".join(text(1, packet + number(10, SEQUENCE)) for packet in [first, *self._tracks, *events])

    def _event(self, kind: int, track: int, name: str, category: str, arguments: Mapping[str, Value] | None) -> bytes:
        body = number(9, kind) + number(11, track) + text(23, name)
        if category:
            body += text(22, category)
        return body + b"".join(text(4, annotation(key, value)) for key, value in (arguments or {}).items())

    def _add(self, at: int, order: int, body: bytes) -> None:
        self._events.append((at, order, number(8, at) + number(58, MONOTONIC) + text(11, body)))
