# SPDX-License-Identifier: Apache-2.0
"""Reads NVIDIA's public headers: which driver symbols exist, and which one answers which (name, version, variant).

A *symbol* is what the library exports (`cuMemAlloc_v2`, `cuLaunchKernel_ptsz`). A *row* is what `cuGetProcAddress` can
be asked for: base name, CUDA version and variant (plain, ptds, ptsz), answered by exactly one symbol.

The pairing needs no list of our own: declared with `__CUDA_API_VERSION_INTERNAL`, a name's symbols (cuX, cuX_v2, ...)
and its typedefs (PFN_cuX_v2000, PFN_cuX_v3020, ...) pair off from the newest down. The build checks every pair by type.
"""

from __future__ import annotations

import re
import subprocess
from dataclasses import dataclass, replace
from pathlib import Path

VARIANTS = ("", "ptds", "ptsz")
EXTENSIONS = ("cudaGL", "cudaEGL", "cudaVDPAU", "cudaProfiler")  # each with X.h and XTypedefs.h beside cuda.h

# What these headers include from outside CUDA, as far as they use it: no display library is needed to build, and one
# that is installed changes nothing. Types as in the Khronos and VDPAU specifications; forwarders only need their sizes.
STAND_INS = {
    "GL/gl.h": "typedef unsigned int GLenum;\ntypedef unsigned int GLuint;\n",
    "EGL/egl.h": "typedef int EGLint;\n",
    "EGL/eglext.h": "typedef void *EGLImageKHR;\ntypedef void *EGLStreamKHR;\ntypedef void *EGLSyncKHR;\n",
    "vdpau/vdpau.h": (
        "typedef unsigned int VdpDevice;\n"
        "typedef unsigned int VdpVideoSurface;\n"
        "typedef unsigned int VdpOutputSurface;\n"
        "typedef int VdpGetProcAddress(VdpDevice device, unsigned int function, void **pointer);\n"
    ),
}
# cudaProfiler.h has a wheel of its own; its typedefs are in that of cuda.h. Used where the header is not installed.
PROFILER_STAND_IN = """\
typedef enum CUoutput_mode_enum { CU_OUT_KEY_VALUE_PAIR = 0, CU_OUT_CSV = 1 } CUoutput_mode;
CUresult cuProfilerInitialize(const char *configFile, const char *outputFile, CUoutput_mode outputMode);
CUresult cuProfilerStart(void);
CUresult cuProfilerStop(void);
"""

_DECLARATION = re.compile(r"\bCUresult\s+(cu[A-Z]\w*)\s*\(((?:[^()]|\([^()]*\))*)\)\s*;")
_TYPEDEF = re.compile(r"\btypedef\s+CUresult\s*\(\s*\*\s*PFN_(cu\w+?)_v(\d+)(?:_(ptds|ptsz))?\s*\)")
_SYMBOL = re.compile(r"^(cu[A-Za-z0-9_]*?)(?:_v(\d+))?(?:_(ptds|ptsz))?$")
_PARAMETER = re.compile(r"^(.*?)(\w+)\s*((?:\[\w*\])*)$", re.S)


class HeaderError(Exception):
    """The headers do not have the shape that the generator relies on."""


@dataclass(frozen=True)
class Parameter:
    """One parameter of a prototype: its C type and its name."""

    type: str
    name: str


@dataclass(frozen=True)
class Symbol:
    """One exported function of the driver."""

    name: str  # cuMemAlloc_v2_ptsz
    base: str  # cuMemAlloc
    revision: int  # 2
    variant: str  # "", "ptds" or "ptsz"
    parameters: tuple[Parameter, ...]
    header: str = "cuda.h"


@dataclass(frozen=True)
class Row:
    """What `cuGetProcAddress(base, version, variant)` answers with."""

    base: str
    version: int
    variant: str
    symbol: str

    @property
    def typedef(self) -> str:
        """The function pointer type that NVIDIA declares for this row."""
        return f"PFN_{self.base}_v{self.version}" + (f"_{self.variant}" if self.variant else "")


@dataclass(frozen=True)
class Table:
    """What all headers together declare."""

    text: str  # as the compiler sees them
    symbols: list[Symbol]
    rows: list[Row]
    absent: list[str]  # extensions whose headers are not there


def preprocess(compiler: str, include: Path, more: str = "", stand_ins: Path | None = None) -> str:
    """The headers as the compiler sees them, all versions of all functions declared."""
    source = f"#define __CUDA_API_VERSION_INTERNAL\n#include <cuda.h>\n#include <cudaTypedefs.h>\n{more}"
    folders = [f"-I{include}"] if stand_ins is None else [f"-I{stand_ins}", f"-I{include}"]
    done = subprocess.run(
        [compiler, "-E", "-P", "-x", "c", *folders, "-"],
        input=source,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        raise HeaderError(f"cannot preprocess the headers in {include}: {done.stderr.strip().splitlines()[:1]}")
    return done.stdout


def extensions(include: Path) -> tuple[list[str], list[str]]:
    """(there, absent) of EXTENSIONS. The profiler's typedefs are enough."""
    there = [
        name
        for name in EXTENSIONS
        if (include / f"{name}Typedefs.h").exists() and (name == "cudaProfiler" or (include / f"{name}.h").exists())
    ]
    return there, [name for name in EXTENSIONS if name not in there]


def include_extensions(there: list[str]) -> str:
    """C lines that include them. cudaVDPAU.h does not include what it uses."""
    lines = ["#include <vdpau/vdpau.h>"] if "cudaVDPAU" in there else []
    return "".join(f"{line}\n" for line in [*lines, *(f"#include <{name}Typedefs.h>" for name in there)])


def write_stand_ins(include: Path, folder: Path) -> None:
    """Writes STAND_INS, and cudaProfiler.h where NVIDIA's own is not installed."""
    wanted = dict(STAND_INS)
    if not (include / "cudaProfiler.h").exists():
        wanted["cudaProfiler.h"] = PROFILER_STAND_IN
    for name, content in wanted.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        guard = re.sub(r"\W", "_", name).upper()
        guarded = f"#ifndef GPUVIRT_{guard}\n#define GPUVIRT_{guard}\n{content}#endif\n"
        if not path.exists() or path.read_text() != guarded:
            path.write_text(guarded)


def read_headers(compiler: str, include: Path, stand_ins: Path) -> Table:
    """cuda.h and all extensions. `stand_ins`: a folder to write to. Raises HeaderError."""
    write_stand_ins(include, stand_ins)
    there, absent = extensions(include)
    text = preprocess(compiler, include, include_extensions(there), stand_ins)
    own = {symbol.name for symbol in parse_symbols(preprocess(compiler, include))}
    symbols = [symbol if symbol.name in own else replace(symbol, header="extension") for symbol in parse_symbols(text)]
    return Table(text, symbols, pair_rows(text, symbols), absent)


def parse_symbols(text: str) -> list[Symbol]:
    """All declared driver functions, by symbol name."""
    symbols: dict[str, Symbol] = {}
    for name, parameters in _DECLARATION.findall(text):
        match = _SYMBOL.match(name)
        if match is None:
            raise HeaderError(f"symbol {name} has an unknown form")
        base, revision, variant = match.groups()
        symbols[name] = Symbol(name, base, int(revision or 1), variant or "", _parameters(name, parameters))
    return [symbols[name] for name in sorted(symbols)]


def _parameters(symbol: str, text: str) -> tuple[Parameter, ...]:
    parameters = []
    for part in text.split(","):
        part = " ".join(part.split())
        if part in ("", "void"):
            continue
        match = _PARAMETER.match(part)
        if match is None or not match.group(1).strip():
            raise HeaderError(f"{symbol}: parameter '{part}' has an unknown form")
        kind, name, array = match.groups()
        parameters.append(Parameter(kind.strip() + ("*" if array else ""), name))
    return tuple(parameters)


def pair_rows(text: str, symbols: list[Symbol]) -> list[Row]:
    """The table of `cuGetProcAddress`, sorted by name, variant and version.

    Raises HeaderError when a name has more versions than symbols.
    """
    versions: dict[tuple[str, str], list[int]] = {}
    for base, version, variant in _TYPEDEF.findall(text):
        versions.setdefault((base, variant), []).append(int(version))
    by_name: dict[tuple[str, str], list[Symbol]] = {}
    for symbol in symbols:
        by_name.setdefault((symbol.base, symbol.variant), []).append(symbol)
    rows = []
    for (base, variant), asked in versions.items():
        answers = sorted(by_name.get((base, variant), []), key=lambda symbol: -symbol.revision)
        asked = sorted(set(asked), reverse=True)
        if len(asked) > len(answers):
            raise HeaderError(f"{base} {variant}: {len(asked)} versions but {len(answers)} symbols")
        rows += [Row(base, version, variant, symbol.name) for version, symbol in zip(asked, answers, strict=False)]
    return sorted(rows, key=lambda row: (row.base, VARIANTS.index(row.variant), row.version))


def parse_results(text: str) -> list[str]:
    """The names of all CUresult values."""
    match = re.search(r"typedef enum cudaError_enum\s*\{(.*?)\}\s*CUresult\s*;", text, re.S)
    if match is None:
        raise HeaderError("cuda.h does not define CUresult as the generator expects")
    return re.findall(r"\b(CUDA_[A-Z0-9_]+)\s*=", match.group(1))


def nvml_functions(include: Path) -> list[str]:
    """All functions that nvml.h declares, old versions included. It lies beside cuda.h, in wheels and in toolkits."""
    path = include / "nvml.h"
    if not path.exists():
        raise HeaderError(f"{path} does not exist: pip install nvidia-nvml-dev, same version as nvidia-cuda-runtime")
    form = r"\b(?:nvmlReturn_t\s+DECLDIR|const\s+DECLDIR\s+char\s*\*|const\s+char\s*\*\s*DECLDIR)\s+(nvml\w+)\s*\("
    names = set(re.findall(form, path.read_text()))
    if len(names) < 300:
        raise HeaderError(f"{path} declares only {len(names)} functions in a form that the generator knows")
    return sorted(names)


def header_version(include: Path) -> int:
    """CUDA_VERSION of the headers, for example 13050."""
    match = re.search(r"#define\s+CUDA_VERSION\s+(\d+)", (include / "cuda.h").read_text())
    if match is None:
        raise HeaderError(f"{include / 'cuda.h'} does not define CUDA_VERSION")
    return int(match.group(1))
