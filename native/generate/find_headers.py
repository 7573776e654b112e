# SPDX-License-Identifier: Apache-2.0
"""Prints the folder of cuda.h: that of the installed wheel nvidia-cuda-runtime, else of a CUDA toolkit."""

from __future__ import annotations

import contextlib
import os
import sys
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path


def candidates() -> list[Path]:
    """Where cuda.h may be, best first."""
    found = []
    with contextlib.suppress(PackageNotFoundError):
        listed = files("nvidia-cuda-runtime") or []
        found = [Path(str(file.locate())) for file in listed if file.name == "cudaTypedefs.h"]
    homes = [os.environ.get("CUDA_HOME", ""), "/usr/local/cuda"]
    return found + [Path(home) / "include" / "cudaTypedefs.h" for home in homes if home]


for path in candidates():
    if path.exists():
        print(path.parent)
        break
else:
    sys.exit("find_headers.py: no cudaTypedefs.h: pip install nvidia-cuda-runtime==13.5.37, or set CUDA_HOME")
