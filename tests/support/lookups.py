# SPDX-License-Identifier: Apache-2.0
"""Questions to the shim as benchmarks/abi_audit.py asks them, over any driver."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from gpuvirt import paths

ROOT = Path(__file__).resolve().parents[2]
SHIM = paths.library("libgpuvirt-shim.so")
SOFT_DRIVER = paths.library("softgpu/libcuda.so.1")


def compile_c(source: Path, target: Path, *flags: str) -> Path:
    """A program, or with -shared a library, of one C file."""
    command = ["cc", "-O1", "-fPIC", *flags, str(source), "-o", str(target), "-ldl", "-lpthread"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return target


def plain_environ(**extra: str) -> dict[str, str]:
    """Without anything of gpuvirt's or the loader's, then `extra`."""
    return {**{k: v for k, v in os.environ.items() if not k.startswith(("GPUVIRT_", "LD_"))}, **extra}


def governed(driver: Path = SOFT_DRIVER, **extra: str) -> dict[str, str]:
    """The shim preloaded before this driver, not attached to any daemon."""
    return plain_environ(LD_PRELOAD=str(SHIM), GPUVIRT_DRIVER=str(driver), **extra)


@cache
def audit() -> Any:
    """benchmarks/harness/abi.py: the rules by which answers are judged."""
    folder = str(ROOT / "benchmarks")
    if folder not in sys.path:
        sys.path.append(folder)
    from harness import abi

    return abi


@cache
def table() -> Any:
    """What the newest headers declare."""
    return audit().read("13.5")


@cache
def _probe() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="gpuvirt-probe-"))
    import atexit
    import shutil

    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    (folder / "symbols").write_text("\n".join(symbol.name for symbol in table().symbols) + "\n")
    return compile_c(ROOT / "benchmarks" / "probes" / "abi_audit.c", folder / "abi_audit")


def ask(questions: list[Any], driver: Path = SOFT_DRIVER, environ: Mapping[str, str] | None = None) -> list[Any]:
    """What a governed program is answered."""
    program = _probe()
    done = subprocess.run(
        [str(program), str(driver), str(program.parent / "symbols")],
        input="".join(f"{question.line()}\n" for question in questions),
        env={**governed(driver), **(environ or {})},
        capture_output=True, text=True, check=False, timeout=30,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return [audit().Answer.parse(line) for line in done.stdout.splitlines()[1:]]
