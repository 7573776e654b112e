# SPDX-License-Identifier: Apache-2.0
"""Probes of what a process holds on the device before it has allocated anything, as NVML sees it."""

from __future__ import annotations

import importlib
from typing import Any

import pynvml
from cuda.bindings import driver

from real_gpu.cuda import MIB, check, context


def used() -> int:
    """Bytes of device 0 in use by anybody."""
    return int(pynvml.nvmlDeviceGetMemoryInfo(pynvml.nvmlDeviceGetHandleByIndex(0)).used)


def driver_residue() -> dict[str, Any]:
    """MiB more in use after cuInit, after the context, after a first allocation of 1 MiB."""
    pynvml.nvmlInit()
    before = used()
    check(driver.cuInit(0), "cuInit")
    initialised = used()
    context()
    with_context = used()
    free, total = check(driver.cuMemGetInfo(), "cuMemGetInfo")
    check(driver.cuMemAlloc(MIB), "cuMemAlloc")
    return {
        "before_mib": before >> 20,
        "after_init_mib": (initialised - before) >> 20,
        "after_context_mib": (with_context - before) >> 20,
        "after_first_allocation_mib": (used() - before) >> 20,
        "mem_get_info_mib": {"free": int(free) >> 20, "total": int(total) >> 20},
        "nvml_used_beside_free_mib": (int(total) - int(free) - with_context) >> 20,
    }


def torch_residue() -> dict[str, Any]:
    """MiB more in use after torch's initialisation, a first tensor, a product (cuBLAS), a convolution (cuDNN)."""
    torch: Any = importlib.import_module("torch")

    pynvml.nvmlInit()
    before = used()
    torch.cuda.init()
    found = {"after_init_mib": (used() - before) >> 20}
    values = torch.ones(1024, 1024, device="cuda")
    torch.cuda.synchronize()
    found["after_first_tensor_mib"] = (used() - before) >> 20
    _ = values @ values
    torch.cuda.synchronize()
    found["after_cublas_mib"] = (used() - before) >> 20
    _ = torch.nn.functional.conv2d(torch.ones(8, 3, 64, 64, device="cuda"), torch.ones(8, 3, 3, 3, device="cuda"))
    torch.cuda.synchronize()
    found["after_cudnn_mib"] = (used() - before) >> 20
    found["torch_reserved_mib"] = torch.cuda.memory_reserved() >> 20
    return found
