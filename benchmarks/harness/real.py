# SPDX-License-Identifier: Apache-2.0
"""The NVIDIA GPU of this machine, as NVML describes it; no CUDA context is made to look at it."""

from __future__ import annotations

from dataclasses import dataclass

import pynvml

from harness.softgpu import Device


class NoRealGpu(Exception):
    """There is no NVIDIA GPU, or no driver for it."""


@dataclass(frozen=True)
class RealGpu:
    """Of ordinal 0. Memory in bytes; `free` is what no process has taken."""

    name: str
    driver: str
    total: int
    free: int


def describe() -> RealGpu:
    """The first GPU. Raises NoRealGpu."""
    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError as error:
        raise NoRealGpu(f"no NVIDIA GPU: {error}") from None
    try:
        handle = pynvml.nvmlDeviceGetHandleByIndex(0)
        memory = pynvml.nvmlDeviceGetMemoryInfo(handle)
        name = str(pynvml.nvmlDeviceGetName(handle))
        return RealGpu(name, str(pynvml.nvmlSystemGetDriverVersion()), int(memory.total), int(memory.free))
    except pynvml.NVMLError as error:
        raise NoRealGpu(f"the NVIDIA GPU cannot be used: {error}") from None
    finally:
        pynvml.nvmlShutdown()


def real_gpu() -> Device:
    """The first GPU for a demo whose programs never ask for more than is free now. Raises NoRealGpu."""
    gpu = describe()
    return Device(gpu.name, gpu.free, {})
