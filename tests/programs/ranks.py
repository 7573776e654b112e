# SPDX-License-Identifier: Apache-2.0
"""Two processes of one job whose streams wait for each other's numbers in turn, as ranks of a collective do.

Prints `ready`, `result: OK rounds=N`, and exits 0; 3 when a CUDA call fails.
"""

from __future__ import annotations

import argparse
import ctypes
import mmap
import os
import sys
import time

from cuda.bindings import driver as cu
from device import CudaError, call, open_device

GEQ = cu.CUstreamWaitValue_flags.CU_STREAM_WAIT_VALUE_GEQ


def run(rank: int, shared: mmap.mmap, rounds: int) -> None:
    """Waits for the other's number, then writes its own."""
    open_device()
    address = ctypes.addressof(ctypes.c_char.from_buffer(shared))
    call(cu.cuMemHostRegister, address, mmap.PAGESIZE, cu.CU_MEMHOSTREGISTER_DEVICEMAP)
    flags = int(call(cu.cuMemHostGetDevicePointer, address, 0))
    mine, other = flags + 64 * rank, flags + 64 * (1 - rank)
    stream = call(cu.cuStreamCreate, cu.CUstream_flags.CU_STREAM_NON_BLOCKING)
    words = call(cu.cuMemAlloc, 1 << 20)
    for number in range(1, rounds + 1):
        if rank == 0:
            time.sleep(0.001)  # the other one's wait is on the GPU by now
        call(cu.cuStreamWaitValue32, stream, other, number if rank else number - 1, GEQ)
        call(cu.cuMemsetD32Async, words, number, 1 << 12, stream)
        call(cu.cuStreamWriteValue32, stream, mine, number, 0)
        call(cu.cuStreamSynchronize, stream)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300)
    options = parser.parse_args()
    shared = mmap.mmap(-1, mmap.PAGESIZE)
    print("ready", flush=True)
    child = os.fork()
    run(0 if child else 1, shared, options.rounds)
    if child == 0:
        os._exit(0)
    _, status = os.waitpid(child, 0)
    if status != 0:
        print(f"error: the second rank ended with {status}", flush=True)
        return 3
    print(f"result: OK rounds={options.rounds}", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CudaError as error:
        print(f"error: {error}", flush=True)
        os._exit(3)
