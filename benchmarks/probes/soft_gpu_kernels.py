#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times the kernels of soft_gpu_kernels.cu on device 0 and prints {"saxpy": [ns, ...], ...}; checks their results.

Started by benchmarks/soft_gpu.py with the environment of a soft GPU; works on any GPU.
"""

from __future__ import annotations

import ctypes
import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from cuda.bindings import driver, nvrtc

LENGTH, SIDE = 1 << 24, 512
SOURCE = Path(__file__).with_suffix(".cu")


def check(answer: tuple[Any, ...]) -> Any:
    """The result of a call without its status. Exits with a line when it failed."""
    if int(answer[0]) != 0:
        sys.exit(f"{Path(__file__).name}: {answer[0].name}")
    return answer[1] if len(answer) == 2 else answer[1:]


def ptx() -> bytes:
    """PTX of SOURCE for the lowest architecture that this NVRTC knows."""
    program = check(nvrtc.nvrtcCreateProgram(SOURCE.read_bytes(), SOURCE.name.encode(), 0, [], []))
    archs = check(nvrtc.nvrtcGetSupportedArchs())
    check(nvrtc.nvrtcCompileProgram(program, 1, [f"--gpu-architecture=compute_{min(archs)}".encode()]))
    text = b" " * check(nvrtc.nvrtcGetPTXSize(program))
    check(nvrtc.nvrtcGetPTX(program, text))
    return text


def upload(values: np.ndarray) -> int:
    """Address of a copy of `values` on the device."""
    address = check(driver.cuMemAlloc(values.nbytes))
    check(driver.cuMemcpyHtoD(address, values.ctypes.data, values.nbytes))
    return int(address)


def download(address: int, count: int) -> np.ndarray:
    """`count` floats of the device."""
    values: np.ndarray = np.empty(count, dtype=np.float32)
    check(driver.cuMemcpyDtoH(values.ctypes.data, address, values.nbytes))
    return values


def main() -> int:
    """The only argument is the number of repetitions."""
    repeats = int(sys.argv[1])
    check(driver.cuInit(0))
    context = check(driver.cuDevicePrimaryCtxRetain(check(driver.cuDeviceGet(0))))
    check(driver.cuCtxSetCurrent(context))
    module = check(driver.cuModuleLoadData(ptx()))
    stream = check(driver.cuStreamCreate(driver.CUstream_flags.CU_STREAM_NON_BLOCKING))
    x_host = ((np.arange(LENGTH) % 1000) * 0.001).astype(np.float32)
    a_host = ((np.arange(SIDE * SIDE) % 7) * 0.1).astype(np.float32).reshape(SIDE, SIDE)
    b_host = ((np.arange(SIDE * SIDE) % 11) * 0.1).astype(np.float32).reshape(SIDE, SIDE)
    x, y, sums = upload(x_host), upload(np.ones(LENGTH, dtype=np.float32)), upload(x_host[: LENGTH // 256])
    shuffled = upload(x_host[: LENGTH // 256])
    a, b, c = upload(a_host), upload(b_host), upload(b_host)
    pointer, integer = ctypes.c_void_p, ctypes.c_int
    blocks = LENGTH // 256
    launches: dict[str, tuple[tuple[int, int], tuple[int, int], Any]] = {
        "saxpy": ((blocks, 1), (256, 1), ((x, y, LENGTH), (pointer, pointer, integer))),
        "reduce": ((blocks, 1), (256, 1), ((x, sums), (pointer, pointer))),
        "shuffle": ((blocks, 1), (256, 1), ((x, shuffled), (pointer, pointer))),
        "matmul": ((SIDE // 16, SIDE // 16), (16, 16), ((a, b, c, SIDE), (pointer, pointer, pointer, integer))),
    }
    times: dict[str, list[int]] = {}
    for name, (grid, block, arguments) in launches.items():
        function = check(driver.cuModuleGetFunction(module, name.encode()))
        times[name] = []
        for repeat in range(-1, repeats):
            began = time.perf_counter_ns()
            check(driver.cuLaunchKernel(function, *grid, 1, *block, 1, 0, stream, arguments, 0))
            check(driver.cuStreamSynchronize(stream))
            if repeat >= 0:
                times[name].append(time.perf_counter_ns() - began)

    expected: np.ndarray = np.ones(LENGTH, dtype=np.float32)
    for _ in range(repeats + 1):
        expected = np.float32(2.5) * x_host + expected
    block_sums = x_host.reshape(blocks, 256).sum(axis=1)
    good = {
        "saxpy": np.allclose(download(y, LENGTH), expected, rtol=1e-5),
        "reduce": np.allclose(download(sums, blocks), block_sums, rtol=1e-4),
        "shuffle": np.allclose(download(shuffled, blocks), block_sums, rtol=1e-4),
        "matmul": np.allclose(download(c, SIDE * SIDE).reshape(SIDE, SIDE), a_host @ b_host, rtol=1e-4),
    }
    wrong = [name for name, right in good.items() if not right]
    if wrong:
        sys.exit(f"{Path(__file__).name}: wrong results of {', '.join(wrong)}")
    print(json.dumps(times))
    return 0


if __name__ == "__main__":
    sys.exit(main())
