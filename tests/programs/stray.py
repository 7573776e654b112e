# SPDX-License-Identifier: Apache-2.0
"""Touches device memory that is not its own: `freed` or `unmapped`. Prints the name of the error that it gets."""

from __future__ import annotations

import sys

from cuda.bindings import driver as cu
from device import CudaError, call, launch_mix, load_mix, open_device


def main() -> int:
    open_device()
    mix = load_mix()
    size = 64 << 20
    address = call(cu.cuMemAlloc, size)
    call(cu.cuMemsetD32, address, 1, size // 4)
    if sys.argv[1] == "freed":
        call(cu.cuMemFree, address)
    else:
        address = 0x7ABC00000000
    try:
        launch_mix(mix, address, size // 4)
        call(cu.cuCtxSynchronize)
    except CudaError as error:
        first = error.code
    else:
        print("no error")
        return 1
    try:
        call(cu.cuMemAlloc, size)
        launch_mix(mix, address, 1)
        call(cu.cuCtxSynchronize)
        again = "CUDA_SUCCESS"
    except CudaError as error:
        again = error.code
    print(f"first: {first}\nthen: {again}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
