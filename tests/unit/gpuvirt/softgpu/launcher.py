# SPDX-License-Identifier: Apache-2.0
"""Runs translated PTX without a driver: translator, C compiler, ctypes structures of kernel_abi.h."""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import struct
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from gpuvirt.softgpu.translate import translate as translate_here

ROOT = Path(__file__).resolve().parents[4]
PACKAGE = ROOT / "gpuvirt" / "softgpu"
INCLUDE = ROOT / "native" / "softgpu"
FLAGS = [
    "-shared",
    "-fPIC",
    "-O2",
    "-march=native",
    "-mprefer-vector-width=512",  # as the driver: lanes side by side
    "-fwrapv",
    "-ffp-contract=off",
    "-fno-math-errno",
    "-fno-strict-aliasing",
]
CACHE = Path(
    os.environ.get("GPUVIRT_TEST_CACHE", Path(tempfile.gettempdir()) / f"gpuvirt-translator-tests-{os.getuid()}")
)


class Dim3(ctypes.Structure):
    _fields_ = [("x", ctypes.c_uint32), ("y", ctypes.c_uint32), ("z", ctypes.c_uint32)]


VPRINTF = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_void_p)
ASSERT_FAIL = ctypes.CFUNCTYPE(
    None, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_uint32, ctypes.c_char_p
)
ALLOCATE = ctypes.CFUNCTYPE(ctypes.c_void_p, ctypes.c_void_p, ctypes.c_uint64)
RELEASE = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p)
LIBC = ctypes.CDLL(None)
LIBC.malloc.argtypes, LIBC.malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
LIBC.free.argtypes, LIBC.free.restype = [ctypes.c_void_p], None


class Block(ctypes.Structure):
    _fields_ = [
        ("params", ctypes.c_void_p),
        ("globals", ctypes.c_void_p),
        ("shared", ctypes.c_void_p),
        ("scratch", ctypes.c_void_p),
        ("dynamic_shared", ctypes.c_uint32),
        ("smid", ctypes.c_uint32),
        ("grid", Dim3),
        ("block", Dim3),
        ("index", Dim3),
        ("reserved", ctypes.c_uint32),
        ("vprintf", VPRINTF),
        ("assert_fail", ASSERT_FAIL),
        ("sink", ctypes.c_void_p),
        ("workspace", ctypes.c_void_p),
        ("allocate", ALLOCATE),
        ("release", RELEASE),
        ("heap", ctypes.c_void_p),
    ]


class Parameter(ctypes.Structure):
    _fields_ = [("offset", ctypes.c_uint32), ("size", ctypes.c_uint32)]


class Kernel(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("run", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(Block))),
        ("scratch_bytes", ctypes.CFUNCTYPE(ctypes.c_uint64, ctypes.c_uint32)),
        ("params", ctypes.POINTER(Parameter)),
        ("param_count", ctypes.c_uint32),
        ("param_bytes", ctypes.c_uint32),
        ("static_shared", ctypes.c_uint32),
        ("local_bytes", ctypes.c_uint32),
        ("registers", ctypes.c_uint32),
        ("max_threads", ctypes.c_uint32),
        ("required_threads", ctypes.c_uint32 * 3),
    ]


class Global(ctypes.Structure):
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("size", ctypes.c_uint64),
        ("align", ctypes.c_uint32),
        ("constant", ctypes.c_uint32),
    ]


class ModuleTable(ctypes.Structure):
    _fields_ = [
        ("abi", ctypes.c_uint32),
        ("kernel_count", ctypes.c_uint32),
        ("global_count", ctypes.c_uint32),
        ("kernels", ctypes.POINTER(Kernel)),
        ("globals", ctypes.POINTER(Global)),
        ("initialise", ctypes.CFUNCTYPE(None, ctypes.c_void_p)),
    ]


class TranslationError(Exception):
    """What the translator said, and its exit code."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


def translate(*texts: str) -> str:
    """C text, by the command as the driver runs it."""
    with tempfile.TemporaryDirectory(prefix="gpuvirt-translate-") as folder:
        paths = []
        for number, text in enumerate(texts):
            path = Path(folder) / f"{number}.ptx"
            path.write_text(text)
            paths.append(str(path))
        output = Path(folder) / "out.c"
        command = [sys.executable, str(PACKAGE / "__main__.py"), *paths, "-o", str(output)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise TranslationError(done.returncode, done.stderr)
        return output.read_text()


def compile_c(text: str) -> Path:
    """The shared object of translated C, from a cache by content."""
    headers = b"".join(path.read_bytes() for path in sorted(INCLUDE.glob("kernel_*.h")))
    key = hashlib.sha256(headers + text.encode()).hexdigest()[:24]
    target = CACHE / f"{key}.so"
    if not target.exists():
        CACHE.mkdir(mode=0o700, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix="gpuvirt-compile-") as folder:
            source = Path(folder) / "module.c"
            source.write_text(text)
            built = CACHE / f"{key}.{os.getpid()}.tmp"
            command = ["cc", *FLAGS, f"-I{INCLUDE}", str(source), "-o", str(built), "-lm"]
            done = subprocess.run(command, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr[:4000]
            os.replace(built, target)
    return target


def aligned(size: int, alignment: int = 1024) -> tuple[np.ndarray[Any, Any], int]:
    """Memory and an aligned address in it."""
    memory = np.full(size + alignment, 0xA5, dtype=np.uint8)
    return memory, (memory.ctypes.data + alignment - 1) // alignment * alignment


class Module:
    """A loaded module with its globals."""

    def __init__(self, *texts: str, general: bool = False) -> None:
        self.c_text = translate_here(list(texts), general=True) if general else translate(*texts)
        self._library = ctypes.CDLL(str(compile_c(self.c_text)))
        self.table = ModuleTable.in_dll(self._library, "gv_module")
        assert self.table.abi == 3
        self.kernels = {
            self.table.kernels[n].name.decode(): self.table.kernels[n] for n in range(self.table.kernel_count)
        }
        self.globals: dict[str, np.ndarray[Any, Any]] = {}
        self._keep: list[Any] = []
        addresses = (ctypes.c_void_p * max(1, self.table.global_count))()
        for number in range(self.table.global_count):
            entry = self.table.globals[number]
            memory, address = aligned(entry.size, 256)
            memory[:] = 0
            start = address - memory.ctypes.data
            self.globals[entry.name.decode()] = memory[start : start + entry.size]
            addresses[number] = address
            self._keep.append(memory)
        self._addresses = addresses
        self.table.initialise(addresses)
        self.printed: list[str] = []
        self.asserts: list[tuple[str, str, int, str]] = []

    def kernel(self, name: str) -> Kernel:
        """Kernel by name, or by the plain name inside a mangled one."""
        if name in self.kernels:
            return self.kernels[name]
        for full, kernel in self.kernels.items():
            if re.search(rf"\d{name}(?![a-z0-9_])|\d{name}[A-Z]", full):
                return kernel
        raise KeyError(name)

    def _vprintf(self, sink: int, text: bytes, arguments: int) -> int:
        offset = 0
        values: list[Any] = []
        template = text.decode()
        for match in re.finditer(r"%[-+ #0]*\d*(?:\.\d+)?(hh|h|ll|l|z)?([diouxXcsfeEgGp%])", template):
            letter = match.group(2)
            if letter == "%":
                continue
            wide = letter in "fgGeEsp" or match.group(1) in ("l", "ll", "z")
            size = 8 if wide else 4
            offset = (offset + size - 1) // size * size
            raw = ctypes.string_at(arguments + offset, size)
            offset += size
            if letter in "fgGeE":
                values.append(struct.unpack("<d", raw)[0])
            elif letter == "s":
                values.append(ctypes.string_at(struct.unpack("<Q", raw)[0]).decode())
            else:
                values.append(int.from_bytes(raw, "little", signed=letter in "di"))
        self.printed.append(re.sub(r"(hh|h|ll|l|z)(?=[diouxX])", "", template) % tuple(values))
        return len(values)

    def _assert_fail(self, sink: int, message: bytes, file: bytes, line: int, function: bytes) -> None:
        self.asserts.append((message.decode(), file.decode(), line, function.decode()))

    def launch(
        self,
        name: str,
        grid: int | Sequence[int],
        block: int | Sequence[int],
        *arguments: Any,
        shared: int = 0,
    ) -> int:
        """Runs all blocks in order; returns the first result that is not 0. Arrays are passed by address."""
        kernel = self.kernel(name)
        _buffer, base = aligned(max(kernel.param_bytes, 1), 64)
        assert len(arguments) == kernel.param_count, (len(arguments), kernel.param_count)
        for number, argument in enumerate(arguments):
            if isinstance(argument, np.ndarray):
                raw = struct.pack("<Q", argument.ctypes.data)
            elif isinstance(argument, bytes):
                raw = argument
            else:
                raw = np.asarray(argument).tobytes()
            parameter = kernel.params[number]
            assert len(raw) == parameter.size, (number, len(raw), parameter.size)
            ctypes.memmove(base + parameter.offset, raw, len(raw))
        dims = [tuple(d) + (1,) * (3 - len(d)) if not isinstance(d, int) else (d, 1, 1) for d in (grid, block)]
        threads = dims[1][0] * dims[1][1] * dims[1][2]
        _shared_memory, shared_base = aligned(kernel.static_shared + shared + 16)
        _scratch, scratch_base = aligned(kernel.scratch_bytes(threads) + 64, 64)
        entry = Block(
            params=base,
            globals=ctypes.addressof(self._addresses),
            shared=shared_base,
            scratch=scratch_base,
            dynamic_shared=shared,
            smid=0,
            grid=Dim3(*dims[0]),
            block=Dim3(*dims[1]),
            vprintf=VPRINTF(self._vprintf),
            assert_fail=ASSERT_FAIL(self._assert_fail),
            allocate=ALLOCATE(lambda heap, size: LIBC.malloc(size)),
            release=RELEASE(lambda heap, memory: LIBC.free(memory)),
        )
        for z in range(dims[0][2]):
            for y in range(dims[0][1]):
                for x in range(dims[0][0]):
                    entry.index = Dim3(x, y, z)
                    result = int(kernel.run(ctypes.byref(entry)))
                    if result:
                        return result
        return 0
