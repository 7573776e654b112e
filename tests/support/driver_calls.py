# SPDX-License-Identifier: Apache-2.0
"""Driver calls through cuda.bindings whose answers are checked by name."""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable, Sequence
from typing import Any

from cuda.bindings import driver as cu
from cuda.bindings import nvrtc


class CallRecorder:
    """Notes the name of each driver function at its first call, so that what cases claim to cover can be checked."""

    VARIABLE = "GPUVIRT_CONFORMANCE_CALLS"  # file that all processes of a case add to

    def __init__(self) -> None:
        self._file = os.environ.get(self.VARIABLE)
        self._seen: set[str] = set()

    def note(self, name: str) -> None:
        if self._file is not None and name not in self._seen:
            self._seen.add(name)
            with open(self._file, "a") as file:
                file.write(name + "\n")

    def watch_bindings(self) -> None:
        """From now on each function of cuda.bindings.driver is noted when it is called."""
        if self._file is None:
            return
        for name in dir(cu):
            if name.startswith("cu") and name[2].isupper() and callable(getattr(cu, name)):
                setattr(cu, name, self._noting(name, getattr(cu, name)))

    def _noting(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        @functools.wraps(function)
        def noted(*arguments: Any, **keywords: Any) -> Any:
            self.note(name)
            return function(*arguments, **keywords)

        return noted


recorder = CallRecorder()


def native(symbol: str) -> Callable[..., str]:
    """An exported function of the driver by its symbol, for what cuda.bindings cannot say (NULL, old versions).

    Arguments are ctypes values, integers (as 64 bits) and None; the answer is the name of a CUresult without prefix.
    """
    function = getattr(ctypes.CDLL("libcuda.so.1"), symbol)
    function.restype = ctypes.c_int

    def answer(*arguments: Any) -> str:
        recorder.note(symbol)
        number = function(*(ctypes.c_uint64(value) if isinstance(value, int) else value for value in arguments))
        name: str = cu.CUresult(number).name
        return name.removeprefix("CUDA_ERROR_").removeprefix("CUDA_")

    answer.__name__ = symbol
    return answer


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """A driver call that must succeed; its value, or a tuple of them."""
    error, *values = function(*arguments)
    assert error == cu.CUresult.CUDA_SUCCESS, f"{function.__name__}: {error.name}"
    return values[0] if len(values) == 1 else tuple(values)


def result(function: Callable[..., Any], *arguments: Any) -> str:
    """The name of what a driver call answers, without its prefix: "INVALID_VALUE"."""
    name: str = function(*arguments)[0].name
    return name.removeprefix("CUDA_ERROR_").removeprefix("CUDA_")


def compile_ptx(source: bytes, architecture: str = "compute_75", options: Sequence[str] = ()) -> bytes:
    """PTX of CUDA C, zero-terminated as NVRTC writes it. Fails with the compiler's log."""
    error, program = nvrtc.nvrtcCreateProgram(source, b"cases.cu", 0, [], [])
    assert error == nvrtc.nvrtcResult.NVRTC_SUCCESS
    flags = [f"--gpu-architecture={architecture}".encode(), *(option.encode() for option in options)]
    (error,) = nvrtc.nvrtcCompileProgram(program, len(flags), flags)
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
