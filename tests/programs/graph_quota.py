# SPDX-License-Identifier: Apache-2.0
"""Memory nodes under a limit of 64 MiB: what they take is told, counts, comes back, and is refused beyond the limit.

With --refused: the driver (a rule of the soft GPU) refuses the second launch of a graph whose memory is in use.
Prints `result: OK`, and exits 0; 3 when a CUDA call fails (with its name).
"""

from __future__ import annotations

import sys
from typing import Any

from cuda.bindings import driver as cu
from device import CudaError, call, open_device

MIB = 1 << 20
RELAXED = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED


def graph_of(stream: Any, size: int) -> Any:
    """An executable graph that allocates, writes and frees."""
    call(cu.cuStreamBeginCapture, stream, RELAXED)
    address = call(cu.cuMemAllocAsync, size, stream)
    call(cu.cuMemsetD8Async, address, 1, size, stream)
    call(cu.cuMemFreeAsync, address, stream)
    graph = call(cu.cuStreamEndCapture, stream)
    executable = call(cu.cuGraphInstantiate, graph, 0)
    call(cu.cuGraphDestroy, graph)
    return executable


def free_bytes() -> int:
    return int(call(cu.cuMemGetInfo)[0])


def launch(executable: Any, stream: Any) -> str:
    """The name of the launch's result."""
    name: str = cu.cuGraphLaunch(executable, stream)[0].name
    call(cu.cuStreamSynchronize, stream)
    return name


def run() -> None:
    open_device()
    stream = call(cu.cuStreamCreate, 1)
    before = free_bytes()
    assert before <= 64 * MIB, before
    fits, large = graph_of(stream, 40 * MIB), graph_of(stream, 80 * MIB)
    for _ in range(3):  # the memory stays for the next launch, and is charged once
        assert launch(fits, stream) == "CUDA_SUCCESS"
        assert free_bytes() == before - 40 * MIB, (free_bytes(), before)
    assert launch(large, stream) == "CUDA_ERROR_OUT_OF_MEMORY"
    assert launch(fits, stream) == "CUDA_SUCCESS"
    refused = cu.cuMemAlloc(32 * MIB)[0].name
    assert refused == "CUDA_ERROR_OUT_OF_MEMORY", refused
    call(cu.cuDeviceGraphMemTrim, 0)
    assert free_bytes() == before, (free_bytes(), before)
    plain = call(cu.cuMemAlloc, 32 * MIB)
    assert launch(fits, stream) == "CUDA_ERROR_OUT_OF_MEMORY"
    call(cu.cuMemFree, plain)
    assert launch(fits, stream) == "CUDA_SUCCESS"
    call(cu.cuGraphExecDestroy, fits)
    call(cu.cuGraphExecDestroy, large)
    call(cu.cuDeviceGraphMemTrim, 0)
    assert free_bytes() == before, (free_bytes(), before)


def refused() -> None:
    """The memory of the first launch stays charged when the second one is refused: once, and no less."""
    open_device()
    stream = call(cu.cuStreamCreate, 1)
    before = free_bytes()
    call(cu.cuStreamBeginCapture, stream, RELAXED)
    address = call(cu.cuMemAllocAsync, 40 * MIB, stream)
    graph = call(cu.cuStreamEndCapture, stream)
    executable = call(cu.cuGraphInstantiate, graph, 0)
    assert launch(executable, stream) == "CUDA_SUCCESS"
    assert free_bytes() == before - 40 * MIB, (free_bytes(), before)
    assert launch(executable, stream) == "CUDA_ERROR_OUT_OF_MEMORY"
    assert free_bytes() == before - 40 * MIB, (free_bytes(), before)
    call(cu.cuMemFreeAsync, address, stream)
    call(cu.cuStreamSynchronize, stream)
    call(cu.cuDeviceGraphMemTrim, 0)
    assert free_bytes() == before, (free_bytes(), before)


def main() -> int:
    try:
        refused() if "--refused" in sys.argv else run()
    except CudaError as error:
        print(f"error: {error}", flush=True)
        return 3
    print("result: OK", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
