# SPDX-License-Identifier: Apache-2.0
"""Threads that wait compute what threads that do not wait compute.

Random programs (loops, branches, guarded instructions) run three times: as they are, with a barrier at random places,
and with a warp operation there. A register that is not saved, or not when it must be, changes the result.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
from launcher import Module

PROGRAMS = 16
WAITS = {"plain": "", "phases": "bar.sync 0;", "schedule": "activemask.b32 %mask;"}


class Writer:
    """Writes one random program."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.lines: list[str] = []
        self.labels = 0
        self.loops = 0

    def register(self) -> str:
        return f"%r{self.random.randrange(8)}"

    def operation(self) -> str:
        a, b, c = self.register(), self.register(), self.register()
        choices = [
            f"add.u32 {a}, {b}, {c};",
            f"xor.b32 {a}, {b}, {c};",
            f"mul.lo.u32 {a}, {b}, {self.random.randrange(1, 99)};",
            f"mov.u32 {a}, {b};",
            f"setp.lt.u32 %p{self.random.randrange(3)}, {b}, {c};",
            f"{{ .reg .f32 %t; cvt.rn.f32.u32 %t, {b}; add.f32 %f, %f, %t; }}",
            f"mov.b32 {a}, %f;",
        ]
        sign = "!" if self.random.random() < 0.5 else ""
        guard = f"@{sign}%p{self.random.randrange(3)} " if self.random.random() < 0.3 else ""
        line = self.random.choice(choices)
        return line if line.startswith("{") else guard + line

    def block(self, depth: int) -> None:
        for _ in range(self.random.randrange(2, 6)):
            kind = self.random.random()
            if kind < 0.2:
                guard = f"@%p{self.random.randrange(3)} " if self.random.random() < 0.3 else ""
                self.lines.append("WAIT" + guard)
            elif kind < 0.3 and depth:
                self.labels += 1
                end = f"E{self.labels}"
                self.lines.append(f"@%p{self.random.randrange(3)} bra {end};")
                self.block(depth - 1)
                self.lines.append(f"{end}:")
            elif kind < 0.45 and depth:
                self.loops += 1
                counter, head = f"%c{self.loops}", f"H{self.loops}"
                self.lines += [f"and.b32 {counter}, {self.register()}, 3;", f"{head}:"]
                self.block(depth - 1)
                self.lines += [
                    f"setp.ne.u32 %q, {counter}, 0;",
                    f"sub.u32 {counter}, {counter}, 1;",
                    f"@%q bra {head};",
                ]
            else:
                self.lines.append(self.operation())


def kernel(seed: int, kind: str) -> str:
    writer = Writer(seed)
    for _ in range(3):
        writer.block(3)
    lines = [line if line[:4] != "WAIT" else line[4:] + WAITS[kind] if WAITS[kind] else "" for line in writer.lines]
    body = "\n".join(lines)
    start = "\n".join(f"mad.lo.u32 %r{n}, %tid, {2 * n + 3}, {n * n};" for n in range(8))
    end = "\n".join(f"mad.lo.u32 %mask, %mask, 31, %r{n};" for n in range(8))
    return f"""
.visible .entry {kind}{seed}(.param .u64 out)
{{
.reg .b32 %r<8>, %c<99>, %tid, %mask;
.reg .pred %p<3>, %q;
.reg .f32 %f;
.reg .b64 %a, %b;
mov.u32 %tid, %tid.x;
mov.f32 %f, 0f00000000;
setp.lt.u32 %p0, %tid, 20;
setp.gt.u32 %p1, %tid, 40;
setp.ne.u32 %p2, %tid, 7;
{start}
{body}
mov.u32 %mask, 0;
{end}
ld.param.u64 %a, [out];
mul.wide.u32 %b, %tid, 4;
add.u64 %a, %a, %b;
st.global.u32 [%a], %mask;
ret;
}}
"""


@pytest.fixture(scope="module")
def module() -> Module:
    text = "".join(kernel(seed, kind) for seed in range(PROGRAMS) for kind in WAITS)
    return Module(".version 8.0\n.target sm_80\n.address_size 64\n" + text)


@pytest.mark.parametrize("seed", range(PROGRAMS))
def test_waiting_changes_nothing(module: Module, seed: int) -> None:
    results = {}
    for kind in WAITS:
        results[kind] = np.zeros(70, np.uint32)
        assert module.launch(f"{kind}{seed}", 1, 70, results[kind]) == 0
    np.testing.assert_array_equal(results["phases"], results["plain"])
    np.testing.assert_array_equal(results["schedule"], results["plain"])
    assert len(set(results["plain"].tolist())) > 20
