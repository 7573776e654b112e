# SPDX-License-Identifier: Apache-2.0
"""Private folders, clean environments, configuration files and the programs' options."""

from __future__ import annotations

import argparse
import importlib
import tomllib
from pathlib import Path

import console
import pytest

from harness import softgpu
from harness.jobs import Outcome, demo_jobs
from harness.softgpu import Device, Scratch


def test_scratch_is_removed_after_an_error() -> None:
    scratch = Scratch("gpuvirt-test-")

    def fail() -> None:
        with scratch as path:
            (path / "file").write_text("x")
            raise LookupError

    with pytest.raises(LookupError):
        fail()
    assert not scratch.path.exists()


def test_scratch_goes_to_disk_when_memory_is_small() -> None:
    with Scratch("gpuvirt-test-", room=1 << 60) as path:
        assert not path.is_relative_to(softgpu.SHARED_MEMORY)


def test_children_see_no_other_daemon_or_shim() -> None:
    kept = softgpu.clean({"GPUVIRT_RUNTIME": "/x", "LD_PRELOAD": "y", "PATH": "/bin", "LD_LIBRARY_PATH": "z"})
    assert kept == {"PATH": "/bin", "LD_LIBRARY_PATH": "z"}
    environ = Device("d", 1, {"GPUVIRT_SOFTGPU_MEMORY": "512M"}).environ({"A": "1"})
    assert environ["GPUVIRT_SOFTGPU_MEMORY"] == "512M"
    assert environ["A"] == "1"


def test_kernels_go_to_the_scratch_folder_when_home_takes_none(tmp_path: Path) -> None:
    chosen = {"GPUVIRT_SOFTGPU_CACHE": "/x", "HOME": "/proc/none"}
    assert softgpu.kernel_cache({"HOME": "/proc/none"}, tmp_path) == tmp_path / "kernels"
    assert softgpu.kernel_cache({"HOME": str(tmp_path)}, tmp_path) is None
    assert softgpu.kernel_cache({"HOME": "/proc/none", "XDG_CACHE_HOME": str(tmp_path)}, tmp_path) is None
    assert softgpu.kernel_cache(chosen, tmp_path) is None


def test_the_users_tools_for_the_soft_gpu_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What its own error messages tell people to set must count."""
    monkeypatch.setattr(softgpu, "driver_folder", lambda: tmp_path)
    monkeypatch.setenv("GPUVIRT_SOFTGPU_CACHE", "/cache")
    monkeypatch.setenv("GPUVIRT_SOFTGPU_CC", "clang")
    monkeypatch.setenv("GPUVIRT_SOFTGPU_BOARD", "/another")
    environ = softgpu.soft_gpu(tmp_path, 1 << 29).environ()
    assert (environ["GPUVIRT_SOFTGPU_CACHE"], environ["GPUVIRT_SOFTGPU_CC"]) == ("/cache", "clang")
    assert environ["GPUVIRT_SOFTGPU_BOARD"] == str(tmp_path / "board")


def test_toml_is_what_it_was() -> None:
    daemon = importlib.import_module("harness.daemon")
    settings = {"quantum": "1s", "n": 3, "yes": True, "list": ["a", 'b"\\c'], "section": {"key": 0.5}}
    assert tomllib.loads(daemon.toml(settings)) == settings


def test_demo_jobs_do_not_fit_together() -> None:
    first, second = demo_jobs(358 << 20)
    assert first.memory + second.memory > 512 << 20
    command = first.command(Path("/tmp/x.json"))
    assert command[2:] == ["--memory", "358M", "--json", "/tmp/x.json"]
    assert Path(command[1]).exists()
    assert second.script.exists()
    assert first.name != second.name


def test_outcome_of_a_report(tmp_path: Path) -> None:
    file = tmp_path / "r.json"
    file.write_text('{"result": "abc", "loss": "1"}')
    assert Outcome.read(file, 2.0) == Outcome("abc", 2.0, {"result": "abc", "loss": "1", "wall_s": 2.0})


@pytest.mark.parametrize(("text", "bytes_"), [("358M", 358 << 20), ("1.5GiB", 3 << 29), ("4096", 4096), ("2kb", 2048)])
def test_sizes(text: str, bytes_: int) -> None:
    assert console.size(text) == bytes_


@pytest.mark.parametrize("text", ["", "0", "-1M", "10TB", "M", "1 2"])
def test_bad_sizes(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        console.size(text)


@pytest.mark.parametrize("text", ["0", "1.1", "x", "-0.5", "nan"])
def test_bad_fractions(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        console.fraction(text)


def test_failure_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    def body() -> None:
        raise console.CudaFailure("CUDA_ERROR_OUT_OF_MEMORY", "cannot allocate 358 MiB")

    assert console.run("train_mlp", body) == console.EXIT_CUDA
    assert capsys.readouterr().err == "train_mlp: CUDA_ERROR_OUT_OF_MEMORY: cannot allocate 358 MiB\n"


def test_failure_of_torch_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    class AcceleratorError(RuntimeError):
        """torch's, since 2.8, for whatever CUDA says."""

    def body() -> None:
        raise AcceleratorError("CUDA error: an illegal memory access was encountered\nCUDA kernel errors might")

    assert console.run("train_torch", body) == console.EXIT_CUDA
    assert capsys.readouterr().err == "train_torch: CUDA error: an illegal memory access was encountered\n"


def test_other_errors_are_not_hidden() -> None:
    def body() -> None:
        raise KeyError("x")

    with pytest.raises(KeyError):
        console.run("train_mlp", body)
