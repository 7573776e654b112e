# SPDX-License-Identifier: Apache-2.0
"""Messages survive the way through C structs; anything else is a ProtocolError."""

from __future__ import annotations

from dataclasses import fields
from typing import Any, TypeVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvirt.control import messages
from gpuvirt.errors import ProtocolError

T = TypeVar("T")
u32, u64 = st.integers(0, (1 << 32) - 1), st.integers(0, (1 << 64) - 1)
text = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=15)
NARROW = {
    "pid",
    "host_pid",
    "minimum_version",
    "claimed_pid",
    "device",
    "reattach",
    "generation",
    "client",
    "code",
    "epoch",
    "waits",
    "status",
    "request",
    "count",
    "withdrawn",
    "segment",
    "owner",
    "cancelled",
}


def strategy(cls: type[T]) -> st.SearchStrategy[T]:
    kinds: dict[str, st.SearchStrategy[Any]] = {"str": text, "bytes": st.binary(min_size=16, max_size=16)}
    if cls is messages.Usage:
        kinds["tuple[UsageProcess, ...]"] = st.lists(strategy(messages.UsageProcess), max_size=3).map(tuple)
    values = {
        field.name: kinds.get(str(field.type), u32 if field.name in NARROW else u64)
        for field in fields(cls)  # type: ignore[arg-type]
    }
    return st.builds(cls, **values)


ALL = [getattr(messages, kind.name.capitalize()) for kind in messages.MessageType]


def test_every_type_has_a_class() -> None:
    assert {cls.TYPE for cls in ALL} == set(messages.MessageType)


@pytest.mark.parametrize("cls", ALL, ids=lambda cls: cls.__name__)
@given(data=st.data())
def test_round_trip(cls: type[messages.Message], data: st.DataObject) -> None:
    message = data.draw(strategy(cls))
    packet = messages.encode(message)
    assert messages.decode(packet) == message
    assert messages.header_of(packet) == (cls.TYPE, messages.VERSION)
    assert len(packet) <= messages.LARGEST


@given(st.binary(max_size=300))
def test_garbage_is_a_protocol_error(packet: bytes) -> None:
    with pytest.raises(ProtocolError):
        messages.decode(packet)


@given(data=st.data(), cut=st.integers(1, 100))
def test_truncated_and_lengthened_packets(data: st.DataObject, cut: int) -> None:
    packet = messages.encode(data.draw(strategy(messages.Hello)))
    for wrong in (packet[:-cut], packet + bytes(cut)):
        with pytest.raises(ProtocolError):
            messages.decode(wrong)


@given(data=st.data(), position=st.integers(0, 7), value=st.integers(0, 255))
def test_changed_header_bytes(data: st.DataObject, position: int, value: int) -> None:
    message = data.draw(strategy(messages.Want))
    packet = bytearray(messages.encode(message))
    if packet[position] == value:
        return
    packet[position] = value
    try:
        decoded = messages.decode(bytes(packet))
    except ProtocolError:
        return
    assert position == 4, "only another type of the same size may pass"
    assert type(decoded) is not messages.Want


def test_text_must_be_terminated_utf8() -> None:
    packet = bytearray(messages.encode(messages.Event("x")))
    start = messages.HEADER_BYTES
    packet[start:] = b"a" * (len(packet) - start)
    with pytest.raises(ProtocolError, match="not terminated"):
        messages.decode(bytes(packet))
    packet[start : start + 2] = b"\xff\0"
    with pytest.raises(ProtocolError, match="not UTF-8"):
        messages.decode(bytes(packet))


def test_long_text_is_cut_at_a_character() -> None:
    decoded = messages.decode(messages.encode(messages.Refused(1, "ä" * 500)))
    assert isinstance(decoded, messages.Refused)
    assert decoded.reason == "ä" * ((messages.TEXT_BYTES - 1) // 2)


def test_other_versions_are_seen_but_not_decoded() -> None:
    packet = messages.encode(messages.Wake(), version=9)
    assert messages.header_of(packet) == (messages.MessageType.WAKE, 9)
    with pytest.raises(ProtocolError, match="version 9"):
        messages.decode(packet)


def test_wrong_uuid_length() -> None:
    hello = messages.Hello(1, 1, 0, 0, 1, 1, 0, 0, b"short", "t")
    with pytest.raises(ValueError, match="5 bytes"):
        messages.encode(hello)


def test_usage_has_room_for_so_many_processes() -> None:
    entry = messages.UsageProcess(1, 1, 2, 3, 4, 5, 6, 7)
    full = messages.Usage(1, 2, 3, 4, (entry,) * messages.USAGE_PROCESSES)
    packet = messages.encode(full)
    assert messages.decode(packet) == full
    with pytest.raises(ValueError, match="65 entries"):
        messages.encode(messages.Usage(1, 2, 3, 4, (entry,) * (messages.USAGE_PROCESSES + 1)))
    lying = bytearray(packet)
    lying[12:16] = (messages.USAGE_PROCESSES + 1).to_bytes(4, "little")
    with pytest.raises(ProtocolError, match="65 entries"):
        messages.decode(bytes(lying))
