# SPDX-License-Identifier: Apache-2.0
"""atom and red. Shared memory belongs to one block whose threads take turns, so plain updates do there."""

from __future__ import annotations

from ..ctypes_map import C_TYPES, HALVES, PAIRS, is_signed, width
from .memory import state_space
from .registry import TYPE_CHECKING, opcode

if TYPE_CHECKING:
    from ..emit import FunctionEmitter
    from ..syntax import Instruction, Operand

_FETCH = {"add": "add", "and": "and", "or": "or", "xor": "xor"}


def _operation(e: FunctionEmitter, i: Instruction) -> str:
    for mod in i.mods:
        if mod in ("add", "and", "or", "xor", "exch", "cas", "inc", "dec", "min", "max"):
            return mod
    raise e.error(f"opcode '{i.opcode}' is not supported by the soft GPU")


@opcode("atom", "red")
def atomic(e: FunctionEmitter, i: Instruction) -> None:
    operation = _operation(e, i)
    operands = list(i.operands)
    d = operands.pop(0) if i.base == "atom" else None
    kind = i.types[-1]
    space = state_space(i)
    if operands[1].kind == "vec":
        _vector(e, i, operation, kind, d)
        return
    at, value, old = e.temp(), e.temp(), e.temp()
    is_float = kind in ("f32", "f64")
    moved = f"b{width(kind)}"  # type in which memory is updated
    e.emit(f"{{ const uint64_t {at} = {e.address(operands[0], space)};")
    if operation == "cas":
        _compare_and_swap(e, i, at, old, moved, space == "shared")
        if d is not None:
            e.assign(d, moved, old)
        e.emit("}")
        return
    read_kind = kind if is_float or is_signed(kind) else moved
    e.emit(f"const {C_TYPES[read_kind]} {value} = {e.read(operands[1], read_kind)};")
    expression = _expression(operation, kind, value)
    c_type = C_TYPES[moved]
    if space == "shared":
        text = f"GV_PLAIN_UPDATE({c_type}, {at}, {expression})"
    elif operation == "exch" and width(kind) <= 64:
        text = f"__atomic_exchange_n(({c_type} *)(uintptr_t){at}, {value}, __ATOMIC_SEQ_CST)"
    elif operation in _FETCH and not is_float and kind not in HALVES and kind not in PAIRS:
        text = f"__atomic_fetch_{operation}(({c_type} *)(uintptr_t){at}, {value}, __ATOMIC_SEQ_CST)"
    elif kind == "b128":
        text = f"gv_exchange_128({at}, {value})"
    else:
        text = f"GV_ATOMIC_LOOP({c_type}, {at}, {expression})"
    if d is None:
        e.emit(f"(void){text};")
    else:
        e.assign(d, moved, text)
    e.emit("}")


def _vector(e: FunctionEmitter, i: Instruction, operation: str, kind: str, d: Operand | None) -> None:
    """`.v2` to `.v8` of floats: each element is atomic, the vector is not."""
    address, source = i.operands[-2:]
    at = e.temp()
    c_type = C_TYPES[f"b{width(kind)}"]
    read_kind = kind if kind == "f32" else f"b{width(kind)}"
    e.emit(f"{{ const uint64_t {at} = {e.address(address, state_space(i))};")
    results = []
    for number, item in enumerate(source.items):
        value, old = e.temp(), e.temp()
        e.emit(f"const {C_TYPES[read_kind]} {value} = {e.read(item, read_kind)};")
        place = f"{at} + {number * width(kind) // 8}"
        e.emit(f"const {c_type} {old} = GV_ATOMIC_LOOP({c_type}, {place}, {_expression(operation, kind, value)});")
        results.append(old)
    for item, old in zip(d.items if d is not None else [], results, strict=False):
        e.assign(item, f"b{width(kind)}", old)
    e.emit("}")


def _compare_and_swap(e: FunctionEmitter, i: Instruction, at: str, old: str, kind: str, shared: bool) -> None:
    operands = i.operands[1:]
    expected, desired = e.read(operands[1], kind), e.read(operands[2], kind)
    c_type = C_TYPES[kind]
    if kind == "b128":
        e.emit(f"{c_type} {old} = gv_cas_128({at}, {expected}, {desired});")
    elif shared:
        e.emit(f"const {c_type} n{old} = {desired}; {c_type} {old} = {expected};")
        e.emit(f"{old} = GV_PLAIN_UPDATE({c_type}, {at}, old == {old} ? n{old} : old);")
    else:
        e.emit(f"{c_type} {old} = {expected};")
        e.emit(
            f"__atomic_compare_exchange_n(({c_type} *)(uintptr_t){at}, &{old}, {desired}, 0, "
            "__ATOMIC_SEQ_CST, __ATOMIC_SEQ_CST);"
        )


def _expression(operation: str, kind: str, value: str) -> str:
    """New bits of the memory, from its bits `old` and `value`."""
    if kind in PAIRS and kind in ("f16x2", "bf16x2"):
        lane = PAIRS[kind]
        low = _expression(operation, lane, f"(uint16_t){value}").replace("old", "(uint16_t)old")
        high = _expression(operation, lane, f"(uint16_t)({value} >> 16)").replace("old", "(uint16_t)(old >> 16)")
        return f"(uint32_t){low} | (uint32_t){high} << 16"
    if operation == "exch":
        return value
    if operation == "inc":
        return f"old >= {value} ? 0 : old + 1"
    if operation == "dec":
        return f"old == 0 || old > {value} ? {value} : old - 1"
    if operation in ("and", "or", "xor"):
        return f"old {({'and': '&', 'or': '|', 'xor': '^'})[operation]} {value}"
    if kind in ("f32", "f64"):
        x, back = (f"gv_{kind}(old)", "gv_u32" if kind == "f32" else "gv_u64")
        text = f"{x} + {value}" if operation == "add" else f"gv_{operation}_{kind}({x}, {value})"
        return f"{back}({text})"
    if kind in HALVES:
        prefix = HALVES[kind]
        x, y = f"{prefix}_value(old)", f"{prefix}_value({value})"
        text = f"{x} + {y}" if operation == "add" else f"gv_{operation}_f32({x}, {y})"
        return f"{prefix}_bits({text})"
    if operation == "add":
        return f"old + {value}"
    c_type = C_TYPES[kind]
    sign = "<" if operation == "min" else ">"
    return f"({c_type})old {sign} ({c_type}){value} ? old : {value}"
