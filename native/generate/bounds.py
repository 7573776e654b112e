# SPDX-License-Identifier: Apache-2.0
"""Which copies and memsets must stay inside one allocation: those with plain device addresses and a length in bytes.

Governed allocations lie side by side in one mapping, so the driver cannot see the end of one: the shim asks its own
table (native/shim/bounds.h) before such a call.
"""

from __future__ import annotations

import re

from headers import Symbol

UNIT = re.compile(r"^cuMemsetD(2D)?(8|16|32)(Async)?$")


def _device_addresses(symbol: Symbol) -> list[str]:
    return [p.name for p in symbol.parameters if p.type == "CUdeviceptr"]


def length_of(symbol: Symbol) -> str | None:
    """C expression of the bytes that a call touches at each of its addresses; None: it says that in another way."""
    names = {p.name for p in symbol.parameters}
    if not symbol.base.startswith(("cuMemcpy", "cuMemset")) or not _device_addresses(symbol):
        return None
    if "ByteCount" in names:
        return "ByteCount"
    unit = UNIT.match(symbol.base)
    if unit is None:
        return None
    size = int(unit.group(2)) // 8
    if unit.group(1):
        return f"gv_bounds_plane(dstPitch, (uint64_t)Width * {size}, Height)"
    return f"(uint64_t)N * {size}"


def before(symbol: Symbol) -> list[str]:
    """Lines that refuse a call which leaves an allocation."""
    length = length_of(symbol)
    if length is None:
        return []
    checks = " || ".join(f"gv_bounds_left({name}, {length})" for name in _device_addresses(symbol))
    return [f"    if (__builtin_expect({checks}, 0))", "        return CUDA_ERROR_INVALID_VALUE;"]


def after(symbol: Symbol) -> list[str]:
    """Lines that wait for the end where CU_POINTER_ATTRIBUTE_SYNC_MEMOPS asks for that (synchronous calls only)."""
    if length_of(symbol) is None or "Async" in symbol.base:
        return []
    addresses = _device_addresses(symbol)
    second = addresses[1] if len(addresses) > 1 else "0"
    return [
        "    if (__builtin_expect(__atomic_load_n(&gv_memory.any_sync_memops, __ATOMIC_RELAXED), 0))",
        f"        gv_bounds_finish(result, {addresses[0]}, {second}, {int(symbol.variant != '')});",
    ]
