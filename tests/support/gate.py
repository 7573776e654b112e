# SPDX-License-Identifier: Apache-2.0
"""Words in pinned memory that host and device see: kernels wait for one, store another, so that order shows in data."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

from cuda.bindings import driver as cu

from support.driver_calls import call


class Gate:
    """Word 0 is the one that is opened at the end of every case, so that no kernel waits for ever."""

    def __init__(self, kernel: Callable[[str], Any]) -> None:
        self._wait_for = kernel("wait_for")
        self._store = kernel("store")
        flags = cu.CU_MEMHOSTALLOC_DEVICEMAP | cu.CU_MEMHOSTALLOC_PORTABLE
        self.address = int(call(cu.cuMemHostAlloc, 4096, flags))
        ctypes.memset(self.address, 0, 4096)

    def word(self, number: int) -> ctypes.c_uint32:
        return ctypes.c_uint32.from_address(self.address + 4 * number)

    def wait(self, stream: Any, number: int = 0) -> None:
        """A kernel that ends when the word is not 0."""
        arguments = ((self.address + 4 * number,), (ctypes.c_void_p,))
        call(cu.cuLaunchKernel, self._wait_for, 1, 1, 1, 1, 1, 1, 0, stream, arguments, 0)

    def store(self, stream: Any, number: int, value: int) -> None:
        """A kernel that sets the word."""
        call(self.try_store, stream, number, value)

    def try_store(self, stream: Any, number: int, value: int) -> Any:
        """The same as a driver call that may fail."""
        arguments = ((self.address + 4 * number, value), (ctypes.c_void_p, ctypes.c_uint32))
        return cu.cuLaunchKernel(self._store, 1, 1, 1, 1, 1, 1, 0, stream, arguments, 0)

    def store_params(self, number: int, value: int) -> Any:
        """The same as parameters of a kernel node."""
        params = cu.CUDA_KERNEL_NODE_PARAMS()
        params.func = self._store
        params.gridDimX = params.gridDimY = params.gridDimZ = 1
        params.blockDimX = params.blockDimY = params.blockDimZ = 1
        params.kernelParams = ((self.address + 4 * number, value), (ctypes.c_void_p, ctypes.c_uint32))
        return params

    def wait_params(self, number: int = 0) -> Any:
        """A kernel node that ends when the word is not 0."""
        params = self.store_params(number, 0)
        params.func = self._wait_for
        params.kernelParams = ((self.address + 4 * number,), (ctypes.c_void_p,))
        return params

    def open(self, number: int = 0) -> None:
        self.word(number).value = 1
