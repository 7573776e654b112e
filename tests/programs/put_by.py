# SPDX-License-Identifier: Apache-2.0
"""Holds memory that is mapped nowhere, while it goes on working with other memory.

    put_by.py --memory MEBIBYTES --steps N [--leave]

With --leave it gives up its only context instead, and has none until SIGUSR1.
Prints `ready`, `step N`, and `result: OK` when the content is what it was; exits 3 when a CUDA call fails (with its
name), 4 when a word is wrong.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time

import numpy as np
from cuda.bindings import driver as cu
from device import CudaError, call, open_device
from expandable import MIB, Segment


def work(steps: int) -> None:
    other = call(cu.cuMemAlloc, 2 * MIB)
    print("ready", flush=True)
    for step in range(steps):
        call(cu.cuMemsetD8, other, step % 256, 2 * MIB)
        call(cu.cuCtxSynchronize)
        print(f"step {step + 1}", flush=True)
        time.sleep(0.02)


def leave() -> None:
    call(cu.cuCtxSetCurrent, None)
    call(cu.cuDevicePrimaryCtxRelease, 0)
    print("ready", flush=True)
    signal.sigwait([signal.SIGUSR1])
    open_device()


def run(options: argparse.Namespace) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    open_device()
    size = options.memory * MIB
    content = np.random.default_rng(1).integers(0, 1 << 63, size // 8, dtype=np.uint64)
    segment = Segment(size)
    segment.grow(size)
    segment.open()
    call(cu.cuMemcpyHtoD, segment.base, content.ctypes.data, size)
    handle, _ = segment.detach()
    if options.leave:
        leave()
    else:
        work(options.steps)
    segment.attach(handle, size)
    segment.open()
    found = np.empty_like(content)
    call(cu.cuMemcpyDtoH, found.ctypes.data, segment.base, size)
    segment.close()
    if options.leave:  # the context is the program's alone
        call(cu.cuDevicePrimaryCtxRelease, 0)
        if call(cu.cuDevicePrimaryCtxGetState, 0)[1]:
            print("result: the primary context is still active")
            return 4
    if not np.array_equal(content, found):
        print("result: WRONG")
        return 4
    print("result: OK")
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", type=int, default=12)
    parser.add_argument("--steps", type=int, default=50)
    parser.add_argument("--leave", action="store_true")
    try:
        sys.exit(run(parser.parse_args()))
    except CudaError as error:
        print(f"error: {error}")
        sys.exit(3)
