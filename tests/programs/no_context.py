# SPDX-License-Identifier: Apache-2.0
"""Memory made and mapped by a thread that never has a context, as NCCL does, also before there is any; used by another.

Prints `result: OK` and exits 0; 3 when a CUDA call fails (with its name), 4 when a word is wrong.
"""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np
from cuda.bindings import driver as cu
from device import CudaError, call, launch_mix, load_mix, open_device
from expandable import Segment
from mixer import expected

MIB = 1 << 20


def grown(segment: Segment) -> Segment:
    assert int(call(cu.cuCtxGetCurrent)) == 0
    segment.grow(2 * MIB)
    segment.open()
    return segment


def run() -> int:
    call(cu.cuInit, 0)
    with ThreadPoolExecutor(1) as other:
        segment = other.submit(lambda: grown(Segment(64 * MIB))).result(20)  # before any context
        open_device()
        mix = load_mix()
        other.submit(grown, segment).result(20)
        count = 4 * MIB // 4
        call(cu.cuMemsetD32, segment.base, 9, count)
        launch_mix(mix, segment.base, count)
        words = np.empty(count, dtype=np.uint32)
        call(cu.cuMemcpyDtoH, words.ctypes.data, segment.base, words.nbytes)
        other.submit(segment.close).result(20)
    if not np.array_equal(words, expected(9, count, 1)):
        print("result: WRONG", flush=True)
        return 4
    print("result: OK", flush=True)
    return 0


def main() -> int:
    try:
        return run()
    except CudaError as error:
        print(f"error: {error}", flush=True)
        return 3


if __name__ == "__main__":
    sys.exit(main())
