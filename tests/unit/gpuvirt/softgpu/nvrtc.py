# SPDX-License-Identifier: Apache-2.0
"""CUDA C++ to PTX by NVRTC, which needs no driver."""

from __future__ import annotations

import functools
import glob
import os
import re
import sysconfig
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).parent / "programs"


def _include(header: str) -> str:
    """Folder of a CUDA header in the wheels, or ""."""
    site = sysconfig.get_paths()["purelib"]
    for pattern in ("nvidia/cu13/include", "nvidia/cuda_runtime/include", "numba_cuda/numba/cuda/include/13"):
        for folder in glob.glob(os.path.join(site, pattern)):
            if os.path.exists(os.path.join(folder, header)):
                return folder
    return ""


@functools.cache
def ptx_of(program: str, compute: int, *more: str) -> str:
    """PTX of programs/`program` for compute capability `compute`; skips the test where NVRTC or headers are absent."""
    source = (PROGRAMS / program).read_text()
    nvrtc = pytest.importorskip("cuda.bindings.nvrtc")
    error, handle = nvrtc.nvrtcCreateProgram(source.encode(), program.encode(), 0, [], [])
    assert int(error) == 0
    options = [f"--gpu-architecture=compute_{compute}".encode(), b"--std=c++17"]
    options += [option.encode() for option in more]
    for header in re.findall("#include <(.*)>", source):
        include = _include(header)
        if not include:
            pytest.skip(f"{header} (wheel nvidia-cuda-runtime, nvidia-cuda-cccl) is not installed")
        options += [f"-I{include}".encode(), f"-I{include}/cccl".encode()]
    (error,) = nvrtc.nvrtcCompileProgram(handle, len(options), options)
    if int(error):
        _, size = nvrtc.nvrtcGetProgramLogSize(handle)
        log = b" " * size
        nvrtc.nvrtcGetProgramLog(handle, log)
        raise AssertionError(log.decode())
    _, size = nvrtc.nvrtcGetPTXSize(handle)
    text = b" " * size
    nvrtc.nvrtcGetPTX(handle, text)
    nvrtc.nvrtcDestroyProgram(handle)
    return text.rstrip(b"\0").decode()
