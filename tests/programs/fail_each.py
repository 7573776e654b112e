# SPDX-License-Identifier: Apache-2.0
"""A small program whose 1st, 2nd, 3rd ... driver call fails, until none is left to fail.

    fail_each.py error NAME     in this process: the program says so or succeeds, and leaves nothing on the device
    fail_each.py kill           in children of this process, which die there

Prints "calls N" at the end. Under gpuvirt the calls that fail are those that reach the soft driver.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from cuda.bindings import driver as cu
from device import MIX_PTX, CudaError, call

from gpuvirt import paths
from gpuvirt.cli.softgpu_fault import FaultBoard

BYTES = 1 << 20
GOVERNED = "GPUVIRT_JOB" in os.environ  # under gpuvirt: it keeps some memory until the end, and makes calls of its own
BOARD = Path(os.environ["GPUVIRT_SOFTGPU_BOARD"])


class Undo:
    """What must be called to leave nothing behind, last first."""

    def __init__(self) -> None:
        self._calls: list[tuple[Callable[..., Any], tuple[Any, ...]]] = []

    def add(self, function: Callable[..., Any], *arguments: Any) -> None:
        self._calls.append((function, arguments))

    def run(self) -> None:
        cu.cuCtxSynchronize()  # unmapping memory that work still uses is an error
        while self._calls:
            function, arguments = self._calls.pop()
            function(*arguments)


def program(undo: Undo) -> None:
    """Some of everything. Raises CudaError."""
    call(cu.cuInit, 0)
    device = call(cu.cuDeviceGet, 0)
    context = call(cu.cuDevicePrimaryCtxRetain, device)
    undo.add(cu.cuDevicePrimaryCtxRelease, device)
    call(cu.cuCtxSetCurrent, context)
    undo.add(cu.cuCtxSetCurrent, None)
    module = call(cu.cuModuleLoadData, MIX_PTX)
    kernel = call(cu.cuModuleGetFunction, module, b"mix")
    stream = call(cu.cuStreamCreate, 0)
    memory = call(cu.cuMemAlloc, BYTES)
    undo.add(cu.cuMemFree, memory)
    pooled = call(cu.cuMemAllocAsync, BYTES, stream)
    undo.add(cu.cuMemFree, pooled)
    prop = cu.CUmemAllocationProp()
    prop.type = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    prop.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    size = call(cu.cuMemGetAllocationGranularity, prop, cu.CUmemAllocationGranularity_flags(0))
    area = call(cu.cuMemAddressReserve, size, 0, 0, 0)
    undo.add(cu.cuMemAddressFree, area, size)
    handle = call(cu.cuMemCreate, size, prop, 0)
    undo.add(cu.cuMemRelease, handle)
    call(cu.cuMemMap, area, size, 0, handle, 0)
    undo.add(cu.cuMemUnmap, area, size)
    access = cu.CUmemAccessDesc()
    access.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    access.flags = cu.CUmemAccess_flags.CU_MEM_ACCESS_FLAGS_PROT_READWRITE
    call(cu.cuMemSetAccess, area, size, [access], 1)
    call(cu.cuMemsetD8, memory, 0, BYTES)
    call(cu.cuMemcpyDtoDAsync, area, memory, BYTES, stream)
    arguments = ((int(area), 1024), (ctypes.c_void_p, ctypes.c_uint))
    call(cu.cuLaunchKernel, kernel, 4, 1, 1, 256, 1, 1, 0, stream, arguments, 0)
    event = call(cu.cuEventCreate, 0)
    call(cu.cuEventRecord, event, stream)
    call(cu.cuEventSynchronize, event)
    words = (ctypes.c_uint * 2)()
    call(cu.cuMemcpyDtoH, ctypes.addressof(words), area, 8)
    assert list(words) == [1013904223, 1013904224], list(words)
    call(cu.cuStreamDestroy, stream)
    call(cu.cuCtxSynchronize)


def device_used() -> int:
    import pynvml

    pynvml.nvmlInit()
    return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).used)


def fail_once(board: FaultBoard, number: int, action: str) -> bool:
    """Runs the program with its call `number` failing; False when it made fewer calls."""
    undo = Undo()
    rule = board.add(f"cu*:{number}:{action}:pid={os.getpid()}")
    said = "passed"
    try:
        program(undo)
    except CudaError as error:
        said = f"{error}"
    (row,) = (row for row in board.rules() if row["id"] == rule)
    board.clear(rule)
    undo.run()
    assert GOVERNED or not row["acted"] or action in said, said
    return bool(row["acted"])


def each_in_a_child(board: FaultBoard) -> int:
    """Kills a child in each of its calls; how many there were."""
    for number in range(1, 1000):
        child = os.fork()
        if child == 0:
            os._exit(0 if not fail_once(board, number, "kill") else 1)
        _, status = os.waitpid(child, 0)
        assert device_used() == 0, f"after the kill in call {number}: {device_used()} bytes"
        if not os.WIFSIGNALED(status):
            assert os.WEXITSTATUS(status) == 0
            return number - 1
        assert os.WTERMSIG(status) == signal.SIGKILL
    raise AssertionError("no end of calls")


def main() -> None:
    mode, *names = sys.argv[1:]
    device_used()  # makes the board
    board = FaultBoard(BOARD, paths.library("softgpu/libcuda.so.1").parent / "libnvidia-ml.so.1")
    if mode == "kill":
        print("calls", each_in_a_child(board))
        return
    number = 1
    while fail_once(board, number, names[0]):
        assert GOVERNED or device_used() == 0, f"after the failure of call {number}: {device_used()} bytes"
        number += 1
    print("calls", number - 1)


if __name__ == "__main__":
    main()
