# SPDX-License-Identifier: Apache-2.0
"""Floating point: f32, f64, f16, bf16 and their packed pairs. Approximate functions are computed exactly."""

from __future__ import annotations

from ..ctypes_map import FLOATS, HALVES, PAIRS
from .registry import TYPE_CHECKING, opcode

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..emit import FunctionEmitter
    from ..syntax import Instruction, Operand

_SIGNS = {"add": "+", "sub": "-", "mul": "*", "div": "/"}
_MODES = {"rz": "GV_RZ", "rm": "GV_RM", "rp": "GV_RP"}


def rounding(i: Instruction) -> str:
    """Rounding mode for the runtime, or "" for round to nearest."""
    for mod in i.mods:
        if mod in _MODES:
            return _MODES[mod]
    return ""


def _read(e: FunctionEmitter, i: Instruction, operand: Operand, kind: str) -> str:
    text = e.read(operand, kind)
    return f"gv_ftz({text})" if kind == "f32" and "ftz" in i.mods else text


def _finish(e: FunctionEmitter, i: Instruction, kind: str, text: str) -> None:
    """Applies .ftz, .relu and .sat to a result and stores it."""
    if kind == "f32" and "ftz" in i.mods:
        text = f"gv_ftz({text})"
    if "relu" in i.mods:
        text = f"gv_relu({text})"
    if "sat" in i.mods:
        text = f"gv_sat_{'f64' if kind == 'f64' else 'f32'}({text})"
    e.assign(i.operands[0], kind, text)


def _pairs(e: FunctionEmitter, i: Instruction, kind: str, make: Callable[[list[str]], str]) -> None:
    """Packed pairs: `make` gives the bits of one lane from the float values of its operands."""
    prefix = HALVES[PAIRS[kind]]
    sources = []
    for operand in i.operands[1:]:
        t = e.temp()
        e.emit(f"const uint32_t {t} = {e.read(operand, 'b32')};")
        sources.append(t)
    lanes = []
    for shift in (0, 16):
        values = [f"{prefix}_value((uint16_t)({t} >> {shift}))" for t in sources]
        lanes.append(f"(uint32_t){make(values)} << {shift}")
    e.assign(i.operands[0], "b32", " | ".join(lanes))


def _half(e: FunctionEmitter, i: Instruction, kind: str, make: Callable[[list[str]], str]) -> None:
    """f16 or bf16: as one lane of a pair."""
    e.assign(i.operands[0], "b16", make([e.read(operand, kind) for operand in i.operands[1:]]))


def _small(e: FunctionEmitter, i: Instruction, kind: str, make: Callable[[list[str]], str]) -> bool:
    """Handles 16-bit floats; `make` works on C floats and gives a float. False for other types."""
    prefix = HALVES.get(PAIRS.get(kind, kind), "")
    if not prefix:
        return False

    def bits(values: list[str]) -> str:
        text = make(values)
        text = f"gv_sat_f32({text})" if "sat" in i.mods else text
        text = f"gv_relu({text})" if "relu" in i.mods else text
        return f"{prefix}_bits({text})"

    e.emit("{")
    (_pairs if kind in PAIRS else _half)(e, i, kind, bits)
    e.emit("}")
    return True


def binary(e: FunctionEmitter, i: Instruction) -> None:
    """add, sub, mul, div. The mixed form `add.f32.f16` widens the 16-bit operand."""
    kind = i.types[0]
    sign = _SIGNS[i.base]
    if _small(e, i, kind, lambda v: f"({v[0]} {sign} {v[1]})"):
        return
    source = i.types[-1] if i.types[-1] in HALVES else kind
    x = _read(e, i, i.operands[1], source)
    y = _read(e, i, i.operands[2], kind)
    mode = rounding(i)
    zero = "0.0f" if kind == "f32" else "0.0"
    if mode:
        _finish(e, i, kind, f"gv_{i.base}_{kind}({x}, {y}, {zero}, {mode})")
    else:
        _finish(e, i, kind, f"({x} {sign} {y})")


@opcode("fma")
def fma(e: FunctionEmitter, i: Instruction) -> None:
    """Fused multiply-add; also mad.f32 and mad.f64."""
    kind = i.types[0]
    prefix = HALVES.get(PAIRS.get(kind, kind), "")
    if prefix:

        def lane(v: list[str]) -> str:
            text = f"{prefix}_fma({v[0]}, {v[1]}, {v[2]})"
            for name, function in (("sat", "gv_sat_f32"), ("relu", "gv_relu")):
                if name in i.mods:
                    text = f"{prefix}_bits({function}({prefix}_value({text})))"
            return text

        e.emit("{")
        (_pairs if kind in PAIRS else _half)(e, i, kind, lane)
        e.emit("}")
        return
    source = i.types[-1] if i.types[-1] in HALVES else kind
    x, y = (_read(e, i, o, source) for o in i.operands[1:3])
    z = _read(e, i, i.operands[3], kind)
    mode = rounding(i)
    if mode:
        _finish(e, i, kind, f"gv_fma_{kind}({x}, {y}, {z}, {mode})")
    else:
        _finish(e, i, kind, f"__builtin_fma{'f' if kind == 'f32' else ''}({x}, {y}, {z})")


def sign(e: FunctionEmitter, i: Instruction) -> None:
    """abs and neg: on the sign bit, so that NaN keeps its payload."""
    kind = i.types[0]
    d, a = i.operands
    bits = {"f16": 0x8000, "bf16": 0x8000, "f16x2": 0x80008000, "bf16x2": 0x80008000}.get(kind)
    if bits is not None:
        container = "b32" if kind in PAIRS else "b16"
        x = e.read(a, container)
        e.assign(d, container, f"({x} ^ {bits:#x}u)" if i.base == "neg" else f"({x} & ~{bits:#x}u)")
        return
    x = _read(e, i, a, kind)
    suffix = "f" if kind == "f32" else ""
    _finish(e, i, kind, f"-{x}" if i.base == "neg" else f"__builtin_fabs{suffix}({x})")


def minimum(e: FunctionEmitter, i: Instruction) -> None:
    """min and max, of two or three operands, with .NaN and .xorsign.abs."""
    kind = i.types[0]
    name = f"gv_{i.base}_nan" if "NaN" in i.mods else f"gv_{i.base}"
    exact = "f64" if kind == "f64" else "f32"

    def fold(values: list[str]) -> str:
        suffix = "f" if exact == "f32" else ""
        sources = values
        if "xorsign" in i.mods or "abs" in i.mods:
            values = [f"__builtin_fabs{suffix}({v})" for v in values]
        text = values[0]
        for value in values[1:]:
            text = f"{name}_{exact}({text}, {value})"
        if "xorsign" in i.mods:
            signs = f"__builtin_copysign{suffix}(1, {sources[0]}) * __builtin_copysign{suffix}(1, {sources[1]})"
            text = f"__builtin_copysign{suffix}({text}, {signs})"
        return text

    if not _small(e, i, kind, fold):
        _finish(e, i, kind, fold([_read(e, i, o, kind) for o in i.operands[1:]]))


@opcode("copysign")
def copy_sign(e: FunctionEmitter, i: Instruction) -> None:
    kind = i.types[0]
    suffix = "f" if kind == "f32" else ""
    d, a, b = i.operands
    e.assign(d, kind, f"__builtin_copysign{suffix}({e.read(b, kind)}, {e.read(a, kind)})")


_FUNCTIONS = {"sin": "sin", "cos": "cos", "lg2": "log2", "ex2": "exp2", "tanh": "tanh", "sqrt": "sqrt"}


@opcode("sin", "cos", "lg2", "ex2", "tanh", "sqrt", "rsqrt", "rcp")
def function(e: FunctionEmitter, i: Instruction) -> None:
    kind = i.types[0]
    suffix = "" if kind == "f64" else "f"
    one = "1.0" if kind == "f64" else "1.0f"

    def apply(v: list[str]) -> str:
        if i.base == "rcp":
            return f"({one} / {v[0]})"
        if i.base == "rsqrt":
            return f"({one} / __builtin_sqrt{suffix}({v[0]}))"
        return f"__builtin_{_FUNCTIONS[i.base]}{suffix}({v[0]})"

    if _small(e, i, kind, apply):
        return
    x = _read(e, i, i.operands[1], kind)
    mode = rounding(i)
    if mode and i.base == "rcp" and kind in FLOATS:
        _finish(e, i, kind, f"gv_div_{kind}({one}, {x}, {one}, {mode})")
    elif mode and i.base == "sqrt":
        _finish(e, i, kind, f"gv_sqrt_{kind}({x}, {one}, {one}, {mode})")
    else:
        _finish(e, i, kind, apply([x]))
