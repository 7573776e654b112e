# SPDX-License-Identifier: Apache-2.0
"""Where sockets and libraries are looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

import gpuvirt
from gpuvirt import paths


def test_each_user_has_a_runtime_folder() -> None:
    assert paths.default_runtime({}, 0) == Path("/run/gpuvirt")
    assert paths.default_runtime({}, 1000) == Path("/tmp/gpuvirt-1000")
    assert paths.default_runtime({"XDG_RUNTIME_DIR": "/run/user/1000"}, 1000) == Path("/run/user/1000/gpuvirt")
    assert paths.default_runtime({"XDG_RUNTIME_DIR": "/x", "GPUVIRT_RUNTIME": "/mine"}, 0) == Path("/mine")


def test_clients_look_at_home_first() -> None:
    assert paths.candidate_runtimes({}, 1000) == [Path("/tmp/gpuvirt-1000"), Path("/run/gpuvirt")]
    assert paths.candidate_runtimes({}, 0) == [Path("/run/gpuvirt")]
    assert paths.candidate_runtimes({"GPUVIRT_RUNTIME": "/mine"}, 1000) == [Path("/mine")]


def test_libraries_are_found_in_any_part_of_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An editable install has its Python here and its libraries elsewhere."""
    library = tmp_path / "lib" / "softgpu" / "libcuda.so.1"
    library.parent.mkdir(parents=True)
    library.write_text("")
    monkeypatch.setattr(gpuvirt, "__path__", ["/nowhere", str(tmp_path)])
    assert paths.library("softgpu/libcuda.so.1") == library
    with pytest.raises(FileNotFoundError, match=r"libnone\.so is not built"):
        paths.library("libnone.so")
