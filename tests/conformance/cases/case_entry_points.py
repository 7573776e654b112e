# SPDX-License-Identifier: Apache-2.0
"""Every documented entry point is there; what the soft GPU lacks says so."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Callable
from typing import Any

import pytest
from cuda.bindings import driver as cu

from gpuvirt import elf, paths
from support.coverage import declared
from support.driver_calls import native

Call = Callable[..., Any]
FLAGS = {
    "": cu.CUdriverProcAddress_flags.CU_GET_PROC_ADDRESS_LEGACY_STREAM,
    "ptds": cu.CUdriverProcAddress_flags.CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM,
    "ptsz": cu.CUdriverProcAddress_flags.CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM,
}
# The 32-bit versions, and a question about an address: the shim answers them itself.
OF_SHIM = ("cuMemFree", "cuMemGetInfo", "cuMemGetHandleForAddressRange")
Query = cu.CUdriverProcAddressQueryResult


@pytest.fixture
def rows(driver_call: Call) -> list[Any]:
    """Those of the header that a driver of this version has."""
    try:
        _, all_rows = declared()
    except (subprocess.CalledProcessError, FileNotFoundError):
        pytest.skip("needs NVIDIA's headers and a C compiler")
    version = driver_call(cu.cuDriverGetVersion)
    return [row for row in all_rows if row.version <= version]


def test_every_row_of_the_header_is_found(rows: list[Any], driver_call: Call) -> None:
    absent = []
    for row in rows:
        address, status = driver_call(cu.cuGetProcAddress, row.base.encode(), row.version, FLAGS[row.variant].value)
        if not address or status != Query.CU_GET_PROC_ADDRESS_SUCCESS:
            absent.append((row.base, row.version, row.variant))
    assert len(rows) > 400
    assert not absent


def test_an_older_version_is_another_function_or_none(rows: list[Any], driver_call: Call) -> None:
    for row in rows:
        if row.variant:
            continue
        name = row.base.encode()
        newer, _ = driver_call(cu.cuGetProcAddress, name, row.version, 0)
        older, status = driver_call(cu.cuGetProcAddress, name, row.version - 1, 0)
        if any(other.base == row.base and other.version < row.version for other in rows):
            assert older and older != newer, (row.base, row.version)
        else:
            assert not older, (row.base, row.version)
            assert status == Query.CU_GET_PROC_ADDRESS_VERSION_NOT_SUFFICIENT, (row.base, row.version)


def test_wrong_questions(driver_call: Call, driver_result: Call) -> None:
    address, status = driver_call(cu.cuGetProcAddress, b"cuNoSuchFunction", 12000, 0)
    assert not address
    assert status == Query.CU_GET_PROC_ADDRESS_SYMBOL_NOT_FOUND
    assert driver_result(cu.cuGetProcAddress, b"cuInit", 12000, 1 << 40) == "INVALID_VALUE"
    found = ctypes.c_void_p()
    ask = native("cuGetProcAddress_v2")
    assert ask(None, ctypes.byref(found), ctypes.c_int(12000), 0, None) == "INVALID_VALUE"
    assert ask(ctypes.c_char_p(b"cuInit"), None, ctypes.c_int(12000), 0, None) == "INVALID_VALUE"
    assert ask(ctypes.c_char_p(b"cuInit"), ctypes.byref(found), ctypes.c_int(12000), 0, None) == "SUCCESS"
    assert found.value


def test_no_export_tables(target: Any, driver_result: Call) -> None:
    if target.name == "real":
        pytest.skip("NVIDIA's driver has tables; which ones is not documented")
    assert driver_result(cu.cuGetExportTable, cu.CUuuid()) == "NOT_FOUND"


def missing_symbols() -> list[str]:
    """Symbols of the soft driver that nothing implements."""
    return sorted(elf.weak_symbols(paths.library("softgpu/libcuda.so.1")))


def test_unimplemented_is_not_supported(target: Any, context: Any) -> None:
    """The generated twins of implemented functions are weak too: they are left out."""
    if not target.soft:
        pytest.skip("about the soft GPU")
    missing = set(missing_symbols())
    plain = {symbol.name: symbol.name.removesuffix(f"_{symbol.variant}") for symbol in declared()[0]}
    wrong = {}
    for symbol in sorted(missing & set(plain)):  # the rest is of the GL, EGL and VDPAU headers
        if plain[symbol] in missing and not (target.shim and symbol in OF_SHIM):
            answer = native(symbol)(*[0] * 12)
            if answer != "NOT_SUPPORTED":
                wrong[symbol] = answer
    assert not wrong


def test_every_symbol_is_exported(target: Any) -> None:
    if not target.soft:
        pytest.skip("the header may be newer than the driver")
    library = ctypes.CDLL("libcuda.so.1")
    assert [symbol.name for symbol in declared()[0] if not hasattr(library, symbol.name)] == []
