# SPDX-License-Identifier: Apache-2.0
"""What the small CUDA programs of the tests share: checked calls, one kernel in PTX, the context."""

from __future__ import annotations

import ctypes
from typing import Any

from cuda.bindings import driver as cu

# words[i] = words[i] * 1664525 + 1013904223 + i, over `count` 32-bit words: every bit depends on every earlier launch.
MIX_PTX = b"""
.version 7.0
.target sm_52
.address_size 64

.visible .entry mix(.param .u64 words, .param .u32 count)
{
    .reg .pred %p;
    .reg .b32 %r<8>;
    .reg .b64 %rd<5>;
    ld.param.u64 %rd1, [words];
    ld.param.u32 %r1, [count];
    cvta.to.global.u64 %rd2, %rd1;
    mov.u32 %r2, %ntid.x;
    mov.u32 %r3, %ctaid.x;
    mov.u32 %r4, %tid.x;
    mad.lo.s32 %r5, %r2, %r3, %r4;
    setp.ge.u32 %p, %r5, %r1;
    @%p bra DONE;
    mul.wide.u32 %rd3, %r5, 4;
    add.s64 %rd4, %rd2, %rd3;
    ld.global.u32 %r6, [%rd4];
    mad.lo.s32 %r7, %r6, 1664525, 1013904223;
    add.s32 %r7, %r7, %r5;
    st.global.u32 [%rd4], %r7;
DONE:
    ret;
}
\0"""
BLOCK = 256


class CudaError(Exception):
    """A call failed; `code` is the CUresult's name."""

    def __init__(self, code: str, call: str) -> None:
        super().__init__(f"{call}: {code}")
        self.code = code


def call(function: Any, *arguments: Any) -> Any:
    """Result of a driver call. Raises CudaError."""
    error, *results = function(*arguments)
    if error != cu.CUresult.CUDA_SUCCESS:
        raise CudaError(error.name, function.__name__)
    return results[0] if len(results) == 1 else tuple(results)


def open_device(index: int = 0) -> Any:
    """Initialises CUDA and makes the primary context of a GPU current."""
    call(cu.cuInit, 0)
    device = call(cu.cuDeviceGet, index)
    context = call(cu.cuDevicePrimaryCtxRetain, device)
    call(cu.cuCtxSetCurrent, context)
    return context


def load_mix() -> Any:
    """The kernel above."""
    module = call(cu.cuModuleLoadData, MIX_PTX)
    return call(cu.cuModuleGetFunction, module, b"mix")


def launch_mix(function: Any, words: Any, count: int, stream: Any = 0) -> None:
    """One pass over `count` words."""
    values = (ctypes.c_uint64(int(words)), ctypes.c_uint32(count))
    pointers = (ctypes.c_void_p * 2)(*(ctypes.addressof(value) for value in values))
    blocks = (count + BLOCK - 1) // BLOCK
    call(cu.cuLaunchKernel, function, blocks, 1, 1, BLOCK, 1, 1, 0, stream, ctypes.addressof(pointers), 0)
