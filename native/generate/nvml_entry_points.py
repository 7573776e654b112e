# SPDX-License-Identifier: Apache-2.0
"""Writes what the NVML shim needs from nvml.h (see headers.py). Run by CMake.

    nvml_entry_points.py --include DIR --output DIR --hooks native/nvml_shim/hooked_functions.h
                        [--architecture x86_64]

nvml_entry_points.inc   GV_SYMBOL(index, symbol): every function that nvml.h declares, and a few that it does not
nvml_forwarders.S       one jump through the real library's table for each function that the shim does not answer
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from entry_points import entry_points, read_hooks
from forwarders import ARCHITECTURES, shim_forwarders
from headers import HeaderError, Symbol, nvml_functions

# Exported by NVIDIA's library without a declaration. nvidia-smi begins with the first and gives up without it.
UNDECLARED = ("nvmlInternalGetExportTable",)


def generate(include: Path, hooks: Path, architecture: str) -> dict[str, str]:
    """All files by name. Raises HeaderError when the header and the hand-written list disagree."""
    names = sorted({*nvml_functions(include), *UNDECLARED})
    symbols = [Symbol(name, name, 1, "", ()) for name in names]
    index = {name: number for number, name in enumerate(names)}
    by_hand = read_hooks(hooks)
    unknown = [name for name in by_hand if name not in index]
    if unknown:
        raise HeaderError(f"{hooks.name} hooks {', '.join(unknown)}: not in nvml.h")
    return {
        "nvml_entry_points.inc": entry_points(symbols).replace("cuda.h", "nvml.h"),
        "nvml_entry_count.h": f"#define GV_SYMBOL_COUNT {len(names)}\n",
        "nvml_forwarders.S": shim_forwarders(architecture, symbols, index, set(by_hand), {}).replace(
            "cuda.h", "nvml.h"
        ),
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--include", type=Path, required=True, help="folder of nvml.h")
    parser.add_argument("--output", type=Path, required=True, help="folder to write to")
    parser.add_argument("--hooks", type=Path, required=True, help="hooked_functions.h of the NVML shim")
    parser.add_argument("--architecture", choices=sorted(ARCHITECTURES), default="x86_64")
    options = parser.parse_args()
    try:
        files = generate(options.include, options.hooks, options.architecture)
    except HeaderError as error:
        print(f"nvml_entry_points.py: {error}", file=sys.stderr)
        return 1
    options.output.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        path = options.output / name
        if not path.exists() or path.read_text() != content:
            path.write_text(content)
    return 0


if __name__ == "__main__":
    sys.exit(main())
