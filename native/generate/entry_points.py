# SPDX-License-Identifier: Apache-2.0
"""Writes the C and assembler files that follow from NVIDIA's headers (see headers.py). Run by CMake.

    entry_points.py --include DIR --output DIR --compiler CC --hooks native/shim/hooked_functions.h
                    --architecture x86_64

entry_points.inc        GV_SYMBOL(index, symbol): every exported function, both drivers and the shim share the numbering
proc_rows.inc           GV_ROW(name, version, variant, index): the cuGetProcAddress table, sorted
row_types.c             one assertion per row: our symbol has the very type that NVIDIA declares for that version
row_classes.tsv         for people: the class of each row and whose function it is answered with
shim_forwarders.S       one jump through the real driver's table for each symbol that the shim does not hook
shim_symbols.c          what the shim knows of each symbol: its class, our function, the counter of its calls
shim_forwarded.inc      GV_FORWARDED(index, symbol): the symbols of shim_forwarders.S, for tests
unclassified.txt        names of the headers that classes.tsv does not have: they pass through; CMake warns of them
shim_gates.c            one gated wrapper for each symbol of class `gate` or with needs-memory, but for those by hand
results.inc             GV_RESULT(name): every CUresult
softgpu_symbols.c       the soft driver's functions by index
softgpu_missing.c       weak answers of the soft driver for what it does not implement
softgpu_nvml_missing.c  the same for the soft NVML, from nvml.h
softgpu_variants.c      weak _ptds/_ptsz twins of what it does implement
"""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import dataclass
from pathlib import Path

import bounds
from forwarders import (
    ARCHITECTURES,
    BANNER,
    CLASSES,
    PASSED_SHARDS,
    PASSED_SLOTS,
    counters,
    row_classes,
    shim_forwarded,
    shim_forwarders,
    shim_symbols,
    unclassified,
)
from headers import (
    HeaderError,
    Row,
    Symbol,
    extensions,
    header_version,
    include_extensions,
    nvml_functions,
    parse_results,
    read_headers,
)

STREAM_OF = {  # the stream of a gated call that does not take it as a plain parameter
    "cuLaunchKernelEx": "config == NULL ? NULL : config->hStream",
    "cuLaunchCooperativeKernelMultiDevice": (
        "launchParamsList == NULL || numDevices == 0 ? NULL : launchParamsList[0].hStream"
    ),
}
RETURNS_FINISHED = ("cuMemcpyDtoH", "cuMemcpyAtoH")  # these return when their stream has finished
# Calls that return, or begin, only when earlier work of their stream (the default one) has finished.
WAITS_FOR_STREAM = (
    "cuMemcpy", "cuMemcpyPeer", "cuMemcpyHtoD", "cuMemcpyDtoH", "cuMemcpyAtoH", "cuMemcpyHtoA", "cuMemcpy2D",
    "cuMemcpy2DUnaligned", "cuMemcpy3D", "cuMemcpy3DPeer",
)  # fmt: skip
# Work that waits for what other threads of the job may have to bring about: a drain may not end without them.
MAY_WAIT = ("cuStreamWaitValue32", "cuStreamWaitValue64", "cuStreamBatchMemOp", "cuWaitExternalSemaphoresAsync")
# Plain copies of one range: a large one goes in pieces while others want the GPU.
IN_PIECES = ("cuMemcpy", "cuMemcpyHtoD", "cuMemcpyDtoH", "cuMemcpyDtoD")
VARIANT_NUMBER = {"": 0, "ptds": 1, "ptsz": 2}


@dataclass(frozen=True)
class Kind:
    """What classes.tsv says of a name: its class, and whether the driver looks at device addresses that it is given."""

    name: str
    needs_memory: bool = False

    @property
    def gated(self) -> bool:
        return self.name == "gate" or self.needs_memory


def read_classes(path: Path) -> dict[str, Kind]:
    """Kinds by base name, from classes.tsv."""
    classes = {}
    for line in path.read_text().splitlines():
        if line and not line.startswith("#"):
            name, kind, *notes = line.split("\t")
            if kind not in CLASSES:
                raise HeaderError(f"{path.name}: {name} has the class {kind}, which is none of {', '.join(CLASSES)}")
            classes[name] = Kind(kind, "needs-memory" in notes)
    return classes


def read_hooks(path: Path) -> list[str]:
    """The symbols that the shim writes by hand: GV_HOOK(symbol) lines."""
    return re.findall(r"^\s*GV_HOOK\((\w+)\)", path.read_text(), re.M)


def entry_points(symbols: list[Symbol]) -> str:
    lines = [f"/* {BANNER} */"]
    lines += [f"GV_SYMBOL({index}, {symbol.name})" for index, symbol in enumerate(symbols)]
    return "\n".join(lines) + "\n"


def proc_rows(rows: list[Row], index: dict[str, int]) -> str:
    lines = [f"/* {BANNER} */"]
    lines += [f'GV_ROW("{r.base}", {r.version}, {VARIANT_NUMBER[r.variant]}, {index[r.symbol]})' for r in rows]
    return "\n".join(lines) + "\n"


def results(text: str) -> str:
    return "\n".join([f"/* {BANNER} */", *(f"GV_RESULT({name})" for name in parse_results(text))]) + "\n"


def row_types(rows: list[Row], more: str) -> str:
    lines = [f"/* {BANNER} */", "#define __CUDA_API_VERSION_INTERNAL", "#include <cuda.h>", "#include <cudaTypedefs.h>"]
    lines += more.splitlines()
    for row in rows:
        lines.append(
            f"_Static_assert(__builtin_types_compatible_p(__typeof__(&{row.symbol}), {row.typedef}), "
            f'"{row.base} version {row.version}: wrong symbol {row.symbol}");'
        )
    return "\n".join(lines) + "\n"


def stream_expression(symbol: Symbol) -> str:
    """C expression for the stream of a gated call; the default stream where it takes none."""
    if symbol.base in STREAM_OF:
        return STREAM_OF[symbol.base]
    for parameter in symbol.parameters:
        if parameter.type == "CUstream":
            return parameter.name
    return "NULL"


def enter(symbol: Symbol, kind: Kind) -> list[str]:
    """How a gated call gets in."""
    if kind.name != "gate":
        return ["    const struct gv_submission submission = gv_gate_enter_unused();"]
    stream, per_thread = stream_expression(symbol), int(symbol.variant != "")
    way = "gv_gate_enter_waiting" if symbol.base in MAY_WAIT else "gv_gate_enter"
    lines = [f"    const struct gv_submission submission = {way}({stream}, {per_thread});"]
    if symbol.base in WAITS_FOR_STREAM:
        lines.insert(0, f"    gv_gate_wait_for_stream({per_thread});")
    return lines


def leave(symbol: Symbol, kind: Kind) -> str:
    """How a gated call ends: with its stream finished, or not."""
    if symbol.base in RETURNS_FINISHED:  # a copy of nothing need not wait
        waited = "result == CUDA_SUCCESS && ByteCount != 0"
        return f"gv_gate_leave_synced(&submission, &mark, {int(symbol.variant != '')}, {waited})"
    return "gv_gate_leave(&submission)"


def marked(symbol: Symbol) -> list[str]:
    """Before the driver's call, where its end will prove that earlier work is finished."""
    if symbol.base not in RETURNS_FINISHED:
        return []
    return ["    struct gv_activity_mark mark;", "    gv_activity_sync_begin(&mark);"]


def in_pieces(symbol: Symbol) -> bool:
    """Not the first version of them, whose lengths have 32 bits."""
    length = [p.type for p in symbol.parameters if p.name == "ByteCount"]
    return symbol.base.removesuffix("Async") in IN_PIECES and length == ["size_t"]


def pieces(symbol: Symbol) -> list[str]:
    """The exported function of such a copy, around the one that copies at once."""
    declared = ", ".join(f"{p.type} {p.name}" for p in symbol.parameters)

    def moved(kind: str, name: str) -> str:
        if name == "ByteCount":
            return "ByteCount - done < GV_PIECE_BYTES ? ByteCount - done : GV_PIECE_BYTES"
        if "*" in kind:
            return f"({kind})((uintptr_t){name} + done)"
        return f"{name} + done" if kind == "CUdeviceptr" else name

    passed = ", ".join(p.name for p in symbol.parameters)
    piece = ", ".join(moved(p.type, p.name) for p in symbol.parameters)
    return [
        f"GV_EXPORT CUresult {symbol.name}({declared})",
        "{",
        *bounds.before(symbol),
        "    if (__builtin_expect(ByteCount <= GV_PIECE_BYTES, 1) || !gv_pacing_in_pieces())",
        f"        return whole_{symbol.name}({passed});",
        "    CUresult result = CUDA_SUCCESS;",
        "    for (size_t done = 0; done < ByteCount && result == CUDA_SUCCESS; done += GV_PIECE_BYTES)",
        f"        result = whole_{symbol.name}({piece});",
        "    return result;",
        "}",
    ]


def shim_gates(symbols: list[Symbol], index: dict[str, int], kinds: dict[str, Kind]) -> str:
    lines = [f"/* {BANNER} */", "#define __CUDA_API_VERSION_INTERNAL", "#include <cuda.h>", '#include "bounds.h"']
    lines += ['#include "activity.h"', '#include "gate.h"', '#include "pacing.h"', '#include "real_driver.h"', ""]
    for symbol in symbols:
        declared = ", ".join(f"{p.type} {p.name}" for p in symbol.parameters) or "void"
        passed = ", ".join(p.name for p in symbol.parameters)
        split = in_pieces(symbol)
        lines += [
            f"static inline CUresult whole_{symbol.name}({declared})"
            if split
            else f"GV_EXPORT CUresult {symbol.name}({declared})",
            "{",
            *([] if split else bounds.before(symbol)),
            *enter(symbol, kinds[symbol.base]),
            "    if (submission.refused != CUDA_SUCCESS)",
            "        return submission.refused;",
            *marked(symbol),
            f"    const CUresult result = ((__typeof__(&{symbol.name}))gv_real[{index[symbol.name]}])({passed});",
            f"    {leave(symbol, kinds[symbol.base])};",
            *bounds.after(symbol),
            "    if (__builtin_expect(result != CUDA_SUCCESS, 0))",
            "        gv_gate_failed(result);",
            "    return result;",
            "}",
            *(pieces(symbol) if split else []),
        ]
    return "\n".join(lines) + "\n"


def softgpu_symbols(symbols: list[Symbol]) -> str:
    lines = [f"/* {BANNER} */", *(f"extern void {symbol.name}(void);" for symbol in symbols)]
    lines += ["extern void *const gv_soft_functions[];", "void *const gv_soft_functions[] = {"]
    return "\n".join([*lines, *(f"    (void *){symbol.name}," for symbol in symbols), "};"]) + "\n"


def softgpu_missing(symbols: list[Symbol]) -> str:
    lines = [
        f"/* {BANNER} */",
        "int gv_soft_missing(const char *symbol);",
        '#define WEAK __attribute__((weak, visibility("default")))',
    ]
    for symbol in symbols:
        if symbol.variant == "" or symbol.header != "cuda.h":  # of the extensions only the profiler's are implemented
            lines.append(f'WEAK int {symbol.name}(void) {{ return gv_soft_missing("{symbol.name}"); }}')
    return "\n".join(lines) + "\n"


def softgpu_nvml_missing(names: list[str]) -> str:
    lines = ["/* generated by native/generate/entry_points.py from nvml.h; do not edit */"]
    lines += ["int gv_nvml_missing(const char *symbol);", '#define WEAK __attribute__((weak, visibility("default")))']
    answered = [name for name in names if name != "nvmlErrorString"]  # that one returns a text
    lines += [f'WEAK int {name}(void) {{ return gv_nvml_missing("{name}"); }}' for name in answered]
    return "\n".join(lines) + "\n"


def softgpu_variants(symbols: list[Symbol]) -> str:
    """A twin runs the plain function with the thread's default stream chosen; the driver reads that in stream.c."""
    by_name = {symbol.name: symbol for symbol in symbols}
    lines = [f"/* {BANNER} */", "#define __CUDA_API_VERSION_INTERNAL", "#include <cuda.h>"]
    lines += ["void gv_soft_default_stream(int per_thread);"]
    lines += ['#define WEAK __attribute__((weak, visibility("default")))']
    for symbol in symbols:
        if symbol.variant == "" or symbol.header != "cuda.h":
            continue
        plain = symbol.name.removesuffix(f"_{symbol.variant}")
        if plain not in by_name:
            raise HeaderError(f"{symbol.name} has no plain twin")
        declared = ", ".join(f"{p.type} {p.name}" for p in symbol.parameters) or "void"
        passed = ", ".join(p.name for p in symbol.parameters)
        lines += [
            f"WEAK CUresult {symbol.name}({declared})",
            "{",
            "    gv_soft_default_stream(1);",
            f"    const CUresult result = {plain}({passed});",
            "    gv_soft_default_stream(0);",
            "    return result;",
            "}",
        ]
    return "\n".join(lines) + "\n"


def generate(
    include: Path, output: Path, compiler: str, architecture: str, hooks: Path, classes: Path
) -> dict[str, str]:
    """All files by name. Raises HeaderError when headers and hand-written lists disagree."""
    table = read_headers(compiler, include, output / "stand_ins")
    symbols, rows = table.symbols, table.rows
    index = {symbol.name: number for number, symbol in enumerate(symbols)}
    by_hand = read_hooks(hooks)
    unknown = [name for name in by_hand if name not in index]
    if unknown:
        raise HeaderError(f"{hooks.name} hooks {', '.join(unknown)}: not in the headers")
    kinds = read_classes(classes)
    names = {name: kind.name for name, kind in kinds.items()}
    gates = [s for s in symbols if kinds.get(s.base, Kind("pass-through")).gated and s.name not in by_hand]
    answered = {*by_hand, *(symbol.name for symbol in gates)}
    counted = counters(symbols, names, answered)
    version = f"#define GV_HEADER_VERSION {header_version(include)}\n#define GV_SYMBOL_COUNT {len(symbols)}\n"
    version += f"#define GV_PASSED_SHARDS {PASSED_SHARDS}\n#define GV_PASSED_SLOTS {PASSED_SLOTS}\n"
    if table.absent:
        print(f"entry_points.py: without {', '.join(table.absent)}, which lie not in {include}: not exported")
    return {
        "entry_points.inc": entry_points(symbols),
        "header_version.h": f"/* {BANNER} */\n{version}",
        "proc_rows.inc": proc_rows(rows, index),
        "results.inc": results(table.text),
        "row_classes.tsv": row_classes(rows, names, answered, counted),
        "row_types.c": row_types(rows, include_extensions(extensions(include)[0])),
        "shim_forwarders.S": shim_forwarders(architecture, symbols, index, answered, counted),
        "shim_forwarded.inc": shim_forwarded(symbols, index, answered),
        "shim_gates.c": shim_gates(gates, index, kinds),
        "shim_symbols.c": shim_symbols(symbols, names, answered, counted),
        "softgpu_missing.c": softgpu_missing(symbols),
        "softgpu_nvml_missing.c": softgpu_nvml_missing(nvml_functions(include)),
        "softgpu_symbols.c": softgpu_symbols(symbols),
        "softgpu_variants.c": softgpu_variants(symbols),
        "unclassified.txt": unclassified(symbols, names),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--include", type=Path, required=True, help="folder of cuda.h")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--compiler", default="cc")
    parser.add_argument("--architecture", choices=sorted(ARCHITECTURES), default="x86_64")
    parser.add_argument("--hooks", type=Path, required=True, help="hooked_functions.h")
    options = parser.parse_args()
    try:
        files = generate(
            options.include,
            options.output,
            options.compiler,
            options.architecture,
            options.hooks,
            Path(__file__).with_name("classes.tsv"),
        )
    except HeaderError as error:
        print(f"entry_points.py: {error}", file=sys.stderr)
        return 1
    options.output.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = options.output / name
        if not path.exists() or path.read_text() != content:
            path.write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
