# SPDX-License-Identifier: Apache-2.0
"""What can be loaded: PTX with errors and their logs, fat binaries, linked images."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from cuda.bindings import driver as cu

Call = Callable[..., Any]
Option = cu.CUjit_option
HEAD = ".version 8.0\n.target sm_75\n.address_size 64\n"
UNKNOWN = HEAD + ".visible .entry k()\n{\n  .reg .b32 %r<3>;\n  frobnicate.u32 %r1, %r2;\n  ret;\n}\n"
CALLS_OTHER = (
    HEAD
    + """.extern .func (.param .b32 r) twice(.param .b32 x);
.visible .entry k(.param .u64 out)
{
  .reg .b32 %r<3>; .reg .b64 %p;
  ld.param.u64 %p, [out];
  { .param .b32 a; .param .b32 b; st.param.b32 [a], 21; call.uni (b), twice, (a); ld.param.b32 %r1, [b]; }
  st.global.u32 [%p], %r1;
  ret;
}
"""
)
TWICE = (
    HEAD
    + """.visible .func (.param .b32 r) twice(.param .b32 x)
{ .reg .b32 %r<3>; ld.param.b32 %r1, [x]; add.u32 %r2, %r1, %r1; st.param.b32 [r], %r2; ret; }
"""
)


class Logs:
    """Buffers for options 3 to 6."""

    def __init__(self) -> None:
        self._error, self._info = bytearray(4096), bytearray(4096)
        self.options = [
            Option.CU_JIT_INFO_LOG_BUFFER,
            Option.CU_JIT_INFO_LOG_BUFFER_SIZE_BYTES,
            Option.CU_JIT_ERROR_LOG_BUFFER,
            Option.CU_JIT_ERROR_LOG_BUFFER_SIZE_BYTES,
        ]
        self.values = [self._info, len(self._info), self._error, len(self._error)]

    @property
    def error(self) -> str:
        return self._error.decode().rstrip("\0")


def run(module: Any, driver_call: Call) -> int:
    """What kernel `k` of the module stores."""
    function = driver_call(cu.cuModuleGetFunction, module, b"k")
    at = driver_call(cu.cuMemAlloc, 4)
    driver_call(cu.cuLaunchKernel, function, 1, 1, 1, 1, 1, 1, 0, 0, ((at,), (None,)), 0)
    out: Any = np.zeros(1, np.int32)
    driver_call(cu.cuMemcpyDtoH, out.ctypes.data, at, 4)
    driver_call(cu.cuMemFree, at)
    return int(out[0])


def stores(value: int, target: int) -> str:
    """PTX whose kernel `k` stores a number."""
    return (
        f".version 8.0\n.target sm_{target}\n.address_size 64\n.visible .entry k(.param .u64 out)\n"
        f"{{ .reg .b64 %p; ld.param.u64 %p, [out]; st.global.u32 [%p], {value}; ret; }}\n"
    )


def fatbin(entries: Sequence[tuple[int, int, bytes, int]]) -> bytes:
    """A fat binary as nvcc writes it: (kind, architecture, content, compressed size)."""
    body = b""
    for kind, architecture, content, compressed in entries:
        padded = content + bytes(-len(content) % 8)
        body += struct.pack(
            "<HHIQIIHHIIIQQQ", kind, 0x101, 64, len(padded), compressed, 0, 0, 8, architecture, 0, 0, 0x11, 0, 0
        )
        body += padded
    return struct.pack("<IHHQ", 0xBA55ED50, 1, 16, len(body)) + body


def test_unknown_opcode_in_a_module(context: Any, driver_result: Call) -> None:
    logs = Logs()
    answer = driver_result(cu.cuModuleLoadDataEx, UNKNOWN.encode() + b"\0", 4, logs.options, logs.values)
    assert answer == "INVALID_PTX"
    assert "frobnicate" in logs.error
    assert "line 7" in logs.error


def test_unknown_opcode_in_a_library(context: Any, driver_result: Call) -> None:
    logs = Logs()
    code = UNKNOWN.encode() + b"\0"
    answer = driver_result(cu.cuLibraryLoadData, code, logs.options, logs.values, 4, [], [], 0)
    assert answer == "INVALID_PTX"
    assert "frobnicate" in logs.error
    assert "line 7" in logs.error


def test_unknown_opcode_in_a_link(context: Any, driver_call: Call, driver_result: Call) -> None:
    logs = Logs()
    state = driver_call(cu.cuLinkCreate, 4, logs.options, logs.values)
    code = UNKNOWN.encode() + b"\0"
    answer = driver_result(
        cu.cuLinkAddData, state, cu.CUjitInputType.CU_JIT_INPUT_PTX, code, len(code), b"x", 0, [], []
    )
    assert answer == "INVALID_PTX"
    assert "frobnicate" in logs.error
    assert "line 7" in logs.error
    driver_call(cu.cuLinkDestroy, state)


def test_link_of_two_texts(context: Any, driver_call: Call) -> None:
    state = driver_call(cu.cuLinkCreate, 0, [], [])
    for text in (CALLS_OTHER, TWICE):
        code = text.encode() + b"\0"
        driver_call(cu.cuLinkAddData, state, cu.CUjitInputType.CU_JIT_INPUT_PTX, code, len(code), b"x", 0, [], [])
    image, _ = driver_call(cu.cuLinkComplete, state)
    module = driver_call(cu.cuModuleLoadData, image)
    driver_call(cu.cuLinkDestroy, state)
    assert run(module, driver_call) == 42


def test_link_with_a_missing_function(context: Any, driver_call: Call, driver_result: Call) -> None:
    logs = Logs()
    state = driver_call(cu.cuLinkCreate, 4, logs.options, logs.values)
    code = CALLS_OTHER.encode() + b"\0"
    driver_call(cu.cuLinkAddData, state, cu.CUjitInputType.CU_JIT_INPUT_PTX, code, len(code), b"x", 0, [], [])
    assert driver_result(cu.cuLinkComplete, state) != "SUCCESS"
    assert "twice" in logs.error
    driver_call(cu.cuLinkDestroy, state)


def test_fat_binary(context: Any, driver_call: Call, target: Any) -> None:
    newest = (1, 75 if not target.soft else 90, stores(90, 75).encode(), 0)
    image = fatbin([(1, 70, stores(70, 70).encode(), 0), newest])
    assert run(driver_call(cu.cuModuleLoadFatBinary, image), driver_call) == 90
    assert run(driver_call(cu.cuModuleLoadData, image), driver_call) == 90


def test_fat_binary_in_a_link(context: Any, driver_call: Call) -> None:
    state = driver_call(cu.cuLinkCreate, 0, [], [])
    image = fatbin([(1, 75, stores(7, 75).encode(), 0)])
    kind = cu.CUjitInputType.CU_JIT_INPUT_FATBINARY
    driver_call(cu.cuLinkAddData, state, kind, image, len(image), b"x", 0, [], [])
    linked, _ = driver_call(cu.cuLinkComplete, state)
    module = driver_call(cu.cuModuleLoadData, linked)
    driver_call(cu.cuLinkDestroy, state)
    assert run(module, driver_call) == 7


@pytest.mark.parametrize("entries", [[], [(2, 20, b"\x7fELF" + bytes(60), 0)]])
def test_fat_binary_without_ptx(entries: Any, context: Any, driver_result: Call) -> None:
    assert driver_result(cu.cuModuleLoadData, fatbin(entries)) == "NO_BINARY_FOR_GPU"


def test_text_that_is_no_ptx(context: Any, driver_result: Call) -> None:
    assert driver_result(cu.cuModuleLoadData, b"this is no image at all\0") == "INVALID_IMAGE"
