# SPDX-License-Identifier: Apache-2.0
"""Integer arithmetic. Float forms of the same opcodes are passed on to floating.py."""

from __future__ import annotations

from ..ctypes_map import C_TYPES, PAIRS, UNSIGNED, is_integer, is_signed, width
from . import floating
from .registry import TYPE_CHECKING, opcode

if TYPE_CHECKING:
    from ..emit import FunctionEmitter
    from ..syntax import Instruction


def _unsigned(kind: str) -> str:
    return "u" + str(width(kind))


def _wide(kind: str) -> str:
    """C type in which a product or sum of `kind` cannot overflow with undefined behaviour."""
    return UNSIGNED[max(32, width(kind))]


@opcode("add", "sub")
def add(e: FunctionEmitter, i: Instruction) -> None:
    kind = i.types[0]
    if not is_integer(kind):
        floating.binary(e, i)
        return
    d, a, b = i.operands
    sign = "+" if i.base == "add" else "-"
    if kind in PAIRS:
        x, y = e.read(a, "u32"), e.read(b, "u32")
        e.assign(d, "u32", f"((uint16_t)({x} {sign} {y})) | ((({x} >> 16) {sign} ({y} >> 16)) << 16)")
        return
    if "sat" in i.mods:
        low, high = "(-2147483647ll - 1)", "2147483647ll"
        t = e.temp()
        e.emit(f"const int64_t {t} = (int64_t){e.read(a, 's32')} {sign} (int64_t){e.read(b, 's32')};")
        e.assign(d, "s32", f"(int32_t)({t} < {low} ? {low} : {t} > {high} ? {high} : {t})")
        return
    x, y, wide = e.read(a, _unsigned(kind)), e.read(b, _unsigned(kind)), C_TYPES[_unsigned(kind)]
    if "cc" not in i.mods:
        e.assign(d, _unsigned(kind), f"({wide})({x} {sign} {y})")
        return
    e.uses_carry = True
    t = e.temp()
    no = "!" if i.base == "sub" else ""  # a GPU adds the complement: the carry says that nothing was borrowed
    e.emit(f"{{ {wide} {t}; CC = {no}__builtin_{i.base}_overflow(({wide}){x}, ({wide}){y}, &{t});")
    e.assign(d, _unsigned(kind), t)
    e.emit("}")


@opcode("addc", "subc")
def add_carry(e: FunctionEmitter, i: Instruction) -> None:
    e.uses_carry = True
    kind = _unsigned(i.types[0])
    d, a, b = i.operands
    t, u = e.temp(), e.temp()
    operation, c_type = i.base[:3], C_TYPES[kind]
    e.emit(f"{{ {c_type} {t}; _Bool {u} = __builtin_{operation}_overflow({e.read(a, kind)}, {e.read(b, kind)}, &{t});")
    no = "!" if operation == "sub" else ""
    e.emit(f"{u} |= __builtin_{operation}_overflow({t}, ({c_type}){no}CC, &{t});")
    e.assign(d, kind, t)
    e.emit(f"CC = {no}{u}; }}" if "cc" in i.mods else f"(void){u}; }}")


def product(e: FunctionEmitter, i: Instruction) -> tuple[str, str]:
    """C expression and PTX type of `a * b` of a mul or mad, with .lo, .hi or .wide."""
    kind = i.types[0]
    bits = width(kind)
    a, b = i.operands[1], i.operands[2]
    signed = is_signed(kind)
    letter = "s" if signed else "u"
    if "wide" in i.mods:
        double = f"{letter}{bits * 2}"
        c_type = C_TYPES[double]
        return f"({c_type})(({c_type}){e.read(a, kind)} * ({c_type}){e.read(b, kind)})", double
    if "hi" in i.mods:
        big = {64: ("gv_u128", "__int128")}.get(bits, ("uint64_t", "int64_t"))[signed]
        return f"({C_TYPES[kind]})((({big}){e.read(a, kind)} * ({big}){e.read(b, kind)}) >> {bits})", kind
    unsigned = _unsigned(kind)
    return f"({C_TYPES[unsigned]})(({_wide(kind)}){e.read(a, unsigned)} * {e.read(b, unsigned)})", unsigned


@opcode("mul")
def mul(e: FunctionEmitter, i: Instruction) -> None:
    if not is_integer(i.types[0]):
        floating.binary(e, i)
        return
    text, kind = product(e, i)
    e.assign(i.operands[0], kind, text)


@opcode("mad", "madc")
def mad(e: FunctionEmitter, i: Instruction) -> None:
    if not is_integer(i.types[0]):
        floating.fma(e, i)
        return
    d, c = i.operands[0], i.operands[3]
    text, kind = product(e, i)
    kind = _unsigned(kind)
    c_type = C_TYPES[kind]
    if "sat" in i.mods:
        t = e.temp()
        e.emit(f"const int64_t {t} = (int64_t)(int32_t){text} + {e.read(c, 's32')};")
        limits = f"{t} < -2147483647ll - 1 ? -2147483647ll - 1 : {t} > 2147483647ll ? 2147483647ll : {t}"
        e.assign(d, "s32", f"(int32_t)({limits})")
        return
    if i.base == "mad" and "cc" not in i.mods:
        e.assign(d, kind, f"({c_type})(({c_type}){text} + {e.read(c, kind)})")
        return
    e.uses_carry = True
    t, u = e.temp(), e.temp()
    e.emit(f"{{ {c_type} {t}; _Bool {u} = __builtin_add_overflow(({c_type}){text}, {e.read(c, kind)}, &{t});")
    if i.base == "madc":
        e.emit(f"{u} |= __builtin_add_overflow({t}, ({c_type})CC, &{t});")
    e.assign(d, kind, t)
    e.emit(f"CC = {u}; }}" if "cc" in i.mods else f"(void){u}; }}")


@opcode("mul24", "mad24")
def mul24(e: FunctionEmitter, i: Instruction) -> None:
    kind = i.types[0]
    signed = is_signed(kind)
    x, y = (e.read(o, "u32") for o in i.operands[1:3])
    if signed:
        x, y = (f"((int64_t)(int32_t)({v} << 8) >> 8)" for v in (x, y))
    else:
        x, y = (f"((uint64_t)({v} & 0xffffffu))" for v in (x, y))
    text = f"(uint32_t)({x} * {y}{' >> 16' if 'hi' in i.mods else ''})"
    if i.base == "mad24":
        text += f" + {e.read(i.operands[3], 'u32')}"
    e.assign(i.operands[0], "u32", text)


@opcode("div", "rem")
def div(e: FunctionEmitter, i: Instruction) -> None:
    kind = i.types[0]
    if not is_integer(kind):
        floating.binary(e, i)
        return
    d, a, b = i.operands
    letter = "s" if is_signed(kind) else "u"
    exact = f"{letter}{width(kind)}"
    if b.kind == "int" and b.value > 0:
        e.assign(
            d, exact, f"({C_TYPES[exact]})({e.read(a, exact)} {'/' if i.base == 'div' else '%'} {e.read(b, exact)})"
        )
    else:
        e.assign(d, exact, f"gv_{i.base}_{exact}({e.read(a, exact)}, {e.read(b, exact)})")


@opcode("abs", "neg")
def negate(e: FunctionEmitter, i: Instruction) -> None:
    kind = i.types[0]
    if not is_integer(kind):
        floating.sign(e, i)
        return
    d, a = i.operands
    unsigned = _unsigned(kind)
    minus = f"({C_TYPES[unsigned]})(0 - {e.read(a, unsigned)})"
    if i.base == "neg":
        e.assign(d, unsigned, minus)
    else:
        e.assign(d, unsigned, f"({e.read(a, kind)} < 0 ? {minus} : {e.read(a, unsigned)})")


@opcode("min", "max")
def minimum(e: FunctionEmitter, i: Instruction) -> None:
    kind = i.types[0]
    if not is_integer(kind):
        floating.minimum(e, i)
        return
    d = i.operands[0]
    sign = "<" if i.base == "min" else ">"
    if kind in PAIRS:
        c_type = "int16_t" if kind[0] == "s" else "uint16_t"
        x, y = e.read(i.operands[1], "u32"), e.read(i.operands[2], "u32")
        lanes = []
        for shift in (0, 16):
            p, q = f"({c_type})({x} >> {shift})", f"({c_type})({y} >> {shift})"
            lanes.append(f"(uint32_t)(uint16_t)({p} {sign} {q} ? {p} : {q}) << {shift}")
        e.assign(d, "u32", " | ".join(lanes))
        return
    x = e.read(i.operands[1], kind)
    for operand in i.operands[2:]:
        y = e.read(operand, kind)
        x = f"({x} {sign} {y} ? {x} : {y})"
    if "relu" in i.mods:
        x = f"({x} < 0 ? 0 : {x})"
    e.assign(d, kind, x)


@opcode("sad")
def sad(e: FunctionEmitter, i: Instruction) -> None:
    kind, unsigned = i.types[0], _unsigned(i.types[0])
    d, a, b, c = i.operands
    x, y = e.read(a, unsigned), e.read(b, unsigned)
    less = f"{e.read(a, kind)} < {e.read(b, kind)}"
    e.assign(d, unsigned, f"({C_TYPES[unsigned]})({e.read(c, unsigned)} + ({less} ? {y} - {x} : {x} - {y}))")


@opcode("dp4a", "dp2a")
def dot_product(e: FunctionEmitter, i: Instruction) -> None:
    a_signed, b_signed = (int(is_signed(kind)) for kind in i.types)
    values = ", ".join(e.read(o, "u32") for o in i.operands[1:])
    high = f", {int('hi' in i.mods)}" if i.base == "dp2a" else ""
    e.assign(i.operands[0], "u32", f"gv_{i.base}({values}, {a_signed}, {b_signed}{high})")
