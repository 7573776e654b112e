# SPDX-License-Identifier: Apache-2.0
"""Single instructions against their meaning in Python, over edge values and random ones."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from launcher import Module
from opcode_cases import APPROXIMATE, FLOAT, INTEGER, Case

COUNT = 200
_WIDTH = {"u16": 16, "s16": 16, "b16": 16, "f16": 16, "u32": 32, "s32": 32, "b32": 32, "f32": 32}
_FLOATS: dict[str, Any] = {"f16": np.float16, "f32": np.float32, "f64": np.float64}
_BITS: dict[int, Any] = {16: np.uint16, 32: np.uint32, 64: np.uint64}
_EDGES = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    1.5,
    2.5,
    -2.5,
    np.inf,
    -np.inf,
    np.nan,
    1e-40,
    -1e-40,
    3e9,
    -3e9,
    1e30,
    65504.0,
    1e-7,
]


def width(kind: str) -> int:
    return _WIDTH.get(kind, 64)


def kernel(number: int, case: Case) -> str:
    """A kernel that computes one case for each thread; values lie in slots of 8 bytes."""
    lines = [f".visible .entry case{number}(.param .u64 in, .param .u64 out)", "{", ".reg .b64 %p, %q, %t;"]
    lines += [f".reg .{kind if kind != 'f16' else 'b16'} %{n};" for n, kind in zip("abc", case.inputs, strict=False)]
    lines += [f".reg .{case.output if case.output != 'f16' else 'b16'} %d;", ".reg .u32 %i;", "mov.u32 %i, %tid.x;"]
    lines += ["mul.wide.u32 %t, %i, 24;", "ld.param.u64 %p, [in];", "add.u64 %p, %p, %t;"]
    lines += [f"ld.global.b{width(kind)} %{'abc'[n]}, [%p+{8 * n}];" for n, kind in enumerate(case.inputs)]
    lines += [case.code, "mul.wide.u32 %t, %i, 8;", "ld.param.u64 %q, [out];", "add.u64 %q, %q, %t;"]
    return "\n".join([*lines, f"st.global.b{width(case.output)} [%q], %d;", "ret;", "}"])


@functools.cache
def module(group: str) -> Module:
    cases = {"integer": INTEGER, "float": FLOAT, "approximate": APPROXIMATE}[group]
    text = "\n".join(kernel(number, case) for number, case in enumerate(cases))
    return Module(".version 8.0\n.target sm_80\n.address_size 64\n" + text)


def inputs(case: Case, tame: bool) -> np.ndarray[Any, Any]:
    """Bit patterns, COUNT x 3."""
    rng = np.random.default_rng(7)
    values = np.zeros((COUNT, 3), np.uint64)
    for n, kind in enumerate(case.inputs):
        bits = width(kind)
        if kind in _FLOATS:
            with np.errstate(over="ignore"):
                row = (rng.standard_normal(COUNT) * 10.0 ** rng.integers(-3, 4, COUNT)).astype(_FLOATS[kind])
                if tame:
                    row = (rng.random(COUNT) * 3 + 0.1).astype(_FLOATS[kind])
                else:
                    row[: len(_EDGES)] = np.roll(_EDGES, n).astype(_FLOATS[kind])
                    row[len(_EDGES) : 2 * len(_EDGES)] = np.roll(_EDGES, 5 * n + 1).astype(_FLOATS[kind])
            values[:, n] = row.view(_BITS[bits])
        else:
            row = [int(v) for v in rng.integers(0, 2**63, COUNT)]
            edges = [0, 1, -1, 1 << (bits - 1), (1 << (bits - 1)) - 1, 5, -5, 31, 32, 33, 63, 64, 255, 256]
            row[: len(edges)] = edges[n:] + edges[:n]
            row[20:50] = [v % 70 for v in row[20:50]]
            values[:, n] = [v & ((1 << bits) - 1) for v in row]
    return values


def decode(bits: int, kind: str) -> Any:
    if kind in _FLOATS:
        return _BITS[width(kind)](bits).view(_FLOATS[kind])
    if kind[0] == "s" and bits >> (width(kind) - 1):
        return bits - (1 << width(kind))
    return bits


def run(group: str, number: int, case: Case) -> tuple[np.ndarray[Any, Any], list[int]]:
    values = inputs(case, group == "approximate")
    out = np.zeros(COUNT, np.uint64)
    assert module(group).launch(f"case{number}", 1, COUNT, values, out) == 0
    return values, [int(v) & ((1 << width(case.output)) - 1) for v in out]


def arguments(values: np.ndarray[Any, Any], row: int, case: Case) -> list[Any]:
    return [decode(int(values[row, n]), kind) for n, kind in enumerate(case.inputs)]


def names(cases: list[Case]) -> list[Any]:
    return [pytest.param(n, case, id=case.code.split("%")[0].strip(" {") + str(n)) for n, case in enumerate(cases)]


@pytest.mark.parametrize(("number", "case"), names(INTEGER))
def test_integer(number: int, case: Case) -> None:
    values, out = run("integer", number, case)
    for row in range(COUNT):
        want = int(case.reference(*arguments(values, row, case))) & ((1 << width(case.output)) - 1)
        if case.code.startswith(("div.s32", "rem.s32")) and abs(arguments(values, row, case)[0]) == 2**31:
            continue  # the reference goes through float
        assert out[row] == want, (arguments(values, row, case), hex(out[row]), hex(want))


@pytest.mark.parametrize(("number", "case"), names(FLOAT))
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_float(number: int, case: Case) -> None:
    values, out = run("float", number, case)
    for row in range(COUNT):
        given = arguments(values, row, case)
        want, got = case.reference(*given), decode(out[row], case.output)
        if case.output not in _FLOATS:
            want = int(want) & ((1 << width(case.output)) - 1)
            assert out[row] == want, (given, hex(out[row]), hex(want))
        elif want != want:
            assert got != got, (given, got)
        else:
            assert (got, np.signbit(got)) == (want, np.signbit(want)), (given, got, want)


@pytest.mark.parametrize(("number", "case"), names(APPROXIMATE))
def test_approximate(number: int, case: Case) -> None:
    values, out = run("approximate", number, case)
    for row in range(COUNT):
        given = arguments(values, row, case)
        assert decode(out[row], case.output) == pytest.approx(float(case.reference(*given)), rel=2e-6, abs=1e-6), given
