# SPDX-License-Identifier: Apache-2.0
"""A copy of the source tree with its own build and interpreter, where mistakes can be put in and taken out again.

folder/tree   the sources as git lists them, with the built libraries where an installed package has them
folder/build  of CMake, kept from one run to the next
folder/venv   an interpreter that sees the packages of the real environment, but gpuvirt and gpuvirtd from the tree
"""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator, Sequence
from pathlib import Path

from support.native import ROOT, tool
from support.traps import Edit

BUILT = ("gpuvirt/lib/", "gpuvirt/control/_control_block.so", "build/")  # of the tree: not from git
# A mistake may leave something without a use: that is no error of the build.
RELAXED = "-Wno-unused-function -Wno-unused-variable -Wno-unused-parameter -Wno-unused-but-set-variable"


class BuildError(Exception):
    """A build failed; the text is the end of what the compiler said."""


class Scratch:
    """One at a time for a folder (the caller holds a lock)."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.tree = folder / "tree"
        self.build = folder / "build"
        self.python = folder / "venv" / "bin" / "python"

    def prepare(self) -> None:
        """Copies what changed since the last time, and builds. Raises BuildError."""
        self._copy_sources()
        self._make_interpreter()
        if not (self.build / "CMakeCache.txt").exists():
            self.build.mkdir(parents=True, exist_ok=True)
        self._call(
            tool("cmake"), "-S", str(self.tree / "native"), "-B", str(self.build),
            f"-DPython_EXECUTABLE={sys.executable}", f"-DCMAKE_C_FLAGS={RELAXED}",
        )  # fmt: skip
        self.make()

    def make(self) -> None:
        """Builds what an edit changed and puts it into the tree. Raises BuildError."""
        self._call(tool("cmake"), "--build", str(self.build), "--parallel", "2")
        self._call(tool("cmake"), "--install", str(self.build), "--prefix", str(self.tree))

    @contextlib.contextmanager
    def mistaken(self, edits: Sequence[Edit]) -> Iterator[None]:
        """With the edits made and built; the sources are as before at the end, the build follows at the next make.

        Raises BuildError, and ValueError when an edit does not fit its file.
        """
        before: dict[Path, str] = {}
        try:
            for edit in edits:
                path = self.tree / edit.path
                text = path.read_text()
                before.setdefault(path, text)
                path.write_text(edit.apply(text))
            if any(edit.path.startswith("native/") for edit in edits):
                self.make()
            yield
        finally:
            for path, text in before.items():
                path.write_text(text)

    def environ(self, **extra: str) -> dict[str, str]:
        """For what runs in the tree. No bytecode: an edit may keep a file's size and second."""
        kept = {key: value for key, value in os.environ.items() if not key.startswith(("PYTHON", "PYTEST", "LD_"))}
        return {**kept, "PYTHONDONTWRITEBYTECODE": "1", "CFLAGS": RELAXED, **extra}

    def _call(self, *command: str) -> None:
        environ = {key: value for key, value in os.environ.items() if key not in ("CFLAGS", "MAKEFLAGS", "MAKELEVEL")}
        done = subprocess.run(
            command, env=environ, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, check=False
        )
        if done.returncode != 0:
            raise BuildError("\n".join(done.stdout.splitlines()[-30:]))

    def _copy_sources(self) -> None:
        listed = subprocess.run(
            ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
            cwd=ROOT, capture_output=True, text=True, check=True,
        ).stdout.split("\0")  # fmt: skip
        wanted = {name for name in listed if name and (ROOT / name).is_file()}
        self.tree.mkdir(parents=True, exist_ok=True)
        for path in [path for path in self.tree.rglob("*") if path.is_file() or path.is_symlink()]:
            name = str(path.relative_to(self.tree))
            if name not in wanted and not name.startswith(BUILT):
                path.unlink()
        for name in sorted(wanted):
            source, copy = ROOT / name, self.tree / name
            if copy.exists() and copy.read_bytes() == source.read_bytes():
                continue  # keeps its time: nothing to build
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source, copy)
            shutil.copymode(source, copy)

    def _make_interpreter(self) -> None:
        """Like the real environment, but without the hook that leads `import gpuvirt` to the real tree."""
        shutil.rmtree(self.folder / "venv", ignore_errors=True)
        venv.create(self.folder / "venv", symlinks=True, with_pip=False)
        (packages,) = (self.folder / "venv" / "lib").glob("python3*/site-packages")
        real = Path(sysconfig.get_path("purelib"))
        (packages / "0-real.pth").write_text(f"{self.tree}\n{self.tree / 'daemon'}\n{real}\n")
        for path in real.glob("*.pth"):
            if "editable" not in path.name:
                shutil.copyfile(path, packages / path.name)
        for path in Path(sysconfig.get_path("scripts")).iterdir():
            copy = self.python.parent / path.name
            if path.name in ("gpuvirt", "gpuvirtd"):
                lines = path.read_text().splitlines(keepends=True)
                copy.write_text(f"#!{self.python}\n" + "".join(lines[1:]))
                copy.chmod(0o755)
            elif not copy.exists():
                copy.symlink_to(path)
