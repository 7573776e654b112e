# SPDX-License-Identifier: Apache-2.0
"""Work that others may run beside: a kernel that is on the GPU until it is let go, and one that starts when told to.

    beside.py holds FILE [--steps N]    mixes its words, waits on the GPU until FILE is there, mixes on
    beside.py waits FILE [--steps N]    has its memory on the device, waits until FILE is there, mixes its words

Prints `ready`, then `launched` (holds: the kernel that waits is on the GPU), `result: OK digest=...`, and exits 0; 3
when a CUDA call fails, 4 when a word is wrong. Both come to the same words in the same steps, whatever runs there too.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from cuda.bindings import driver as cu
from device import CudaError, call, launch_mix, load_mix, open_device

COUNT = 1 << 20
BLOCKS = 1 << 20  # each 0.2 ms: minutes. The hardware can let others in only between blocks
HOLD_PTX = b"""
.version 7.0
.target sm_60
.address_size 64

.visible .entry hold(.param .u64 flag)
{
    .reg .b64 %address, %start, %now, %took;
    .reg .b32 %seen;
    .reg .pred %p;
    ld.param.u64 %address, [flag];
    mov.u64 %start, %globaltimer;
again:
    ld.volatile.u32 %seen, [%address];
    setp.ne.u32 %p, %seen, 0;
    @%p bra end;
    mov.u64 %now, %globaltimer;
    sub.u64 %took, %now, %start;
    setp.lo.u64 %p, %took, 200000;
    @%p bra again;
end:
    ret;
}
\0"""


def wait_for(path: Path) -> None:
    while not path.exists():
        time.sleep(0.01)


def hold(hold_kernel: Any, stream: Any, flag: int) -> None:
    values = (ctypes.c_uint64(flag),)
    pointers = (ctypes.c_void_p * 1)(ctypes.addressof(values[0]))
    call(cu.cuLaunchKernel, hold_kernel, BLOCKS, 1, 1, 1, 1, 1, 0, stream, ctypes.addressof(pointers), 0)


def run(kind: str, path: Path, steps: int) -> int:
    open_device()
    mix = load_mix()
    hold_kernel = call(cu.cuModuleGetFunction, call(cu.cuModuleLoadData, HOLD_PTX), b"hold")
    stream = call(cu.cuStreamCreate, cu.CUstream_flags.CU_STREAM_NON_BLOCKING)
    host = call(cu.cuMemHostAlloc, 4, cu.CU_MEMHOSTALLOC_DEVICEMAP)
    flag = ctypes.c_uint32.from_address(int(host))
    flag.value = 0
    words = call(cu.cuMemAlloc, 4 * COUNT)
    call(cu.cuMemsetD32, words, 7, COUNT)
    call(cu.cuCtxSynchronize)  # the stream does not wait for it
    launch_mix(mix, words, COUNT, stream)
    call(cu.cuStreamSynchronize, stream)
    print("ready", flush=True)
    if kind == "waits":
        wait_for(path)
    for step in range(1, steps):
        if kind == "holds" and step == steps // 2:
            hold(hold_kernel, stream, int(call(cu.cuMemHostGetDevicePointer, host, 0)))
            print("launched", flush=True)
            wait_for(path)
            flag.value = 1
        launch_mix(mix, words, COUNT, stream)
    call(cu.cuStreamSynchronize, stream)
    found = np.empty(COUNT, dtype=np.uint32)
    call(cu.cuMemcpyDtoH, found.ctypes.data, words, found.nbytes)
    index, expected = np.arange(COUNT, dtype=np.uint32), np.full(COUNT, 7, dtype=np.uint32)
    for _ in range(steps):
        expected = expected * np.uint32(1664525) + np.uint32(1013904223) + index
    if not np.array_equal(found, expected):
        print(f"result: WRONG word {int((found != expected).argmax())}", flush=True)
        return 4
    print(f"result: OK digest={zlib.crc32(found.tobytes()):08x}", flush=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("holds", "waits"))
    parser.add_argument("file", type=Path)
    parser.add_argument("--steps", type=int, default=8)
    options = parser.parse_args()
    try:
        return run(options.kind, options.file, options.steps)
    except CudaError as error:
        print(f"error: {error}", flush=True)
        return 3


if __name__ == "__main__":
    sys.exit(main())
