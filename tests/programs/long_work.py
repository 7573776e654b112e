# SPDX-License-Identifier: Apache-2.0
"""Work that holds the GPU for long, whatever anybody asks: `long` kernels, `cooperative` ones, an `endless` one.

    long_work.py long|cooperative|endless [--launches N] [--milliseconds M]

A cooperative kernel's blocks wait for each other again and again, so that all of them must be there together; each
launch also waits on the GPU for `--milliseconds`. Prints `ready`, `launched N` as it goes, `result: OK launches=N`, and
exits 0; 3 when a CUDA call fails, 4 when a word is wrong. `endless` prints `launched 1` and ends when it is killed.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
from typing import Any

from cuda.bindings import driver as cu
from device import CudaError, call, open_device

BLOCKS, MEETINGS = 4, 8
WORK_PTX = b"""
.version 7.0
.target sm_60
.address_size 64

.visible .entry work(
    .param .u64 counter, .param .u32 target, .param .u32 blocks, .param .u32 meetings, .param .u64 time)
{
    .reg .b64 %start, %now, %limit, %address;
    .reg .b32 %seen, %target, %blocks, %left, %old;
    .reg .pred %p;
    ld.param.u64 %address, [counter];
    ld.param.u32 %target, [target];
    ld.param.u32 %blocks, [blocks];
    ld.param.u32 %left, [meetings];
    ld.param.u64 %limit, [time];
    cvta.to.global.u64 %address, %address;
meet:
    setp.eq.u32 %p, %left, 0;
    @%p bra met;
    sub.u32 %left, %left, 1;
    add.u32 %target, %target, %blocks;
    atom.global.add.u32 %old, [%address], 1;
arrive:
    ld.volatile.global.u32 %seen, [%address];
    setp.lt.u32 %p, %seen, %target;
    @%p bra arrive;
    bra meet;
met:
    mov.u64 %start, %globaltimer;
again:
    mov.u64 %now, %globaltimer;
    sub.s64 %now, %now, %start;
    setp.lt.u64 %p, %now, %limit;
    @%p bra again;
    ret;
}
\0"""


def launch(kind: str, function: Any, stream: Any, counter: int, number: int, limit_ns: int) -> None:
    """One kernel; of a cooperative one all blocks meet each other MEETINGS times."""
    blocks, meetings = (BLOCKS, MEETINGS) if kind == "cooperative" else (1, 0)
    values = (counter, number * BLOCKS * MEETINGS, blocks, meetings, limit_ns)
    arguments = (values, (ctypes.c_uint64, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint32, ctypes.c_uint64))
    if kind == "cooperative":
        call(cu.cuLaunchCooperativeKernel, function, blocks, 1, 1, 1, 1, 1, 0, stream, arguments)
    else:
        call(cu.cuLaunchKernel, function, blocks, 1, 1, 1, 1, 1, 0, stream, arguments, 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("long", "cooperative", "endless"))
    parser.add_argument("--launches", type=int, default=12)
    parser.add_argument("--milliseconds", type=float, default=40.0)
    options = parser.parse_args()
    open_device()
    work = call(cu.cuModuleGetFunction, call(cu.cuModuleLoadData, WORK_PTX), b"work")
    stream = call(cu.cuStreamCreate, cu.CUstream_flags.CU_STREAM_NON_BLOCKING)
    counter = call(cu.cuMemAlloc, 4096)
    call(cu.cuMemsetD32, counter, 0, 1024)
    call(cu.cuCtxSynchronize)
    print("ready", flush=True)
    limit_ns = int(options.milliseconds * 1e6) if options.kind != "endless" else 1 << 62
    for number in range(options.launches):
        launch(options.kind, work, stream, int(counter), number, limit_ns)
        print(f"launched {number + 1}", flush=True)
        if options.kind == "endless":
            break
        if number % 3 == 2:  # one after the other would be idle in between, and never hold on to the GPU
            call(cu.cuStreamSynchronize, stream)
    call(cu.cuStreamSynchronize, stream)
    met = (ctypes.c_uint32 * 1)()
    call(cu.cuMemcpyDtoH, ctypes.addressof(met), counter, 4)
    expected = options.launches * BLOCKS * MEETINGS if options.kind == "cooperative" else 0
    if met[0] != expected:
        print(f"result: WRONG {met[0]} meetings of {expected}", flush=True)
        return 4
    print(f"result: OK launches={options.launches}", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CudaError as error:
        print(f"error: {error}", flush=True)
        sys.exit(3)
