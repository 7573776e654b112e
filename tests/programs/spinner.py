# SPDX-License-Identifier: Apache-2.0
"""Kernels that take a time, for a time: `--blocks` blocks of `--milliseconds` each, one after the other.

Prints `ready`, `result: OK launches=N`, and exits 0.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import time

from cuda.bindings import driver as cu
from device import call, open_device

SPIN_PTX = b"""
.version 7.0
.target sm_52
.address_size 64

.visible .entry spin(.param .u64 time)
{
    .reg .b64 %s, %n, %l;
    .reg .pred %p;
    ld.param.u64 %l, [time];
    mov.u64 %s, %globaltimer;
again:
    mov.u64 %n, %globaltimer;
    sub.s64 %n, %n, %s;
    setp.lt.u64 %p, %n, %l;
    @%p bra again;
    ret;
}
\0"""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--milliseconds", type=float, default=1.0)
    parser.add_argument("--blocks", type=int, default=1)
    options = parser.parse_args()
    open_device()
    spin = call(cu.cuModuleGetFunction, call(cu.cuModuleLoadData, SPIN_PTX), b"spin")
    stream = call(cu.cuStreamCreate, 0)
    arguments = ((int(options.milliseconds * 1e6),), (ctypes.c_uint64,))
    print("ready", flush=True)
    launches, ends = 0, time.monotonic() + options.seconds
    while time.monotonic() < ends:
        call(cu.cuLaunchKernel, spin, options.blocks, 1, 1, 1, 1, 1, 0, stream, arguments, 0)
        call(cu.cuStreamSynchronize, stream)
        launches += 1
    print(f"result: OK launches={launches}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
