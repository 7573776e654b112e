# SPDX-License-Identifier: Apache-2.0
"""Takes turns between memory of cuMemAlloc and mapped memory of its own, each as much as may be resident.

Prints `slowest SECONDS`, the longest that one turn took until it was in use, and exits 0; 3 when a call fails.
"""

from __future__ import annotations

import argparse
import sys
import time

from cuda.bindings import driver as cu
from device import CudaError, call, open_device
from expandable import Segment

MIB = 1 << 20


def plain(size: int) -> None:
    address = call(cu.cuMemAlloc, size)
    call(cu.cuMemsetD32, address, 1, size // 4)
    call(cu.cuCtxSynchronize)
    call(cu.cuMemFree, address)


def mapped(segment: Segment, size: int) -> None:
    segment.grow(size)
    segment.open(0)
    call(cu.cuMemsetD32, segment.base, 1, size // 4)
    call(cu.cuCtxSynchronize)
    handle, _ = segment.detach()
    call(cu.cuMemRelease, handle)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--memory", type=int, default=40, help="MiB of each turn")
    parser.add_argument("--turns", type=int, default=12)
    options = parser.parse_args()
    size = options.memory * MIB
    try:
        open_device()
        segment = Segment(size)
        slowest = 0.0
        for turn in range(options.turns):
            began = time.monotonic()
            if turn % 2:
                mapped(segment, size)
            else:
                plain(size)
            slowest = max(slowest, time.monotonic() - began)
        print(f"slowest {slowest:.3f}", flush=True)
        return 0
    except CudaError as failed:
        print(failed, flush=True)
        return 3


if __name__ == "__main__":
    sys.exit(main())
