# SPDX-License-Identifier: Apache-2.0
"""Logic, shifts, bit fields, permutations."""

from __future__ import annotations

from ..ctypes_map import C_TYPES, is_signed, width
from .registry import TYPE_CHECKING, opcode

if TYPE_CHECKING:
    from ..emit import FunctionEmitter
    from ..syntax import Instruction

_LOGIC = {"and": "&", "or": "|", "xor": "^"}


@opcode("and", "or", "xor")
def logic(e: FunctionEmitter, i: Instruction) -> None:
    kind = i.types[0]
    d, a, b = i.operands
    e.assign(d, kind, f"({C_TYPES[kind]})({e.read(a, kind)} {_LOGIC[i.base]} {e.read(b, kind)})")


@opcode("not")
def invert(e: FunctionEmitter, i: Instruction) -> None:
    kind = i.types[0]
    sign = "!" if kind == "pred" else "~"
    e.assign(i.operands[0], kind, f"({C_TYPES[kind]}){sign}{e.read(i.operands[1], kind)}")


@opcode("cnot")
def c_not(e: FunctionEmitter, i: Instruction) -> None:
    kind = i.types[0]
    e.assign(i.operands[0], kind, f"({C_TYPES[kind]}){e.read(i.operands[1], kind)} == 0")


@opcode("shl", "shr")
def shift(e: FunctionEmitter, i: Instruction) -> None:
    kind = i.types[0]
    d, a, b = i.operands
    bits = width(kind)
    exact = f"s{bits}" if i.base == "shr" and is_signed(kind) else f"u{bits}"
    sign = "<<" if i.base == "shl" else ">>"
    if b.kind == "int" and 0 <= b.value < bits:
        e.assign(d, exact, f"({C_TYPES[exact]})({e.read(a, exact)} {sign} {b.value})")
    else:
        name = f"gv_shl_{bits}" if i.base == "shl" else f"gv_shr_{exact}"
        e.assign(d, exact, f"{name}({e.read(a, exact)}, {e.read(b, 'u32')})")


@opcode("shf")
def funnel_shift(e: FunctionEmitter, i: Instruction) -> None:
    d, a, b, c = i.operands
    n = e.read(c, "u32")
    amount = f"({n} > 32 ? 32 : {n})" if "clamp" in i.mods else f"({n} & 31)"
    side = "l" if "l" in i.mods else "r"
    e.assign(d, "u32", f"gv_shf_{side}({e.read(a, 'u32')}, {e.read(b, 'u32')}, {amount})")


@opcode("popc", "clz")
def count(e: FunctionEmitter, i: Instruction) -> None:
    bits = width(i.types[0])
    a = e.read(i.operands[1], f"u{bits}")
    e.assign(i.operands[0], "u32", f"gv_clz_{bits}({a})" if i.base == "clz" else f"(uint32_t)__builtin_popcountll({a})")


@opcode("brev")
def reverse(e: FunctionEmitter, i: Instruction) -> None:
    bits = width(i.types[0])
    e.assign(i.operands[0], f"u{bits}", f"gv_brev_{bits}({e.read(i.operands[1], f'u{bits}')})")


@opcode("bfind")
def find(e: FunctionEmitter, i: Instruction) -> None:
    kind = i.types[0]
    bits = width(kind)
    a = e.read(i.operands[1], kind)
    position = f"gv_bfind_s64({a})" if is_signed(kind) else f"gv_bfind_u64({a})"
    t = e.temp()
    e.emit(f"const uint32_t {t} = {position};")
    e.assign(i.operands[0], "u32", f"({t} == 0xffffffffu ? {t} : {bits - 1} - {t})" if "shiftamt" in i.mods else t)


@opcode("bfe")
def extract(e: FunctionEmitter, i: Instruction) -> None:
    kind = i.types[0]
    d, a, b, c = i.operands
    bits = width(kind)
    position, length = e.read(b, "u32"), e.read(c, "u32")
    value = e.read(a, f"u{bits}")
    if is_signed(kind):
        text = f"gv_bfe_s64({value}, {position}, {length}, {bits})"
    else:
        text = f"gv_bfe_u64({value}, {position}, {length})"
    e.assign(d, f"u{bits}", f"({C_TYPES[f'u{bits}']}){text}")


@opcode("bfi")
def insert(e: FunctionEmitter, i: Instruction) -> None:
    kind = f"u{width(i.types[0])}"
    d, a, b, position, length = i.operands
    text = f"gv_bfi({e.read(a, kind)}, {e.read(b, kind)}, {e.read(position, 'u32')}, {e.read(length, 'u32')})"
    e.assign(d, kind, f"({C_TYPES[kind]}){text}")


@opcode("bmsk")
def mask(e: FunctionEmitter, i: Instruction) -> None:
    d, a, b = i.operands
    e.assign(d, "u32", f"gv_bmsk({e.read(a, 'u32')}, {e.read(b, 'u32')}, {int('clamp' in i.mods)})")


@opcode("szext")
def extend(e: FunctionEmitter, i: Instruction) -> None:
    d, a, b = i.operands
    kind = i.types[0]
    n = e.read(b, "u32")
    bits = f"({n} & 31)" if "wrap" in i.mods else f"({n} > 32 ? 32 : {n})"
    name = (
        f"gv_bfe_s64({e.read(a, 'u32')}, 0, {bits}, 32)"
        if is_signed(kind)
        else f"gv_bfe_u64({e.read(a, 'u32')}, 0, {bits})"
    )
    e.assign(d, "u32", f"(uint32_t){name}")


_PRMT_MODES = ("f4e", "b4e", "rc8", "ecl", "ecr", "rc16")


@opcode("prmt")
def permute(e: FunctionEmitter, i: Instruction) -> None:
    values = ", ".join(e.read(o, "u32") for o in i.operands[1:])
    for number, mode in enumerate(_PRMT_MODES):
        if mode in i.mods:
            e.assign(i.operands[0], "u32", f"gv_prmt_mode({values}, {number})")
            return
    e.assign(i.operands[0], "u32", f"gv_prmt({values})")


@opcode("lop3")
def lop3(e: FunctionEmitter, i: Instruction) -> None:
    operands = list(i.operands)
    d = operands.pop(0)
    a, b, c = (e.read(o, "u32") for o in operands[:3])
    text = f"gv_lop3({a}, {b}, {c}, {operands[3].value}u)"
    if d.kind != "pair":
        e.assign(d, "u32", text)
        return
    t = e.temp()
    sign = "||" if "or" in i.mods else "&&"
    e.emit(f"{{ const uint32_t {t} = {text}; const _Bool q{t} = {e.read(operands[4], 'pred')};")
    e.assign(d.items[0], "u32", t)
    e.assign(d.items[1], "pred", f"{t} != 0 {sign} q{t}")
    e.emit("}")


@opcode("fns")
def find_nth(e: FunctionEmitter, i: Instruction) -> None:
    d, mask_operand, base, offset = i.operands
    text = f"gv_fns({e.read(mask_operand, 'u32')}, {e.read(base, 'u32')}, {e.read(offset, 's32')})"
    e.assign(d, "u32", text)
