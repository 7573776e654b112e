# SPDX-License-Identifier: Apache-2.0
"""The environment of a governed program."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import pytest

from gpuvirt.cli.environment import Attachment, governed, preload_entry, system_folders
from gpuvirt.errors import AttachError

JOB = Attachment(Path("/g/libshim.so"), Path("/run/g/lib"), Path("/g/softgpu/libnvidia-ml.so.1"), {"GPUVIRT_JOB": "t"})


def test_first_in_line_everywhere() -> None:
    result = governed({"LD_PRELOAD": "/a.so:/b.so", "LD_LIBRARY_PATH": "/x:/y", "HOME": "/h"}, JOB, ["/usr/lib"])
    assert result["LD_PRELOAD"] == "/g/libshim.so:/a.so:/b.so"
    assert result["LD_LIBRARY_PATH"] == "/run/g/lib:/x:/y:/g/softgpu"
    assert (result["HOME"], result["GPUVIRT_JOB"]) == ("/h", "t")


def test_twice_is_once() -> None:
    once = governed({}, JOB, [])
    assert governed(once, JOB, []) == once


def test_nvml_has_its_own_shim() -> None:
    """Then the real NVML's folder is not needed, and its libcuda.so.1 cannot be found there."""
    job = dataclasses.replace(JOB, nvml_preload=Path("/g/libnvml.so"))
    result = governed({"LD_PRELOAD": "/x/libasan.so.8 /b.so"}, job, [])
    assert result["LD_PRELOAD"] == "/x/libasan.so.8:/g/libshim.so:/g/libnvml.so:/b.so"
    assert result["LD_LIBRARY_PATH"] == "/run/g/lib"
    assert governed(result, job, []) == result
    spaced = dataclasses.replace(JOB, nvml_preload=Path("/my files/n.so"))
    assert governed({}, spaced, [])["LD_PRELOAD"] == "/g/libshim.so:/run/g/lib/libnvidia-ml.so.1"


def test_sanitizer_stays_first() -> None:
    result = governed({"LD_PRELOAD": "/x/libasan.so.8 /b.so"}, JOB, [])
    assert result["LD_PRELOAD"] == "/x/libasan.so.8:/g/libshim.so:/b.so"


def test_system_nvml_adds_no_folder() -> None:
    """Its folder in LD_LIBRARY_PATH would go before the RUNPATH of every program."""
    job = Attachment(JOB.preload, JOB.library_path, Path("/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1"), {})
    assert governed({}, job, system_folders())["LD_LIBRARY_PATH"] == "/run/g/lib"
    assert governed({}, Attachment(JOB.preload, JOB.library_path, None, {}), [])["LD_LIBRARY_PATH"] == "/run/g/lib"


def test_folder_with_a_space() -> None:
    """LD_PRELOAD cannot quote: the link in the runtime folder stands in."""
    assert preload_entry(Path("/my files/s.so"), Path("/run/g/lib/libcuda.so.1")) == "/run/g/lib/libcuda.so.1"
    with pytest.raises(AttachError, match="space or colon"):
        preload_entry(Path("/my files/s.so"), Path("/my runtime/lib/libcuda.so.1"))


def test_system_folders_read_the_loaders_configuration(tmp_path: Path) -> None:
    (tmp_path / "ld.so.conf").write_text(f"include {tmp_path}/d/*.conf\n/opt/a # here\n")
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "b.conf").write_text("/opt/b/\ninclude ../ld.so.conf\n")
    assert {"/opt/a", "/opt/b", "/usr/lib"} <= system_folders(tmp_path / "ld.so.conf")
    assert "/usr/lib" in system_folders(tmp_path / "none")


@pytest.mark.parametrize("given", [{}, {"LC_CTYPE": "C"}, {"LANG": "C.UTF-8"}])
def test_what_python_sets_for_itself_is_not_inherited(given: dict[str, str]) -> None:
    """In the C locale Python sets LC_CTYPE: a program started by `gpuvirt run` must not find it."""
    script = "from gpuvirt.cli.environment import inherited; import json; print(json.dumps(inherited()))"
    environ = {"PATH": "/usr/bin:/bin", **given}
    done = subprocess.run([sys.executable, "-c", script], env=environ, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == environ
