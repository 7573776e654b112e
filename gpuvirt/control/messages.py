# SPDX-License-Identifier: Apache-2.0
"""The messages of messages.h as Python values, with strict checks on the way in.

decode() trusts nothing: length, magic, version, type and text are checked; ProtocolError names what is wrong.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass, fields
from typing import Any, ClassVar, TypeVar

from gpuvirt.control._control_block import ffi, lib
from gpuvirt.errors import ProtocolError

MAGIC: int = lib.GV_MESSAGE_MAGIC
VERSION: int = lib.GV_PROTOCOL_VERSION
TOKEN_BYTES: int = lib.GV_TOKEN_BYTES
TEXT_BYTES: int = lib.GV_TEXT_BYTES
UUID_BYTES: int = lib.GV_UUID_BYTES
SHARE_MAX: int = lib.GV_SHARE_MAX
USAGE_PROCESSES: int = lib.GV_USAGE_PROCESSES
HEADER_BYTES: int = ffi.sizeof("struct gv_message_header")


class MessageType(enum.IntEnum):
    """enum gv_message_type."""

    HELLO = lib.GV_HELLO
    WANT = lib.GV_WANT
    IDLE = lib.GV_IDLE
    DRAINED = lib.GV_DRAINED
    RESTORED = lib.GV_RESTORED
    EVICTED = lib.GV_EVICTED
    MEMORY = lib.GV_MEMORY
    EVENT = lib.GV_EVENT
    STUCK = lib.GV_STUCK
    BACK = lib.GV_BACK
    PROGRESS = lib.GV_PROGRESS
    CHARGE = lib.GV_CHARGE
    QUERY = lib.GV_QUERY
    SHARE = lib.GV_SHARE
    FETCH = lib.GV_FETCH
    WELCOME = lib.GV_WELCOME
    REFUSED = lib.GV_REFUSED
    RESTORE = lib.GV_RESTORE
    EVICT = lib.GV_EVICT
    WAKE = lib.GV_WAKE
    SHARED = lib.GV_SHARED
    BACKED = lib.GV_BACKED
    CREDIT = lib.GV_CREDIT
    USAGE = lib.GV_USAGE


class Message:
    """Base of all messages. Field names are those of the C structs."""

    TYPE: ClassVar[MessageType]
    STRUCT: ClassVar[str]


_registry: dict[int, type[Message]] = {}
M = TypeVar("M", bound=type[Message])


def _message(kind: MessageType, struct: str) -> Any:
    def register(cls: M) -> M:
        cls.TYPE = kind
        cls.STRUCT = f"struct {struct}"
        _registry[int(kind)] = cls
        return cls

    return register


@_message(MessageType.HELLO, "gv_hello")
@dataclass(frozen=True, slots=True)
class Hello(Message):
    minimum_version: int
    claimed_pid: int
    device: int
    reattach: int
    granularity: int
    device_total: int
    charged_bytes: int
    resident_bytes: int
    device_uuid: bytes
    token: str
    native_bytes: int = 0
    owner: int = 0


@_message(MessageType.WELCOME, "gv_welcome")
@dataclass(frozen=True, slots=True)
class Welcome(Message):
    generation: int
    client: int
    allowance: int
    quota: int
    arena_bytes: int
    owner: int = 0


@_message(MessageType.REFUSED, "gv_refused")
@dataclass(frozen=True, slots=True)
class Refused(Message):
    code: int
    reason: str


@_message(MessageType.WANT, "gv_want")
@dataclass(frozen=True, slots=True)
class Want(Message):
    charged_bytes: int
    resident_bytes: int
    native_bytes: int = 0


@_message(MessageType.IDLE, "gv_idle")
@dataclass(frozen=True, slots=True)
class Idle(Message):
    since_ns: int


@_message(MessageType.DRAINED, "gv_drained")
@dataclass(frozen=True, slots=True)
class Drained(Message):
    epoch: int


@_message(MessageType.RESTORE, "gv_restore")
@dataclass(frozen=True, slots=True)
class Restore(Message):
    allowance: int
    credit: int


@_message(MessageType.CREDIT, "gv_credit")
@dataclass(frozen=True, slots=True)
class Credit(Message):
    credit: int
    cancelled: int = 0


@_message(MessageType.PROGRESS, "gv_progress")
@dataclass(frozen=True, slots=True)
class Progress(Message):
    resident_bytes: int


@_message(MessageType.BACK, "gv_back")
@dataclass(frozen=True, slots=True)
class Back(Message):
    request: int
    segment: int
    count: int


@_message(MessageType.BACKED, "gv_backed")
@dataclass(frozen=True, slots=True)
class Backed(Message):
    request: int
    status: int
    missing: int = 0
    reason: str = ""


@_message(MessageType.EVICT, "gv_evict")
@dataclass(frozen=True, slots=True)
class Evict(Message):
    target: int


@dataclass(frozen=True, slots=True)
class Moved(Message):
    """What RESTORED and EVICTED have in common."""

    status: int
    charged_bytes: int
    resident_bytes: int
    moved_bytes: int
    short_bytes: int
    duration_ns: int
    native_bytes: int = 0
    zero_bytes: int = 0
    clean_bytes: int = 0
    duplicate_bytes: int = 0
    copy_ns: int = 0
    hash_ns: int = 0
    map_ns: int = 0


@_message(MessageType.RESTORED, "gv_moved")
@dataclass(frozen=True, slots=True)
class Restored(Moved):
    pass


@_message(MessageType.EVICTED, "gv_moved")
@dataclass(frozen=True, slots=True)
class Evicted(Moved):
    pass


@_message(MessageType.MEMORY, "gv_memory")
@dataclass(frozen=True, slots=True)
class Memory(Message):
    charged_bytes: int
    resident_bytes: int
    native_bytes: int


@_message(MessageType.EVENT, "gv_event")
@dataclass(frozen=True, slots=True)
class Event(Message):
    text: str


@_message(MessageType.STUCK, "gv_stuck")
@dataclass(frozen=True, slots=True)
class Stuck(Message):
    epoch: int
    waits: int


@_message(MessageType.SHARE, "gv_share")
@dataclass(frozen=True, slots=True)
class Share(Message):
    request: int
    count: int
    nonce: int
    first: int
    withdrawn: int


@_message(MessageType.FETCH, "gv_fetch")
@dataclass(frozen=True, slots=True)
class Fetch(Message):
    request: int
    pid: int
    nonce: int
    first: int
    count: int


@_message(MessageType.CHARGE, "gv_charge")
@dataclass(frozen=True, slots=True)
class Charge(Message):
    request: int
    charged_bytes: int
    asked_bytes: int


@_message(MessageType.SHARED, "gv_shared")
@dataclass(frozen=True, slots=True)
class Shared(Message):
    request: int
    status: int
    reason: str
    pid: int = 0
    count: int = 0
    nonce: int = 0
    first: int = 0


@_message(MessageType.WAKE, "gv_wake")
@dataclass(frozen=True, slots=True)
class Wake(Message):
    pass


@_message(MessageType.QUERY, "gv_query")
@dataclass(frozen=True, slots=True)
class Query(Message):
    device_uuid: bytes
    token: str


@dataclass(frozen=True, slots=True)
class UsageProcess:
    """One entry of USAGE."""

    pid: int
    host_pid: int
    charged_bytes: int
    peak_bytes: int
    busy_ns: int
    recent_ns: int
    window_ns: int
    attached_ns: int


@_message(MessageType.USAGE, "gv_usage")
@dataclass(frozen=True, slots=True)
class Usage(Message):
    """`count` of the struct is the length of `processes`, at most USAGE_PROCESSES."""

    generation: int
    quota: int
    charged: int
    now_ns: int
    processes: tuple[UsageProcess, ...]


LARGEST: int = max(ffi.sizeof(cls.STRUCT) for cls in _registry.values())


def encode(message: Message, version: int = VERSION) -> bytes:
    """The packet of a message. Text that is too long is cut at a character; a wrong UUID length is a ValueError."""
    struct = ffi.new(f"{message.STRUCT} *")
    size = ffi.sizeof(message.STRUCT)
    struct.header.magic = MAGIC
    struct.header.version = version
    struct.header.type = int(message.TYPE)
    struct.header.size = size
    for field in fields(message):  # type: ignore[arg-type]
        value = getattr(message, field.name)
        if isinstance(value, str):
            raw = value.encode()
            room = len(getattr(struct, field.name)) - 1
            value = raw[:room].decode(errors="ignore").encode()
            ffi.memmove(getattr(struct, field.name), value, len(value))
        elif isinstance(value, bytes):
            if len(value) != len(getattr(struct, field.name)):
                raise ValueError(f"{field.name} has {len(value)} bytes")
            ffi.memmove(getattr(struct, field.name), value, len(value))
        elif isinstance(value, tuple):
            _put_entries(struct, field.name, value)
        else:
            setattr(struct, field.name, value)
    return bytes(ffi.buffer(struct, size))


def _put_entries(struct: Any, name: str, entries: tuple[UsageProcess, ...]) -> None:
    if len(entries) > len(getattr(struct, name)):
        raise ValueError(f"{name} has {len(entries)} entries")
    struct.count = len(entries)
    for place, entry in zip(getattr(struct, name), entries, strict=False):
        for field in fields(entry):
            setattr(place, field.name, getattr(entry, field.name))


def _entries(struct: Any, places: Any) -> tuple[UsageProcess, ...]:
    if struct.count > len(places):
        raise ProtocolError(f"Usage says it has {struct.count} entries")
    names = [field.name for field in fields(UsageProcess)]
    return tuple(UsageProcess(*(int(getattr(places[i], name)) for name in names)) for i in range(struct.count))


def header_of(packet: bytes) -> tuple[int, int]:
    """(type, version) of a packet whose magic and size are right. Raises ProtocolError."""
    if len(packet) < HEADER_BYTES:
        raise ProtocolError(f"a packet of {len(packet)} bytes is shorter than a header")
    header = ffi.new("struct gv_message_header *")
    ffi.memmove(header, packet[:HEADER_BYTES], HEADER_BYTES)
    if header.magic != MAGIC:
        raise ProtocolError(f"magic 0x{header.magic:04x} is not gpuvirt's")
    if header.size != len(packet):
        raise ProtocolError(f"the header says {header.size} bytes, the packet has {len(packet)}")
    return int(header.type), int(header.version)


def decode(packet: bytes) -> Message:
    """The message in a packet. Raises ProtocolError, also for any version other than ours."""
    kind, version = header_of(packet)
    if version != VERSION:
        raise ProtocolError(f"protocol version {version}, this side speaks {VERSION}")
    cls = _registry.get(kind)
    if cls is None:
        raise ProtocolError(f"unknown message type {kind}")
    size = ffi.sizeof(cls.STRUCT)
    if len(packet) != size:
        raise ProtocolError(f"{cls.__name__} has {size} bytes, the packet {len(packet)}")
    struct = ffi.new(f"{cls.STRUCT} *")
    ffi.memmove(struct, packet, size)
    values: dict[str, Any] = {}
    for field in fields(cls):  # type: ignore[arg-type]
        value = getattr(struct, field.name)
        if field.type == "str":
            raw = bytes(ffi.buffer(value))
            text, terminator, _ = raw.partition(b"\0")
            if not terminator:
                raise ProtocolError(f"{cls.__name__}.{field.name} is not terminated")
            try:
                values[field.name] = text.decode()
            except UnicodeDecodeError:
                raise ProtocolError(f"{cls.__name__}.{field.name} is not UTF-8") from None
        elif field.type == "bytes":
            values[field.name] = bytes(ffi.buffer(value))
        elif field.type == "tuple[UsageProcess, ...]":
            values[field.name] = _entries(struct, value)
        else:
            values[field.name] = int(value)
    return cls(**values)
