# SPDX-License-Identifier: Apache-2.0
"""The linker: several texts become one image; its logs and its errors."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
from cuda.bindings import driver as cu

from support.driver_calls import call, compile_ptx, native, result

PTX = cu.CUjitInputType.CU_JIT_INPUT_PTX
CALLER = b"""
extern __device__ int twice(int x);
extern "C" __global__ void run(int *to) { to[threadIdx.x] = twice(threadIdx.x); }
"""
CALLED = b"__device__ int twice(int x) { return 2 * x; }"
RELOCATABLE = ("--relocatable-device-code=true",)


def link(*texts: bytes) -> Any:
    state = call(cu.cuLinkCreate, 0, [], [])
    for number, text in enumerate(texts):
        call(cu.cuLinkAddData, state, PTX, text, len(text), f"part {number}".encode(), 0, [], [])
    image, size = call(cu.cuLinkComplete, state)
    assert size > 0
    module = call(cu.cuModuleLoadData, image)
    call(cu.cuLinkDestroy, state)
    return module


def test_a_function_of_another_text(context: Any) -> None:
    texts = [compile_ptx(source, options=RELOCATABLE) for source in (CALLER, CALLED)]
    run = call(cu.cuModuleGetFunction, link(*texts), b"run")
    values: Any = np.zeros(32, dtype=np.int32)
    at = call(cu.cuMemAlloc, values.nbytes)
    call(cu.cuLaunchKernel, run, 1, 1, 1, 32, 1, 1, 0, 0, ((at,), (None,)), 0)
    call(cu.cuMemcpyDtoH, values.ctypes.data, at, values.nbytes)
    assert values.tolist() == list(range(0, 64, 2))


def test_what_is_missing_is_named(context: Any) -> None:
    log = ctypes.create_string_buffer(4096)
    options = (ctypes.c_int * 2)(5, 6)  # CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES
    values = (ctypes.c_void_p * 2)(ctypes.addressof(log), 4096)
    state = ctypes.c_void_p()
    assert native("cuLinkCreate_v2")(ctypes.c_uint(2), options, values, ctypes.byref(state)) == "SUCCESS"
    text = compile_ptx(CALLER, options=RELOCATABLE)
    handle = cu.CUlinkState(state.value)
    first = result(cu.cuLinkAddData, handle, PTX, text, len(text), b"caller", 0, [], [])
    last = result(cu.cuLinkComplete, handle)
    assert first == "SUCCESS"
    assert last not in ("SUCCESS", "NOT_SUPPORTED")
    assert b"twice" in log.value
    call(cu.cuLinkDestroy, handle)


def test_text_from_a_file(context: Any, ptx: bytes, tmp_path: Path) -> None:
    file = tmp_path / "cases.ptx"
    file.write_bytes(ptx)
    state = call(cu.cuLinkCreate, 0, [], [])
    call(cu.cuLinkAddFile, state, PTX, str(file).encode(), 0, [], [])
    missing = str(tmp_path / "none").encode()
    assert result(cu.cuLinkAddFile, state, PTX, missing, 0, [], []) == "FILE_NOT_FOUND"
    image, _ = call(cu.cuLinkComplete, state)
    call(cu.cuModuleGetFunction, call(cu.cuModuleLoadData, image), b"add")
    call(cu.cuLinkDestroy, state)


def test_bad_text(context: Any) -> None:
    state = call(cu.cuLinkCreate, 0, [], [])
    bad = b".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry k() { frobnicate.u32 1; ret; }\n\0"
    added = result(cu.cuLinkAddData, state, PTX, bad, len(bad), b"bad", 0, [], [])
    if added == "SUCCESS":
        assert result(cu.cuLinkComplete, state) == "INVALID_PTX"
    else:
        assert added == "INVALID_PTX"
    call(cu.cuLinkDestroy, state)


def test_wrong_arguments(context: Any) -> None:
    assert native("cuLinkCreate_v2")(ctypes.c_uint(0), None, None, None) == "INVALID_VALUE"
    state = call(cu.cuLinkCreate, 0, [], [])
    add = native("cuLinkAddData_v2")
    handle = ctypes.c_void_p(int(state))
    assert add(handle, ctypes.c_int(1), None, 0, None, ctypes.c_uint(0), None, None) == "INVALID_VALUE"
    call(cu.cuLinkDestroy, state)
