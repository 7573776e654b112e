# SPDX-License-Identifier: Apache-2.0
"""CUDA C++ to PTX by NVRTC, which needs no driver."""

from __future__ import annotations

import functools
import glob
import os
import sysconfig
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"


def _include() -> str:
    """Folder of cuda_fp16.h in the wheels, or ""."""
    site = sysconfig.get_paths()["purelib"]
    for pattern in ("nvidia/cu13/include", "nvidia/cuda_runtime/include", "numba_cuda/numba/cuda/include/13"):
        for folder in glob.glob(os.path.join(site, pattern)):
            if os.path.exists(os.path.join(folder, "cuda_fp16.h")):
                return folder
    return ""


@functools.cache
def ptx_of(program: str, compute: int) -> str:
    """PTX of programs/`program` for compute capability `compute`; skips the test where NVRTC is absent."""
    return ptx_of_source((PROGRAMS / program).read_text(), compute, program)


def ptx_of_source(source: str, compute: int, name: str = "source.cu") -> str:
    """PTX of CUDA C++ text."""
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc")
    error, program = nvrtc.nvrtcCreateProgram(source.encode(), name.encode(), 0, [], [])
    assert int(error) == 0
    options = [f"--gpu-architecture=compute_{compute}".encode(), b"--std=c++17"]
    include = _include()
    if include:
        options.append(b"-I" + include.encode())
    elif "#include <cuda_" in source:
        pytest.skip("the CUDA headers (wheel nvidia-cuda-runtime) are not installed")
    (error,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if int(error):
        _, size = nvrtc.nvrtcGetProgramLogSize(program)
        log = b" " * size
        nvrtc.nvrtcGetProgramLog(program, log)
        raise AssertionError(log.decode())
    _, size = nvrtc.nvrtcGetPTXSize(program)
    text = b" " * size
    nvrtc.nvrtcGetPTX(program, text)
    nvrtc.nvrtcDestroyProgram(program)
    return text.rstrip(b"\0").decode()
