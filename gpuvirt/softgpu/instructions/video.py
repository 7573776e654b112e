# SPDX-License-Identifier: Apache-2.0
"""SIMD video instructions: two or four lanes in a 32-bit register (CUDA's __vabsdiff*, __vsad* and their kin)."""

from __future__ import annotations

from ..ctypes_map import is_signed
from .compare import comparison
from .registry import TYPE_CHECKING, opcode

if TYPE_CHECKING:
    from ..emit import FunctionEmitter
    from ..syntax import Instruction

_OPERATIONS = {
    "vadd": "{a} + {b}",
    "vsub": "{a} - {b}",
    "vavrg": "({a} + {b} + ({a} + {b} >= 0)) >> 1",
    "vabsdiff": "{a} < {b} ? {b} - {a} : {a} - {b}",
    "vmin": "{a} < {b} ? {a} : {b}",
    "vmax": "{a} > {b} ? {a} : {b}",
}


@opcode(*(name + lanes for name in (*_OPERATIONS, "vset") for lanes in "24"))
def lanes(e: FunctionEmitter, i: Instruction) -> None:
    name, count = i.base[:-1], int(i.base[-1])
    bits = 32 // count
    if name == "vset":
        result_type = "u32"
        a_type, b_type = i.types
        condition = i.mods[-2] if i.mods[-1] == "add" else i.mods[-1]
        operation = comparison(condition, "{a}", "{b}", False)
    else:
        result_type, a_type, b_type = i.types
        operation = _OPERATIONS[name]
    x, y, total = e.temp(), e.temp(), e.temp()
    e.emit(f"{{ const uint32_t {x} = {e.read(i.operands[1], 'u32')}, {y} = {e.read(i.operands[2], 'u32')};")
    e.emit(f"uint32_t {total} = {e.read(i.operands[3], 'u32') if 'add' in i.mods else '0'};")
    for lane in range(count):
        a, b, value = e.temp(), e.temp(), e.temp()
        for lane_name, source, kind in ((a, x, a_type), (b, y, b_type)):
            e.emit(f"const int32_t {lane_name} = {_lane(source, lane * bits, bits, is_signed(kind))};")
        e.emit(f"int32_t {value} = {operation.format(a=a, b=b)};")
        signed = is_signed(result_type)
        if "sat" in i.mods:
            low, high = (-(1 << bits - 1), (1 << bits - 1) - 1) if signed else (0, (1 << bits) - 1)
            e.emit(f"{value} = {value} < {low} ? {low} : {value} > {high} ? {high} : {value};")
        if "add" in i.mods:
            e.emit(f"{total} += (uint32_t){_lane(f'((uint32_t){value})', 0, bits, signed)};")
        else:
            e.emit(f"{total} |= ((uint32_t){value} & {(1 << bits) - 1:#x}u) << {lane * bits};")
    e.assign(i.operands[0], "u32", total)
    e.emit("}")


def _lane(source: str, shift: int, bits: int, signed: bool) -> str:
    return f"({'' if signed else 'u'}int{bits}_t)({source} >> {shift})"
