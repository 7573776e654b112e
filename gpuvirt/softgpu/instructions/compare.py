# SPDX-License-Identifier: Apache-2.0
"""Comparison and selection."""

from __future__ import annotations

from ..ctypes_map import FLOATS, HALVES, PAIRS, width
from .registry import TYPE_CHECKING, opcode

if TYPE_CHECKING:
    from ..emit import FunctionEmitter
    from ..syntax import Instruction

_ORDERED = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
_UNSIGNED = {"lo": "<", "ls": "<=", "hi": ">", "hs": ">="}
_UNORDERED = {"equ": "!=", "neu": "==", "ltu": ">=", "leu": ">", "gtu": "<=", "geu": "<"}  # negated opposites


def comparison(operator: str, x: str, y: str, is_float: bool) -> str:
    """C condition of a PTX comparison; x and y must have no side effects."""
    if operator in _ORDERED:
        if operator == "ne" and is_float:  # false for NaN, unlike C's
            return f"({x} < {y} || {x} > {y})"
        return f"({x} {_ORDERED[operator]} {y})"
    if operator in _UNSIGNED:
        return f"({x} {_UNSIGNED[operator]} {y})"
    if operator == "equ":
        return f"!({x} < {y} || {x} > {y})"
    if operator in _UNORDERED:
        return f"!({x} {_UNORDERED[operator]} {y})"
    if operator == "num":
        return f"!__builtin_isunordered({x}, {y})"
    return f"__builtin_isunordered({x}, {y})"  # nan


def _operator(e: FunctionEmitter, i: Instruction) -> str:
    operator = i.mods[0]
    if operator in _ORDERED or operator in _UNSIGNED or operator in _UNORDERED or operator in ("num", "nan"):
        return operator
    raise e.error(f"comparison '{i.opcode}' is not supported by the soft GPU")


def _condition(e: FunctionEmitter, i: Instruction, kind: str, operator: str) -> str:
    a, b = i.operands[1], i.operands[2]
    if operator in _UNSIGNED:
        kind = f"u{width(kind)}"
    is_float = kind in FLOATS or kind in HALVES
    x, y = e.read(a, kind), e.read(b, kind)
    if kind == "f32" and "ftz" in i.mods:
        x, y = f"gv_ftz({x})", f"gv_ftz({y})"
    return comparison(operator, x, y, is_float)


def _combined(e: FunctionEmitter, i: Instruction, condition: str) -> str:
    if len(i.operands) < 4:
        return condition
    sign = {"and": "&", "or": "|", "xor": "^"}[i.mods[1]]
    return f"({condition} {sign} {e.read(i.operands[3], 'pred')})"


@opcode("setp")
def set_predicate(e: FunctionEmitter, i: Instruction) -> None:
    kind, operator = i.types[-1], _operator(e, i)
    d = i.operands[0]
    if kind in PAIRS:
        _set_pair(e, i, kind, operator)
        return
    condition = _condition(e, i, kind, operator)
    if d.kind != "pair":
        e.assign(d, "pred", _combined(e, i, condition))
        return
    t, u = e.temp(), e.temp()
    e.emit(f"{{ const _Bool {t} = {_combined(e, i, condition)}; const _Bool {u} = {_combined(e, i, '!' + condition)};")
    e.assign(d.items[0], "pred", t)
    e.assign(d.items[1], "pred", u)
    e.emit("}")


def _pair_conditions(e: FunctionEmitter, i: Instruction, kind: str, operator: str) -> list[str]:
    convert = HALVES[PAIRS[kind]] + "_value"
    x, y = e.read(i.operands[1], "u32"), e.read(i.operands[2], "u32")
    result = []
    for shift in (0, 16):
        p, q = f"{convert}((uint16_t)({x} >> {shift}))", f"{convert}((uint16_t)({y} >> {shift}))"
        result.append(comparison(operator, p, q, True))
    return result


def _set_pair(e: FunctionEmitter, i: Instruction, kind: str, operator: str) -> None:
    low, high = (_combined(e, i, c) for c in _pair_conditions(e, i, kind, operator))
    d = i.operands[0]
    t = e.temp()
    e.emit(f"{{ const _Bool {t} = {low}, h{t} = {high};")
    e.assign(d.items[0], "pred", t)
    e.assign(d.items[1], "pred", f"h{t}")
    e.emit("}")


@opcode("set")
def set_value(e: FunctionEmitter, i: Instruction) -> None:
    kind, source, operator = i.types[0], i.types[-1], _operator(e, i)
    d = i.operands[0]
    if source in PAIRS:
        low, high = (_combined(e, i, c) for c in _pair_conditions(e, i, source, operator))
        one = {"f16x2": "0x3c00u", "bf16x2": "0x3f80u"}.get(kind, "0xffffu")
        e.assign(d, "u32", f"({low} ? {one} : 0u) | ({high} ? {one} << 16 : 0u)")
        return
    condition = _combined(e, i, _condition(e, i, source, operator))
    if kind == "f32" or kind in HALVES:
        e.assign(d, kind, f"({condition} ? 1.0f : 0.0f)")
    else:
        e.assign(d, kind, f"({condition} ? -1 : 0)")


@opcode("selp")
def select(e: FunctionEmitter, i: Instruction) -> None:
    d, a, b, p = i.operands
    kind = i.types[0]
    if kind not in FLOATS:
        kind = f"b{width(kind)}"
    if e.is_float(d):
        kind = f"f{width(kind)}"
    chosen, other = (e.read_moved(operand, i.types[0], kind) for operand in (a, b))
    e.assign(d, kind, f"({e.read(p, 'pred')} ? {chosen} : {other})")


@opcode("slct")
def select_by_sign(e: FunctionEmitter, i: Instruction) -> None:
    d, a, b, c = i.operands
    kind = i.types[0] if i.types[0] in FLOATS else f"b{width(i.types[0])}"
    test = e.read(c, i.types[1])
    if i.types[1] == "f32" and "ftz" in i.mods:
        test = f"gv_ftz({test})"
    e.assign(d, kind, f"({test} >= 0 ? {e.read(a, kind)} : {e.read(b, kind)})")


@opcode("testp")
def test_property(e: FunctionEmitter, i: Instruction) -> None:
    a = e.read(i.operands[1], i.types[0])
    texts = {
        "finite": f"__builtin_isfinite({a})",
        "infinite": f"__builtin_isinf({a}) != 0",
        "number": f"!__builtin_isnan({a})",
        "notanumber": f"__builtin_isnan({a})",
        "normal": f"__builtin_isnormal({a})",
        "subnormal": f"(__builtin_isfinite({a}) && !__builtin_isnormal({a}) && {a} != 0)",
    }
    e.assign(i.operands[0], "pred", texts[i.mods[0]])
