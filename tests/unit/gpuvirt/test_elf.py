# SPDX-License-Identifier: Apache-2.0
"""ELF headers, of real programs and of files that only pretend."""

from __future__ import annotations

import shutil
import struct
import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvirt import elf


@pytest.fixture(scope="module")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    path = tmp_path_factory.mktemp("elf") / "lib.so"
    source = """
    #include <math.h>
    int seen(double x) { return (int)cos(x); }
    int weak(void) __attribute__((weak)); int weak(void) { return 1; }
    __attribute__((visibility("hidden"))) int hidden(void) { return 2; }
    static int local(void) { return 3; }
    int (*keep)(void) = local;
    """
    options = ["-shared", "-fPIC", "-Wl,-soname,libname.so.7", "-Wl,-rpath,/opt/x", "-Wl,--no-as-needed", "-lm"]
    subprocess.run([compiler, "-x", "c", "-", "-o", path, *options], input=source.encode(), check=True)
    return path


def test_library(library: Path) -> None:
    header = elf.read(library)
    assert (header.bits, header.little_endian, header.kind) == (64, sys.byteorder == "little", 3)
    assert header.interpreter is None
    assert header.soname == "libname.so.7"
    assert header.runpath == "/opt/x"
    assert "libm.so.6" in header.needed


def test_exports_are_what_others_can_bind_to(library: Path) -> None:
    exported = elf.exported_symbols(library)
    assert {"seen", "weak", "keep"} <= exported
    assert not {"hidden", "local", "cos"} & exported
    assert elf.weak_symbols(library) & {"seen", "weak", "keep"} == {"weak"}


def test_program_names_its_loader() -> None:
    header = elf.read(Path(sys.executable).resolve())
    assert header.interpreter is not None
    assert Path(header.interpreter).name.startswith("ld-")
    assert header.same_architecture(header)


def make_elf(bits: int, order: str, machine: int) -> bytes:
    """A header without segments."""
    start = b"\x7fELF" + bytes([1 if bits == 32 else 2, 1 if order == "<" else 2, 1]) + bytes(9)
    word = "I" if bits == 32 else "Q"
    return (
        start + struct.pack(f"{order}HHI{word * 3}IHHHHHH", 2, machine, 1, 0, 64, 0, 0, 64, 56, 0, 64, 0, 0) + bytes(12)
    )


@pytest.mark.parametrize(
    ("bits", "order", "machine", "name"),
    [
        (64, "<", 62, "64-bit x86-64"),
        (32, "<", 3, "32-bit x86"),
        (64, "<", 183, "64-bit aarch64"),
        (64, ">", 21, "64-bit big-endian ppc64"),
        (64, "<", 9999, "64-bit machine 9999"),
    ],
)
def test_architecture(tmp_path: Path, bits: int, order: str, machine: int, name: str) -> None:
    (tmp_path / "x").write_bytes(make_elf(bits, order, machine))
    assert elf.read(tmp_path / "x").architecture == name


@pytest.mark.parametrize("content", [b"", b"#!/bin/sh\n", b"\x7fELF", b"\x7fELF" + bytes(80)])
def test_not_elf(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(elf.ElfError):
        elf.read(tmp_path / "x")


@given(st.data())
def test_damage_is_an_error_and_never_a_crash(
    library: Path, tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    content = bytearray(library.read_bytes())
    for _ in range(data.draw(st.integers(1, 8))):
        content[data.draw(st.integers(4, 1023))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.mktemp("damaged") / "x"
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))])
    for function in (elf.read, elf.exported_symbols):
        try:
            function(path)
        except elf.ElfError:
            continue
