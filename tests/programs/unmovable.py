# SPDX-License-Identifier: Apache-2.0
"""Uses every kind of memory that does not move, beside some that does: writes, and checks every word in every step.

An array, managed memory, pinned host memory, a handle that is exported, a graph that allocates, and plain memory.
Prints `ready`, `step N`, and after SIGTERM `result: OK`; exits 3 when a CUDA call fails, 4 when a word is wrong.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from collections.abc import Callable

import numpy as np
from cuda.bindings import driver as cu
from device import CudaError, call, open_device
from expandable import access, properties

MIB = 1 << 20
SIZE = 4 * MIB
ROW = 4096
POSIX = cu.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
RELAXED = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
ATTACH = cu.CUmemAttach_flags.CU_MEM_ATTACH_GLOBAL.value
Words = np.ndarray
Way = tuple[Callable[[Words], None], Callable[[Words], None]]  # writes from, reads to


def plain(address: int) -> Way:
    return (
        lambda words: call(cu.cuMemcpyHtoD, address, words.ctypes.data, SIZE),
        lambda words: call(cu.cuMemcpyDtoH, words.ctypes.data, address, SIZE),
    )


def array() -> Way:
    shape = cu.CUDA_ARRAY_DESCRIPTOR()
    shape.Width, shape.Height, shape.NumChannels = ROW // 4, SIZE // ROW, 1
    shape.Format = cu.CUarray_format.CU_AD_FORMAT_UNSIGNED_INT32
    handle = call(cu.cuArrayCreate, shape)
    host, inside = cu.CUmemorytype.CU_MEMORYTYPE_HOST, cu.CUmemorytype.CU_MEMORYTYPE_ARRAY

    def copy(words: Words, out: bool) -> None:
        what = cu.CUDA_MEMCPY2D()
        what.WidthInBytes, what.Height = ROW, SIZE // ROW
        if out:
            what.srcMemoryType, what.srcArray = inside, handle
            what.dstMemoryType, what.dstHost, what.dstPitch = host, words.ctypes.data, ROW
        else:
            what.srcMemoryType, what.srcHost, what.srcPitch = host, words.ctypes.data, ROW
            what.dstMemoryType, what.dstArray = inside, handle
        call(cu.cuMemcpy2D, what)

    return lambda words: copy(words, False), lambda words: copy(words, True)


def exported() -> Way:
    """Somebody could open the descriptor at any time."""
    made = properties()
    made.requestedHandleTypes = POSIX
    handle = call(cu.cuMemCreate, SIZE, made, 0)
    address = int(call(cu.cuMemAddressReserve, SIZE, 0, 0, 0))
    call(cu.cuMemMap, address, SIZE, 0, handle, 0)
    call(cu.cuMemSetAccess, address, SIZE, [access()], 1)
    descriptor = int(call(cu.cuMemExportToShareableHandle, handle, POSIX, 0))
    os.set_inheritable(descriptor, False)
    return plain(address)


def pinned() -> Way:
    address = int(call(cu.cuMemHostAlloc, SIZE, 0))
    through = int(call(cu.cuMemAlloc, SIZE))  # by way of the device

    def write(words: Words) -> None:
        ctypes.memmove(address, words.ctypes.data, SIZE)
        call(cu.cuMemcpyHtoD, through, address, SIZE)
        ctypes.memset(address, 0, SIZE)

    def read(words: Words) -> None:
        call(cu.cuMemcpyDtoH, address, through, SIZE)
        ctypes.memmove(words.ctypes.data, address, SIZE)

    return write, read


def graph() -> Way:
    """Memory that lives from one node to another: each launch takes the words through it."""
    into, out_of = int(call(cu.cuMemAlloc, SIZE)), int(call(cu.cuMemAlloc, SIZE))
    stream = call(cu.cuStreamCreate, 1)
    call(cu.cuStreamBeginCapture, stream, RELAXED)
    inside = call(cu.cuMemAllocAsync, SIZE, stream)
    call(cu.cuMemcpyDtoDAsync, inside, into, SIZE, stream)
    call(cu.cuMemcpyDtoDAsync, out_of, inside, SIZE, stream)
    call(cu.cuMemFreeAsync, inside, stream)
    executable = call(cu.cuGraphInstantiate, call(cu.cuStreamEndCapture, stream), 0)

    def write(words: Words) -> None:
        plain(into)[0](words)
        call(cu.cuGraphLaunch, executable, stream)
        call(cu.cuStreamSynchronize, stream)

    return write, plain(out_of)[1]


def content(step: int, number: int) -> Words:
    return np.arange(SIZE // 4, dtype=np.uint32) * np.uint32(2654435761) + np.uint32(step * 16 + number)


def main() -> int:
    ended: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, _: ended.append(number))
    open_device()
    ways = {
        "plain": plain(int(call(cu.cuMemAlloc, SIZE))),
        "array": array(),
        "managed": plain(int(call(cu.cuMemAllocManaged, SIZE, ATTACH))),
        "pinned": pinned(),
        "exported": exported(),
        "graph": graph(),
    }
    print("ready", flush=True)
    found = np.empty(SIZE // 4, dtype=np.uint32)
    step = 0
    while not ended:
        for number, (write, _) in enumerate(ways.values()):
            write(content(step, number))
        time.sleep(0.02)  # others have the GPU, and all that can leave leaves
        for number, (name, (_, read)) in enumerate(ways.items()):
            found.fill(0)
            read(found)
            if not np.array_equal(found, content(step, number)):
                print(f"result: WRONG {name} in step {step}", flush=True)
                return 4
        step += 1
        print(f"step {step}", flush=True)
    print("result: OK", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CudaError as error:
        print(f"error: {error}", flush=True)
        sys.exit(3)
