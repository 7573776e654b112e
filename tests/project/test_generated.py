# SPDX-License-Identifier: Apache-2.0
"""What is generated from NVIDIA's headers is complete, and the built libraries have all of it."""

from __future__ import annotations

import importlib
import importlib.metadata
import re
import shutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from gpuvirt import elf, paths

ROOT = Path(__file__).resolve().parents[2]
GENERATE = ROOT / "native" / "generate"
RESEARCH = ROOT.parent / "shared" / "data" / "driver_entry_points.tsv"
NAMES, ROWS, SYMBOLS = 485, 685, 685  # of CUDA 13.5: a new header version changes them, and somebody must look
EXTENSION_ROWS = 38  # of the GL (18), EGL (12), VDPAU (5) and profiler (3) headers; cuWGLGetDevice is Windows only


def load(name: str) -> ModuleType:
    """A module of native/generate, which is no package: its scripts import each other as neighbours."""
    sys.path.insert(0, str(GENERATE))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(GENERATE))


@pytest.fixture(scope="module")
def include() -> Path:
    """The folder of cuda.h."""
    found = subprocess.run([sys.executable, GENERATE / "find_headers.py"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        pytest.skip(found.stderr.strip())
    if shutil.which("cc") is None:
        pytest.skip("no C compiler")
    return Path(found.stdout.strip())


@pytest.fixture(scope="module")
def table(include: Path) -> tuple[list[Any], list[Any]]:
    """(symbols, rows) of cuda.h as the generator reads them."""
    headers = load("headers")
    text = headers.preprocess("cc", include)
    symbols = headers.parse_symbols(text)
    return symbols, headers.pair_rows(text, symbols)


@pytest.fixture(scope="module")
def whole(include: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """What all headers declare, GL, EGL, VDPAU and profiler included."""
    return load("headers").read_headers("cc", include, tmp_path_factory.mktemp("stand_ins"))


def test_counts(table: tuple[list[Any], list[Any]]) -> None:
    symbols, rows = table
    assert (len({row.base for row in rows}), len(rows), len(symbols)) == (NAMES, ROWS, SYMBOLS)
    assert len({(row.base, row.version, row.variant) for row in rows}) == ROWS
    assert {row.symbol for row in rows} == {symbol.name for symbol in symbols}


def test_same_as_the_research(table: tuple[list[Any], list[Any]]) -> None:
    """Two readings of the same headers, made apart."""
    if not RESEARCH.exists():
        pytest.skip(f"no {RESEARCH.name} beside this checkout")
    lines = [line.split("\t") for line in RESEARCH.read_text().splitlines() if line and not line.startswith("#")]
    column = {title: index for index, title in enumerate(lines[0])}
    research = {
        (
            line[column["name"]],
            int(line[column["version"]]),
            line[column["per_thread_stream"]].replace("no", ""),
            line[column["abi_symbol"]],
        )
        for line in lines[1:]
    }
    assert {(row.base, row.version, row.variant, row.symbol) for row in table[1]} == research


def test_the_extensions_are_there(table: tuple[list[Any], list[Any]], whole: Any) -> None:
    assert whole.absent == []
    assert len(whole.rows) == ROWS + EXTENSION_ROWS
    assert len(whole.symbols) == SYMBOLS + EXTENSION_ROWS
    assert {row.symbol for row in whole.rows} == {symbol.name for symbol in whole.symbols}
    assert set(table[1]) <= set(whole.rows)


def test_every_name_has_a_class(whole: Any) -> None:
    classes = load("entry_points").read_classes(GENERATE / "classes.tsv")
    assert set(classes) == {row.base for row in whole.rows}


def test_same_classes_as_the_research() -> None:
    if not RESEARCH.exists():
        pytest.skip(f"no {RESEARCH.name} beside this checkout")
    lines = [line.split("\t") for line in RESEARCH.read_text().splitlines() if line and not line.startswith("#")]
    name, kind = lines[0].index("name"), lines[0].index("class")
    ours = load("entry_points").read_classes(GENERATE / "classes.tsv")
    different = {(line[name], line[kind]) for line in lines[1:] if ours[line[name]].name != line[kind]}
    assert different == {("cuGraphAddHostNode", "pass-through")}  # decision 14: a drain must know of host functions


def test_every_row_has_its_class_in_the_generated_table(include: Path, tmp_path: Path, whole: Any) -> None:
    text = generate(include, tmp_path, (GENERATE / "classes.tsv").read_text())["row_classes.tsv"]
    lines = [line.split("\t") for line in text.splitlines() if not line.startswith("#")]
    assert len(lines) == len(whole.rows) == ROWS + EXTENSION_ROWS
    by_row = {(line[0], line[1], line[2]): (line[3], line[4], line[5]) for line in lines}
    assert by_row["cuLaunchKernel", "7000", "ptsz"] == ("cuLaunchKernel_ptsz", "gate", "function of the shim")
    assert by_row["cuDeviceGetCount", "2000", "plain"][1:] == ("pass-through", "counting forwarder")
    assert not any(line[4] == "unclassified" for line in lines)
    gates = [line for line in lines if line[4] in ("gate", "pass-through")]
    assert len(gates) > 350 and not any(line[5] == "the driver's own" for line in gates)


def generate(include: Path, folder: Path, classes: str) -> Any:
    (folder / "classes.tsv").write_text(classes)
    hooks = ROOT / "native" / "shim" / "hooked_functions.h"
    return load("entry_points").generate(include, folder, "cc", "x86_64", hooks, folder / "classes.tsv")


def test_a_name_without_a_class_is_listed_and_passes_through(include: Path, tmp_path: Path) -> None:
    lines = (GENERATE / "classes.tsv").read_text().splitlines(keepends=True)
    left_out = ("cuDeviceGetCount", "cuEGLStreamProducerConnect")
    files = generate(include, tmp_path, "".join(line for line in lines if line.split("\t")[0] not in left_out))
    assert files["unclassified.txt"].split() == list(left_out)
    counted = files["shim_symbols.c"]
    assert '{"cuDeviceGetCount", (void *)cuDeviceGetCount, ' in counted  # our forwarder, with a counter
    assert "cuDeviceGetCount:" in files["shim_forwarders.S"]
    assert generate(include, tmp_path, "".join(lines))["unclassified.txt"] == ""


def test_a_class_that_does_not_exist_is_an_error(include: Path, tmp_path: Path) -> None:
    with pytest.raises(load("headers").HeaderError, match="cuInit has the class gates"):
        generate(include, tmp_path, "cuInit\tgates\n")


def test_the_shim_knows_the_classes_by_number() -> None:
    text = (ROOT / "native" / "shim" / "symbols.h").read_text()
    written = re.findall(r"GV_CLASS_(\w+) = (\d+)", text)
    expected = [(name.upper().replace("-", "_"), str(i)) for i, name in enumerate(load("forwarders").CLASSES)]
    assert written == expected


def built(name: str) -> Path:
    return paths.library(name)


@pytest.mark.parametrize(
    ("library", "soname"),
    [
        ("libgpuvirt-shim.so", "libcuda.so.1"),
        ("softgpu/libcuda.so.1", "libcuda.so.1"),
        ("softgpu/libnvidia-ml.so.1", "libnvidia-ml.so.1"),
    ],
)
def test_sonames(library: str, soname: str) -> None:
    """CMake's own -soname has won over ours once."""
    assert elf.read(built(library)).soname == soname


@pytest.mark.parametrize("library", ["libgpuvirt-shim.so", "softgpu/libcuda.so.1"])
def test_every_symbol_is_exported(whole: Any, library: str) -> None:
    missing = {symbol.name for symbol in whole.symbols} - elf.exported_symbols(built(library))
    assert not missing


@pytest.mark.parametrize("library", ["libgpuvirt-shim.so", "softgpu/libcuda.so.1"])
def test_nothing_else_is_exported(whole: Any, library: str) -> None:
    """A library in somebody else's process: any other name could shadow one of the program's."""
    extra = elf.exported_symbols(built(library)) - {symbol.name for symbol in whole.symbols}
    assert extra - {"_init", "_fini"} == ({"gvSoftWatch"} if library.startswith("softgpu/") else set())  # watch.h


def test_the_kernels_are_of_their_sources(tmp_path: Path) -> None:
    """`make generate` has been run since they were changed, by the version of NVRTC that all use."""
    try:
        release = importlib.metadata.version("nvidia-cuda-nvrtc")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("no NVRTC (wheel nvidia-cuda-nvrtc)")
    if not release.startswith("13.0."):
        pytest.skip(f"NVRTC {release} writes other PTX than 13.0")
    subprocess.run([sys.executable, GENERATE / "kernels.py", tmp_path], check=True, timeout=120)
    written = {path.name: path.read_text() for path in tmp_path.glob("*.ptx")}
    assert written
    for name, text in written.items():
        assert (ROOT / "native" / "kernels" / name).read_text() == text, f"make generate ({name})"


def test_the_shim_has_the_kernel() -> None:
    kernel = (ROOT / "native" / "kernels" / "page_hash.ptx").read_bytes()
    assert kernel + b"\0" in built("libgpuvirt-shim.so").read_bytes()
