# SPDX-License-Identifier: Apache-2.0
"""The layout of an arena (store.h) for Python: where its parts are, its first header."""

from __future__ import annotations

from dataclasses import dataclass

from gpuvirt.control._control_block import ffi, lib
from gpuvirt.errors import ProtocolError

PAGE_BYTES: int = lib.GV_STORE_PAGE_BYTES
OWNERS: int = lib.GV_STORE_OWNERS
KEY_BYTES: int = lib.GV_STORE_KEY_BYTES
HEADER_BYTES: int = ffi.sizeof("struct gv_store")
ALIVE_AT: int = ffi.offsetof("struct gv_store", "alive")
DEATHS_AT: int = ffi.offsetof("struct gv_store", "deaths")
ALIVE_BYTES = 8 * int(lib.GV_STORE_OWNER_WORDS)


@dataclass(frozen=True, slots=True)
class Layout:
    """Offsets and sizes in bytes; counts."""

    segment_bytes: int
    segments: int
    tables: int  # from the beginning to the end of the last table
    data_at: int


def layout_of(size: int, segment_slots: int) -> Layout:
    """Of a file of `size` bytes. Raises ProtocolError where it has no room for a segment."""
    layout = ffi.new("struct gv_store_layout *")
    if lib.gv_store_layout(size, segment_slots, layout) != 0:
        raise ProtocolError(f"an arena of {size} bytes has no room for a segment of {segment_slots} pages")
    tables = layout.slots_at + layout.slot_count * ffi.sizeof("struct gv_slot_entry")
    return Layout(layout.segment_bytes, layout.segment_count, tables, layout.data_at)


def first_header(size: int, segment_slots: int, key: bytes, *, verify: bool) -> bytes:
    """The first bytes of a new file; all others are zero. Raises OSError."""
    header = ffi.new("struct gv_store *")
    flags = lib.GV_STORE_VERIFY if verify else 0
    error = lib.gv_store_first(size, segment_slots, flags, key, header)
    if error != 0:
        raise OSError(error, "no lock for an arena")
    return bytes(ffi.buffer(header))


def parse_header(raw: bytes) -> tuple[int, int, int]:
    """(pages of a segment, bits of the owners said to live, deaths so far). Raises ProtocolError if it is no arena."""
    header = ffi.new("struct gv_store *")
    ffi.memmove(header, raw, min(len(raw), HEADER_BYTES))
    if header.magic != lib.GV_STORE_MAGIC or header.version != lib.GV_STORE_VERSION or header.size != HEADER_BYTES:
        raise ProtocolError("it is no arena of this version")
    alive = sum(int(word) << 64 * n for n, word in enumerate(header.alive))
    return int(header.segment_slots), alive, int(header.deaths)
