# SPDX-License-Identifier: Apache-2.0
"""One thread has a stream wait for a number, gives that same stream more work, and only then writes the number.

Prints `ready`, `result: OK rounds=N`, and exits 0; 3 when a CUDA call fails, 4 when a word is wrong.
"""

from __future__ import annotations

import ctypes
import sys
import time

from cuda.bindings import driver as cu
from device import CudaError, call, open_device

WORDS = 256


def main() -> int:
    rounds = int(sys.argv[1])
    open_device()
    words, flag = call(cu.cuMemAlloc, WORDS * 4), call(cu.cuMemAlloc, 4096)
    call(cu.cuMemsetD32, flag, 0, 1024)
    call(cu.cuCtxSynchronize)
    waiting, writing = (call(cu.cuStreamCreate, cu.CUstream_flags.CU_STREAM_NON_BLOCKING) for _ in range(2))
    host = (ctypes.c_uint32 * WORDS)()
    print("ready", flush=True)
    for number in range(1, rounds + 1):
        call(cu.cuStreamWaitValue32, waiting, flag, number, cu.CUstreamWaitValue_flags.CU_STREAM_WAIT_VALUE_GEQ)
        for value in (0, 1, number):  # the lease may be taken away between any two of these
            time.sleep(0.01)
            call(cu.cuMemsetD32Async, words, value, WORDS, waiting)
        call(cu.cuStreamWriteValue32, writing, flag, number, 0)
        call(cu.cuMemcpyDtoHAsync, ctypes.addressof(host), words, WORDS * 4, waiting)
        call(cu.cuStreamSynchronize, waiting)
        if list(host) != [number] * WORDS:
            print(f"result: WRONG round {number}: {host[0]}", flush=True)
            return 4
    print(f"result: OK rounds={rounds}", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CudaError as error:
        print(f"error: {error}", flush=True)
        sys.exit(3)
