# SPDX-License-Identifier: Apache-2.0
"""The corpus of CUDA C++ (tests/conformance/corpus): compiled for one architecture, loaded, called with arrays."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from cuda.bindings import driver as cu

from .driver_calls import call, compile_ptx

FOLDER = Path(__file__).resolve().parents[1] / "conformance" / "corpus"
Array = np.ndarray[Any, Any]


def include_options() -> list[str]:
    """NVRTC options for CUDA's headers, from the wheels nvidia-cuda-runtime and nvidia-cuda-cccl."""
    spec = importlib.util.find_spec("nvidia")
    places = list(spec.submodule_search_locations or []) if spec is not None else []
    for place in places:
        folder = Path(place) / "cu13" / "include"
        if (folder / "cuda_fp16.h").exists() and (folder / "cccl").is_dir():
            return [f"-I{folder}", f"-I{folder}/cccl"]
    raise AssertionError("CUDA's headers are missing: pip install nvidia-cuda-runtime nvidia-cuda-cccl")


def corpus_ptx(compute: int, files: Sequence[str]) -> bytes:
    """PTX of files of the corpus, compiled as one program."""
    source = "\n".join((FOLDER / name).read_text() for name in ("prelude.cuh", *files))
    return compile_ptx(source.encode(), f"compute_{compute}", ["--std=c++17", "--device-int128", *include_options()])


class Corpus:
    """A loaded module of the current context."""

    def __init__(self, compute: int, files: Sequence[str]) -> None:
        self.compute = compute
        self.ptx = corpus_ptx(compute, files)
        self._module = call(cu.cuModuleLoadData, self.ptx)

    def function(self, name: str) -> Any:
        """CUfunction."""
        return call(cu.cuModuleGetFunction, self._module, name.encode())

    def run(
        self, name: str, grid: int, block: int, *arguments: Array | bytes, shared: int = 0, together: bool = False
    ) -> None:
        """One launch. Arrays go to the device and come back changed; bytes are passed by value."""
        places, holders = [], []
        for argument in arguments:
            if isinstance(argument, bytes):
                holders.append(np.frombuffer(argument, np.uint8).copy())
            else:
                place = int(call(cu.cuMemAlloc, max(argument.nbytes, 16)))
                call(cu.cuMemcpyHtoD, place, argument.ctypes.data, argument.nbytes)
                places.append((place, argument))
                holders.append(np.array([place], np.uint64))
        pointers = np.array([holder.ctypes.data for holder in holders], np.uint64)
        shape = (self.function(name), grid, 1, 1, block, 1, 1, shared, 0, pointers.ctypes.data)
        if together:
            call(cu.cuLaunchCooperativeKernel, *shape)
        else:
            call(cu.cuLaunchKernel, *shape, 0)
        for place, argument in places:
            call(cu.cuMemcpyDtoH, argument.ctypes.data, place, argument.nbytes)
            call(cu.cuMemFree, place)
