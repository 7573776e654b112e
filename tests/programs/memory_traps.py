# SPDX-License-Identifier: Apache-2.0
"""One scene of memory each, named by the argument; prints `ok`, or what is wrong and exits 1.

Calls go through ctypes: what the driver is given is exactly what is written here, also where a binding would not let
it.
"""

from __future__ import annotations

import ctypes
import os
import sys
import time
from ctypes import byref, c_int, c_size_t, c_uint, c_uint64, c_void_p
from typing import Any

MIB = 1 << 20
SUCCESS, INVALID_VALUE, OUT_OF_MEMORY, NOT_SUPPORTED = 0, 1, 2, 801
cuda: Any = ctypes.CDLL("libcuda.so.1")
LIVE = (100, 100_000)  # allocations that are alive while the cost of one more is measured


class Array(ctypes.Structure):
    _fields_ = [("width", c_size_t), ("height", c_size_t), ("format", c_int), ("channels", c_uint)]


class Solid(ctypes.Structure):
    _fields_ = [
        ("width", c_size_t), ("height", c_size_t), ("depth", c_size_t), ("format", c_int), ("channels", c_uint),
        ("flags", c_uint),
    ]  # fmt: skip


class External(ctypes.Structure):
    """CUDA_EXTERNAL_MEMORY_HANDLE_DESC."""

    _fields_ = [
        ("type", c_int), ("gap", c_int), ("fd", c_int), ("rest", c_int * 3), ("size", c_uint64), ("flags", c_uint),
        ("reserved", c_uint * 16),
    ]  # fmt: skip


class Wrong(Exception):
    pass


def expect(told: object, right: object, what: str) -> None:
    if told != right:
        raise Wrong(f"{what}: {told}, not {right}")


def fine(result: int, what: str) -> None:
    expect(result, SUCCESS, what)


def plain(size: int) -> int:
    address = c_uint64()
    fine(cuda.cuMemAlloc_v2(byref(address), c_size_t(size)), "cuMemAlloc")
    return address.value


def free_bytes() -> int:
    free, total = c_size_t(), c_size_t()
    fine(cuda.cuMemGetInfo_v2(byref(free), byref(total)), "cuMemGetInfo")
    return free.value


def free_of_what_is_not_ours() -> None:
    """Freed twice, never allocated, on the host, mapped by the driver: its own answers."""
    host = ctypes.create_string_buffer(4096)
    for address in (ctypes.addressof(host), 0x1000, 0x7FFF_0000_0000):
        expect(cuda.cuMemFree_v2(c_uint64(address)), INVALID_VALUE, f"cuMemFree({address:#x})")
    fine(cuda.cuMemFree_v2(c_uint64(0)), "cuMemFree(0)")
    address = plain(MIB)
    expect(cuda.cuMemFree_v2(c_uint64(address + 512)), INVALID_VALUE, "cuMemFree in the middle")
    fine(cuda.cuMemFree_v2(c_uint64(address)), "cuMemFree")
    expect(cuda.cuMemFree_v2(c_uint64(address)), INVALID_VALUE, "cuMemFree twice")
    managed, before = c_uint64(), free_bytes()
    fine(cuda.cuMemAllocManaged(byref(managed), c_size_t(MIB), 1), "cuMemAllocManaged")
    fine(cuda.cuMemFree_v2(managed), "cuMemFree of managed memory")
    expect(cuda.cuMemFree_v2(managed), INVALID_VALUE, "cuMemFree of managed memory twice")
    expect(free_bytes(), before, "free memory afterwards")


def memory_info_null() -> None:
    free, total = c_size_t(1), c_size_t(1)
    fine(cuda.cuMemGetInfo_v2(byref(free), byref(total)), "both")
    alone_free, alone_total = c_size_t(1), c_size_t(1)
    fine(cuda.cuMemGetInfo_v2(byref(alone_free), None), "no total")
    fine(cuda.cuMemGetInfo_v2(None, byref(alone_total)), "no free")
    fine(cuda.cuMemGetInfo_v2(None, None), "neither")
    expect((alone_free.value, alone_total.value), (free.value, total.value), "one by one")
    narrow = c_uint(1)
    fine(cuda.cuMemGetInfo(byref(narrow), None), "32 bits")
    expect(narrow.value, min(free.value, (1 << 32) - 1), "32 bits")
    fine(cuda.cuCtxSetCurrent(None), "cuCtxSetCurrent")
    untouched = c_size_t(4711)
    expect(cuda.cuMemGetInfo_v2(byref(untouched), None), 201, "without a context")
    expect(untouched.value, 4711, "what a refused call leaves")


def attributes_that_lie() -> None:
    """What PyTorch, NCCL and UCX branch on, each into a word that is full of ones before."""
    base = plain(5000)
    address = base + 1000

    def told(number: int, width: Any = c_int) -> int:
        value = width(-1)
        fine(cuda.cuPointerGetAttribute(byref(value), number, c_uint64(address)), f"attribute {number}")
        return int(value.value)

    handle = (ctypes.c_char * 64)()
    shareable = cuda.cuIpcGetMemHandle(byref(handle), c_uint64(base)) == SUCCESS
    expect(told(10), int(shareable), "IS_LEGACY_CUDA_IPC_CAPABLE against cuIpcGetMemHandle")
    dmabuf = c_int(-1)
    exportable = cuda.cuMemGetHandleForAddressRange(byref(dmabuf), c_uint64(base), c_size_t(4096), 1, c_uint64(0))
    expect(told(15) != 0, exportable == SUCCESS, "IS_GPU_DIRECT_RDMA_CAPABLE against a handle for the range")
    expect((told(2), told(8), told(9), told(13)), (2, 0, 0, 1), "type, managed, ordinal, mapped")
    expect((told(11, c_uint64), told(12, c_uint64)), (base, 5000), "RANGE_START_ADDR and RANGE_SIZE")
    start, size = c_uint64(), c_size_t()
    fine(cuda.cuMemGetAddressRange_v2(byref(start), byref(size), c_uint64(address)), "cuMemGetAddressRange")
    expect((start.value, size.value), (base, 5000), "cuMemGetAddressRange")
    fine(cuda.cuMemGetAddressRange_v2(byref(start), None, c_uint64(address)), "cuMemGetAddressRange without a size")
    first = told(7, c_uint64)
    expect(told(6), 0, "SYNC_MEMOPS at first")
    fine(cuda.cuPointerSetAttribute(byref(c_uint(1)), 6, c_uint64(address)), "SYNC_MEMOPS")
    expect(told(6), 1, "SYNC_MEMOPS")
    fine(cuda.cuMemFree_v2(c_uint64(base)), "cuMemFree")
    value = c_uint64()
    expect(cuda.cuPointerGetAttribute(byref(value), 2, c_uint64(address)), INVALID_VALUE, "freed memory")
    base = address = plain(5000)
    expect(told(7, c_uint64) != first, True, "BUFFER_ID of new memory at an old address is new")
    expect(told(6), 0, "SYNC_MEMOPS of new memory")


def linear_lists() -> None:
    """An allocation costs the same however many there are."""
    live: list[int] = []
    each = []
    for count in LIVE:
        live += [plain(512) for _ in range(count - len(live))]
        middle, start, size = live[len(live) // 2] + 100, c_uint64(), c_size_t()
        began = time.perf_counter()
        for _ in range(2000):
            address = plain(512)
            cuda.cuMemGetAddressRange_v2(byref(start), byref(size), c_uint64(middle))
            cuda.cuMemFree_v2(c_uint64(address))
        each.append((time.perf_counter() - began) / 2000 * 1e6)
    print("us for allocate, ask, free:", *(f"{cost:.1f} at {count}" for cost, count in zip(each, LIVE, strict=True)))
    if each[1] > 8 * each[0]:
        raise Wrong(f"{each[1]:.1f} us at {LIVE[1]}, {each[0]:.1f} at {LIVE[0]}")


def result_overwritten() -> None:
    """The driver refuses (a rule of the soft GPU): its error is told, and nothing stays charged."""
    before, address = free_bytes(), c_uint64(4711)
    expect(cuda.cuMemAllocManaged(byref(address), c_size_t(8 * MIB), 1), NOT_SUPPORTED, "cuMemAllocManaged")
    handle, shape = c_void_p(4711), Array(1024, 1024, 0x20, 1)
    expect(cuda.cuArrayCreate_v2(byref(handle), byref(shape)), NOT_SUPPORTED, "cuArrayCreate")
    expect((address.value, handle.value), (4711, 4711), "what refused calls leave")
    expect(free_bytes(), before, "free memory afterwards")


def external_memory() -> None:
    """Charged from its import to its end, refused beyond the quota; what the driver refuses is not charged at all."""
    before, memory, made = free_bytes(), c_void_p(), c_uint64()
    properties = (c_int * 8)(1, 1, 1, 0)  # pinned, POSIX descriptors, of device 0
    fine(cuda.cuMemCreate(byref(made), c_size_t(8 * MIB), byref(properties), c_uint64(0)), "cuMemCreate")
    fd, after_create = c_int(-1), free_bytes()
    fine(cuda.cuMemExportToShareableHandle(byref(fd), made, 1, c_uint64(0)), "cuMemExportToShareableHandle")
    after_export = free_bytes()
    import_it = cuda.cuImportExternalMemory
    wrong = External(type=1, fd=os.open("/dev/null", os.O_RDWR | os.O_CLOEXEC), size=8 * MIB)
    expect(import_it(byref(memory), byref(wrong)) != SUCCESS, True, "what is no memory")
    expect(free_bytes(), after_export, "free memory after a refusal")
    large = External(type=1, fd=fd.value, size=1 << 40)
    expect(import_it(byref(memory), byref(large)), OUT_OF_MEMORY, "more than the quota")
    right = External(type=1, fd=fd.value, size=8 * MIB)
    fine(import_it(byref(memory), byref(right)), "cuImportExternalMemory")
    expect(after_export - free_bytes(), 8 * MIB, "charged by the import")
    fine(cuda.cuDestroyExternalMemory(memory), "cuDestroyExternalMemory")
    expect(free_bytes(), after_export, "free memory after the end")
    fine(cuda.cuMemRelease(made), "cuMemRelease")
    if after_create < before:
        expect(free_bytes(), before, "free memory at the end")


def ways(size: int) -> dict[str, Any]:
    """Each way to get so much device memory: a call that returns its result."""
    address, handle, pitch, pool = c_uint64(), c_void_p(), c_size_t(), c_void_p()
    fine(cuda.cuDeviceGetDefaultMemPool(byref(pool), 0), "cuDeviceGetDefaultMemPool")
    rows, wide = size >> 12, c_size_t(4096)
    flat, solid = Array(1024, rows, 0x20, 1), Solid(1024, 64, rows // 64, 0x20, 1, 0)
    mip = Solid(1024, rows, 0, 0x20, 1, 0)
    properties = (c_int * 8)(1, 0, 1, 0)  # pinned, no handle type, of device 0
    amount = c_size_t(size)
    return {
        "cuMemAlloc": lambda: cuda.cuMemAlloc_v2(byref(address), amount),
        "cuMemAllocPitch": lambda: cuda.cuMemAllocPitch_v2(byref(address), byref(pitch), wide, c_size_t(rows), 4),
        "cuMemAllocManaged": lambda: cuda.cuMemAllocManaged(byref(address), amount, 1),
        "cuMemAllocAsync": lambda: cuda.cuMemAllocAsync(byref(address), amount, None),
        "cuMemAllocFromPoolAsync": lambda: cuda.cuMemAllocFromPoolAsync(byref(address), amount, pool, None),
        "cuMemCreate": lambda: cuda.cuMemCreate(byref(address), amount, byref(properties), c_uint64(0)),
        "cuArrayCreate": lambda: cuda.cuArrayCreate_v2(byref(handle), byref(flat)),
        "cuArray3DCreate": lambda: cuda.cuArray3DCreate_v2(byref(handle), byref(solid)),
        "cuMipmappedArrayCreate": lambda: cuda.cuMipmappedArrayCreate(byref(handle), byref(mip), 1),
        "heap": lambda: cuda.cuCtxSetLimit(2, c_size_t(size + 8 * MIB)),
    }


def quota_by_every_way() -> None:
    """The job has 64 MiB; no way leads beyond, and what was refused costs nothing."""
    whole = free_bytes()
    expect(whole, 64 * MIB, "free memory at first")
    for name, call in ways(80 * MIB).items():
        expect(call(), OUT_OF_MEMORY, f"80 MiB by {name}")
        expect(free_bytes(), whole, f"free memory after {name}")
    address = plain(48 * MIB)
    for name, call in ways(32 * MIB).items():
        expect(call(), OUT_OF_MEMORY, f"32 MiB beside 48 by {name}")
    fine(cuda.cuMemFree_v2(c_uint64(address)), "cuMemFree")
    for name, call in ways(32 * MIB).items():
        if name.startswith("cuArray") or name in ("heap", "cuMemAllocManaged"):
            before = free_bytes()
            fine(call(), f"32 MiB by {name}")
            expect(before - free_bytes(), 32 * MIB, f"charged by {name}")
            fine(cuda.cuDevicePrimaryCtxReset_v2(0), "cuDevicePrimaryCtxReset")


def bookkeeping_fails_after_the_allocation() -> None:
    """What the quota refuses was never allocated: the test looks at the device."""
    for name, call in ways(80 * MIB).items():
        expect(call(), OUT_OF_MEMORY, f"80 MiB by {name}")
    print("refused", flush=True)
    time.sleep(30)


def main() -> int:
    context = c_void_p()
    fine(cuda.cuInit(0), "cuInit")
    fine(cuda.cuDevicePrimaryCtxRetain(byref(context), 0), "cuDevicePrimaryCtxRetain")
    fine(cuda.cuCtxSetCurrent(context), "cuCtxSetCurrent")
    try:
        globals()[sys.argv[1]]()
    except Wrong as wrong:
        print(f"wrong: {wrong}", flush=True)
        return 1
    print("ok", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
