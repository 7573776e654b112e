# SPDX-License-Identifier: Apache-2.0
"""Writes the Python part of the protos beside them, or into a folder that is named. Part of `make generate`.

The output is committed: an installation needs no compiler for it.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "gpuvirt" / "proto"
OUTPUT = ("_pb2.py", "_pb2.pyi", "_pb2_grpc.py")


def sources() -> list[Path]:
    """All protos, relative to the root: their imports, and those of the Python files, are written so."""
    return sorted(path.relative_to(ROOT) for path in PROTOS.rglob("*.proto"))


def main() -> int:
    try:
        from grpc_tools import protoc
    except ImportError as error:
        print(f"protos: error: {error}; pip install -e '.[dev]'", file=sys.stderr)
        return 1
    output = Path(sys.argv[1]).resolve() if len(sys.argv) > 1 else ROOT
    folders = [f"--{kind}_out={output}" for kind in ("python", "pyi", "grpc_python")]
    code = int(protoc.main(["protoc", f"-I{ROOT}", *folders, *map(str, sources())]))
    for source in sources():
        if not re.search(r"^service ", (ROOT / source).read_text(), re.M):  # a file without any content
            (output / source).with_name(f"{source.stem}_pb2_grpc.py").unlink(missing_ok=True)
    return code


if __name__ == "__main__":
    sys.exit(main())
