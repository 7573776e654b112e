# SPDX-License-Identifier: Apache-2.0
"""The command, its errors, linking, and the table that a module exports."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from launcher import PACKAGE, ROOT, Module, TranslationError, translate

HEADER = ".version 8.0\n.target sm_80\n.address_size 64\n"
KERNEL = HEADER + ".visible .entry k(.param .u64 out)\n{\n.reg .b32 %r<9>;\n.reg .b64 %rd<9>;\n.reg .pred %p<3>;\n"
STORE = "ld.param.u64 %rd8, [out];\nst.global.u32 [%rd8], %r0;\nret;\n}\n"


def value(*texts: str, threads: int = 1) -> int:
    out = np.zeros(1, np.uint32)
    assert Module(*texts).launch("k", 1, threads, out) == 0
    return int(out[0])


@pytest.mark.parametrize(
    ("code", "message"),
    [
        (
            "mma.sync.aligned.m16n8k8.row.col.f32.f16 %r0;",
            "line 9: opcode 'mma.sync.aligned.m16n8k8.row.col.f32.f16' is not",
        ),
        ("tex.2d.v4.f32.s32 %r0;", "line 9: opcode 'tex.2d.v4.f32.s32' is not supported by the soft GPU"),
        ("mov.u32 %r0;", "line 9: 'mov.u32' has wrong operands or types"),
        ("mov.u32 %r0, %q1;", "line 9: '%q1' is not declared or not supported"),
        ("mov.u32 %r0, 1", "line 10: expected ',' or ';' in 'mov.u32', found 'ld.param.u64'"),
        ("call nobody;", "line 9: 'nobody' is not defined"),
        ("bra NOWHERE;", "line 9: label 'NOWHERE' is not defined"),
        ("ld.global.u32 %r0, [nothing];", "line 9: 'nothing' is not defined"),
        ("bra;", "line 9: 'bra' needs a label"),
        ("brx.idx %r1;", "line 9: 'brx.idx' needs a label"),
        ("bra %r1;", "line 9: 'bra' needs a label"),
        ("@%r1 add.u32 %r0, %r0, 1;", "line 9: the guard is no predicate register"),
        (".shared .align 3 .b32 x;", "line 9: alignment 3 is no power of two"),
        (".local .align 0 .b32 x;", "line 9: alignment 0 is no power of two"),
        (".shared .b32 x[-5];", "line 9: 'x' has a negative length"),
        ("mov.u32 %r0, " + "-" * 5000 + "1;", "line 0: operands, signs or scopes are nested too deeply"),
        ("@%r9 add.u32 %r0, %r0, 1;", "line 9: the guard is no predicate register"),
        ("add %r0, %r0, 1;", "line 9: 'add' has wrong operands or types"),
        ("add.q32 %r0, %r0, 1;", "line 9: 'add.q32' has wrong operands or types"),
        ("{ .reg .v4 .b32 x; }", "line 9: vector registers are not supported by the soft GPU"),
        (
            "atom.global.frob.u32 %r0, [%rd0], 1;",
            "line 9: opcode 'atom.global.frob.u32' is not supported by the soft GPU",
        ),
        ("shfl.sync.sideways.b32 %r0, %r0, 1, 31, -1;", "line 9: 'shfl.sync.sideways.b32' has wrong operands or types"),
        ("X: X: bra X;", "line 9: label 'X' is defined twice"),
    ],
)
def test_one_line_for_what_cannot_be_translated(code: str, message: str) -> None:
    with pytest.raises(TranslationError) as error:
        translate(KERNEL + code + "\n" + STORE)
    assert error.value.code == 2
    assert str(error.value).startswith(message)
    assert str(error.value).count("\n") == 1


@pytest.mark.parametrize(
    "text", ["", "hello", "\x7fELF", HEADER + "}", HEADER + ".visible .entry k(", HEADER + ".entry k() {"]
)
def test_no_ptx(text: str) -> None:
    with pytest.raises(TranslationError) as error:
        translate(text)
    assert error.value.code == 2
    assert str(error.value).startswith("line ")
    assert str(error.value).count("\n") == 1


def test_truncated_ptx_never_gives_a_traceback() -> None:
    sys.path.insert(0, str(ROOT))
    from gpuvirt.softgpu.syntax import PtxError
    from gpuvirt.softgpu.translate import translate as in_process

    text = KERNEL + "setp.lt.s32 %p0, %r0, 5;\n@%p0 bra OUT;\nbar.sync 0;\nOUT:\nmov.u32 %r0, {%r1, %r2};\n" + STORE
    refused = 0
    for end in range(len(text)):
        try:
            in_process([text[:end]])
        except PtxError as error:
            refused += 1
            assert "\n" not in str(error)  # noqa: PT017
    assert refused > len(text) // 2


def test_symbols_of_several_inputs() -> None:
    main = HEADER + ".extern .func (.param .b32 r) other(.param .b32 a);\n.extern .global .align 4 .u32 word;\n"
    main += KERNEL.removeprefix(HEADER)
    main += "{ .param .b32 a; .param .b32 r; st.param.b32 [a], 20; call.uni (r), other, (a); ld.param.b32 %r0, [r]; }\n"
    main += "ld.global.u32 %r1, [word];\nadd.u32 %r0, %r0, %r1;\n" + STORE
    other = HEADER + ".visible .global .align 4 .u32 word = 300;\n.global .align 4 .u32 hidden = 1;\n"
    other += ".visible .func (.param .b32 r) other(.param .b32 a)\n{ .reg .b32 %r<3>; ld.param.b32 %r0, [a];\n"
    other += "ld.global.u32 %r1, [hidden]; add.u32 %r0, %r0, %r1; st.param.b32 [r], %r0; ret; }\n"
    hidden = HEADER + ".global .align 4 .u32 hidden = 7;\n"
    assert value(main, other, hidden) == 321
    with pytest.raises(TranslationError, match="external function 'other' is not defined"):
        translate(main)
    with pytest.raises(TranslationError, match="is defined in two modules"):
        translate(main, other, other)


def test_weak_duplicates_are_dropped() -> None:
    weak = ".weak .func (.param .b32 r) f()\n{ st.param.b32 [r], %d; ret; }\n"
    call = "{ .param .b32 r; call.uni (r), f, (); ld.param.b32 %r0, [r]; }\n"
    text = HEADER + weak.replace("%d", "4") + weak.replace("%d", "5") + KERNEL.removeprefix(HEADER) + call + STORE
    assert value(text) == 4
    strong = HEADER + weak.replace(".weak", ".visible").replace("%d", "6")
    assert value(text, strong) == 6


def test_branch_table_and_inline_assembly_scopes() -> None:
    code = "mov.u32 %r1, 2;\nTABLE: .branchtargets A, B, C;\nbrx.idx %r1, TABLE;\nA: mov.u32 %r0, 1; bra OUT;\n"
    code += "B: mov.u32 %r0, 2; bra OUT;\nC: mov.u32 %r0, 30;\nOUT:\n"
    code += "{ .reg .u32 t; mov.u32 t, 5; X: add.u32 %r0, %r0, t; }\n{ .reg .u64 t; mov.u64 t, 7; cvt.u32.u64 %r1, t;\n"
    code += "X: add.u32 %r0, %r0, %r1; setp.lt.u32 %p0, %r0, 100; @%p0 bra X; }\n"
    assert value(KERNEL + code + STORE) == 30 + 5 + 7 * 10


def test_directives_without_a_space() -> None:
    """As the half-precision headers write them in inline assembly."""
    assert value(KERNEL + "{.reg.b16 h;.reg.u32 w;mov.b16 h,7;cvt.u32.u16 w,h;add.u32 %r0,w,1;}\n" + STORE) == 8


def test_integer_constants_are_the_bits_of_float_registers() -> None:
    """A register that only float instructions use is kept as float in C; `mov.b32` still moves bits into it."""
    one, two = "0x3f800000", "0x40000000U"
    code = (
        f"{{ .reg .b32 a, b; .reg .pred q; mov.b32 a, {one}; setp.eq.u32 q, 1, 1;\n"
        f"selp.b32 b, {two}, {one}, q; add.rn.f32 a, a, b; mov.b32 %r0, a; }}\n"
    )
    assert value(KERNEL + code + STORE) == 0x40400000


def test_registers_as_parameters_of_functions() -> None:
    text = HEADER + ".func (.reg .u32 %out) twice(.reg .u32 %in)\n{ add.u32 %out, %in, %in; ret; }\n"
    assert value(text + KERNEL.removeprefix(HEADER) + "mov.u32 %r1, 21;\ncall (%r0), twice, (%r1);\n" + STORE) == 42


def test_barrier_in_a_function_called_twice_with_register_parameters() -> None:
    text = HEADER + ".func (.reg .u32 %out) twice(.reg .u32 %in)\n{ bar.sync 0; add.u32 %out, %in, %in; ret; }\n"
    code = "mov.u32 %r1, 5;\ncall (%r2), twice, (%r1);\ncall (%r0), twice, (%r2);\n"
    assert value(text + KERNEL.removeprefix(HEADER) + code + STORE, threads=4) == 20


def test_recursion_with_a_barrier_is_refused() -> None:
    text = HEADER + ".func f()\n{ bar.sync 0; call f, (); ret; }\n"
    with pytest.raises(TranslationError, match="recursion of 'f'"):
        translate(text + KERNEL.removeprefix(HEADER) + "call f, ();\n" + STORE)


def test_initial_values_with_addresses() -> None:
    text = HEADER + ".global .align 4 .u32 words[3] = {10, 20, 30};\n"
    text += ".global .align 8 .u64 pointer = generic(words)+8;\n.global .align 8 .u64 pair[2] = {words+4, 0};\n"
    text += ".global .align 8 .b8 bytes[8] = {" + ", ".join(f"{0xFF << 8 * n:#x}(words)" for n in range(8)) + "};\n"
    text += ".const .align 4 .f32 f = 0f40490FDB;\n.global .align 4 .f32 decimal[2] = {1.5, -2.0};\n"
    code = "ld.global.u64 %rd0, [pointer];\nld.u32 %r0, [%rd0];\nld.global.u64 %rd0, [pair];\nld.u32 %r1, [%rd0];\n"
    code += "add.u32 %r0, %r0, %r1;\nld.global.u64 %rd0, [bytes];\nld.u32 %r1, [%rd0];\nadd.u32 %r0, %r0, %r1;\n"
    module = Module(text + KERNEL.removeprefix(HEADER) + code + STORE)
    out = np.zeros(1, np.uint32)
    assert module.launch("k", 1, 1, out) == 0
    assert out[0] == 60
    assert module.globals["f"].view(np.float32)[0] == np.float32(np.pi)
    assert list(module.globals["decimal"].view(np.float32)) == [1.5, -2.0]
    assert [module.table.globals[n].constant for n in range(module.table.global_count)] == [0, 0, 0, 0, 1, 0]


def test_table_of_a_module() -> None:
    text = HEADER + ".extern .shared .align 16 .b8 dynamic[];\n.shared .align 4 .b8 fixed[20];\n"
    text += ".visible .entry k(.param .u8 a, .param .u64 b, .param .align 16 .b8 c[12], .param .f32 d)\n"
    text += ".maxntid 64, 2, 1\n.reqntid 32, 2, 2\n{ .local .b8 mine[24]; .reg .b32 %r<2>; st.shared.u32 [fixed], 1;\n"
    text += "ld.shared.u32 %r1, [dynamic]; ret; }\n.entry empty() { ret; }\n"
    kernel = Module(text).kernel("k")
    assert [(kernel.params[n].offset, kernel.params[n].size) for n in range(4)] == [(0, 1), (8, 8), (16, 12), (28, 4)]
    assert (kernel.param_bytes, kernel.static_shared, kernel.local_bytes) == (32, 32, 24)
    assert list(kernel.required_threads) == [32, 2, 2]
    assert kernel.max_threads == 128


def test_large_local_arrays_lie_in_scratch_memory() -> None:
    code = ".local .align 16 .b8 big[100000];\nst.local.u32 [big+99996], 77;\nld.local.u32 %r0, [big+99996];\n"
    module = Module(KERNEL + code + STORE)
    assert module.kernel("k").scratch_bytes(64) == 100000
    out = np.zeros(1, np.uint32)
    assert module.launch("k", 1, 64, out) == 0
    assert out[0] == 77


def test_shared_addresses_in_every_form() -> None:
    code = ".shared .align 4 .b32 pad;\n.shared .align 4 .b32 cell;\n"
    code += "mov.u32 %r1, cell;\nst.shared.u32 [%r1], 5;\nmov.u64 %rd0, cell;\nld.shared.u32 %r2, [%rd0];\n"
    code += "cvta.shared.u64 %rd1, %rd0;\nld.u32 %r3, [%rd1];\ncvta.to.shared.u64 %rd2, %rd1;\n"
    code += "atom.shared.add.u32 %r4, [%rd2], 10;\natom.add.u32 %r5, [%rd1], 100;\nld.shared.u32 %r0, [cell];\n"
    code += "add.u32 %r0, %r0, %r2;\nadd.u32 %r0, %r0, %r3;\nisspacep.shared %p0, %rd1;\n@%p0 add.u32 %r0, %r0, 1000;\n"
    code += "ld.param.u64 %rd3, [out];\nisspacep.global %p1, %rd3;\n@%p1 add.u32 %r0, %r0, 2000;\n"
    code += "isspacep.global %p2, %rd1;\n@%p2 add.u32 %r0, %r0, 10000;\n"
    assert value(KERNEL + code + STORE) == 115 + 5 + 5 + 3000


def test_version_follows_the_sources(tmp_path: Path) -> None:
    command = [sys.executable, str(PACKAGE / "__main__.py"), "--version"]
    version = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert len(version) == 17
    module = [sys.executable, "-m", "gpuvirt.softgpu", "--version"]
    assert subprocess.run(module, capture_output=True, text=True, check=True, cwd=ROOT).stdout == version
    for header in (ROOT / "native" / "softgpu").glob("kernel_*.h"):
        (tmp_path / header.name).write_text(header.read_text() + "\n")
    other = subprocess.run([*command, "--include", str(tmp_path)], capture_output=True, text=True, check=True).stdout
    assert other != version


def test_translation_is_repeatable_and_runs_anywhere(tmp_path: Path) -> None:
    source = tmp_path / "in.ptx"
    source.write_text(KERNEL + STORE)
    outputs = []
    for command in ([str(PACKAGE / "__main__.py")], ["-I", "-S", str(PACKAGE / "__main__.py")]):
        target = tmp_path / f"{len(outputs)}.c"
        subprocess.run([sys.executable, *command, str(source), "-o", str(target)], check=True, cwd="/")
        outputs.append(target.read_text())
    assert outputs[0] == outputs[1]


def test_usage_and_missing_files(tmp_path: Path) -> None:
    command = [sys.executable, str(PACKAGE / "__main__.py")]
    assert subprocess.run(command, capture_output=True).returncode == 1
    done = subprocess.run([*command, str(tmp_path / "no.ptx"), "-o", "x"], capture_output=True, text=True)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "no.ptx: No such file" in done.stderr
