# SPDX-License-Identifier: Apache-2.0
"""Barriers and warp operations in hand-written PTX: what compilers emit rarely and what was found the hard way."""

from __future__ import annotations

import numpy as np
import pytest
from launcher import Module

HEADER = ".version 8.0\n.target sm_80\n.address_size 64\n"
PROLOGUE = """{
    .reg .pred %p<9>;
    .reg .b32 %r<20>;
    .reg .b64 %rd<9>;
    .reg .f32 %f<4>;
    mov.u32 %r0, %tid.x;
    ld.param.u64 %rd0, [out];
    mul.wide.u32 %rd1, %r0, 4;
    add.u64 %rd2, %rd0, %rd1;
"""
BODIES = {
    # Producers arrive and go on; consumers wait for 64 arrivals.
    "arrive": """
        .shared .b32 word;
        setp.ge.u32 %p1, %r0, 32;
        @%p1 bra CONSUME;
        setp.eq.u32 %p2, %r0, 0;
        @%p2 st.shared.u32 [word], 41;
        bar.arrive 2, 64;
        mov.u32 %r1, 1;
        bra DONE;
    CONSUME:
        bar.sync 2, 64;
        ld.shared.u32 %r1, [word];
    DONE:
        st.global.u32 [%rd2], %r1;
        ret;""",
    # A reduction at a barrier gives every thread the result, then a plain barrier follows.
    "red": """
        setp.lt.u32 %p1, %r0, 5;
        bar.red.popc.u32 %r1, 0, %p1;
        bar.sync 0;
        bar.red.and.pred %p2, 0, %p1;
        bar.red.or.pred %p3, 0, %p1;
        selp.u32 %r2, 100, 0, %p2;
        selp.u32 %r3, 1000, 0, %p3;
        add.u32 %r1, %r1, %r2;
        add.u32 %r1, %r1, %r3;
        st.global.u32 [%rd2], %r1;
        ret;""",
    # Each half of a warp votes for itself, at its own place.
    "halves": """
        setp.lt.u32 %p1, %r0, 16;
        setp.gt.u32 %p2, %r0, 7;
        @%p1 bra LOW;
        vote.sync.ballot.b32 %r1, %p2, 0xffff0000;
        bra DONE;
    LOW:
        vote.sync.ballot.b32 %r1, %p2, 0x0000ffff;
        add.u32 %r1, %r1, 1;
    DONE:
        st.global.u32 [%rd2], %r1;
        ret;""",
    # Lanes leave a loop one after the other; those that stay still agree.
    "leavers": """
        mov.u32 %r2, 0;
    LOOP:
        setp.ge.u32 %p1, %r2, %r0;
        @%p1 bra OUT;
        vote.sync.any.pred %p2, 1, 0xffffffff;
        add.u32 %r2, %r2, 1;
        bra LOOP;
    OUT:
        st.global.u32 [%rd2], %r2;
        exit;""",
    "uni": """
        setp.lt.u32 %p1, %r0, 32;
        vote.sync.uni.pred %p2, %p1, 0xffffffff;
        setp.lt.u32 %p3, %r0, 40;
        vote.sync.uni.pred %p4, %p3, 0xffffffff;
        selp.u32 %r1, 1, 0, %p2;
        selp.u32 %r2, 2, 0, %p4;
        add.u32 %r1, %r1, %r2;
        st.global.u32 [%rd2], %r1;
        ret;""",
    # The registers needed after the shuffle, its address among them, survive; a guarded shuffle leaves others alone.
    "guarded": """
        mul.lo.u32 %r3, %r0, 3;
        mov.u32 %r4, 7;
        setp.lt.u32 %p1, %r0, 16;
        @%p1 shfl.sync.bfly.b32 %r4|%p2, %r3, 1, 31, 0x0000ffff;
        add.u32 %r4, %r4, %r3;
        st.global.u32 [%rd2], %r4;
        ret;""",
    "redux": """
        redux.sync.add.s32 %r1, %r0, 0xffffffff;
        redux.sync.max.u32 %r2, %r0, 0xffffffff;
        sub.u32 %r3, %r0, 40;
        redux.sync.min.s32 %r4, %r3, 0xffffffff;
        mad.lo.u32 %r1, %r2, 1000, %r1;
        sub.u32 %r1, %r1, %r4;
        st.global.u32 [%rd2], %r1;
        ret;""",
    "old_warp": """
        setp.lt.u32 %p1, %r0, 10;
        @%p1 bra LOW;
        activemask.b32 %r1;
        bra DONE;
    LOW:
        vote.ballot.b32 %r1, %p1;
    DONE:
        bar.warp.sync 0xffffffff;
        st.global.u32 [%rd2], %r1;
        ret;""",
    # One warp at barrier 1, the other at barrier 2: for ever.
    "deadlock": """
        setp.lt.u32 %p1, %r0, 32;
        @%p1 bar.sync 1, 64;
        @!%p1 bar.sync 2, 64;
        ret;""",
    # A lane waits for a member of its mask that is stuck at a barrier for the whole block.
    "warp_deadlock": """
        setp.eq.u32 %p1, %r0, 3;
        @%p1 bar.sync 0;
        @!%p1 bar.warp.sync 0xffffffff;
        ret;""",
    # Half the threads end; the others pass the barrier.
    "ended": """
        setp.lt.u32 %p1, %r0, 32;
        @%p1 exit;
        bar.sync 0;
        st.global.u32 [%rd2], 5;
        barrier.sync.aligned 0;
        st.global.u32 [%rd2], 6;
        ret;""",
    # Local memory and floats live across a barrier.
    "local": """
        .local .align 8 .b8 mine[16];
        mov.u64 %rd3, mine;
        cvta.local.u64 %rd4, %rd3;
        st.local.u32 [mine+8], %r0;
        cvt.rn.f32.u32 %f1, %r0;
        bar.sync 0;
        ld.u32 %r1, [%rd4+8];
        fma.rn.f32 %f2, %f1, 0f3F000000, 0f3F800000;
        cvt.rzi.u32.f32 %r2, %f2;
        add.u32 %r1, %r1, %r2;
        st.global.u32 [%rd2], %r1;
        ret;""",
}


@pytest.fixture(scope="module")
def module() -> Module:
    text = "".join(f".visible .entry {name}(.param .u64 out)\n{PROLOGUE}{body}\n}}\n" for name, body in BODIES.items())
    return Module(HEADER + text)


def result(module: Module, name: str, threads: int = 64) -> list[int]:
    out = np.zeros(threads, np.uint32)
    assert module.launch(name, 1, threads, out) == 0
    return out.tolist()


def test_arrive_and_sync(module: Module) -> None:
    assert result(module, "arrive") == [1] * 32 + [41] * 32


@pytest.mark.parametrize(("threads", "value"), [(64, 1005), (5, 1105), (40, 1005)])
def test_reduction_at_a_barrier(module: Module, threads: int, value: int) -> None:
    assert result(module, "red", threads) == [value] * threads


def test_halves_of_a_warp_vote_apart(module: Module) -> None:
    assert result(module, "halves", 32) == [0xFF01] * 16 + [0xFFFF0000] * 16


def test_lanes_that_ended_do_not_hold_up_votes(module: Module) -> None:
    assert result(module, "leavers", 32) == list(range(32))


def test_uniform_vote(module: Module) -> None:
    assert result(module, "uni") == [3] * 32 + [1] * 32


def test_registers_survive_a_guarded_shuffle(module: Module) -> None:
    assert result(module, "guarded", 32) == [3 * (n ^ 1) + 3 * n if n < 16 else 7 + 3 * n for n in range(32)]


def test_warp_reductions(module: Module) -> None:
    low, high = sum(range(32)) + 31000 + 40, sum(range(32, 64)) + 63000 + 8
    assert result(module, "redux") == [low] * 32 + [high] * 32


def test_warp_operations_without_members(module: Module) -> None:
    assert result(module, "old_warp", 32) == [0x3FF] * 10 + [0xFFFFFC00] * 22


@pytest.mark.parametrize("name", ["deadlock", "warp_deadlock"])
def test_deadlock_is_reported(module: Module, name: str) -> None:
    assert module.launch(name, 1, 64, np.zeros(64, np.uint32)) == 3


def test_ended_threads_count_as_arrived(module: Module) -> None:
    assert result(module, "ended") == [0] * 32 + [6] * 32


def test_local_memory_lives_across_a_barrier(module: Module) -> None:
    assert result(module, "local") == [n + n // 2 + 1 for n in range(64)]
