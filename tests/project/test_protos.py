# SPDX-License-Identifier: Apache-2.0
"""The gRPC interfaces: what is committed is of the protos, and everything in them is explained."""

from __future__ import annotations

import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROTOS = ROOT / "gpuvirt" / "proto"
SOURCES = sorted(PROTOS.rglob("*.proto"))
GENERATOR = "1.85.1"  # another version writes other text


def test_the_python_part_is_of_the_protos(tmp_path: Path) -> None:
    """`make generate` has been run since they were changed."""
    release = importlib.metadata.version("grpcio-tools")
    if release != GENERATOR:
        pytest.skip(f"grpcio-tools {release} writes other text than {GENERATOR}")
    subprocess.run([sys.executable, PROTOS / "generate.py", tmp_path], check=True, timeout=120)
    written = {path.relative_to(tmp_path): path.read_text() for path in tmp_path.rglob("*.py*")}
    here = [path for path in PROTOS.rglob("*_pb2*.py*") if path.suffix in (".py", ".pyi")]
    committed = {path.relative_to(ROOT): path.read_text() for path in here}
    assert len(written) >= 2 * len(SOURCES)
    assert written.keys() == committed.keys()
    for path, text in written.items():
        assert committed[path] == text, f"make generate ({path})"


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_every_call_is_explained(source: Path) -> None:
    lines = source.read_text().splitlines()
    assert lines[0] == "// SPDX-License-Identifier: Apache-2.0"
    calls = [number for number, line in enumerate(lines) if re.match(r"\s*rpc ", line)]
    assert all(lines[number - 1].strip().startswith("//") for number in calls)


@pytest.mark.parametrize("source", SOURCES, ids=lambda path: path.name)
def test_versions(source: Path) -> None:
    """The folder is the package: version 2 will be another one beside it."""
    folder = ".".join(source.parent.relative_to(PROTOS).parts)
    assert f"package {folder};" in source.read_text()
