# SPDX-License-Identifier: Apache-2.0
"""Work that waits for work of another thread: one thread has a stream wait for a number, another writes it, in turn.

Prints `ready`, `round N` as it goes, `result: OK rounds=N`, and exits 0; 3 when a CUDA call fails, 4 when a word is
wrong.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import threading

from cuda.bindings import driver as cu
from device import CudaError, call, open_device

WORDS = 256


def follow(context: object, flag: int, words: int, rounds: int, failures: list[str]) -> None:
    """Each round waits for its number, then fills the words with it."""
    call(cu.cuCtxSetCurrent, context)
    stream = call(cu.cuStreamCreate, cu.CUstream_flags.CU_STREAM_NON_BLOCKING)
    host = (ctypes.c_uint32 * WORDS)()
    for number in range(1, rounds + 1):
        call(cu.cuStreamWaitValue32, stream, flag, number, cu.CUstreamWaitValue_flags.CU_STREAM_WAIT_VALUE_GEQ)
        call(cu.cuMemsetD32Async, words, number, WORDS, stream)
        if number % 8 == 0:
            call(cu.cuMemcpyDtoHAsync, ctypes.addressof(host), words, WORDS * 4, stream)
            call(cu.cuStreamSynchronize, stream)
            if list(host) != [number] * WORDS:
                failures.append(f"round {number}: {host[0]}")
            print(f"round {number}", flush=True)
    call(cu.cuStreamSynchronize, stream)


def lead(context: object, flag: int, rounds: int, pause: threading.Event) -> None:
    """Writes the numbers, each a little later than the one before; now and then with new memory in between.

    The memory is not freed: that would wait for all work, also for what waits for this thread.
    """
    call(cu.cuCtxSetCurrent, context)
    stream = call(cu.cuStreamCreate, cu.CUstream_flags.CU_STREAM_NON_BLOCKING)
    for number in range(1, rounds + 1):
        pause.wait(0.002)
        fresh = call(cu.cuMemAlloc, 3 << 20) if number % 16 == 0 else None
        if fresh is not None:
            call(cu.cuMemsetD32Async, fresh, number, WORDS, stream)
        call(cu.cuStreamWriteValue32, stream, flag, number, 0)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=400)
    parser.add_argument("--memory", type=int, default=16, help="MiB that the job has besides")
    options = parser.parse_args()
    context = open_device()
    call(cu.cuMemAlloc, options.memory << 20)
    words, flag = call(cu.cuMemAlloc, WORDS * 4), call(cu.cuMemAlloc, 4096)
    call(cu.cuMemsetD32, flag, 0, 1024)
    call(cu.cuCtxSynchronize)
    print("ready", flush=True)
    failures: list[str] = []
    threads = [
        threading.Thread(target=follow, args=(context, int(flag), int(words), options.rounds, failures)),
        threading.Thread(target=lead, args=(context, int(flag), options.rounds, threading.Event())),
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if failures:
        print(f"result: WRONG {failures}", flush=True)
        return 4
    print(f"result: OK rounds={options.rounds}", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CudaError as error:
        print(f"error: {error}", flush=True)
        sys.exit(3)
