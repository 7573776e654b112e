#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Allocates device memory of one kind in pieces until it may not; says how much that was and what it was told before.

plain (cuMemAlloc), pool (cuMemAllocAsync), vmm (cuMemCreate and mapping), managed, array
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

import console
from cuda.bindings import driver as cu

PIECE = 16 << 20
LIMIT = 1 << 12  # pieces: a driver that never says no is a finding, too


def must(answer: tuple[Any, ...], doing: str) -> Any:
    """What a call gave. Raises console.CudaFailure."""
    if answer[0] != cu.CUresult.CUDA_SUCCESS:
        raise console.CudaFailure(answer[0].name, doing)
    return answer[1] if len(answer) == 2 else answer[1:]


def plain(device: Any) -> Any:
    """cuMemAlloc."""
    return cu.cuMemAlloc(PIECE)[0]


def pool(device: Any) -> Any:
    """cuMemAllocAsync on the default stream."""
    result = cu.cuMemAllocAsync(PIECE, 0)[0]
    return result if result != cu.CUresult.CUDA_SUCCESS else cu.cuStreamSynchronize(0)[0]


def vmm(device: Any) -> Any:
    """Memory that the program creates and maps itself, as PyTorch's expandable segments and NCCL do."""
    wanted = cu.CUmemAllocationProp()
    wanted.type = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    wanted.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    wanted.location.id = int(device)
    result, handle = cu.cuMemCreate(PIECE, wanted, 0)
    if result != cu.CUresult.CUDA_SUCCESS:
        return result
    address = must(cu.cuMemAddressReserve(PIECE, 0, 0, 0), "cuMemAddressReserve")
    result = cu.cuMemMap(address, PIECE, 0, handle, 0)[0]
    if result != cu.CUresult.CUDA_SUCCESS:
        return result
    access = cu.CUmemAccessDesc()
    access.location = wanted.location
    access.flags = cu.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
    return cu.cuMemSetAccess(address, PIECE, [access], 1)[0]


def managed(device: Any) -> Any:
    """cuMemAllocManaged."""
    return cu.cuMemAllocManaged(PIECE, cu.CUmemAttach_flags.CU_MEM_ATTACH_GLOBAL.value)[0]


def array(device: Any) -> Any:
    """A CUDA array of one piece."""
    shape = cu.CUDA_ARRAY_DESCRIPTOR()
    shape.Width, shape.Height = 2048, PIECE // 2048 // 4
    shape.Format, shape.NumChannels = cu.CUarray_format.CU_AD_FORMAT_FLOAT, 1
    return cu.cuArrayCreate(shape)[0]


KINDS: dict[str, Callable[[Any], Any]] = {"plain": plain, "pool": pool, "vmm": vmm, "managed": managed, "array": array}


def body(kind: str, report: console.Report) -> None:
    """The whole program."""
    must(cu.cuInit(0), "cuInit")
    device = must(cu.cuDeviceGet(0), "cuDeviceGet")
    context = must(cu.cuDevicePrimaryCtxRetain(device), "cuDevicePrimaryCtxRetain")
    must(cu.cuCtxSetCurrent(context), "cuCtxSetCurrent")
    free, total = must(cu.cuMemGetInfo(), "cuMemGetInfo")
    count, said = 0, cu.CUresult.CUDA_SUCCESS
    while count < LIMIT:
        said = KINDS[kind](device)
        if said != cu.CUresult.CUDA_SUCCESS:
            break
        count += 1
    left = must(cu.cuMemGetInfo(), "cuMemGetInfo")[0]
    report.keep(total_bytes=total, free_bytes=free, left_bytes=left, allocated_bytes=count * PIECE, piece_bytes=PIECE)
    report.finish(result=said.name)


def main() -> int:
    """Exit code 0, or 3 when CUDA failed otherwise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=KINDS)
    parser.add_argument("--json", type=console.Path, metavar="FILE", help="write the result to FILE")
    options = parser.parse_args()
    report = console.Report("quota", options.json)
    return console.run("quota", lambda: body(options.kind, report))


if __name__ == "__main__":
    sys.exit(main())
