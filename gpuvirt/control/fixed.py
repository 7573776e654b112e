# SPDX-License-Identifier: Apache-2.0
"""Fixed memory: device memory that gpuvirt does not move, by kind, with the reason for people.

The kinds are those of enum gv_fixed_kind (native/include/gpuvirt/control_block.h); a test holds the two together.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from gpuvirt.control._control_block import lib


@dataclass(frozen=True, slots=True)
class FixedKind:
    """One kind of fixed memory."""

    number: int  # in enum gv_fixed_kind
    name: str  # stable, for programs
    noun: str  # what it is, in the middle of a sentence
    reason: str  # why it stays where it is


KINDS: tuple[FixedKind, ...] = (
    FixedKind(lib.GV_FIXED_ARRAY, "arrays", "CUDA arrays", "arrays and mipmaps have no address that could be kept"),
    FixedKind(lib.GV_FIXED_MANAGED, "managed", "managed memory", "the driver itself moves it between host and device"),
    FixedKind(lib.GV_FIXED_GRAPH, "graphs", "memory of graphs", "the driver maps memory nodes while it launches"),
    FixedKind(lib.GV_FIXED_POOL, "pools", "shared pools", "pools shared with other processes belong to the driver"),
    FixedKind(lib.GV_FIXED_EXPORTED, "exported", "exported memory", "another process or device holds a handle of it"),
    FixedKind(lib.GV_FIXED_IMPORTED, "imported", "imported memory", "it belongs to somebody outside the job"),
    FixedKind(lib.GV_FIXED_EXTERNAL, "external", "external memory", "it belongs to a graphics or display API"),
    FixedKind(lib.GV_FIXED_MULTICAST, "multicast", "multicast memory", "it is bound to a multicast object"),
    FixedKind(lib.GV_FIXED_LIMITS, "limits", "heap and printf buffer", "the context holds them beyond their defaults"),
    FixedKind(lib.GV_FIXED_MAPPING, "mappings", "own mappings", "they are not plain memory of this device"),
)


def kinds_of(entries: Sequence[tuple[int, int]]) -> list[tuple[FixedKind, int, int]]:
    """(kind, bytes, pieces) of what is there, the largest first. entries: (bytes, pieces) by number."""
    found = [
        (kind, *entries[kind.number]) for kind in KINDS if kind.number < len(entries) and any(entries[kind.number])
    ]
    return sorted(found, key=lambda row: (-row[1], row[0].number))
