# SPDX-License-Identifier: Apache-2.0
"""One situation each of stream capture, pools and graphs, chosen by name. See the functions.

Prints `ready` when it holds its memory, `result: OK`, and exits 0; 3 when a CUDA call fails (with its name), 4 when
something is wrong.
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from cuda.bindings import driver as cu
from device import CudaError, call, launch_mix, load_mix, open_device
from mixer import expected

MIB = 1 << 20
SIZE = 16 * MIB
WORDS = SIZE // 4
PASSES = 40  # many turns of work, given in one
BALLAST = 128 * MIB  # of a device of 256: with a rival of 160, most of it leaves at each hand-over
NON_BLOCKING = cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value
RELAXED = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
GLOBAL = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL
PER_THREAD = cu.CUstream(cu.CU_STREAM_PER_THREAD)
USED = cu.CUmemPool_attribute.CU_MEMPOOL_ATTR_USED_MEM_CURRENT
RESERVED = cu.CUmemPool_attribute.CU_MEMPOOL_ATTR_RESERVED_MEM_CURRENT


class Wrong(Exception):
    """What was found is not what it should be."""


def check(found: Any, wanted: Any, what: str) -> None:
    if found != wanted:
        raise Wrong(f"{what}: {found} instead of {wanted}")


class Words:
    """Device memory that is mixed a known number of times."""

    def __init__(self, seed: int) -> None:
        self.seed, self.passes = seed, 0
        self.address = int(call(cu.cuMemAlloc, SIZE))
        call(cu.cuMemsetD32, self.address, seed, WORDS)
        call(cu.cuCtxSynchronize)

    def mix(self, kernel: Any, stream: Any, times: int) -> None:
        for _ in range(times):
            launch_mix(kernel, self.address, WORDS, stream)
        self.passes += times

    def verify(self) -> None:
        found = np.empty(WORDS, dtype=np.uint32)
        call(cu.cuCtxSynchronize)
        call(cu.cuMemcpyDtoH, found.ctypes.data, self.address, SIZE)
        check(bool(np.array_equal(found, expected(self.seed, WORDS, self.passes))), True, "words as mixed")


def fill_device() -> None:
    """Memory that makes every hand-over a swap; what comes after it leaves first. Its words are looked at by nobody."""
    call(cu.cuMemsetD32, call(cu.cuMemAlloc, BALLAST), 7, BALLAST // 4)
    call(cu.cuCtxSynchronize)
    print("ready", flush=True)


def launches(kernel: Any) -> None:
    """Launches, copies, memsets, allocations and frees inside captures in the strictest mode."""
    words, stream = Words(3), call(cu.cuStreamCreate, NON_BLOCKING)
    call(cu.cuStreamBeginCapture, stream, GLOBAL)
    words.mix(kernel, stream, 2)
    scratch = call(cu.cuMemAllocAsync, SIZE, stream)
    call(cu.cuMemcpyDtoDAsync, scratch, words.address, SIZE, stream)
    call(cu.cuMemsetD32Async, words.address, 0, WORDS, stream)
    call(cu.cuMemcpyDtoDAsync, words.address, scratch, SIZE, stream)
    call(cu.cuMemFreeAsync, scratch, stream)
    graph = call(cu.cuStreamEndCapture, stream)
    executable = call(cu.cuGraphInstantiate, graph, 0)
    for _ in range(3):
        call(cu.cuGraphLaunch, executable, stream)
    words.passes = 6
    call(cu.cuStreamSynchronize, stream)
    words.verify()


def work_before(kernel: Any) -> None:
    """A stream begins to capture, and another is drawn into that, while both are at work."""
    fill_device()
    one, two = Words(1), Words(2)
    first, second = (call(cu.cuStreamCreate, NON_BLOCKING) for _ in range(2))
    event = call(cu.cuEventCreate, 2)
    one.mix(kernel, first, PASSES)
    two.mix(kernel, second, PASSES)
    call(cu.cuStreamBeginCapture, first, RELAXED)
    call(cu.cuEventRecord, event, first)
    call(cu.cuStreamWaitEvent, second, event, 0)
    time.sleep(0.5)
    cu.cuStreamEndCapture(first)  # the fork was not joined
    one.verify()
    two.verify()


def work_of_a_thread(kernel: Any) -> None:
    """A thread works on its own default stream while a blocking stream captures."""
    fill_device()
    words = Words(1)
    blocking, context = call(cu.cuStreamCreate, 0), call(cu.cuCtxGetCurrent)

    def work() -> None:
        call(cu.cuCtxSetCurrent, context)
        words.mix(kernel, PER_THREAD, PASSES)
        time.sleep(0.5)

    call(cu.cuStreamBeginCapture, blocking, RELAXED)
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    call(cu.cuGraphDestroy, call(cu.cuStreamEndCapture, blocking))
    words.verify()


def work_of_a_destroyed_stream(kernel: Any) -> None:
    """A stream is destroyed while it works; then another one captures."""
    fill_device()
    words = Words(1)
    capturing, working = (call(cu.cuStreamCreate, NON_BLOCKING) for _ in range(2))
    words.mix(kernel, working, PASSES)
    call(cu.cuStreamDestroy, working)
    call(cu.cuStreamBeginCapture, capturing, RELAXED)
    time.sleep(0.5)
    call(cu.cuGraphDestroy, call(cu.cuStreamEndCapture, capturing))
    words.verify()


def abandoned(kernel: Any) -> None:
    """Captures that end with their stream, or are refused: memory that is freed afterwards comes back."""
    for number in range(3):
        stream = call(cu.cuStreamCreate, NON_BLOCKING)
        call(cu.cuStreamBeginCapture, stream, RELAXED)
        again = cu.cuStreamBeginCapture(stream, RELAXED)[0]
        check(again, cu.CUresult.CUDA_ERROR_ILLEGAL_STATE, "a second begin")
        if number == 0:
            check(cu.cuCtxSynchronize()[0], cu.CUresult.CUDA_ERROR_STREAM_CAPTURE_UNSUPPORTED, "synchronising")
            ended = cu.cuStreamEndCapture(stream)[0]
            check(ended, cu.CUresult.CUDA_ERROR_STREAM_CAPTURE_INVALIDATED, "the end of a spoiled capture")
        call(cu.cuStreamDestroy, stream)
        before = call(cu.cuMemGetInfo)[0]
        large = call(cu.cuMemAlloc, 40 * MIB)
        call(cu.cuMemFree, large)
        check(call(cu.cuMemGetInfo)[0], before, "free memory")


def other_way(_: Any) -> None:
    """Memory of a pool freed with cuMemFree, memory of cuMemAlloc freed in stream order: both are documented."""
    stream, pool = call(cu.cuStreamCreate, NON_BLOCKING), call(cu.cuDeviceGetDefaultMemPool, 0)
    before = call(cu.cuMemGetInfo)[0]
    for _ in range(3):
        ordered = call(cu.cuMemAllocAsync, 40 * MIB, stream)
        check(int(call(cu.cuMemPoolGetAttribute, pool, USED)), 40 * MIB, "used by the pool")
        call(cu.cuMemFree, ordered)
        check(int(call(cu.cuMemPoolGetAttribute, pool, USED)), 0, "used by the pool after the free")
        plain = call(cu.cuMemAlloc, 40 * MIB)
        call(cu.cuMemFreeAsync, plain, stream)
        call(cu.cuStreamSynchronize, stream)
        check(call(cu.cuMemGetInfo)[0], before, "free memory")


def reserved(_: Any) -> None:
    """A pool with a release threshold keeps memory that nobody uses; its figures keep the two apart."""
    stream, pool = call(cu.cuStreamCreate, NON_BLOCKING), call(cu.cuDeviceGetDefaultMemPool, 0)
    threshold = cu.CUmemPool_attribute.CU_MEMPOOL_ATTR_RELEASE_THRESHOLD
    call(cu.cuMemPoolSetAttribute, pool, threshold, cu.cuuint64_t(1 << 60))
    pointers = [call(cu.cuMemAllocAsync, 16 * MIB, stream) for _ in range(2)]
    call(cu.cuMemFreeAsync, pointers[0], stream)
    call(cu.cuStreamSynchronize, stream)
    check(int(call(cu.cuMemPoolGetAttribute, pool, USED)), 16 * MIB, "used")
    check(int(call(cu.cuMemPoolGetAttribute, pool, RESERVED)) >= 32 * MIB, True, "at least 32 MiB reserved")
    call(cu.cuMemPoolTrimTo, pool, 0)
    check(int(call(cu.cuMemPoolGetAttribute, pool, RESERVED)) < 32 * MIB, True, "less than that after a trim")
    call(cu.cuMemFreeAsync, pointers[1], stream)


def from_pool(_: Any) -> None:
    """Memory from a pool of the program's own counts, to the limit of 64 MiB."""
    properties = cu.CUmemPoolProps()
    properties.allocType = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    properties.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    stream = call(cu.cuStreamCreate, NON_BLOCKING)
    before = int(call(cu.cuMemGetInfo)[0])
    for kind in (0, int(cu.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR)):
        properties.handleTypes = cu.CUmemAllocationHandleType(kind)
        pool = call(cu.cuMemPoolCreate, properties)
        pointer = call(cu.cuMemAllocFromPoolAsync, 40 * MIB, pool, stream)
        check(before - int(call(cu.cuMemGetInfo)[0]) >= 40 * MIB, True, "40 MiB are charged")
        more = cu.cuMemAllocFromPoolAsync(40 * MIB, pool, stream)[0]
        check(more, cu.CUresult.CUDA_ERROR_OUT_OF_MEMORY, "40 MiB more")
        call(cu.cuMemFreeAsync, pointer, stream)
        call(cu.cuStreamSynchronize, stream)
        call(cu.cuMemPoolDestroy, pool)
        check(int(call(cu.cuMemGetInfo)[0]), before, "free memory")


def buffers(kernel: Any) -> None:
    """A graph with the addresses of its buffers in it is launched before and after the job was swapped out."""
    fill_device()
    words = [Words(seed) for seed in range(2)]
    stream = call(cu.cuStreamCreate, NON_BLOCKING)
    call(cu.cuStreamBeginCapture, stream, GLOBAL)
    for each in words:
        each.mix(kernel, stream, 1)
    executable = call(cu.cuGraphInstantiate, call(cu.cuStreamEndCapture, stream), 0)
    for number in range(3):
        call(cu.cuGraphLaunch, executable, stream)
        call(cu.cuStreamSynchronize, stream)
        for each in words:
            each.passes = number + 1
        time.sleep(0.1)
    for each in words:
        each.verify()


SITUATIONS: dict[str, Callable[[Any], None]] = {
    function.__name__: function
    for function in (
        launches, work_before, work_of_a_thread, work_of_a_destroyed_stream, abandoned, other_way, reserved, from_pool,
        buffers,
    )
}  # fmt: skip


def main() -> int:
    try:
        open_device()
        SITUATIONS[sys.argv[1]](load_mix())
    except CudaError as error:
        print(f"error: {error}", flush=True)
        return 3
    except Wrong as wrong:
        print(f"result: WRONG {wrong}", flush=True)
        return 4
    print("result: OK", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
