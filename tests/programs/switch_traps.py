# SPDX-License-Identifier: Apache-2.0
"""What a program sees of its memory after that was swapped out and in: `switch_traps.py SCENE`.

Takes its memory, says `ready`, waits for SIGUSR1 (the test has it swapped out meanwhile), looks; `result: OK`, exit 0.
"""

from __future__ import annotations

import ctypes
import signal
import sys
from collections.abc import Callable, Iterator

import numpy as np
from cuda.bindings import driver as cu
from device import CudaError, call, open_device
from expandable import Segment, access, properties

MIB = 1 << 20
SIZE = 8 * MIB
WINDOW = 0x1F0000000000  # of device 0: native/shim/window.c
INVALID, OUT_OF_MEMORY = cu.CUresult.CUDA_ERROR_INVALID_VALUE, cu.CUresult.CUDA_ERROR_OUT_OF_MEMORY


class Wrong(Exception):
    """Not what it should be."""


def expect(right: bool, what: str) -> None:
    if not right:
        raise Wrong(what)


def result(function: Callable[..., tuple[object, ...]], *arguments: object) -> object:
    """The CUresult alone."""
    return function(*arguments)[0]


def words(address: int, size: int = SIZE) -> np.ndarray:
    found = np.empty(size // 4, dtype=np.uint32)
    call(cu.cuMemcpyDtoH, found.ctypes.data, address, size)
    return found


def fill(address: int, size: int = SIZE) -> np.ndarray:
    content = np.arange(size // 4, dtype=np.uint32) * np.uint32(2654435761)
    call(cu.cuMemcpyHtoD, address, content.ctypes.data, size)
    return content


def again(handle: object, flags: str) -> int:
    """One more mapping of a handle."""
    address = int(call(cu.cuMemAddressReserve, SIZE, 0, 0, 0))
    call(cu.cuMemMap, address, SIZE, 0, handle, 0)
    call(cu.cuMemSetAccess, address, SIZE, [access(flags)], 1)
    return address


def access_lists() -> Iterator[None]:
    handle = call(cu.cuMemCreate, SIZE, properties(), 0)
    writable, readable = again(handle, "READWRITE"), again(handle, "READ")
    content = fill(writable)
    yield
    expect(np.array_equal(words(readable), content), "read through the one that may be read")
    content = fill(writable)
    expect(np.array_equal(words(readable), content), "both are the same memory")
    error = result(cu.cuMemsetD32, readable, 1, SIZE // 4)
    error = result(cu.cuCtxSynchronize) if error == cu.CUresult.CUDA_SUCCESS else error
    expect(error != cu.CUresult.CUDA_SUCCESS, "it could be written where it may only be read")


def mapped_twice() -> Iterator[None]:
    handle = call(cu.cuMemCreate, SIZE, properties(), 0)
    first, second = again(handle, "READWRITE"), again(handle, "READWRITE")
    content = fill(first)
    call(cu.cuMemRelease, handle)
    yield
    expect(np.array_equal(words(first), content) and np.array_equal(words(second), content), "at both addresses")
    call(cu.cuMemUnmap, first, SIZE)
    expect(np.array_equal(words(second), content), "one mapping keeps it")
    call(cu.cuMemUnmap, second, SIZE)
    expect(result(cu.cuMemUnmap, second, SIZE) == INVALID, "unmapped twice")


def part_of_a_mapping() -> Iterator[None]:
    segment = Segment(SIZE)
    segment.grow(SIZE)
    segment.open()
    content = fill(segment.base)
    for _ in range(2):
        for start, size in ((0, SIZE // 2), (SIZE // 2, SIZE // 2), (0, SIZE - 2 * MIB)):
            expect(result(cu.cuMemUnmap, segment.base + start, size) == INVALID, f"{size} bytes of a mapping went")
        yield
        expect(np.array_equal(words(segment.base), content), "the content")


def quota_arithmetic() -> Iterator[None]:
    """With a quota of 16 MiB. Sizes that a sum or a rounding would wrap."""
    kept = int(call(cu.cuMemAlloc, 4 * MIB))
    content = fill(kept, 4 * MIB)
    before = call(cu.cuMemGetInfo)
    stream = call(cu.cuStreamCreate, 0)
    for size in ((1 << 64) - 1, (1 << 64) - 2 * MIB, (1 << 64) - 4 * MIB + 1, 1 << 63, (1 << 63) - 1, 14 * MIB):
        for name, error in (
            ("cuMemAlloc", result(cu.cuMemAlloc, size)),
            ("cuMemAllocAsync", result(cu.cuMemAllocAsync, size, stream)),
            ("cuMemAllocPitch", result(cu.cuMemAllocPitch, 4096, size // 4096 + 1, 4)),
            ("cuMemCreate", result(cu.cuMemCreate, size & -2 * MIB, properties(), 0)),
        ):
            expect(error in (OUT_OF_MEMORY, INVALID), f"{name} of {size} bytes: {error}")
    for error in (result(cu.cuMemAlloc, 0), result(cu.cuMemAllocAsync, 0, stream) and INVALID):
        expect(error == INVALID, f"0 bytes: {error}")
    expect(call(cu.cuMemGetInfo) == before, "what was refused is not charged")
    yield
    expect(np.array_equal(words(kept, 4 * MIB), content), "the content")


def window_is_taken() -> Iterator[None]:
    """Something of the program lies where our window would like to be."""
    address = int(call(cu.cuMemAlloc, SIZE))
    expect(address < WINDOW or address >= WINDOW + SIZE, "it was mapped over what the program had there")
    content = fill(address)
    yield
    expect(np.array_equal(words(address), content), "the content")
    expect(ctypes.string_at(WINDOW, 4096) == b"p" * 4096, "what the program had there is as it was")


def occupy(address: int, size: int) -> None:
    """Memory of the program at an address; exactly there."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.mmap.restype = ctypes.c_void_p
    libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
    flags = 0x22 | 0x100000  # MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED_NOREPLACE
    expect(libc.mmap(address, size, 3, flags, -1, 0) == address, "the address is free")
    ctypes.memset(address, ord("p"), size)


SCENES = {f.__name__: f for f in (access_lists, mapped_twice, part_of_a_mapping, quota_arithmetic, window_is_taken)}


def main() -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
    try:
        if sys.argv[1] == "window_is_taken":
            occupy(WINDOW, 1 << 20)
        open_device()
        for number, _ in enumerate(SCENES[sys.argv[1]]()):
            print(f"ready {number}", flush=True)
            signal.sigwait({signal.SIGUSR1})
    except CudaError as error:
        print(f"error: {error}", flush=True)
        return 3
    except Wrong as error:
        print(f"result: WRONG: {error}", flush=True)
        return 4
    print("result: OK", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
