# SPDX-License-Identifier: Apache-2.0
"""One of two contexts of a process is lost to an illegal address; the other's memory stays what it was, also swapped.

Prints `lost` when that has happened, then checks the other's memory until the time is over. `result: OK` and exit 0;
4 when a word is wrong.
"""

from __future__ import annotations

import sys
import time

import numpy as np
from cuda.bindings import driver as cu
from device import CudaError, call, launch_mix, load_mix, open_device

BYTES = 160 << 20
SECONDS = 3.0


def main() -> int:
    call(cu.cuInit, 0)
    bad = call(cu.cuCtxCreate, cu.CUctxCreateParams(), 0, call(cu.cuDeviceGet, 0))
    mix = load_mix()
    own = call(cu.cuMemAlloc, 1 << 20)
    launch_mix(mix, own, 1 << 18)
    call(cu.cuCtxSynchronize)
    open_device()
    address = call(cu.cuMemAlloc, BYTES)
    call(cu.cuMemsetD32, address, 7, BYTES // 4)
    call(cu.cuCtxSynchronize)
    call(cu.cuCtxPushCurrent, bad)
    try:
        launch_mix(mix, 4096, 1)
        call(cu.cuCtxSynchronize)
        return 5
    except CudaError as error:
        print(f"lost: {error.code}", flush=True)
    call(cu.cuCtxPopCurrent)
    words = np.empty(BYTES // 4, dtype=np.uint32)
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        words.fill(0)
        call(cu.cuMemcpyDtoH, words.ctypes.data, address, BYTES)
        if not bool((words == 7).all()):
            print(f"result: WRONG {int((words != 7).argmax())}", flush=True)
            return 4
    print("result: OK", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
