# SPDX-License-Identifier: Apache-2.0
"""Prints the folder of cuda.h: that of the installed wheel nvidia-cuda-runtime, else of a CUDA toolkit."""

from __future__ import annotations

import os
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path


def candidates() -> list[Path]:
    """Where cuda.h may be, best first."""
    found = []
    try:
        found = [Path(str(file.locate())) for file in files("nvidia-cuda-runtime") or [] if file.name == "cudaTypedefs.h"]
    except PackageNotFoundError:
        pass
    homes = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    return found + [Path(home) / "include" / "cudaTypedefs.h" for home in homes if home]


for path in candidates():
    if path.exists():
        print(path.parent)
        break
else:
    sys.exit("find_headers.py: no cudaTypedefs.h: pip install nvidia-cuda-runtime==13.5.37, or set CUDA_HOME")
