# SPDX-License-Identifier: Apache-2.0
"""PTX types as C types."""

from __future__ import annotations

from .syntax import TYPE_WIDTHS

C_TYPES = {
    "pred": "_Bool",
    "b8": "uint8_t", "u8": "uint8_t", "s8": "int8_t",
    "b16": "uint16_t", "u16": "uint16_t", "s16": "int16_t", "f16": "uint16_t", "bf16": "uint16_t",
    "b32": "uint32_t", "u32": "uint32_t", "s32": "int32_t", "f32": "float", "f16x2": "uint32_t",
    "bf16x2": "uint32_t", "u16x2": "uint32_t", "s16x2": "uint32_t", "tf32": "uint32_t",
    "b64": "uint64_t", "u64": "uint64_t", "s64": "int64_t", "f64": "double",
    "e4m3x2": "uint16_t", "e5m2x2": "uint16_t",
    "b128": "gv_u128",
}  # fmt: skip
"""C type that holds a value of the PTX type (f16 and bf16: their bits)."""

UNSIGNED = {8: "uint8_t", 16: "uint16_t", 32: "uint32_t", 64: "uint64_t", 128: "gv_u128"}
"""Unsigned C type of a width in bits."""

FLOATS = frozenset(("f32", "f64"))
HALVES = {"f16": "gv_f16", "bf16": "gv_bf16"}
"""16-bit floats and the prefix of their conversion functions; arithmetic happens in float."""

PAIRS = {"f16x2": "f16", "bf16x2": "bf16", "u16x2": "u16", "s16x2": "s16"}
"""Packed types and the type of a lane."""


FP8_PAIRS = {"e4m3x2": "gv_e4m3", "e5m2x2": "gv_e5m2"}
"""Two 8-bit floats in 16 bits, and the prefix of their conversion functions."""


def width(kind: str) -> int:
    """Width in bits of a PTX type."""
    return TYPE_WIDTHS[kind]


def is_signed(kind: str) -> bool:
    """Whether it is a signed integer type."""
    return kind[0] == "s"


def is_integer(kind: str) -> bool:
    """Whether it is an integer or bit type."""
    return kind[0] in "sub" and kind != "bf16" and kind != "bf16x2"


def integer_literal(value: int, kind: str) -> str:
    """A C constant of the integer type `kind`."""
    bits = TYPE_WIDTHS[kind]
    value &= (1 << bits) - 1
    if bits == 128:
        return f"((gv_u128){value >> 64:#x}ull << 64 | {value & ((1 << 64) - 1):#x}ull)"
    text = f"{value:#x}ull" if bits == 64 else f"{value:#x}u"
    if bits >= 32 and kind[0] != "s":
        return text
    return f"(({C_TYPES[kind]}){text})"
