# SPDX-License-Identifier: Apache-2.0
"""What the dynamic loader will make of a program or library, read from its ELF headers (any class and byte order)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from gpuvirt.errors import GpuvirtError

MAGIC = b"\x7fELF"
MACHINES = {
    3: "x86",
    8: "mips",
    20: "ppc",
    21: "ppc64",
    22: "s390",
    40: "arm",
    62: "x86-64",
    183: "aarch64",
    243: "riscv",
}
_PT_LOAD, _PT_DYNAMIC, _PT_INTERP = 1, 2, 3
_DT_NEEDED, _DT_STRTAB, _DT_STRSZ, _DT_SONAME, _DT_RPATH, _DT_RUNPATH = 1, 5, 10, 14, 15, 29
_SHT_DYNSYM = 11
_GLOBAL, _WEAK = 1, 2  # symbol bindings that other objects can see
_HIDDEN = (1, 2)  # visibilities STV_INTERNAL and STV_HIDDEN
_OFFSET_LIMIT = 1 << 40  # bytes; file systems refuse to seek much further
_TABLE_LIMIT = 64 << 20  # bytes; a larger table is not one that a linker wrote


class ElfError(GpuvirtError):
    """The file is not a complete ELF file."""


@dataclass(frozen=True)
class Elf:
    """The parts of an ELF file that decide how it is loaded."""

    bits: int  # 32 or 64
    little_endian: bool
    machine: int  # e_machine
    kind: int  # e_type: 2 executable at a fixed address, 3 shared object or position-independent executable
    interpreter: str | None  # the dynamic loader that the kernel starts; None: static, or a library
    needed: tuple[str, ...]
    soname: str | None
    runpath: str | None  # DT_RUNPATH, or DT_RPATH where there is no other
    rpath: str | None = None  # DT_RPATH where it counts: it comes before LD_LIBRARY_PATH

    @property
    def architecture(self) -> str:
        """ "64-bit x86-64"."""
        order = "" if self.little_endian else " big-endian"
        return f"{self.bits}-bit{order} {MACHINES.get(self.machine, f'machine {self.machine}')}"

    def same_architecture(self, other: Elf) -> bool:
        """Can both live in one process?"""
        return (self.bits, self.little_endian, self.machine) == (other.bits, other.little_endian, other.machine)


@dataclass(frozen=True)
class _Layout:
    """Struct formats of one class and byte order."""

    bits: int
    order: str

    def unpack(self, fields: str, data: bytes, offset: int = 0) -> tuple[int, ...]:
        try:
            return struct.unpack_from(self.order + fields, data, offset)
        except struct.error:
            raise ElfError("ELF file is cut off") from None

    @property
    def word(self) -> str:
        return "Q" if self.bits == 64 else "I"


@dataclass(frozen=True)
class _Segment:
    kind: int
    offset: int
    address: int
    size: int


def read(path: str | Path) -> Elf:
    """The file's headers. Raises ElfError when it is no ELF file, OSError when it cannot be read."""
    with Path(path).open("rb") as file:
        layout, header = _header(file)
        kind, machine = layout.unpack("HH", header, 16)
        segments = _segments(file, layout, header)
        interpreter = None
        for segment in segments:
            if segment.kind == _PT_INTERP:
                interpreter = _at(file, segment.offset, segment.size).rstrip(b"\0").decode(errors="replace")
        needed: list[str] = []
        names: dict[int, str] = {}
        for tag, text in _dynamic_strings(file, layout, segments):
            if tag == _DT_NEEDED:
                needed.append(text)
            else:
                names[tag] = text
        return Elf(
            bits=layout.bits,
            little_endian=layout.order == "<",
            machine=machine,
            kind=kind,
            interpreter=interpreter,
            needed=tuple(needed),
            soname=names.get(_DT_SONAME),
            runpath=names.get(_DT_RUNPATH, names.get(_DT_RPATH)),
            rpath=names.get(_DT_RPATH) if _DT_RUNPATH not in names else None,
        )


def exported_symbols(path: str | Path) -> frozenset[str]:
    """Names that other objects can bind to in this library. Raises ElfError, OSError."""
    return _dynamic_symbols(path, (_GLOBAL, _WEAK))


def weak_symbols(path: str | Path) -> frozenset[str]:
    """Those of the exported names that are weak: a default that nothing has replaced. Raises ElfError, OSError."""
    return _dynamic_symbols(path, (_WEAK,))


def _dynamic_symbols(path: str | Path, bindings: tuple[int, ...]) -> frozenset[str]:
    with Path(path).open("rb") as file:
        layout, header = _header(file)
        sections = _sections(file, layout, header)
        for kind, offset, size, link in sections:
            if kind == _SHT_DYNSYM and link < len(sections):
                _, names_offset, names_size, _ = sections[link]
                return _defined(layout, _at(file, offset, size), _at(file, names_offset, names_size), bindings)
    return frozenset()


def _header(file: BinaryIO) -> tuple[_Layout, bytes]:
    header = file.read(64)
    if len(header) < 52 or header[:4] != MAGIC:
        raise ElfError("not an ELF file")
    if header[4] not in (1, 2) or header[5] not in (1, 2):
        raise ElfError("ELF file of an unknown class or byte order")
    return _Layout(64 if header[4] == 2 else 32, "<" if header[5] == 1 else ">"), header


def _at(file: BinaryIO, offset: int, size: int) -> bytes:
    if size > _TABLE_LIMIT or offset > _OFFSET_LIMIT:
        raise ElfError("ELF file has a table that is too large or too far away")
    file.seek(offset)
    data = file.read(size)
    if len(data) != size:
        raise ElfError("ELF file is cut off")
    return data


def _segments(file: BinaryIO, layout: _Layout, header: bytes) -> list[_Segment]:
    if layout.bits == 64:
        (start,) = layout.unpack("Q", header, 32)
        size, count = layout.unpack("HH", header, 54)
    else:
        (start,) = layout.unpack("I", header, 28)
        size, count = layout.unpack("HH", header, 42)
    table = _at(file, start, size * count)
    segments = []
    for index in range(count):
        if layout.bits == 64:
            kind, _, offset, address, _, length = layout.unpack("IIQQQQ", table, index * size)
        else:
            kind, offset, address, _, length = layout.unpack("IIIII", table, index * size)
        segments.append(_Segment(kind, offset, address, length))
    return segments


def _dynamic_strings(file: BinaryIO, layout: _Layout, segments: list[_Segment]) -> list[tuple[int, str]]:
    """(tag, text) of the dynamic section's entries that name something."""
    dynamic = next((s for s in segments if s.kind == _PT_DYNAMIC), None)
    if dynamic is None:
        return []
    data = _at(file, dynamic.offset, dynamic.size)
    step = 2 * layout.bits // 8
    entries = []
    for offset in range(0, len(data) - step + 1, step):
        tag, value = layout.unpack(layout.word * 2, data, offset)
        if tag == 0:
            break
        entries.append((tag, value))
    values = dict(entries)
    if _DT_STRTAB not in values or _DT_STRSZ not in values:
        return []
    strings = _at(file, _file_offset(segments, values[_DT_STRTAB]), values[_DT_STRSZ])
    wanted = (_DT_NEEDED, _DT_SONAME, _DT_RPATH, _DT_RUNPATH)
    return [(tag, _text(strings, value)) for tag, value in entries if tag in wanted]


def _file_offset(segments: list[_Segment], address: int) -> int:
    for segment in segments:
        if segment.kind == _PT_LOAD and segment.address <= address < segment.address + segment.size:
            return address - segment.address + segment.offset
    raise ElfError("ELF file has a string table outside its segments")


def _text(strings: bytes, offset: int) -> str:
    end = strings.find(b"\0", offset)
    if not 0 <= offset < len(strings) or end < 0:
        raise ElfError("ELF file has a name outside its string table")
    return strings[offset:end].decode(errors="replace")


def _sections(file: BinaryIO, layout: _Layout, header: bytes) -> list[tuple[int, int, int, int]]:
    """(type, offset, size, link) of each section."""
    if layout.bits == 64:
        (start,) = layout.unpack("Q", header, 40)
        size, count = layout.unpack("HH", header, 58)
    else:
        (start,) = layout.unpack("I", header, 32)
        size, count = layout.unpack("HH", header, 46)
    table = _at(file, start, size * count)
    sections = []
    for index in range(count):
        kind, *_rest = layout.unpack("II", table, index * size)[1:]
        fields = (
            layout.unpack("QQQQI", table, index * size + 8)
            if layout.bits == 64
            else layout.unpack("IIIII", table, index * size + 8)
        )
        _, _, offset, length, link = fields
        sections.append((kind, offset, length, link))
    return sections


def _defined(layout: _Layout, symbols: bytes, strings: bytes, bindings: tuple[int, ...]) -> frozenset[str]:
    size = 24 if layout.bits == 64 else 16
    found = set()
    for offset in range(0, len(symbols) - size + 1, size):
        if layout.bits == 64:
            name, info, other, section = layout.unpack("IBBH", symbols, offset)
        else:
            name, _, _, info, other, section = layout.unpack("IIIBBH", symbols, offset)
        if section != 0 and info >> 4 in bindings and other & 3 not in _HIDDEN:
            found.add(_text(strings, name))
    return frozenset(found)
