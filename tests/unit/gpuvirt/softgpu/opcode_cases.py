# SPDX-License-Identifier: Apache-2.0
"""Single instructions with their meaning in Python, on bit patterns.

A case computes %d from %a, %b, %c. `inputs` and `output` are PTX types; the reference gets and returns Python integers
(signed for s types) or numpy floats.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np


class Case:
    """One instruction (or a few) and its reference."""

    def __init__(self, code: str, inputs: str, output: str, reference: Callable[..., Any]) -> None:
        self.code = code
        self.inputs = inputs.split()
        self.output = output
        self.reference = reference


def clamp(value: int, low: int, high: int) -> int:
    return max(low, min(high, value))


def _bits(x: int, n: int) -> str:
    return f"{x & (1 << n) - 1:0{n}b}"


def _prmt(a: int, b: int, c: int) -> int:
    data = (b << 32 | a).to_bytes(8, "little")
    out = []
    for k in range(4):
        s = c >> 4 * k & 15
        byte = data[s & 7]
        out.append((0xFF if byte & 0x80 else 0) if s & 8 else byte)
    return int.from_bytes(bytes(out), "little")


def _bfe(a: int, b: int, c: int, n: int, signed: bool) -> int:
    pos, length = b & 0xFF, c & 0xFF
    sign = 0
    if signed and length:
        sign = a >> min(pos + length - 1, n - 1) & 1
    d = 0
    for k in range(n):
        d |= (a >> (pos + k) & 1 if k < length and pos + k < n else sign) << k
    return d


def _bfi(a: int, b: int, p: int, length: int, n: int) -> int:
    d = b
    for k in range(min(length & 0xFF, n)):
        q = (p & 0xFF) + k
        if q < n:
            d = d & ~(1 << q) | (a >> k & 1) << q
    return d


def _lop3(a: int, b: int, c: int) -> int:
    return a & (b ^ c)


def _fns(mask: int, base: int, offset: int) -> int:
    if base > 31:
        return 0xFFFFFFFF
    if offset == 0:
        return base if mask >> base & 1 else 0xFFFFFFFF
    found = [k for k in (range(base, 32) if offset > 0 else range(base, -1, -1)) if mask >> k & 1]
    return found[abs(offset) - 1] if abs(offset) <= len(found) else 0xFFFFFFFF


def _dot(a: int, b: int, c: int) -> int:
    signed = lambda v: v - 256 if v & 128 else v  # noqa: E731
    return c + sum(signed(a >> 8 * k & 255) * (b >> 8 * k & 255) for k in range(4))


def _bfind(a: int, n: int, signed: bool) -> int:
    v = a if not signed or a >= 0 else ~a
    return v.bit_length() - 1 if v else 0xFFFFFFFF


def _to_integer(low: int, high: int, rounding: Callable[[float], float]) -> Callable[[float], int]:
    """NaN gives 0 from a narrow float to a narrow integer, else the highest bit alone (PTX ISA, cvt)."""

    def convert(a: float) -> int:
        wide = isinstance(a, np.float64) or high >= 2**63 - 1
        a = float(a)
        if a != a:
            return (low or (high + 1) // 2) if wide else 0
        if math.isinf(a):
            return high if a > 0 else low
        return clamp(int(rounding(a)), low, high)

    return convert


def _min(a: Any, b: Any) -> Any:
    return b if a != a else a if b != b else (a if np.signbit(a) else b) if a == b else min(a, b)


def _max(a: Any, b: Any) -> Any:
    return b if a != a else a if b != b else (b if np.signbit(a) else a) if a == b else max(a, b)


def _ftz(a: Any) -> Any:
    return np.float32(math.copysign(0, a)) if abs(a) < 2.0**-126 else a


def _directed(a: float, up: bool) -> np.float32:
    """Double to float, towards +infinity or -infinity."""
    near = np.float32(a)
    if float(near) == a or a != a:
        return near
    if up and float(near) < a:
        return np.nextafter(near, np.float32(np.inf))
    if not up and float(near) > a:
        return np.nextafter(near, np.float32(-np.inf))
    return near


def _add_down(a: Any, b: Any) -> Any:
    if not (np.isfinite(a) and np.isfinite(b)):
        return a + b
    if a == -b and (a != 0 or np.signbit(a) != np.signbit(b)):
        return np.float32(-0.0)  # a sum of exactly 0 is negative when rounding down
    exact = Fraction(float(a)) + Fraction(float(b))
    near = np.float32(float(exact)) if exact else a
    return np.nextafter(near, np.float32(-np.inf)) if Fraction(float(near)) > exact else near


def _fma(a: Any, b: Any, c: Any) -> float:
    if not all(map(np.isfinite, (a, b, c))) or a * b == 0 or a * b == -c:
        return float(a * b + c)
    return float(Fraction(float(a)) * Fraction(float(b)) + Fraction(float(c)))


def _bf16(a: Any) -> int:
    if a != a:
        return 0x7FFF
    bits = int(np.float32(a).view(np.uint32))
    return (bits + 0x7FFF + (bits >> 16 & 1)) >> 16


def _lanes8(operation: Callable[[int, int], int], a: int, b: int) -> int:
    return sum((operation(a >> s & 0xFF, b >> s & 0xFF) & 0xFF) << s for s in (0, 8, 16, 24))


def _sad4(a: int, b: int) -> int:
    return sum(abs((a >> s & 0xFF) - (b >> s & 0xFF)) for s in (0, 8, 16, 24))


INTEGER = [
    # The carry of a subtraction says that nothing was borrowed: 128-bit division of CUDA C++ reads it with addc.
    Case("{ .reg .u32 t; sub.cc.u32 t, %a, %b; addc.u32 %d, 0, 0; }", "u32 u32", "u32", lambda a, b: int(a >= b)),
    Case("vabsdiff4.u32.u32.u32.add %d, %a, %b, %c;", "u32 u32 u32", "u32", lambda a, b, c: c + _sad4(a, b)),
    Case(
        "vavrg4.u32.u32.u32 %d, %a, %b, 0;", "u32 u32", "u32", lambda a, b: _lanes8(lambda x, y: (x + y + 1) >> 1, a, b)
    ),
    Case("vset4.u32.u32.lt %d, %a, %b, 0;", "u32 u32", "u32", lambda a, b: _lanes8(lambda x, y: int(x < y), a, b)),
    Case("vmax4.u32.u32.u32 %d, %a, %b, 0;", "u32 u32", "u32", lambda a, b: _lanes8(max, a, b)),
    Case("add.u32 %d, %a, %b;", "u32 u32", "u32", lambda a, b: a + b),
    Case("add.sat.s32 %d, %a, %b;", "s32 s32", "s32", lambda a, b: clamp(a + b, -(2**31), 2**31 - 1)),
    Case("sub.sat.s32 %d, %a, %b;", "s32 s32", "s32", lambda a, b: clamp(a - b, -(2**31), 2**31 - 1)),
    Case("sub.s16 %d, %a, %b;", "s16 s16", "s16", lambda a, b: a - b),
    Case("mul.lo.u16 %d, %a, %b;", "u16 u16", "u16", lambda a, b: a * b),
    Case("mul.wide.s16 %d, %a, %b;", "s16 s16", "s32", lambda a, b: a * b),
    Case("mul.wide.u32 %d, %a, %b;", "u32 u32", "u64", lambda a, b: a * b),
    Case("mul.hi.s32 %d, %a, %b;", "s32 s32", "s32", lambda a, b: a * b >> 32),
    Case("mul.hi.u64 %d, %a, %b;", "u64 u64", "u64", lambda a, b: a * b >> 64),
    Case("mul.hi.s64 %d, %a, %b;", "s64 s64", "s64", lambda a, b: a * b >> 64),
    Case("mad.lo.s32 %d, %a, %b, %c;", "s32 s32 s32", "s32", lambda a, b, c: a * b + c),
    Case("mad.hi.u32 %d, %a, %b, %c;", "u32 u32 u32", "u32", lambda a, b, c: (a * b >> 32) + c),
    Case("mad.wide.s32 %d, %a, %b, %c;", "s32 s32 s64", "s64", lambda a, b, c: a * b + c),
    Case("mul24.lo.u32 %d, %a, %b;", "u32 u32", "u32", lambda a, b: (a & 0xFFFFFF) * (b & 0xFFFFFF)),
    Case("mul24.hi.u32 %d, %a, %b;", "u32 u32", "u32", lambda a, b: (a & 0xFFFFFF) * (b & 0xFFFFFF) >> 16),
    Case("div.s32 %d, %a, %b;", "s32 s32", "s32", lambda a, b: math.trunc(a / b) if b else -1),
    Case("rem.s32 %d, %a, %b;", "s32 s32", "s32", lambda a, b: int(math.fmod(a, b)) if b else a),
    Case("div.u64 %d, %a, %b;", "u64 u64", "u64", lambda a, b: a // b if b else -1),
    Case("rem.u16 %d, %a, %b;", "u16 u16", "u16", lambda a, b: a % b if b else a),
    Case("rem.s64 %d, %a, 7;", "s64", "s64", lambda a: a - 7 * (abs(a) // 7) * (1 if a >= 0 else -1)),
    Case("abs.s32 %d, %a;", "s32", "s32", abs),
    Case("neg.s64 %d, %a;", "s64", "s64", lambda a: -a),
    Case("min.s32 %d, %a, %b;", "s32 s32", "s32", min),
    Case("max.u64 %d, %a, %b;", "u64 u64", "u64", max),
    Case("max.s16 %d, %a, %b;", "s16 s16", "s16", max),
    Case("sad.s32 %d, %a, %b, %c;", "s32 s32 s32", "s32", lambda a, b, c: abs(a - b) + c),
    Case("dp4a.s32.u32 %d, %a, %b, %c;", "b32 b32 s32", "s32", _dot),
    Case("and.b64 %d, %a, %b;", "b64 b64", "b64", lambda a, b: a & b),
    Case("not.b16 %d, %a;", "b16", "b16", lambda a: ~a),
    Case("cnot.b32 %d, %a;", "b32", "b32", lambda a: int(a == 0)),
    Case("shl.b32 %d, %a, %b;", "b32 u32", "b32", lambda a, b: a << b if b < 32 else 0),
    Case("shr.u64 %d, %a, %b;", "u64 u32", "u64", lambda a, b: a >> b if b < 64 else 0),
    Case("shr.s32 %d, %a, %b;", "s32 u32", "s32", lambda a, b: a >> min(b, 31)),
    Case("shf.l.wrap.b32 %d, %a, %b, %c;", "b32 b32 u32", "b32", lambda a, b, c: (b << 32 | a) << (c & 31) >> 32),
    Case("shf.r.clamp.b32 %d, %a, %b, %c;", "b32 b32 u32", "b32", lambda a, b, c: (b << 32 | a) >> min(c, 32)),
    Case("popc.b64 %d, %a;", "b64", "u32", lambda a: a.bit_count()),
    Case("clz.b32 %d, %a;", "b32", "u32", lambda a: 32 - a.bit_length()),
    Case("clz.b64 %d, %a;", "b64", "u32", lambda a: 64 - a.bit_length()),
    Case("brev.b32 %d, %a;", "b32", "b32", lambda a: int(_bits(a, 32)[::-1], 2)),
    Case("brev.b64 %d, %a;", "b64", "b64", lambda a: int(_bits(a, 64)[::-1], 2)),
    Case("bfind.u32 %d, %a;", "u32", "u32", lambda a: _bfind(a, 32, False)),
    Case("bfind.s64 %d, %a;", "s64", "u32", lambda a: _bfind(a, 64, True)),
    Case(
        "bfind.shiftamt.s32 %d, %a;",
        "s32",
        "u32",
        lambda a: 0xFFFFFFFF if _bfind(a, 32, True) == 0xFFFFFFFF else 31 - _bfind(a, 32, True),
    ),
    Case("bfe.u32 %d, %a, %b, %c;", "u32 u32 u32", "u32", lambda a, b, c: _bfe(a, b, c, 32, False)),
    Case("bfe.s32 %d, %a, %b, %c;", "b32 u32 u32", "b32", lambda a, b, c: _bfe(a, b, c, 32, True)),
    Case("bfe.s64 %d, %a, %b, 9;", "b64 u32", "b64", lambda a, b: _bfe(a, b, 9, 64, True)),
    Case("bfi.b32 %d, %a, %b, %c, 7;", "b32 b32 u32", "b32", lambda a, b, c: _bfi(a, b, c, 7, 32)),
    Case("bfi.b64 %d, %a, %b, %c, 40;", "b64 b64 u32", "b64", lambda a, b, c: _bfi(a, b, c, 40, 64)),
    Case("prmt.b32 %d, %a, %b, %c;", "b32 b32 b32", "b32", _prmt),
    Case("prmt.b32.rc16 %d, %a, %b, 1;", "b32 b32", "b32", lambda a, b: (a >> 16) * 0x10001),
    Case("lop3.b32 %d, %a, %b, %c, 0x60;", "b32 b32 b32", "b32", _lop3),
    Case("fns.b32 %d, %a, %b, %c;", "b32 u32 s32", "b32", _fns),
    Case("cvt.sat.s8.s32 %d, %a;", "s32", "s16", lambda a: clamp(a, -128, 127)),
    Case("cvt.sat.u32.s64 %d, %a;", "s64", "u32", lambda a: clamp(a, 0, 2**32 - 1)),
    Case("cvt.s32.s8 %d, %a;", "s32", "s32", lambda a: (a & 255) - 256 if a & 128 else a & 255),
    Case("cvt.u64.u16 %d, %a;", "u16", "u64", lambda a: a),
    Case("cvt.s64.s32 %d, %a;", "s32", "s64", lambda a: a),
    Case("slct.s32.s32 %d, %a, %b, %c;", "s32 s32 s32", "s32", lambda a, b, c: a if c >= 0 else b),
    Case("{ .reg .pred p; setp.gt.s64 p, %a, 0; selp.u32 %d, 1, 0, p; }", "s64", "u32", lambda a: int(a > 0)),
    Case("{ .reg .pred p; setp.lt.s64 p, %a, -5; selp.u32 %d, 1, 0, p; }", "s64", "u32", lambda a: int(a < -5)),
    Case("{ .reg .pred p; setp.hi.u32 p, %a, %b; selp.u32 %d, 1, 0, p; }", "u32 u32", "u32", lambda a, b: int(a > b)),
    Case(
        "{ .reg .pred p, q; setp.eq.s32 q, %b, 0; setp.ne.or.s32 p|q, %a, 0, q; selp.u32 %d, 1, 0, q; }",
        "s32 s32",
        "u32",
        lambda a, b: int(a == 0 or b == 0),
    ),
    Case("set.lt.u32.s32 %d, %a, %b;", "s32 s32", "u32", lambda a, b: 0xFFFFFFFF if a < b else 0),
    Case(
        "{ .reg .u32 l, h, m, n; mov.b64 {l, h}, %a; mov.b64 {m, n}, %b; add.cc.u32 l, l, m; addc.u32 h, h, n; "
        "mov.b64 %d, {l, h}; }",
        "b64 b64",
        "b64",
        lambda a, b: a + b,
    ),
    Case(
        "{ .reg .u32 l, h, m, n; mov.b64 {l, h}, %a; mov.b64 {m, n}, %b; sub.cc.u32 l, l, m; subc.u32 h, h, n; "
        "mov.b64 %d, {l, h}; }",
        "b64 b64",
        "b64",
        lambda a, b: a - b,
    ),
    Case(
        "{ .reg .u32 l, h; mad.lo.cc.u32 l, %a, %b, %c; madc.hi.u32 h, %a, %b, 0; mov.b64 %d, {l, h}; }",
        "u32 u32 u32",
        "u64",
        lambda a, b, c: a * b + c,
    ),
]

FLOAT = [
    Case("add.f32 %d, %a, %b;", "f32 f32", "f32", lambda a, b: a + b),
    Case("sub.ftz.f32 %d, %a, %b;", "f32 f32", "f32", lambda a, b: _ftz(np.float32(_ftz(a) - _ftz(b)))),
    Case("mul.sat.f32 %d, %a, %b;", "f32 f32", "f32", lambda a, b: np.float32(min(a * b, 1) if a * b > 0 else 0)),
    Case("add.rm.f32 %d, %a, %b;", "f32 f32", "f32", _add_down),
    Case("mul.rp.f32 %d, %a, %b;", "f32 f32", "f32", lambda a, b: _directed(float(a) * float(b), True)),
    Case("div.rn.f64 %d, %a, %b;", "f64 f64", "f64", lambda a, b: np.divide(a, b)),
    Case("fma.rn.f64 %d, %a, %b, %c;", "f64 f64 f64", "f64", _fma),
    Case("min.f32 %d, %a, %b;", "f32 f32", "f32", _min),
    Case("max.f32 %d, %a, %b;", "f32 f32", "f32", _max),
    Case("max.NaN.f32 %d, %a, %b;", "f32 f32", "f32",
         lambda a, b: np.float32("nan") if a != a or b != b else _max(a, b)),
    Case("min.f64 %d, %a, %b;", "f64 f64", "f64", _min),
    Case("abs.f32 %d, %a;", "f32", "f32", abs),
    Case("neg.f64 %d, %a;", "f64", "f64", lambda a: -a),
    Case("copysign.f32 %d, %a, %b;", "f32 f32", "f32", lambda a, b: np.copysign(b, a)),
    Case("sqrt.rn.f32 %d, %a;", "f32", "f32", np.sqrt),
    Case("cvt.rzi.s32.f32 %d, %a;", "f32", "s32", _to_integer(-(2**31), 2**31 - 1, math.trunc)),
    Case("cvt.rni.s32.f32 %d, %a;", "f32", "s32", _to_integer(-(2**31), 2**31 - 1, round)),
    Case("cvt.rmi.s64.f64 %d, %a;", "f64", "s64", _to_integer(-(2**63), 2**63 - 1, math.floor)),
    Case("cvt.rzi.s32.f64 %d, %a;", "f64", "s32", _to_integer(-(2**31), 2**31 - 1, math.trunc)),
    Case("cvt.rmi.u32.f64 %d, %a;", "f64", "u32", _to_integer(0, 2**32 - 1, math.floor)),
    Case("cvt.rzi.s64.f32 %d, %a;", "f32", "s64", _to_integer(-(2**63), 2**63 - 1, math.trunc)),
    Case("cvt.rzi.u64.f64 %d, %a;", "f64", "u64", _to_integer(0, 2**64 - 1, math.trunc)),
    Case("cvt.rzi.u32.f32 %d, %a;", "f32", "u32", _to_integer(0, 2**32 - 1, math.trunc)),
    Case("cvt.rpi.u64.f32 %d, %a;", "f32", "u64", _to_integer(0, 2**64 - 1, math.ceil)),
    Case("cvt.rzi.s16.f32 %d, %a;", "f32", "s16", _to_integer(-(2**15), 2**15 - 1, math.trunc)),
    Case("cvt.rni.f32.f32 %d, %a;", "f32", "f32", np.rint),
    Case("cvt.rn.f32.f64 %d, %a;", "f64", "f32", np.float32),
    Case("cvt.rm.f32.f64 %d, %a;", "f64", "f32", lambda a: _directed(float(a), False)),
    Case("cvt.rp.f32.f64 %d, %a;", "f64", "f32", lambda a: _directed(float(a), True)),
    Case("cvt.sat.f32.f32 %d, %a;", "f32", "f32", lambda a: np.float32(min(max(a, 0), 1) if a > 0 else 0)),
    Case("cvt.rn.f32.s32 %d, %a;", "s32", "f32", np.float32),
    Case("cvt.rn.f32.u64 %d, %a;", "u64", "f32", lambda a: np.uint64(a).astype(np.float32)),
    Case("cvt.rn.f64.s64 %d, %a;", "s64", "f64", np.float64),
    Case("cvt.rn.f16.f32 %d, %a;", "f32", "f16", np.float16),
    Case("cvt.f32.f16 %d, %a;", "f16", "f32", np.float32),
    Case("cvt.rn.bf16.f32 %d, %a;", "f32", "b16", _bf16),
    Case("add.f16 %d, %a, %b;", "f16 f16", "f16", lambda a, b: a + b),
    Case("min.f16 %d, %a, %b;", "f16 f16", "f16", _min),
    Case("{ .reg .pred p; setp.ltu.f32 p, %a, %b; selp.u32 %d, 1, 0, p; }", "f32 f32", "u32",
         lambda a, b: int(not a >= b)),
    Case("{ .reg .pred p; setp.ne.f32 p, %a, %b; selp.u32 %d, 1, 0, p; }", "f32 f32", "u32",
         lambda a, b: int(a < b or a > b)),
    Case("{ .reg .pred p; setp.equ.f64 p, %a, %b; selp.u32 %d, 1, 0, p; }", "f64 f64", "u32",
         lambda a, b: int(not (a < b or a > b))),
    Case("{ .reg .pred p; setp.num.f32 p, %a, %b; selp.u32 %d, 1, 0, p; }", "f32 f32", "u32",
         lambda a, b: int(a == a and b == b)),
    Case("{ .reg .pred p; testp.subnormal.f32 p, %a; selp.u32 %d, 1, 0, p; }", "f32", "u32",
         lambda a: int(0 < abs(a) < 2.0**-126)),
    Case("set.ge.f32.f32 %d, %a, %b;", "f32 f32", "f32", lambda a, b: np.float32(a >= b)),
]  # fmt: skip

APPROXIMATE = [
    Case("sin.approx.f32 %d, %a;", "f32", "f32", np.sin),
    Case("cos.approx.f32 %d, %a;", "f32", "f32", np.cos),
    Case("ex2.approx.ftz.f32 %d, %a;", "f32", "f32", np.exp2),
    Case("lg2.approx.f32 %d, %a;", "f32", "f32", np.log2),
    Case("tanh.approx.f32 %d, %a;", "f32", "f32", np.tanh),
    Case("rcp.approx.f32 %d, %a;", "f32", "f32", lambda a: np.divide(np.float32(1), a)),
    Case("rsqrt.approx.f64 %d, %a;", "f64", "f64", lambda a: np.divide(np.float64(1), np.sqrt(a))),
    Case("div.approx.f32 %d, %a, %b;", "f32 f32", "f32", lambda a, b: np.divide(a, b)),
]
