# SPDX-License-Identifier: Apache-2.0
"""Driver calls through cuda.bindings whose answers are checked by name."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from cuda.bindings import driver as cu
from cuda.bindings import nvrtc


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """A driver call that must succeed; its value, or a tuple of them."""
    error, *values = function(*arguments)
    assert error == cu.CUresult.CUDA_SUCCESS, f"{function.__name__}: {error.name}"
    return values[0] if len(values) == 1 else tuple(values)


def result(function: Callable[..., Any], *arguments: Any) -> str:
    """The name of what a driver call answers, without its prefix: "INVALID_VALUE"."""
    name: str = function(*arguments)[0].name
    return name.removeprefix("CUDA_ERROR_").removeprefix("CUDA_")


def compile_ptx(source: bytes, architecture: str = "compute_75") -> bytes:
    """PTX of CUDA C, zero-terminated as NVRTC writes it. Fails with the compiler's log."""
    error, program = nvrtc.nvrtcCreateProgram(source, b"cases.cu", 0, [], [])
    assert error == nvrtc.nvrtcResult.NVRTC_SUCCESS
    (error,) = nvrtc.nvrtcCompileProgram(program, 1, [f"--gpu-architecture={architecture}".encode()])
    if error != nvrtc.nvrtcResult.NVRTC_SUCCESS:
        _, size = nvrtc.nvrtcGetProgramLogSize(program)
        log = b" " * int(size)
        nvrtc.nvrtcGetProgramLog(program, log)
        raise AssertionError(log.decode())
    _, size = nvrtc.nvrtcGetPTXSize(program)
    text: bytes = b" " * int(size)
    nvrtc.nvrtcGetPTX(program, text)
    nvrtc.nvrtcDestroyProgram(program)
    return text
