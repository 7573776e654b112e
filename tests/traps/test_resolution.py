# SPDX-License-Identifier: Apache-2.0
"""Traps of resolution: how programs find driver functions, and what the driver does while it is opened."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any

import pytest

from gpuvirt import elf
from support.host import PROGRAMS
from support.lookups import SHIM, audit, compile_c, governed, plain_environ, table
from support.lookups import ask as ask_all
from support.traps import Edit, trap

REAL_DRIVER = "native/shim/real_driver.c"
PROC_ADDRESS = "native/shim/proc_address.c"
DLSYM = "static void fill_tables(void *handle)"  # where mistaken overrides of dlsym go
PER_THREAD, NOT_INITIALIZED = 2, 3


def run(command: list[str], environ: dict[str, str], limit: float = 20.0) -> str:
    """What a program says that must end well."""
    done = subprocess.run(command, env=environ, capture_output=True, text=True, check=False, timeout=limit)
    assert done.returncode == 0, f"exit code {done.returncode}: {done.stdout}{done.stderr}"
    return done.stdout


def ask(name: str, version: int, flags: int = 0, way: str = "v2", status: bool = True) -> Any:
    """One answer of cuGetProcAddress."""
    return ask_all([audit().Question(way, name, version, flags, status=status)])[0]


@pytest.fixture
def opened(tmp_path: Path) -> Any:
    """opened(threads, flags): what threads and driver saw when the first calls of all were cuInit(flags)."""
    driver = compile_c(PROGRAMS / "opening_driver.c", tmp_path / "driver.so", "-shared", "-Wl,-soname,libcuda.so.1")
    program = compile_c(PROGRAMS / "opening.c", tmp_path / "opening")

    def go(threads: int, flags: int) -> dict[str, int]:
        said = run([str(program), str(threads), str(flags)], governed(driver))
        return {name: int(value) for name, value in (line.split("=") for line in said.splitlines())}

    return go


@trap(
    "cuInit goes through a wrapper with pthread_once, and the driver's cuInit comes back to it: a deadlock.",
    Edit("native/shim/hooked_functions.h", "/* proc_address.c */", "GV_HOOK(cuInit)\n\n/* proc_address.c */"),
    Edit(
        REAL_DRIVER,
        DLSYM,
        "#include <pthread.h>\nstatic unsigned int init_flags;\n"
        "static void init_once(void) { REAL(cuInit)(init_flags); }\n"
        "GV_EXPORT CUresult cuInit(unsigned int Flags)\n{\n    static pthread_once_t once = PTHREAD_ONCE_INIT;\n"
        "    init_flags = Flags;\n    pthread_once(&once, init_once);\n    return CUDA_SUCCESS;\n}\n\n" + DLSYM,
    ),
)
def test_init_that_comes_back(opened: Any) -> None:
    seen = opened(1, 77)
    assert (seen["failed"], seen["seen_inits"], seen["seen_coming_back"]) == (0, 6, 0)


@trap(
    "A driver that calls a driver function while it is loaded, on a thread of its own, waits for itself.",
    Edit(REAL_DRIVER, "(must_not_wait = called_by_driver(caller))", "(must_not_wait = caller == NULL)"),
)
def test_look_up_while_loading(opened: Any) -> None:
    seen = opened(1, 0)
    assert (seen["failed"], seen["seen_loads"]) == (0, 1)
    assert (seen["seen_while_loading"], seen["seen_on_a_thread"]) == (NOT_INITIALIZED, NOT_INITIALIZED)
    assert seen["seen_looking_up"] == NOT_INITIALIZED  # of cuGetProcAddress, which is a function of ours


@trap(
    "A thread whose first call comes while another opens the driver does not wait, and is told that there is none yet.",
    Edit(
        REAL_DRIVER,
        "    void *handle = find_driver();",
        "    __atomic_store_n(&opened, 1, __ATOMIC_RELEASE);\n    void *handle = find_driver();",
    ),
)
def test_many_threads_at_the_first_call(opened: Any) -> None:
    seen = opened(32, 0)
    assert (seen["failed"], seen["seen_loads"], seen["seen_inits"]) == (0, 1, 32)


@trap(
    "dlsym is overridden: RTLD_NEXT then means next after the override's library, not after the caller's.",
    Edit("native/shim/shim.map", "global: cu*;", "global: cu*; dlsym;"),
    Edit(
        REAL_DRIVER,
        DLSYM,
        "GV_EXPORT void *dlsym(void *handle, const char *name)\n{\n    void *(*real)(void *, const char *) =\n"
        '        (void *(*)(void *, const char *))dlvsym(RTLD_NEXT, "dlsym", "GLIBC_2.34");\n'
        '    void *found = real(handle, name);\n    __asm__ volatile(""); /* not a tail call */\n'
        "    return found;\n}\n\n" + DLSYM,
    ),
)
def test_next_symbol(tmp_path: Path) -> None:
    wrapper = compile_c(PROGRAMS / "next_symbol.c", tmp_path / "wrapper.so", "-shared")
    program = compile_c(PROGRAMS / "next_symbol.c", tmp_path / "program", "-DPROGRAM")
    environ = governed()
    environ["LD_PRELOAD"] = f"{wrapper}:{environ['LD_PRELOAD']}"
    lines = run([str(program)], environ).splitlines()
    assert lines == [f"next {SHIM}", "init 0"]


@trap(
    "The driver is opened like any library: its own calls of driver functions come back to the shim.",
    Edit(REAL_DRIVER, "gv_environment()->no_deepbind ? 0 : RTLD_DEEPBIND", "gv_environment()->no_deepbind ? 0 : 0"),
)
def test_calls_through_the_plt(opened: Any) -> None:
    seen = opened(1, 77)
    assert (seen["seen_own_copy"], seen["seen_copies"]) == (0, 1)


@trap(
    "dlsym is overridden by one that asks for a single version of glibc's symbols.",
    Edit("native/shim/shim.map", "global: cu*;", "global: cu*; dlsym;"),
    Edit(
        REAL_DRIVER,
        DLSYM,
        "GV_EXPORT void *dlsym(void *handle, const char *name)\n{\n"
        '    return dlvsym(handle, name, "GLIBC_2.34");\n}\n\n' + DLSYM,
    ),
)
def test_both_versions_of_dlsym(tmp_path: Path) -> None:
    program = compile_c(PROGRAMS / "both_lookups.c", tmp_path / "program")
    lines = [line.split() for line in run([str(program)], governed()).splitlines()]
    ways = ("older", "newer", "older-default", "newer-default")
    assert lines == [[way, str(SHIM), "cuMemAlloc_v2"] for way in ways]


@trap(
    "The newest function of a name is given whatever version was asked for: the caller's arguments are of another ABI.",
    Edit(PROC_ADDRESS, "if (rows[i].version > version)", "if (rows[i].version > version && version < 0)"),
)
def test_base_name_is_not_an_abi() -> None:
    expected = {
        ("cuCtxCreate", 2000): "cuCtxCreate",
        ("cuCtxCreate", 3020): "cuCtxCreate_v2",
        ("cuCtxCreate", 11040): "cuCtxCreate_v3",
        ("cuCtxCreate", 12050): "cuCtxCreate_v4",
        ("cuMemAdvise", 8000): "cuMemAdvise",
        ("cuMemAdvise", 12020): "cuMemAdvise_v2",
        ("cuMemPrefetchAsync", 8000): "cuMemPrefetchAsync",
        ("cuMemPrefetchAsync", 12020): "cuMemPrefetchAsync_v2",
        ("cuMemAlloc", 2000): "cuMemAlloc",
        ("cuMemAlloc", 3020): "cuMemAlloc_v2",
        ("cuMemFree", 3020): "cuMemFree_v2",
    }
    assert {(name, version): ask(name, version).symbol for name, version in expected} == expected


@trap(
    "cuGetProcAddress asked for itself gives the function with five arguments to callers that pass four.",
    Edit(
        PROC_ADDRESS,
        "    const struct row *row = find_row(name, version, flags);",
        '    if (strcmp(name, "cuGetProcAddress") == 0) {\n        *function = (void *)cuGetProcAddress_v2;\n'
        "        return;\n    }\n    const struct row *row = find_row(name, version, flags);",
    ),
)
def test_four_or_five_arguments() -> None:
    assert [(ask("cuGetProcAddress", version).owner, ask("cuGetProcAddress", version).symbol)
            for version in (11030, 11080, 12000, 13050)] == [
        ("shim", "cuGetProcAddress"),
        ("shim", "cuGetProcAddress"),
        ("shim", "cuGetProcAddress_v2"),
        ("shim", "cuGetProcAddress_v2"),
    ]  # fmt: skip


@trap(
    "The table holds a name's oldest function, which is what the header's default macro still means for some.",
    Edit(PROC_ADDRESS, "            plain = &rows[i];", "            plain = plain != NULL ? plain : &rows[i];"),
)
def test_newest_abi_of_a_name() -> None:
    assert (ask("cuCtxSynchronize", 12090).owner, ask("cuCtxSynchronize", 12090).symbol) == ("shim", "cuCtxSynchronize")
    assert (ask("cuCtxSynchronize", 13000).owner, ask("cuCtxSynchronize", 13000).symbol) == (
        "shim",
        "cuCtxSynchronize_v2",
    )
    assert ask("cuCtxGetDevice", 12090).symbol == "cuCtxGetDevice"
    assert ask("cuCtxGetDevice", 13000).symbol == "cuCtxGetDevice_v2"


@trap(
    "A hand-written table has a name with a typo: the function is never hooked, and nobody notices.",
    Edit("native/generate/classes.tsv", "cuLaunchKernelEx\tgate", "cuLaunchKernelEX\tgate"),
)
def test_names_with_typos() -> None:
    entry_points = audit().generator("entry_points")
    classes = entry_points.read_classes(audit().GENERATE / "classes.tsv")
    assert set(classes) == {row.base for row in table().rows}
    assert set(entry_points.read_hooks(audit().HOOKS)) <= {symbol.name for symbol in table().symbols}
    assert ask("cuLaunchKernelEx", 12000).owner == "shim"
    assert ask("cuLaunchKernelEX", 12000).owner == "nobody"


@trap(
    "The flags are ignored: a caller with per-thread default streams silently gets the legacy stream.",
    Edit(
        PROC_ADDRESS,
        "const int per_thread = (flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) != 0;",
        "const int per_thread = (flags & CU_GET_PROC_ADDRESS_PER_THREAD_DEFAULT_STREAM) > 64;",
    ),
)
def test_flags_ignored() -> None:
    twins = [row for row in table().rows if row.variant]
    assert len(twins) > 100
    answers = ask_all([audit().Question("v2", row.base, row.version, PER_THREAD) for row in twins])
    assert [answer.symbol for answer in answers] == [row.symbol for row in twins]
    assert ask("cuMemAlloc", 12000, PER_THREAD).symbol == "cuMemAlloc_v2"  # has no twin
    assert ask("cuLaunchKernel", 12000, 1).symbol == "cuLaunchKernel"


@trap(
    "The status word of cuGetProcAddress is not set (torch and NCCL look at nothing else).",
    Edit(
        PROC_ADDRESS,
        "REAL(cuGetProcAddress_v2)(symbol, pfn, cudaVersion, flags, symbolStatus);",
        "REAL(cuGetProcAddress_v2)(symbol, pfn, cudaVersion, flags, NULL);",
    ),
)
def test_status_is_null_or_unset() -> None:
    assert ask("cuMemCreate", 13000).status == "0"
    assert ask("cuMemCreate", 9000).status == "2"  # the version is not sufficient
    assert ask("cuNoSuchThing", 13000).status == "1"
    assert (ask("cuMemCreate", 13000, status=False).result, ask("", 0, status=False).result) == (0, 0)


@trap(
    "Names that programs link with are missing: they do not start at all.",
    Edit("native/shim/shim.map", "global: cu*;", "global: cuMem*; cuInit; cuGet*; cuCtx*; cuEGL*; cuProf*;"),
)
def test_exports_for_direct_linkers(tmp_path: Path) -> None:
    assert {symbol.name for symbol in table().symbols} - elf.exported_symbols(SHIM) == set()
    linked = ["-Wl,-z,now", "-Wl,--no-as-needed", str(SHIM)]
    program = compile_c(PROGRAMS / "direct_link.c", tmp_path / "program", *linked)
    *lines, init = run([str(program)], governed()).splitlines()
    assert {line.split()[1] for line in lines} == {str(SHIM)}
    assert init == "init 0"


@trap(
    "The functions of the profiler, GL, EGL and VDPAU headers are not in the library that stands for the driver.",
    Edit(
        "native/generate/headers.py",
        'EXTENSIONS = ("cudaGL", "cudaEGL", "cudaVDPAU", "cudaProfiler")',
        "EXTENSIONS: tuple[str, ...] = ()",
    ),
)
def test_profiler_and_egl_symbols() -> None:
    wanted = {"cuProfilerStart", "cuProfilerStop", "cuEGLStreamConsumerConnect", "cuGraphicsGLRegisterBuffer",
              "cuGraphicsEGLRegisterImage", "cuVDPAUCtxCreate_v2", "cuGLMapBufferObjectAsync_v2_ptsz"}  # fmt: skip
    assert wanted <= elf.exported_symbols(SHIM)
    assert (ask("cuProfilerStart", 4000).owner, ask("cuProfilerStart", 4000).symbol) == ("shim", "cuProfilerStart")
    assert ask("cuGLMapBufferObject", 7000, PER_THREAD).symbol == "cuGLMapBufferObject_v2_ptds"


@trap(
    "The driver is opened under a lock of ours: a constructor that calls CUDA, under the loader's lock, waits for it, "
    "and who has it waits for the loader's.",
    Edit(
        REAL_DRIVER,
        "    void *handle = find_driver();",
        "    static int lock;\n    while (__atomic_exchange_n(&lock, 1, __ATOMIC_ACQUIRE)) {\n    }\n"
        "    void *handle = find_driver();\n    __atomic_store_n(&lock, 0, __ATOMIC_RELEASE);",
    ),
)
def test_first_call_in_a_constructor(tmp_path: Path) -> None:
    driver = compile_c(PROGRAMS / "opening_driver.c", tmp_path / "driver.so", "-shared", "-Wl,-soname,libcuda.so.1")
    library = compile_c(PROGRAMS / "constructor.c", tmp_path / "library.so", "-shared")
    program = compile_c(PROGRAMS / "constructor.c", tmp_path / "program", "-DPROGRAM", "-rdynamic")
    said = run([str(program), str(library)], governed(driver))
    assert said.split() == ["constructor", "0", "thread", "0"]


def test_without_a_driver_there_is_one_line_and_no_device(tmp_path: Path) -> None:
    code = "import ctypes, sys; d = ctypes.CDLL('libcuda.so.1'); d.cuDeviceGet(0, 0); sys.exit(d.cuInit(0))"
    done = subprocess.run(
        ["python3", "-c", code], env=plain_environ(LD_PRELOAD=str(SHIM), GPUVIRT_DRIVER=str(tmp_path / "none.so")),
        capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip
    assert done.returncode == 100, done.stderr  # CUDA_ERROR_NO_DEVICE
    assert done.stderr.count("\n") == 1 and "cannot load the CUDA driver" in done.stderr


def test_the_shim_in_the_drivers_place_is_no_driver() -> None:
    """A container may have the shim mounted over the driver's path: the calls must not go in circles."""
    code = "import ctypes, sys; sys.exit(ctypes.CDLL('libcuda.so.1').cuInit(0))"
    done = subprocess.run(
        ["python3", "-c", code], env=plain_environ(LD_PRELOAD=str(SHIM), GPUVIRT_DRIVER=str(SHIM)),
        capture_output=True, text=True, check=False, timeout=20,
    )  # fmt: skip
    assert done.returncode == 100, done.stderr  # CUDA_ERROR_NO_DEVICE
    assert done.stderr.count("\n") == 1 and "is gpuvirt's shim and not a driver" in done.stderr
