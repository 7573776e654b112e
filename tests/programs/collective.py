# SPDX-License-Identifier: Apache-2.0
"""Processes of one job on two GPUs that meet on the GPU: each writes its number and waits until all have written it.

As ranks of a collective do: what one has given to its GPU ends only when all others have given theirs. The stream
waits, or (--spin) a kernel spins; the soft GPU does not interrupt a block for another process, so then there may be one
rank for each GPU. Prints `ready`, `result: OK rounds=N`, and exits 0; 3 when a CUDA call fails.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import sys
import time

from cuda.bindings import driver as cu
from device import CudaError, call, launch_mix, load_mix, open_device

LINE = 64  # bytes between the numbers of two ranks
ENDED = 16 * LINE  # where rank 0 writes the last round
WORDS = 1 << 14
GEQ = cu.CUstreamWaitValue_flags.CU_STREAM_WAIT_VALUE_GEQ

MEET_PTX = b"""
.version 7.0
.target sm_52
.address_size 64

.visible .entry meet(.param .u64 numbers, .param .u32 rank, .param .u32 ranks, .param .u32 round)
{
    .reg .b64 %n, %a;
    .reg .b32 %r, %c, %i, %v, %s;
    .reg .pred %p, %q;
    ld.param.u64 %n, [numbers];
    ld.param.u32 %r, [rank];
    ld.param.u32 %c, [ranks];
    ld.param.u32 %s, [round];
    mul.wide.u32 %a, %r, 64;
    add.s64 %a, %a, %n;
    st.volatile.global.u32 [%a], %s;
    membar.sys;
    mov.u32 %i, 0;
next:
    mul.wide.u32 %a, %i, 64;
    add.s64 %a, %a, %n;
again:
    ld.volatile.global.u32 %v, [%a];
    setp.lt.u32 %p, %v, %s;
    @%p bra again;
    add.s32 %i, %i, 1;
    setp.lt.u32 %q, %i, %c;
    @%q bra next;
    ret;
}
\0"""


def run(rank: int, shared: mmap.mmap, options: argparse.Namespace) -> int:
    """Rounds that this rank has had. Rank 0 says which one is the last."""
    open_device(rank % 2)
    address = ctypes.addressof(ctypes.c_char.from_buffer(shared))
    call(cu.cuMemHostRegister, address, mmap.PAGESIZE, cu.CU_MEMHOSTREGISTER_DEVICEMAP)
    numbers = int(call(cu.cuMemHostGetDevicePointer, address, 0))
    meet = call(cu.cuModuleGetFunction, call(cu.cuModuleLoadData, MEET_PTX), b"meet")
    mix, words = load_mix(), call(cu.cuMemAlloc, 4 * WORDS)
    stream = call(cu.cuStreamCreate, cu.CUstream_flags.CU_STREAM_NON_BLOCKING)
    call(cu.cuMemsetD32Async, words, rank, WORDS, stream)
    ends, number = time.monotonic() + options.seconds, 0
    while True:
        number += 1
        if rank == 0 and time.monotonic() > ends:
            shared[ENDED : ENDED + 4] = number.to_bytes(4, "little")
        launch_mix(mix, words, WORDS, stream)
        if options.spin:
            arguments = ((numbers, rank, options.ranks, number), (ctypes.c_uint64, *(ctypes.c_uint32,) * 3))
            call(cu.cuLaunchKernel, meet, 1, 1, 1, 1, 1, 1, 0, stream, arguments, 0)
        else:
            call(cu.cuStreamWriteValue32, stream, numbers + LINE * rank, number, 0)
            for other in range(options.ranks):
                call(cu.cuStreamWaitValue32, stream, numbers + LINE * other, number, GEQ)
        call(cu.cuStreamSynchronize, stream)
        if int.from_bytes(shared[ENDED : ENDED + 4], "little") == number:  # written before rank 0 gave its round
            return number


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--ranks", type=int, default=4, help="at most 16")
    parser.add_argument("--spin", action="store_true")
    options = parser.parse_args()
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    print("ready", flush=True)
    children = []
    for rank in range(1, options.ranks):
        child = os.fork()
        if child == 0:
            try:
                run(rank, shared, options)
            except CudaError as error:
                print(f"error: rank {rank}: {error}", flush=True)
                os._exit(3)
            os._exit(0)
        children.append(child)
    rounds = run(0, shared, options)
    if any(os.waitpid(child, 0)[1] for child in children):
        print("error: a rank has failed", flush=True)
        return 3
    print(f"result: OK rounds={rounds}", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CudaError as error:
        print(f"error: rank 0: {error}", flush=True)
        os._exit(3)
