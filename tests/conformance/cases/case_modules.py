# SPDX-License-Identifier: Apache-2.0
"""Modules, libraries, kernels and functions: what can be asked, and wrong handles, names and images."""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cuda.bindings import driver as cu

from support.driver_calls import call, native, result

Attribute = cu.CUfunction_attribute
KERNELS = {b"add", b"store", b"load", b"wait_for", b"sum", b"count", b"trap"}
SIZES = [8, 8, 4, 4]  # of add's parameters


@pytest.fixture
def module(context: Any, ptx: bytes) -> Any:
    return call(cu.cuModuleLoadData, ptx)


@pytest.fixture
def library(context: Any, ptx: bytes) -> Any:
    return call(cu.cuLibraryLoadData, ptx, [], [], 0, [], [], 0)


def read_int(address: Any) -> int:
    value: Any = np.zeros(1, dtype=np.int32)
    call(cu.cuMemcpyDtoH, value.ctypes.data, address, 4)
    return int(value[0])


def test_functions_of_a_module(module: Any) -> None:
    count = call(cu.cuModuleGetFunctionCount, module)
    functions = call(cu.cuModuleEnumerateFunctions, count, module)
    assert {call(cu.cuFuncGetName, function) for function in functions} == KERNELS
    for function in functions:
        assert int(call(cu.cuFuncGetModule, function)) == int(module)
        call(cu.cuFuncLoad, function)
        loaded = cu.CUfunctionLoadingState.CU_FUNCTION_LOADING_STATE_LOADED
        assert call(cu.cuFuncIsLoaded, function) == loaded


def test_parameters_of_a_function(module: Any) -> None:
    add = call(cu.cuModuleGetFunction, module, b"add")
    found = [call(cu.cuFuncGetParamInfo, add, index) for index in range(4)]
    assert [(int(offset), int(size)) for offset, size in found] == [(0, 8), (8, 8), (16, 4), (20, 4)]
    assert result(cu.cuFuncGetParamInfo, add, 4) == "INVALID_VALUE"
    if call(cu.cuDriverGetVersion) >= 13010:
        assert call(cu.cuFuncGetParamCount, add) == 4


def test_attributes_of_a_function(module: Any) -> None:
    add = call(cu.cuModuleGetFunction, module, b"add")
    count = call(cu.cuModuleGetFunction, module, b"count")

    def attribute(which: Any, function: Any = add) -> int:
        return int(call(cu.cuFuncGetAttribute, which, function))

    assert attribute(Attribute.CU_FUNC_ATTRIBUTE_SHARED_SIZE_BYTES) == 0
    assert attribute(Attribute.CU_FUNC_ATTRIBUTE_CONST_SIZE_BYTES, count) >= 16
    assert attribute(Attribute.CU_FUNC_ATTRIBUTE_PTX_VERSION) >= 10
    assert attribute(Attribute.CU_FUNC_ATTRIBUTE_BINARY_VERSION) >= 10
    assert attribute(Attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES) >= 48 << 10
    assert attribute(Attribute.CU_FUNC_ATTRIBUTE_LOCAL_SIZE_BYTES) >= 0
    assert native("cuFuncGetAttribute")(None, ctypes.c_int(0), ctypes.c_void_p(int(add))) == "INVALID_VALUE"
    value = ctypes.c_int()
    ask = native("cuFuncGetAttribute")
    assert ask(ctypes.byref(value), ctypes.c_int(99), ctypes.c_void_p(int(add))) == "INVALID_VALUE"


def test_attributes_that_can_be_set(module: Any) -> None:
    add = call(cu.cuModuleGetFunction, module, b"add")
    dynamic = Attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    optin = cu.CUdevice_attribute.CU_DEVICE_ATTRIBUTE_MAX_SHARED_MEMORY_PER_BLOCK_OPTIN
    most = call(cu.cuDeviceGetAttribute, optin, 0)
    call(cu.cuFuncSetAttribute, add, dynamic, most)
    assert call(cu.cuFuncGetAttribute, dynamic, add) == most
    assert result(cu.cuFuncSetAttribute, add, dynamic, most + 1) == "INVALID_VALUE"
    assert result(cu.cuFuncSetAttribute, add, Attribute.CU_FUNC_ATTRIBUTE_NUM_REGS, 8) == "INVALID_VALUE"
    call(cu.cuFuncSetAttribute, add, Attribute.CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 50)
    assert result(cu.cuFuncSetAttribute, add, Attribute.CU_FUNC_ATTRIBUTE_PREFERRED_SHARED_MEMORY_CARVEOUT, 101) == (
        "INVALID_VALUE"
    )


def test_preferences_of_a_function(module: Any) -> None:
    add = call(cu.cuModuleGetFunction, module, b"add")
    call(cu.cuFuncSetCacheConfig, add, cu.CUfunc_cache.CU_FUNC_CACHE_PREFER_SHARED)
    call(cu.cuFuncSetSharedMemConfig, add, cu.CUsharedconfig.CU_SHARED_MEM_CONFIG_DEFAULT_BANK_SIZE)
    assert native("cuFuncSetCacheConfig")(ctypes.c_void_p(int(add)), ctypes.c_int(77)) == "INVALID_VALUE"


def test_shape_as_cuda_1_set_it(module: Any) -> None:
    add = call(cu.cuModuleGetFunction, module, b"add")
    call(cu.cuFuncSetBlockShape, add, 8, 8, 1)
    assert result(cu.cuFuncSetBlockShape, add, 0, 8, 1) == "INVALID_VALUE"
    call(cu.cuFuncSetSharedSize, add, 1024)


def test_loading_mode(context: Any) -> None:
    modes = cu.CUmoduleLoadingMode
    assert call(cu.cuModuleGetLoadingMode) in (modes.CU_MODULE_EAGER_LOADING, modes.CU_MODULE_LAZY_LOADING)


def test_module_from_a_file(context: Any, ptx: bytes, tmp_path: Path) -> None:
    file = tmp_path / "cases.ptx"
    file.write_bytes(ptx)
    module = call(cu.cuModuleLoad, str(file).encode())
    call(cu.cuModuleGetFunction, module, b"add")
    call(cu.cuModuleUnload, module)
    assert result(cu.cuModuleLoad, str(tmp_path / "none").encode()) == "FILE_NOT_FOUND"


def test_module_from_wrong_images(context: Any) -> None:
    made = ctypes.c_void_p()
    load = native("cuModuleLoadData")
    assert load(ctypes.byref(made), None) == "INVALID_VALUE"
    assert load(None, ctypes.c_char_p(b".version 7.0")) == "INVALID_VALUE"
    assert result(cu.cuModuleLoadData, b"this is no image\0") in ("INVALID_IMAGE", "INVALID_PTX")
    assert result(cu.cuModuleLoadFatBinary, b"this is no fat binary either\0") in ("INVALID_IMAGE", "INVALID_PTX")


def test_each_module_has_variables_of_its_own(context: Any, ptx: bytes, module: Any) -> None:
    again = call(cu.cuModuleLoadData, ptx)
    one, size = call(cu.cuModuleGetGlobal, module, b"counter")
    two, _ = call(cu.cuModuleGetGlobal, again, b"counter")
    assert size == 4
    assert int(one) != int(two)
    call(cu.cuMemsetD32, one, 9, 1)
    assert (read_int(one), read_int(two)) == (9, 5)


def test_an_unloaded_module_frees_its_memory(context: Any, ptx: bytes) -> None:
    module = call(cu.cuModuleLoadData, ptx)
    free, _ = call(cu.cuMemGetInfo)
    for _ in range(20):
        call(cu.cuModuleUnload, call(cu.cuModuleLoadData, ptx))
    assert call(cu.cuMemGetInfo)[0] >= free - (4 << 20)
    call(cu.cuModuleUnload, module)


def test_error_log(context: Any) -> None:
    log = ctypes.create_string_buffer(4096)
    options = (ctypes.c_int * 2)(5, 6)  # CU_JIT_ERROR_LOG_BUFFER, CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES
    values = (ctypes.c_void_p * 2)(ctypes.addressof(log), 4096)
    made = ctypes.c_void_p()
    bad = b".version 7.0\n.target sm_75\n.address_size 64\n.visible .entry k() {\n frobnicate.u32 1;\n ret;\n}\n\0"
    load = native("cuModuleLoadDataEx")
    image = ctypes.c_char_p(bad)
    assert load(ctypes.byref(made), image, ctypes.c_uint(2), options, values) == "INVALID_PTX"
    assert b"frobnicate" in log.value
    assert 0 < (values[1] or 0) <= 4096  # the length that was written
    assert load(ctypes.byref(made), image, ctypes.c_uint(1), None, None) == "INVALID_VALUE"


def test_kernels_of_a_library(library: Any) -> None:
    count = call(cu.cuLibraryGetKernelCount, library)
    kernels = call(cu.cuLibraryEnumerateKernels, count, library)
    assert {call(cu.cuKernelGetName, kernel) for kernel in kernels} == KERNELS
    for kernel in kernels:
        assert int(call(cu.cuKernelGetLibrary, kernel)) == int(library)
    assert result(cu.cuLibraryGetKernel, library, b"no such") == "NOT_FOUND"


def test_questions_about_a_kernel(library: Any) -> None:
    add = call(cu.cuLibraryGetKernel, library, b"add")
    assert [int(call(cu.cuKernelGetParamInfo, add, index)[1]) for index in range(4)] == SIZES
    if call(cu.cuDriverGetVersion) >= 13010:
        assert call(cu.cuKernelGetParamCount, add) == 4
    assert call(cu.cuKernelGetAttribute, Attribute.CU_FUNC_ATTRIBUTE_MAX_THREADS_PER_BLOCK, add, 0) == 1024
    dynamic = Attribute.CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES
    call(cu.cuKernelSetAttribute, dynamic, 50 << 10, add, 0)
    assert call(cu.cuKernelGetAttribute, dynamic, add, 0) == 50 << 10
    assert result(cu.cuKernelGetAttribute, dynamic, add, 99) == "INVALID_DEVICE"
    call(cu.cuKernelSetCacheConfig, add, cu.CUfunc_cache.CU_FUNC_CACHE_PREFER_NONE, 0)
    assert call(cu.cuFuncGetName, call(cu.cuKernelGetFunction, add)) == b"add"


def test_variables_of_a_library_are_of_the_context(context: Any, library: Any) -> None:
    here, size = call(cu.cuLibraryGetGlobal, library, b"counter")
    assert size == 4
    assert read_int(here) == 5
    module = call(cu.cuLibraryGetModule, library)
    assert int(call(cu.cuModuleGetGlobal, module, b"counter")[0]) == int(here)
    other = call(cu.cuCtxCreate, None, 0, 0)
    there, _ = call(cu.cuLibraryGetGlobal, library, b"counter")
    assert int(there) != int(here)
    call(cu.cuMemsetD32, there, 8, 1)
    call(cu.cuCtxDestroy, other)
    assert read_int(here) == 5
    assert result(cu.cuLibraryGetGlobal, library, b"no such") == "NOT_FOUND"
    assert result(cu.cuLibraryGetManaged, library, b"counter") == "NOT_FOUND"


def test_library_from_a_file(context: Any, ptx: bytes, tmp_path: Path) -> None:
    file = tmp_path / "cases.ptx"
    file.write_bytes(ptx)
    library = call(cu.cuLibraryLoadFromFile, str(file).encode(), [], [], 0, [], [], 0)
    call(cu.cuLibraryGetKernel, library, b"sum")
    call(cu.cuLibraryUnload, library)
    missing = str(tmp_path / "none").encode()
    assert result(cu.cuLibraryLoadFromFile, missing, [], [], 0, [], [], 0) == "FILE_NOT_FOUND"


def test_library_needs_no_context(context: Any, ptx: bytes) -> None:
    call(cu.cuCtxSetCurrent, None)
    library = call(cu.cuLibraryLoadData, ptx, [], [], 0, [], [], 0)
    kernel = call(cu.cuLibraryGetKernel, library, b"add")
    assert result(cu.cuKernelGetFunction, kernel) == "INVALID_CONTEXT"
    call(cu.cuLibraryUnload, library)
    call(cu.cuCtxSetCurrent, context)


def test_occupancy(module: Any) -> None:
    add = call(cu.cuModuleGetFunction, module, b"add")
    blocks = cu.cuOccupancyMaxActiveBlocksPerMultiprocessor
    few, many = call(blocks, add, 1024, 0), call(blocks, add, 64, 0)
    assert 1 <= few <= many <= 32
    assert call(blocks, add, 64, 40 << 10) <= many
    assert call(cu.cuOccupancyMaxActiveBlocksPerMultiprocessorWithFlags, add, 1024, 0, 0) == few
    assert result(blocks, add, 0, 0) == "INVALID_VALUE"
    grid, block = call(cu.cuOccupancyMaxPotentialBlockSizeWithFlags, add, None, 0, 128, 0)
    assert grid >= 1 and block <= 128
    room = call(cu.cuOccupancyAvailableDynamicSMemPerBlock, add, 2, 256)
    assert 16 << 10 <= room <= 228 << 10
