#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Times the first cuModuleLoadData of this process, of soft_gpu_kernels.cu as PTX: {"load_ns": N}."""

from __future__ import annotations

import json
import time

from cuda.bindings import driver
from soft_gpu_kernels import check, ptx


def main() -> None:
    """No arguments."""
    check(driver.cuInit(0))
    context = check(driver.cuDevicePrimaryCtxRetain(check(driver.cuDeviceGet(0))))
    check(driver.cuCtxSetCurrent(context))
    image = ptx()
    began = time.perf_counter_ns()
    check(driver.cuModuleLoadData(image))
    print(json.dumps({"load_ns": time.perf_counter_ns() - began}))


if __name__ == "__main__":
    main()
