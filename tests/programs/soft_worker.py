# SPDX-License-Identifier: Apache-2.0
"""Runs one line of Python after the other on the soft GPU, as the test says on standard input.

Prints "= RESULT" after each: the value, or the name of the error of a driver call. Names at hand: cu, call, and
`work`, which has memory and kernels. For tests that let the device fail while a program uses it.
"""

from __future__ import annotations

import ctypes
import sys
from typing import Any

from cuda.bindings import driver as cu
from device import MIX_PTX, CudaError, call

BYTES = 4 << 20
ENDLESS_PTX = b"""
.version 7.0
.target sm_52
.address_size 64
.visible .entry wild(.param .u64 at)
{
    .reg .b64 %rd<2>;
    .reg .b32 %r<2>;
    ld.param.u64 %rd1, [at];
    mov.u32 %r1, 1;
    st.global.u32 [%rd1], %r1;
    ret;
}
.visible .entry trap()
{
    trap;
    ret;
}
\0"""


class Work:
    """A context, 4 MiB, a stream, kernels."""

    def __init__(self) -> None:
        call(cu.cuInit, 0)
        self.open()

    def open(self, device: int = 0) -> None:
        self.context = call(cu.cuCtxCreate, None, 0, device)
        self.mix = call(cu.cuModuleGetFunction, call(cu.cuModuleLoadData, MIX_PTX), b"mix")
        module = call(cu.cuModuleLoadData, ENDLESS_PTX)
        self.wild_kernel = call(cu.cuModuleGetFunction, module, b"wild")
        self.trap_kernel = call(cu.cuModuleGetFunction, module, b"trap")
        self.stream = call(cu.cuStreamCreate, 0)
        self.memory = int(call(cu.cuMemAlloc, BYTES))
        call(cu.cuMemsetD8, self.memory, 0, BYTES)

    def launch(self) -> None:
        arguments = ((self.memory, 1024), (ctypes.c_void_p, ctypes.c_uint))
        call(cu.cuLaunchKernel, self.mix, 4, 1, 1, 256, 1, 1, 0, self.stream, arguments, 0)

    def step(self) -> int:
        """One kernel, waited for; the first word."""
        self.launch()
        call(cu.cuStreamSynchronize, self.stream)
        return self.word()

    def record(self) -> None:
        """A graph of one kernel."""
        call(cu.cuStreamBeginCapture, self.stream, cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL)
        self.launch()
        self.graph = call(cu.cuGraphInstantiate, call(cu.cuStreamEndCapture, self.stream), 0)

    def play(self) -> int:
        """One launch of the graph, waited for; the first word."""
        call(cu.cuGraphLaunch, self.graph, self.stream)
        call(cu.cuStreamSynchronize, self.stream)
        return self.word()

    def word(self) -> int:
        word = (ctypes.c_uint * 1)()
        call(cu.cuMemcpyDtoH, ctypes.addressof(word), self.memory, 4)
        return int(word[0])

    def read(self) -> int:
        """Copies all to the host."""
        data = (ctypes.c_ubyte * BYTES)()
        call(cu.cuMemcpyDtoH, ctypes.addressof(data), self.memory, BYTES)
        return len(data)

    def write(self) -> int:
        data = (ctypes.c_ubyte * BYTES)()
        call(cu.cuMemcpyHtoD, self.memory, ctypes.addressof(data), BYTES)
        return len(data)

    def wild(self) -> None:
        """Writes to address 64."""
        call(cu.cuLaunchKernel, self.wild_kernel, 1, 1, 1, 1, 1, 1, 0, self.stream, ((64,), (ctypes.c_void_p,)), 0)
        call(cu.cuStreamSynchronize, self.stream)

    def trap(self) -> None:
        call(cu.cuLaunchKernel, self.trap_kernel, 1, 1, 1, 1, 1, 1, 0, self.stream, 0, 0)
        call(cu.cuStreamSynchronize, self.stream)


class Checkpoint:
    """cuCheckpointProcess* of another process. Each answers "OK" or raises."""

    def __init__(self, pid: int) -> None:
        self.pid = pid

    def lock(self, timeout_ms: int = 20000) -> str:
        args = cu.CUcheckpointLockArgs()
        args.timeoutMs = timeout_ms
        call(cu.cuCheckpointProcessLock, self.pid, args)
        return "OK"

    def save(self) -> str:
        call(cu.cuCheckpointProcessCheckpoint, self.pid, cu.CUcheckpointCheckpointArgs())
        return "OK"

    def restore(self, moves: dict[int, int] | None = None) -> str:
        """`moves`: old device of the board -> new one."""
        args = cu.CUcheckpointRestoreArgs()
        pairs = []
        for old, new in (moves or {}).items():
            pair = cu.CUcheckpointGpuPair()
            pair.oldUuid, pair.newUuid = call(cu.cuDeviceGetUuid, old), call(cu.cuDeviceGetUuid, new)
            pairs.append(pair)
        if pairs:
            args.gpuPairs = pairs
            args.gpuPairsCount = len(pairs)
        call(cu.cuCheckpointProcessRestore, self.pid, args)
        return "OK"

    def unlock(self) -> str:
        call(cu.cuCheckpointProcessUnlock, self.pid, cu.CUcheckpointUnlockArgs())
        return "OK"

    def state(self) -> str:
        state = cu.CUprocessState(call(cu.cuCheckpointProcessGetState, self.pid))
        return state.name.removeprefix("CU_PROCESS_STATE_")


def main() -> None:
    names: dict[str, Any] = {"cu": cu, "call": call, "Work": Work, "Checkpoint": Checkpoint}
    for line in sys.stdin:
        try:
            try:
                value = eval(line, names)
            except SyntaxError:
                exec(line, names)
                value = None
        except CudaError as error:
            value = error.code
        print("=", value, flush=True)


if __name__ == "__main__":
    main()
