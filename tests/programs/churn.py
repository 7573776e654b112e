# SPDX-License-Identifier: Apache-2.0
"""Several threads make, map, use, unmap and release memory of their own at the same time, for some seconds.

Prints `ready`, `result: OK rounds=N`, and exits 0; 3 when a CUDA call fails (with its name), 4 when a word is wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from cuda.bindings import driver as cu
from device import CudaError, call, open_device
from expandable import Segment

MIB = 1 << 20


def work(context: object, number: int, seconds: float) -> int:
    call(cu.cuCtxSetCurrent, context)
    deadline = time.monotonic() + seconds
    segment = Segment(64 * MIB)
    words = np.empty(1, dtype=np.uint32)
    rounds = 0
    while time.monotonic() < deadline:
        while segment.used < 8 * MIB:
            start = segment.used
            segment.grow((2 + 2 * (rounds % 2)) * MIB)
            segment.open(start)
        value = number << 16 | rounds & 0xFFFF
        call(cu.cuMemsetD32, segment.base, value, segment.used // 4)
        call(cu.cuMemcpyDtoH, words.ctypes.data, segment.base + segment.used - 4, 4)
        if int(words[0]) != value:
            raise ValueError(f"thread {number}: {int(words[0]):#x} instead of {value:#x}")
        handle, size = segment.detach()
        if rounds % 3 == 0:
            segment.attach(handle, size)
            segment.open(segment.used - size)
        else:
            call(cu.cuMemRelease, handle)
        rounds += 1
    segment.close()
    return rounds


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--threads", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    try:
        context = open_device()
        with ThreadPoolExecutor(options.threads) as pool:
            tasks = [pool.submit(work, context, number, options.seconds) for number in range(options.threads)]
            print("ready", flush=True)
            rounds = sum(task.result() for task in tasks)
    except CudaError as error:
        print(f"error: {error}", flush=True)
        return 3
    except ValueError as error:
        print(f"result: WRONG {error}", flush=True)
        return 4
    print(f"result: OK rounds={rounds}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
