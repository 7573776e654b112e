# SPDX-License-Identifier: Apache-2.0
"""Writes native/kernels/*.ptx, the shim's own kernels, from the CUDA C++ beside them; or into a folder that is named.

Part of `make generate`. The output is committed: a build needs neither NVRTC nor a GPU. It is for an old virtual
architecture, from which every driver makes code for its device; NVRTC stamps it with the PTX version of its own
release, which older drivers refuse, so the stamp is set back to what the text really needs.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from typing import Any

KERNELS = Path(__file__).resolve().parents[1] / "kernels"
COMPUTE = 75
PTX_VERSION = "6.4"  # the first that knows sm_75 and all instructions used (CUDA 10.1)
HEAD = "// SPDX-License-Identifier: Apache-2.0\n// Written by native/generate/kernels.py from {name}; do not edit.\n"


class CompileError(Exception):
    """NVRTC is absent, or refuses a source; the text is its log."""


def compile_ptx(source: Path) -> str:
    """PTX text of one CUDA C++ file. Raises CompileError.

    What NVRTC writes depends on what else it has compiled in this process: only a fresh one gives the committed text.
    """
    try:
        from cuda.bindings import nvrtc
    except ImportError as error:
        raise CompileError(f"{error}: pip install cuda-python 'nvidia-cuda-nvrtc==13.0.88'") from error

    def checked(answer: tuple[Any, ...]) -> Any:
        if int(answer[0]) != 0:
            raise CompileError(f"{source.name}: {nvrtc.nvrtcGetErrorString(answer[0])[1].decode()}")
        return answer[1] if len(answer) == 2 else None

    program = checked(nvrtc.nvrtcCreateProgram(source.read_bytes(), source.name.encode(), 0, [], []))
    options = [f"--gpu-architecture=compute_{COMPUTE}".encode(), b"--std=c++17"]
    (failed,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if int(failed) != 0:
        log = b" " * checked(nvrtc.nvrtcGetProgramLogSize(program))
        nvrtc.nvrtcGetProgramLog(program, log)
        raise CompileError(log.rstrip(b"\0 \n").decode())
    text = b" " * checked(nvrtc.nvrtcGetPTXSize(program))
    nvrtc.nvrtcGetPTX(program, text)
    ptx, stamps = re.subn(r"(?m)^\.version \d+\.\d+$", f".version {PTX_VERSION}", text.rstrip(b"\0").decode())
    if stamps != 1:
        raise CompileError(f"{source.name}: PTX with {stamps} version lines")
    return HEAD.format(name=source.name) + ptx


def main() -> int:
    output = Path(sys.argv[1]) if len(sys.argv) > 1 else KERNELS
    for source in sorted(KERNELS.glob("*.cu")):
        try:
            (output / source.with_suffix(".ptx").name).write_text(compile_ptx(source))
        except CompileError as error:
            print(f"kernels.py: {error}", file=sys.stderr)
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
