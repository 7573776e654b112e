# SPDX-License-Identifier: Apache-2.0
"""cvt: between integers, floats and 16-bit floats, with rounding and saturation."""

from __future__ import annotations

from ..ctypes_map import C_TYPES, FLOATS, FP8_PAIRS, HALVES, PAIRS, is_integer, is_signed, width
from .floating import rounding
from .registry import TYPE_CHECKING, opcode

if TYPE_CHECKING:
    from ..emit import FunctionEmitter
    from ..syntax import Instruction, Operand

_TO_INTEGRAL = {"rni": "rint", "rzi": "trunc", "rmi": "floor", "rpi": "ceil"}


@opcode("cvt")
def convert(e: FunctionEmitter, i: Instruction) -> None:
    if len(i.types) < 2:
        raise e.error(f"opcode '{i.opcode}' is not supported by the soft GPU")
    to, source = i.types[0], i.types[1]
    d, a = i.operands[0], i.operands[1]
    if "pack" in i.mods:
        _pack(e, i)
    elif to in FP8_PAIRS:
        _to_fp8(e, i, to, source)
    elif source in FP8_PAIRS:
        _from_fp8(e, i, to, source)
    elif to in ("f16x2", "bf16x2"):
        low = _to_half(e, i, PAIRS[to], source, i.operands[2])
        high = _to_half(e, i, PAIRS[to], source, a)
        e.assign(d, "b32", f"(uint32_t){high} << 16 | {low}")
    elif to == "tf32":
        value = f"gv_relu({e.read(a, source)})" if "relu" in i.mods else e.read(a, source)
        e.assign(d, "b32", f"gv_tf32({value}, {int('rna' not in i.mods)})")
    elif is_integer(to) and is_integer(source):
        _integer(e, i, to, source)
    elif is_integer(to):
        _float_to_integer(e, i, to, source)
    elif to in HALVES:
        e.assign(d, "b16", _to_half(e, i, to, source, a))
    elif is_integer(source):
        _integer_to_float(e, i, to, source)
    else:
        _float_to_float(e, i, to, source)


def _integer(e: FunctionEmitter, i: Instruction, to: str, source: str) -> None:
    d, a = i.operands
    if "sat" not in i.mods:
        e.assign(d, to, f"({C_TYPES[to]}){e.read(a, source)}")
        return
    t = e.temp()
    e.emit(f"{{ const __int128 {t} = {e.read(a, source)};")
    low, high = _limits(to)
    e.assign(d, to, f"({C_TYPES[to]})({t} < {low} ? {low} : {t} > {high} ? {high} : {t})")
    e.emit("}")


def _limits(kind: str) -> tuple[str, str]:
    bits = width(kind)
    if is_signed(kind):
        return f"(__int128)INT{bits}_MIN", f"(__int128)INT{bits}_MAX"
    return "(__int128)0", f"(__int128)UINT{bits}_MAX"


def _float_to_integer(e: FunctionEmitter, i: Instruction, to: str, source: str) -> None:
    d, a = i.operands
    value = e.read(a, source)
    if source == "f32" and "ftz" in i.mods:
        value = f"gv_ftz({value})"
    for mod, function in _TO_INTEGRAL.items():
        if mod in i.mods and mod != "rzi":
            value = f"__builtin_{function}{'' if source == 'f64' else 'f'}({value})"
    bits = width(to)
    nan = f"({C_TYPES[to]})(1ull << {bits - 1})" if source == "f64" or bits == 64 else "0"
    e.assign(d, to, f"gv_to_{'s' if is_signed(to) else 'u'}{bits}({value}, {nan})")


def _integer_to_float(e: FunctionEmitter, i: Instruction, to: str, source: str) -> None:
    mode = rounding(i)
    value = e.read(i.operands[1], source)
    if mode:
        wide = "s64" if is_signed(source) or width(source) < 64 else "u64"
        text = f"gv_{to}_from_{wide}({value}, {mode})"
    else:
        text = f"({C_TYPES[to]}){value}"
    e.assign(i.operands[0], to, f"gv_sat_{to}({text})" if "sat" in i.mods else text)


def _to_half(e: FunctionEmitter, i: Instruction, to: str, source: str, operand: Operand) -> str:
    """Bits of a 16-bit float."""
    prefix = HALVES[to]
    value = e.read(operand, source)
    if is_integer(source):
        value = f"(double){value}"
    for mod, function in _TO_INTEGRAL.items():
        if mod in i.mods:
            value = f"__builtin_{function}({value})"
    if source == "f32" and "ftz" in i.mods:
        value = f"gv_ftz({value})"
    if "sat" in i.mods:
        value = f"gv_sat_f64({value})"
    if "relu" in i.mods:
        value = f"gv_relu({value})"
    mode = rounding(i)
    if mode:
        return f"{prefix}_narrow({value}, {mode})"
    if source in ("f32", "f16", "bf16"):
        return f"{prefix}_bits({value})"
    return f"{prefix}_bits(gv_round_to_odd({value}))"


def _float_to_float(e: FunctionEmitter, i: Instruction, to: str, source: str) -> None:
    value = e.read(i.operands[1], source)
    if source == "f32" and "ftz" in i.mods:
        value = f"gv_ftz({value})"
    for mod, function in _TO_INTEGRAL.items():
        if mod in i.mods:
            value = f"__builtin_{function}{'' if source == 'f64' else 'f'}({value})"
    if source == "f64" and to == "f32":
        mode = rounding(i)
        value = f"gv_f32(gv_f32_narrow({value}, {mode}))" if mode else f"(float){value}"
    if to == "f32" and "ftz" in i.mods:
        value = f"gv_ftz({value})"
    if "relu" in i.mods:
        value = f"gv_relu({value})"
    if "sat" in i.mods:
        value = f"gv_sat_{to}({value})"
    if to not in FLOATS:
        raise e.error(f"opcode '{i.opcode}' is not supported by the soft GPU")
    e.assign(i.operands[0], to, value)


def _to_fp8(e: FunctionEmitter, i: Instruction, to: str, source: str) -> None:
    """Two floats, or a pair of 16-bit ones, to 8 bits each; always .rn.satfinite."""
    if source in ("f16x2", "bf16x2"):
        t = e.temp()
        e.emit(f"{{ const uint32_t {t} = {e.read(i.operands[1], 'b32')};")
        values = [f"{HALVES[PAIRS[source]]}_value((uint16_t)({t} >> {shift}))" for shift in (16, 0)]
    else:
        e.emit("{")
        values = [e.read(operand, source) for operand in i.operands[1:3]]
    if "relu" in i.mods:
        values = [f"gv_relu({value})" for value in values]
    high, low = (f"{FP8_PAIRS[to]}_bits({value})" for value in values)
    e.assign(i.operands[0], "b16", f"(uint16_t)({high} << 8 | {low})")
    e.emit("}")


def _from_fp8(e: FunctionEmitter, i: Instruction, to: str, source: str) -> None:
    if to not in ("f16x2", "bf16x2"):
        raise e.error(f"opcode '{i.opcode}' is not supported by the soft GPU")
    t = e.temp()
    e.emit(f"{{ const uint16_t {t} = {e.read(i.operands[1], 'b16')};")
    lanes = []
    for shift in (0, 8):
        value = f"{FP8_PAIRS[source]}_value((uint8_t)({t} >> {shift}))"
        value = f"gv_relu({value})" if "relu" in i.mods else value
        lanes.append(f"(uint32_t){HALVES[PAIRS[to]]}_bits({value}) << {2 * shift}")
    e.assign(i.operands[0], "b32", " | ".join(lanes))
    e.emit("}")


def _pack(e: FunctionEmitter, i: Instruction) -> None:
    """cvt.pack.sat: two s32 to saturated lanes, the rest from c."""
    to = i.types[0]
    bits = width(to)
    if bits < 16 and len(i.operands) < 4:
        raise e.error(f"opcode '{i.opcode}' is not supported by the soft GPU")
    low, high = _limits(to)
    lanes = []
    for shift, operand in ((bits, i.operands[1]), (0, i.operands[2])):
        x = e.read(operand, i.types[1])
        clamped = f"({x} < {low} ? {low} : {x} > {high} ? {high} : {x})"
        lanes.append(f"(uint32_t)({C_TYPES[f'u{bits}']}){clamped} << {shift}")
    if len(i.operands) > 3:
        lanes.append(f"{e.read(i.operands[3], 'b32')} << {2 * bits}")
    e.assign(i.operands[0], "b32", " | ".join(lanes))
