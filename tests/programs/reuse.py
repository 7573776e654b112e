# SPDX-License-Identifier: Apache-2.0
"""Memory that one stream freed in its order must not be had by another before that order says so.

    reuse.py threads|contexts|streams

Work is given to a buffer, which is then freed in stream order; somebody else takes one of the same size at once: on
the default stream of another thread, or of another context, or on a stream made after the first was destroyed. Prints
`result: OK` and exits 0; 4 when the first one's work reached the second one's memory.
"""

from __future__ import annotations

import sys
import threading
from typing import Any

import numpy as np
from cuda.bindings import driver as cu
from device import call, launch_mix, load_mix, open_device

BYTES = 8 << 20
WORDS = BYTES // 4
PASSES = 60
PER_THREAD = 2  # CU_STREAM_PER_THREAD


def leave_work(mix: Any, stream: Any) -> None:
    """A buffer with much work on it, freed in the order of the stream."""
    address = call(cu.cuMemAllocAsync, BYTES, stream)
    call(cu.cuMemsetD32Async, address, 1, WORDS, stream)
    for _ in range(PASSES):
        launch_mix(mix, address, WORDS, stream)
    call(cu.cuMemFreeAsync, address, stream)


def take(stream: Any) -> int:
    """Somebody else's buffer: 7 in every word, also when all is done. Exit code."""
    address = call(cu.cuMemAllocAsync, BYTES, stream)
    call(cu.cuMemsetD32Async, address, 7, WORDS, stream)
    call(cu.cuStreamSynchronize, stream)
    words = np.empty(WORDS, dtype=np.uint32)
    call(cu.cuCtxSynchronize)
    call(cu.cuMemcpyDtoH, words.ctypes.data, address, BYTES)
    return 0 if bool((words == 7).all()) else 4


def threads() -> int:
    context = open_device()
    mix = load_mix()

    def other() -> None:
        call(cu.cuCtxSetCurrent, context)
        leave_work(mix, PER_THREAD)

    first = threading.Thread(target=other)
    first.start()
    first.join()
    return take(PER_THREAD)


def contexts() -> int:
    first = open_device()
    leave_work(load_mix(), 0)
    parameters = cu.CUctxCreateParams()
    call(cu.cuCtxCreate, parameters, 0, call(cu.cuDeviceGet, 0))
    address = call(cu.cuMemAllocAsync, BYTES, 0)
    call(cu.cuMemsetD32Async, address, 7, WORDS, 0)
    call(cu.cuCtxSynchronize)
    call(cu.cuCtxPushCurrent, first)
    call(cu.cuCtxSynchronize)
    words = np.empty(WORDS, dtype=np.uint32)
    call(cu.cuMemcpyDtoH, words.ctypes.data, address, BYTES)
    return 0 if bool((words == 7).all()) else 4


def streams() -> int:
    """The driver may give the handle of a destroyed stream again, while what it was given still runs."""
    open_device()
    mix = load_mix()
    for _ in range(20):
        old = call(cu.cuStreamCreate, cu.CUstream_flags.CU_STREAM_NON_BLOCKING)
        leave_work(mix, old)
        call(cu.cuStreamDestroy, old)
        new = call(cu.cuStreamCreate, cu.CUstream_flags.CU_STREAM_NON_BLOCKING)
        if int(new) == int(old):
            return take(new)
        call(cu.cuStreamDestroy, new)
    return 0


def main() -> int:
    code = {"threads": threads, "contexts": contexts, "streams": streams}[sys.argv[1]]()
    print("result: OK" if code == 0 else "result: WRONG", flush=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
