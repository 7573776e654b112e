# SPDX-License-Identifier: Apache-2.0
"""Lanes that run side by side compute what threads that run one by one compute.

Random programs whose waits all threads of a group reach together, except where a thread has ended. Between the waits
threads part, loop, leave, compute addresses that wrap, and use shared memory. Each runs in several shapes of blocks,
once as loops over lanes and once by the general scheduler.
"""

from __future__ import annotations

import random

import numpy as np
import pytest
from launcher import Module

PROGRAMS = [*range(12), 306, 308, 311]  # the last three have found errors
SHAPES = [(1, 1), (7, 1), (32, 1), (70, 1), (96, 1), (32, 3), (16, 8), (5, 9), (64, 2)]
HEADER = ".version 8.0\n.target sm_80\n.address_size 64\n"


class Writer:
    """Writes one random program. `warps`: with warp operations."""

    def __init__(self, seed: int, warps: bool) -> None:
        self.random = random.Random(seed)
        self.lines: list[str] = []
        self.warps = warps
        self.parted = 0  # how deep in code that not all lanes pass
        self.names = 0

    def name(self, prefix: str) -> str:
        self.names += 1
        return f"{prefix}{self.names}"

    def pick(self, *choices: str) -> str:
        return self.random.choice(choices)

    def varying(self) -> str:
        return f"%r{self.random.randrange(6)}"

    def uniform(self) -> str:
        return f"%u{self.random.randrange(4)}"

    def any(self) -> str:
        return self.pick(
            self.varying(), self.varying(), self.uniform(), "%tid", "%step", str(self.random.randrange(99))
        )

    def condition(self) -> str:
        """A new predicate by which lanes may part."""
        p = self.name("%p")
        self.lines.append(f".reg .pred {p};")
        if self.random.random() < 0.6:
            limit = self.pick("0", "5", "31", "32", "40", self.uniform(), self.uniform())
            operator, kind = self.pick("lt", "le", "gt", "ge", "eq", "ne"), self.pick("u32", "s32")
            self.lines.append(f"setp.{operator}.{kind} {p}, %tid, {limit};")
        else:
            self.lines.append(f"setp.{self.pick('lt', 'eq')}.u32 {p}, {self.varying()}, {self.any()};")
        return p

    def same(self) -> str:
        """A new predicate that is the same for a block."""
        p = self.name("%p")
        self.lines += [f".reg .pred {p};", f"setp.lt.u32 {p}, {self.uniform()}, {self.random.randrange(40)};"]
        return p

    def operation(self) -> None:
        kind = self.random.randrange(11)
        d = self.varying()
        if kind < 4:
            sign = self.pick("", "!")
            guard = f"@{sign}{self.condition()} " if self.random.random() < 0.4 else ""
            self.lines.append(
                f"{guard}{self.pick('add.u32', 'xor.b32', 'mul.lo.u32')} {d}, {self.any()}, {self.any()};"
            )
        elif kind == 4 and not self.parted:
            self.lines.append(f"mad.lo.u32 {self.uniform()}, {self.uniform()}, 5, {self.uniform()};")
        elif kind == 5:
            self.lines.append(f"selp.b32 {d}, {self.any()}, {self.any()}, {self.condition()};")
        elif kind == 6:  # an index that is widened, and may wrap
            i, w = self.name("%i"), self.name("%w")
            factor = self.pick("1", "4", "12")
            self.lines += [
                f".reg .b32 {i}; .reg .b64 {w};",
                f"add.u32 {i}, {self.pick('%tid', '%step')}, {self.pick('-1', '-7', self.uniform(), '2147483640')};",
                f"mul.wide.{self.pick('u32', 's32')} {w}, {i}, {factor};",
                f"shr.u64 {w}, {w}, {self.pick('0', '3', '31')};",
                f"cvt.u32.u64 {i}, {w};",
                f"add.u32 {d}, {d}, {i};",
            ]
        elif kind == 7:  # own element of global memory
            self.lines += [f"st.global.u32 [%own+4], {self.any()};", f"ld.global.u32 {d}, [%own];"]
            self.lines.append(f"st.global.u32 [%own], {self.any()};")
        elif kind == 8:  # own element of shared memory
            self.lines += [f"ld.shared.u32 {d}, [%slot];", f"st.shared.u32 [%slot], {self.any()};"]
        elif kind == 9:
            self.lines.append(
                f"{{ .reg .f32 %t; cvt.rn.f32.u32 %t, {self.any()}; fma.rn.f32 %f, %f, 0f3F000000, %t; }}"
            )
        else:
            self.lines += [f"mov.b32 {d}, %f;", f"cvt.u32.u16 {self.varying()}, %h;", f"cvt.u16.u32 %h, {self.any()};"]

    def straight(self, depth: int) -> None:
        """Without waits; lanes may part."""
        self.parted += depth < 2
        for _ in range(self.random.randrange(1, 5)):
            kind = self.random.random()
            if kind < 0.25 and depth:
                p, other, end = self.condition(), self.name("E"), self.name("E")
                self.lines.append(f"@{self.pick('', '!')}{p} bra {other};")
                self.straight(depth - 1)
                if self.random.random() < 0.5:
                    self.lines += [f"bra {end};", f"{other}:"]
                    self.straight(depth - 1)
                    self.lines.append(f"{end}:")
                else:
                    self.lines.append(f"{other}:")
            elif kind < 0.32 and depth:
                counter, head, q = self.name("%c"), self.name("H"), self.name("%q")
                self.lines += [
                    f".reg .b32 {counter}; .reg .pred {q};",
                    f"and.b32 {counter}, {self.any()}, 3;",
                    f"{head}:",
                ]
                self.straight(depth - 1)
                self.lines += [
                    f"setp.ne.u32 {q}, {counter}, 0;",
                    f"sub.u32 {counter}, {counter}, 1;",
                    f"@{q} bra {head};",
                ]
            else:
                self.operation()
        self.parted -= depth < 2

    def wait(self) -> None:
        kind = self.random.random()
        if not self.warps or kind < 0.3:
            q = self.name("%x")  # what another thread has written is read between two barriers
            self.lines += ["st.shared.u32 [%slot], %r0;", "bar.sync 0;", f".reg .b32 {q};"]
            self.lines += [
                f"ld.shared.u32 {q}, [%mate];",
                "bar.sync 0;",
                f"xor.b32 {self.varying()}, {self.varying()}, {q};",
            ]
        elif kind < 0.7:
            p = self.name("%s")
            mode, distance, clamp = self.pick("up", "down", "bfly", "idx"), self.random.randrange(32), "31"
            clamp = "0" if mode == "up" else self.pick("31", "31", "0x101f", "0x181f")
            by = self.pick(str(distance), str(distance), self.uniform(), self.varying())
            self.lines.append(f".reg .pred {p};")
            self.lines.append(f"shfl.sync.{mode}.b32 {self.varying()}|{p}, {self.varying()}, {by}, {clamp}, -1;")
            self.lines.append(f"@{p} add.u32 {self.varying()}, {self.varying()}, 3;")
        elif kind < 0.8:
            self.lines.append(f"vote.sync.ballot.b32 {self.varying()}, {self.condition()}, -1;")
        elif kind < 0.9:
            self.lines.append(f"match.any.sync.b32 {self.varying()}, {self.varying()}, -1;")
        else:
            self.lines.append(
                self.pick("bar.warp.sync -1;", f"redux.sync.add.u32 {self.varying()}, {self.varying()}, -1;")
            )

    def together(self, depth: int) -> None:
        """All threads of a block that live come to each wait."""
        for _ in range(self.random.randrange(2, 5)):
            kind = self.random.random()
            if kind < 0.35:
                self.wait()
            elif kind < 0.5 and depth:
                end = self.name("E")
                self.lines.append(f"@{self.pick('', '!')}{self.same()} bra {end};")
                self.together(depth - 1)
                self.lines.append(f"{end}:")
            elif kind < 0.6 and depth:
                counter, head, q = self.name("%c"), self.name("H"), self.name("%q")
                self.lines += [f".reg .b32 {counter}; .reg .pred {q};", f"mov.u32 {counter}, 0;", f"{head}:"]
                self.together(depth - 1)
                self.lines += [
                    f"add.u32 {counter}, {counter}, 1;",
                    f"setp.lt.u32 {q}, {counter}, 3;",
                    f"@{q} bra {head};",
                ]
            elif kind < 0.67:
                self.lines.append(f"@{self.condition()} bra LEAVE;")
            else:
                self.straight(2)


def kernel(seed: int) -> str:
    writer = Writer(seed, seed % 2 == 1)
    for _ in range(3):
        writer.together(2)
    body = "\n".join(writer.lines)
    start = "\n".join(f"mad.lo.u32 %r{n}, %tid, {2 * n + 3}, %y;" for n in range(6))
    end = "\n".join(
        f"mad.lo.u32 %sum, %sum, 31, {r};" for r in [f"%r{n}" for n in range(6)] + [f"%u{n}" for n in range(4)]
    )
    return f"""
.visible .entry k{seed}(.param .u64 out, .param .u32 start)
{{
.reg .b32 %r<6>, %u<4>, %tid, %step, %y, %z, %n, %sum, %slot, %mate;
.reg .b16 %h;
.reg .f32 %f;
.reg .b64 %own, %a;
.shared .b32 part[1024];
mov.u32 %tid, %tid.x;
mov.u32 %y, %tid.y;
mov.u32 %n, %ntid.x;
mad.lo.u32 %sum, %y, %n, %tid;
ld.param.u32 %u0, [start];
mov.u32 %u1, %ctaid.x;
mov.u32 %u2, %n;
mov.u32 %u3, 17;
mad.lo.u32 %step, %tid, 3, %u0;
mov.f32 %f, 0f00000000;
mov.u16 %h, 3;
shl.b32 %slot, %sum, 2;
ld.param.u64 %own, [out];
mul.wide.u32 %a, %sum, 8;
add.u64 %own, %own, %a;
mov.u32 %z, %ntid.y;
mul.lo.u32 %z, %z, %n;
sub.u32 %mate, %z, %sum;
sub.u32 %mate, %mate, 1;
shl.b32 %mate, %mate, 2;
mov.u32 %z, part;
add.u32 %slot, %slot, %z;
add.u32 %mate, %mate, %z;
st.shared.u32 [%slot], %tid;
bar.sync 0;
{start}
{body}
mov.u32 %sum, 0;
{end}
mov.b32 %y, %f;
xor.b32 %sum, %sum, %y;
st.global.u32 [%own], %sum;
LEAVE:
ret;
}}
"""


@pytest.fixture(scope="module")
def texts() -> str:
    return HEADER + "".join(kernel(seed) for seed in PROGRAMS)


@pytest.fixture(scope="module")
def together(texts: str) -> Module:
    return Module(texts)


@pytest.fixture(scope="module")
def one_by_one(texts: str) -> Module:
    return Module(texts, general=True)


def test_the_programs_are_of_both_kinds(together: Module, one_by_one: Module) -> None:
    assert together.c_text.count("_group(const struct gv_block *B, struct") >= len(PROGRAMS) * 3 // 4
    assert one_by_one.c_text.count("_group(") == 0


@pytest.mark.parametrize("seed", PROGRAMS)
def test_side_by_side_is_one_by_one(together: Module, one_by_one: Module, seed: int) -> None:
    different = set()
    for shape in SHAPES:
        for start in (0, 0xFFFFFFF0, 0x7FFFFFE0):
            results = []
            for module in (together, one_by_one):
                out = np.arange(2 * shape[0] * shape[1], dtype=np.uint32)
                status = module.launch(f"k{seed}", (2, 1), shape, out, np.uint32(start))
                results.append([status, *out.tolist()])
            assert results[0] == results[1], (shape, start)
            different.update(results[0])
    assert len(different) > 100


UPDATES = {
    "add": ("add.u32", "1"),
    "max": ("max.u32", "%tid.x"),
    "float": ("add.f32", "0f3F800000"),
    "inc": ("inc.u32", "99"),
}


@pytest.fixture(scope="module")
def updates() -> Module:
    """Between two barriers each thread updates one of few words; lanes meet at the same word."""
    text = HEADER
    for name, (operation, value) in UPDATES.items():
        text += f"""
.visible .entry {name}(.param .u64 keys, .param .u64 out)
{{
.reg .b32 %i, %v, %old;
.reg .b64 %k, %o, %d, %a, %key, %bins;
.shared .b32 bins[1024];
ld.param.u64 %k, [keys];
ld.param.u64 %o, [out];
mov.u32 %i, %tid.x;
mul.wide.u32 %d, %i, 4;
mov.u64 %bins, bins;
add.u64 %a, %bins, %d;
add.u64 %k, %k, %d;
add.u64 %o, %o, %d;
mov.u32 %v, 0;
st.shared.u32 [%a], %v;
bar.sync 0;
ld.global.u32 %key, [%k];
shl.b64 %key, %key, 2;
add.u64 %key, %bins, %key;
mov.b32 %v, {value};
atom.shared.{operation} %old, [%key], %v;
bar.sync 0;
ld.shared.u32 %v, [%a];
st.global.u32 [%o], %v;
ret;
}}
"""
    module = Module(text)
    assert module.c_text.count("_group(const struct gv_block *B, struct") == len(UPDATES)
    return module


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize("threads", [32, 33, 256])
def test_lanes_that_update_the_same_word_all_count(updates: Module, name: str, threads: int) -> None:
    keys = np.random.default_rng(threads).integers(0, 5, threads).astype(np.uint32)
    out = np.zeros(threads, np.uint32)
    assert updates.launch(name, 1, threads, keys, out) == 0
    expected = np.bincount(keys, minlength=threads)
    if name == "max":
        expected = np.zeros(threads, int)
        np.maximum.at(expected, keys, np.arange(threads))
    np.testing.assert_array_equal(out.view(np.float32) if name == "float" else out, expected)


def test_lanes_that_arrive_at_one_mbarrier_all_count() -> None:
    module = Module(
        HEADER
        + """
.visible .entry arrive(.param .u64 out)
{
.reg .pred %p;
.reg .b32 %i, %n;
.reg .b64 %o, %d, %token;
.shared .align 8 .b64 barrier;
ld.param.u64 %o, [out];
mov.u32 %i, %tid.x;
mov.u32 %n, %ntid.x;
setp.ne.u32 %p, %i, 0;
@%p bra READY;
add.u32 %n, %n, 1;
mbarrier.init.shared.b64 [barrier], %n;
READY:
bar.sync 0;
mbarrier.arrive.shared.b64 %token, [barrier];
bar.sync 0;
mul.wide.u32 %d, %i, 8;
add.u64 %o, %o, %d;
ld.shared.b64 %token, [barrier];
st.global.b64 [%o], %token;
ret;
}
"""
    )
    assert module.c_text.count("_group(const struct gv_block *B, struct") == 1
    out = np.zeros(96, np.uint64)
    assert module.launch("arrive", 1, 96, out) == 0
    assert set((out & np.uint64((1 << 20) - 1)).tolist()) == {1}  # what is still missing
