# SPDX-License-Identifier: Apache-2.0
"""Memory that the program mapped itself, shared with a child by file descriptor: both work on the same bytes in turn.

Prints `ready`, `round N`, `result: OK`, and exits 0; 3 when a CUDA call fails (with its name), 4 when a word is wrong.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

import numpy as np
from cuda.bindings import driver as cu
from device import CudaError, call, launch_mix, load_mix, open_device
from expandable import access, properties
from mixer import expected

MIB = 1 << 20
POSIX = cu.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR


def mapped(handle: object, size: int) -> int:
    area = int(call(cu.cuMemAddressReserve, size, 0, 0, 0))
    call(cu.cuMemMap, area, size, 0, handle, 0)
    call(cu.cuMemSetAccess, area, size, [access()], 1)
    return area


def child(descriptor: int, size: int) -> int:
    open_device()
    mix = load_mix()
    handle = call(cu.cuMemImportFromShareableHandle, descriptor, POSIX)
    os.close(descriptor)
    area = mapped(handle, size)
    print("open", flush=True)
    for _ in sys.stdin:
        launch_mix(mix, area, size // 4)
        call(cu.cuCtxSynchronize)
        print("done", flush=True)
    call(cu.cuMemUnmap, area, size)
    call(cu.cuMemRelease, handle)
    return 0


def run(options: argparse.Namespace) -> int:
    size, count = options.memory * MIB, options.memory * MIB // 4
    open_device()
    mix = load_mix()
    handle = call(cu.cuMemCreate, size, properties(), 0)
    area = mapped(handle, size)
    call(cu.cuMemsetD32, area, 5, count)
    call(cu.cuCtxSynchronize)
    descriptor = int(call(cu.cuMemExportToShareableHandle, handle, POSIX, 0))
    other = subprocess.Popen(
        [sys.executable, __file__, "--child", str(descriptor), "--memory", str(options.memory)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=(descriptor,),
    )
    os.close(descriptor)
    assert other.stdin is not None and other.stdout is not None
    assert other.stdout.readline() == "open\n"
    print("ready", flush=True)
    for round_ in range(options.rounds):
        launch_mix(mix, area, count)
        call(cu.cuCtxSynchronize)
        time.sleep(options.pause)
        other.stdin.write("go\n")
        other.stdin.flush()
        assert other.stdout.readline() == "done\n"
        print(f"round {round_ + 1}", flush=True)
    words = np.empty(count, dtype=np.uint32)
    call(cu.cuMemcpyDtoH, words.ctypes.data, area, size)
    if not np.array_equal(words, expected(5, count, 2 * options.rounds)):
        print("result: WRONG", flush=True)
        return 4
    other.stdin.close()
    other.wait()
    print("result: OK", flush=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", type=int, default=16, help="MiB that are shared")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--pause", type=float, default=0.0, help="seconds of idleness in each round")
    parser.add_argument("--child", type=int, metavar="DESCRIPTOR")
    options = parser.parse_args()
    try:
        return run(options) if options.child is None else child(options.child, options.memory * MIB)
    except CudaError as error:
        print(f"error: {error}", flush=True)
        return 3


if __name__ == "__main__":
    sys.exit(main())
