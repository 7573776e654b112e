# SPDX-License-Identifier: Apache-2.0
"""Which program a command starts, and why the shim could not get into it."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from gpuvirt.cli import program
from gpuvirt.elf import Elf
from gpuvirt.errors import AttachError

ME = program.Identity.of_this_process()
NOBODY = 65534
MAIN = "int main(void) { return 0; }"


def build(path: Path, *options: str, source: str = MAIN) -> Path:
    """Compiles a program; skips where this machine cannot build that kind."""
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    done = subprocess.run(
        [compiler, "-x", "c", "-", "-o", path, *options], input=source, text=True, capture_output=True, check=False
    )
    if done.returncode != 0:
        pytest.skip(f"cannot build with {' '.join(options)}: {done.stderr.splitlines()[-1]}")
    return path


def script(path: Path, first_line: str) -> Path:
    path.write_text(f"#!{first_line}\n")
    path.chmod(0o755)
    return path


def check(path: Path, shim: Path, who: program.Identity = ME) -> Path:
    return program.check([str(path)], os.environ, shim, who)


def test_dynamic_program_is_fine(tmp_path: Path, shim_library: Path) -> None:
    path = build(tmp_path / "p")
    assert check(path, shim_library) == path


@pytest.mark.parametrize("options", [["-static"], ["-static-pie"]])
def test_static(tmp_path: Path, shim_library: Path, options: list[str]) -> None:
    path = build(tmp_path / "p", *options)
    with pytest.raises(AttachError, match=r"p' is statically linked.*link it dynamically, or .*--unmanaged-ok"):
        check(path, shim_library)


def test_wrong_architecture(tmp_path: Path, shim_library: Path) -> None:
    path = build(tmp_path / "p")
    content = bytearray(path.read_bytes())
    content[18:20] = (183).to_bytes(2, "little")
    path.write_bytes(content)
    with pytest.raises(AttachError, match="is a 64-bit aarch64 program and gpuvirt's shim is 64-bit x86-64"):
        check(path, shim_library)


def test_32_bit(tmp_path: Path, shim_library: Path) -> None:
    path = build(tmp_path / "p", "-m32", "-nostdlib", "-shared", source="int x;")
    with pytest.raises(AttachError, match="32-bit x86 program"):
        check(path, shim_library)


def test_other_c_library() -> None:
    shim = Elf(64, True, 62, 3, None, (), "libcuda.so.1", None)
    musl = Elf(64, True, 62, 3, "/lib/ld-musl-x86_64.so.1", (), None, None)
    refusal = program.why_not(musl, shim)
    assert refusal is not None
    assert "ld-musl" in refusal[0]
    loader = Elf(64, True, 62, 3, None, (), "ld-linux-x86-64.so.2", None)
    assert program.why_not(loader, shim) is None


@pytest.mark.parametrize(
    ("mode", "owner", "group", "capabilities", "uid", "expected"),
    [
        (0o755, 0, 0, False, 1000, None),
        (0o4755, 0, 0, False, 1000, "setuid"),
        (0o4755, 1000, 0, False, 1000, None),
        (0o4755, 0, 0, False, 0, None),
        (0o4755, 1000, 0, False, 0, "setuid"),
        (0o2755, 0, 42, False, 1000, "setgid"),
        (0o2745, 0, 42, False, 1000, None),  # without group execute it means mandatory locking
        (0o2755, 0, 1000, False, 1000, None),
        (0o755, 0, 0, True, 1000, "given file capabilities"),
        (0o755, 0, 0, True, 0, None),
    ],
)
def test_gains_privileges(
    mode: int, owner: int, group: int, capabilities: bool, uid: int, expected: str | None
) -> None:
    who = program.Identity(uid, uid)
    assert program.gains_privileges(stat.S_IFREG | mode, owner, group, capabilities, who) == expected


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give a program away")
def test_verdict_on_setuid_is_the_kernels(tmp_path: Path, shim_library: Path) -> None:
    """The program itself says whether it was started in secure mode."""
    source = "#include <sys/auxv.h>\nint main(void) { return (int)getauxval(AT_SECURE); }"
    tmp_path.chmod(0o755)
    path = build(tmp_path / "p", source=source)
    for owner, mode in ((0, 0o755), (0, 0o4755), (NOBODY, 0o4755), (NOBODY, 0o755)):
        os.chown(path, owner, owner)
        path.chmod(mode)
        secure = subprocess.run([path], check=False).returncode
        if os.statvfs(path).f_flag & os.ST_NOSUID:
            pytest.skip("the file system of the temporary folder forbids setuid")
        if secure:
            with pytest.raises(AttachError, match="is setuid"):
                check(path, shim_library)
        else:
            assert check(path, shim_library) == path


def test_scripts_are_followed(tmp_path: Path, shim_library: Path) -> None:
    python = Path(sys.executable)
    real = check(python, shim_library)
    assert check(script(tmp_path / "a", str(python)), shim_library) == real
    assert check(script(tmp_path / "b", f" {python} -u"), shim_library) == real
    assert check(script(tmp_path / "c", str(tmp_path / "a")), shim_library) == real
    environ = {"PATH": str(python.parent)}
    for words in ("NAME", "-S NAME -u", "-S A=1 NAME", "-S -u OTHER NAME"):
        path = script(tmp_path / "d", f"/usr/bin/env {words.replace('NAME', python.name)}")
        assert program.check([str(path)], environ, shim_library, ME) == real


def test_static_interpreter_is_named(tmp_path: Path, shim_library: Path) -> None:
    interpreter = build(tmp_path / "inner", "-static")
    with pytest.raises(AttachError, match=r"'.*/outer' starts '.*/inner', which is statically linked"):
        check(script(tmp_path / "outer", str(interpreter)), shim_library)


@pytest.mark.parametrize(
    "words",
    ["-i", "-S -i python3", "-S -u LD_PRELOAD python3", "-S -uLD_PRELOAD sh", "-S --ignore-environment sh",
     "-S LD_PRELOAD=/x sh"],
)  # fmt: skip
def test_script_that_drops_the_preload(tmp_path: Path, shim_library: Path, words: str) -> None:
    with pytest.raises(AttachError, match="environment in its first line"):
        check(script(tmp_path / "s", f"/usr/bin/env {words}"), shim_library)


@pytest.mark.parametrize(
    ("line", "words"),
    [("/no/such/interpreter", "names the interpreter '/no/such/interpreter'"), ("", "empty '#!'"),
     ("/usr/bin/env -S", "no program after env")],
)  # fmt: skip
def test_broken_scripts(tmp_path: Path, shim_library: Path, line: str, words: str) -> None:
    with pytest.raises(program.NotExecutable, match=words):
        check(script(tmp_path / "s", line), shim_library)


def test_script_of_itself(tmp_path: Path, shim_library: Path) -> None:
    with pytest.raises(program.NotExecutable, match="script of a script"):
        check(script(tmp_path / "s", str(tmp_path / "s")), shim_library)


def test_path_is_searched_like_execvp(tmp_path: Path) -> None:
    for folder in ("one", "two", "three"):
        (tmp_path / folder).mkdir()
    (tmp_path / "one" / "p").write_text("not executable")
    build(tmp_path / "three" / "p")
    environ = {"PATH": ":".join(str(tmp_path / folder) for folder in ("one", "two", "three"))}
    assert program.find("p", environ) == tmp_path / "three" / "p"
    with pytest.raises(program.NotExecutable, match="'p' is not executable"):
        program.find("p", {"PATH": str(tmp_path / "one")})
    with pytest.raises(program.NotFound, match="'q' is not in PATH"):
        program.find("q", environ)
