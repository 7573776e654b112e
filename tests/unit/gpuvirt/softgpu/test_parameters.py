# SPDX-License-Identifier: Apache-2.0
"""Parameters that a kernel reads at addresses which it computes: the same for all lanes, or not."""

from __future__ import annotations

import numpy as np
from launcher import Module

HEADER = ".version 8.0\n.target sm_80\n.address_size 64\n"
TABLE = (
    HEADER
    + """
.visible .entry table(.param .u64 out, .param .align 4 .b8 numbers[128])
{
    .reg .b64 %rd<6>;
    .reg .b32 %r<5>;
    .shared .align 4 .b8 room[4];
    mov.b64 %rd1, numbers;
    mov.u32 %r1, %tid.x;
    mov.u32 %r2, %ctaid.x;
    mul.wide.u32 %rd2, %r2, 4;
    add.s64 %rd2, %rd1, %rd2;
    ld.param.u32 %r3, [%rd2];       // the same for all lanes
    mul.wide.u32 %rd3, %r1, 4;
    add.s64 %rd4, %rd1, %rd3;
    ld.param.u32 %r4, [%rd4];       // another one for each
    bar.sync 0;
    add.u32 %r4, %r4, %r3;
    ld.param.u64 %rd5, [out];
    add.s64 %rd5, %rd5, %rd3;
    st.global.u32 [%rd5], %r4;
    ret;
}
"""
)


def test_parameters_at_computed_addresses() -> None:
    numbers = np.arange(32, dtype=np.uint32) ** 2 + 7
    for block in (0, 9):
        out = np.zeros(32, dtype=np.uint32)
        assert Module(TABLE).launch("table", block + 1, 32, out, numbers.tobytes()) == 0
        assert out.tolist() == (numbers + numbers[block]).tolist()
