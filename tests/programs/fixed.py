# SPDX-License-Identifier: Apache-2.0
"""Takes and frees memory that does not move, as told through a pipe (its argument); one line in, one line out.

    array MIB | mipmap MIB | managed MIB | pinned MIB | register MIB | heap MIB | plain MIB | pitch MIB
    module MIB (of global variables)
    free N (the Nth that was taken, from 0) | info | mix | capture | captured | reset | end

Answers are numbered: `3: ok`, or the error of the call. `info`: free and total MiB. `mix`: a kernel
over a MiB of plain memory.
"""

from __future__ import annotations

import sys
from collections.abc import Callable

import numpy as np
from cuda.bindings import driver as cu
from device import CudaError, call, launch_mix, load_mix, open_device

MIB = 1 << 20
RELAXED = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
ROW = 1 << 12  # bytes of a row of an array


def array(size: int) -> Callable[[], object]:
    shape = cu.CUDA_ARRAY_DESCRIPTOR()
    shape.Width, shape.Height, shape.NumChannels = ROW // 4, size // ROW, 1
    shape.Format = cu.CUarray_format.CU_AD_FORMAT_UNSIGNED_INT32
    handle = call(cu.cuArrayCreate, shape)
    return lambda: call(cu.cuArrayDestroy, handle)


def mipmap(size: int) -> Callable[[], object]:
    """One level: a chain of all of them is a third larger."""
    shape = cu.CUDA_ARRAY3D_DESCRIPTOR()
    shape.Width, shape.Height, shape.NumChannels = ROW // 4, size // ROW, 1
    shape.Format = cu.CUarray_format.CU_AD_FORMAT_UNSIGNED_INT32
    handle = call(cu.cuMipmappedArrayCreate, shape, 1)
    return lambda: call(cu.cuMipmappedArrayDestroy, handle)


def managed(size: int) -> Callable[[], object]:
    address = call(cu.cuMemAllocManaged, size, cu.CUmemAttach_flags.CU_MEM_ATTACH_GLOBAL.value)
    return lambda: call(cu.cuMemFree, address)


def plain(size: int) -> Callable[[], object]:
    address = call(cu.cuMemAlloc, size)
    return lambda: call(cu.cuMemFree, address)


def pitch(size: int) -> Callable[[], object]:
    address, _ = call(cu.cuMemAllocPitch, ROW, size // ROW, 4)
    return lambda: call(cu.cuMemFree, address)


def module(size: int) -> Callable[[], object]:
    text = f".version 7.0\n.target sm_52\n.address_size 64\n.visible .global .align 16 .b8 table[{size}];\n\0"
    handle = call(cu.cuModuleLoadData, text.encode())
    return lambda: call(cu.cuModuleUnload, handle)


def pinned(size: int) -> Callable[[], object]:
    address = call(cu.cuMemHostAlloc, size, 0)
    return lambda: call(cu.cuMemFreeHost, address)


def register(size: int) -> Callable[[], object]:
    memory = np.zeros(size + 4096, dtype=np.uint8)
    address = (memory.ctypes.data + 4095) // 4096 * 4096
    call(cu.cuMemHostRegister, address, size, 0)
    return lambda: (call(cu.cuMemHostUnregister, address), memory)


def heap(size: int) -> Callable[[], object]:
    limit = cu.CUlimit.CU_LIMIT_MALLOC_HEAP_SIZE
    before = call(cu.cuCtxGetLimit, limit)
    call(cu.cuCtxSetLimit, limit, size)
    return lambda: call(cu.cuCtxSetLimit, limit, before)


KINDS = {f.__name__: f for f in (array, mipmap, managed, plain, pitch, module, pinned, register, heap)}


def main() -> None:
    open_device()
    taken: list[Callable[[], object]] = []
    capturing: object = None
    print("ready", flush=True)
    for count, line in enumerate(open(sys.argv[1])):  # noqa: SIM115
        verb, *rest = line.split()
        number = int(rest[0]) if rest else 0
        answer = "ok"
        try:
            if verb == "end":
                return
            if verb == "info":
                free, total = call(cu.cuMemGetInfo)
                answer = f"{free // MIB} {total // MIB}"
            elif verb == "free":
                taken[number]()
            elif verb == "capture":
                capturing = call(cu.cuStreamCreate, cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value)
                call(cu.cuStreamBeginCapture, capturing, RELAXED)
            elif verb == "captured":
                call(cu.cuStreamEndCapture, capturing)
            elif verb == "reset":
                call(cu.cuDevicePrimaryCtxReset, 0)
            elif verb == "mix":
                address = call(cu.cuMemAlloc, MIB)
                call(cu.cuMemsetD32, address, 1, MIB // 4)
                launch_mix(load_mix(), address, MIB // 4, 0)
                call(cu.cuCtxSynchronize)
                call(cu.cuMemFree, address)
            else:
                taken.append(KINDS[verb](number * MIB))
        except CudaError as error:
            answer = str(error)
        print(f"{count}: {answer}", flush=True)


if __name__ == "__main__":
    main()
