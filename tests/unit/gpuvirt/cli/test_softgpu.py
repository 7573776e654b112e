# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt soft-gpu`: environment and care without a soft GPU; the whole life of one where it is built."""

from __future__ import annotations

import json
import mmap
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from gpuvirt import paths
from gpuvirt.cli import softgpu

Cli = Callable[..., subprocess.CompletedProcess[str]]
RUN = (sys.executable, "-m", "gpuvirt.cli.main")


@pytest.fixture
def built() -> Path:
    paths.library("softgpu/libnvidia-ml.so.1")
    return softgpu.folder()


@pytest.fixture
def board(runtime: Path) -> Path:
    return runtime / "board"


def test_board_of_option_environment_user() -> None:
    assert softgpu.board_path("/a", {softgpu.BOARD: "/b"}) == Path("/a")
    assert softgpu.board_path(None, {softgpu.BOARD: "/b"}) == Path("/b")
    assert softgpu.board_path(None, {}) == Path(f"/dev/shm/gpuvirt-softgpu-{os.geteuid()}")


def test_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(paths, "library", lambda name: Path("/g/lib") / name)
    result = softgpu.variables(Path("/b"), {softgpu.MEMORY: "512M"}, {"LD_LIBRARY_PATH": "/x:/g/lib/softgpu"})
    assert result == {
        "LD_LIBRARY_PATH": "/g/lib/softgpu:/x",
        "GPUVIRT_SOFTGPU_BOARD": "/b",
        "GPUVIRT_SOFTGPU_PYTHON": sys.executable,
        "GPUVIRT_SOFTGPU_MEMORY": "512M",
    }


def test_users_are_those_who_map_it(tmp_path: Path) -> None:
    path = tmp_path / "board"
    path.write_bytes(bytes(4096))
    assert softgpu.users(path) == []
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 4096):
        assert softgpu.users(path) == [os.getpid()]


def test_remove_takes_only_boards(gpuvirt: Cli, tmp_path: Path) -> None:
    precious = tmp_path / "thesis.tex"
    precious.write_text("years of work")
    done = gpuvirt("soft-gpu", "remove", "--board", str(precious))
    assert done.returncode == 1
    assert "is not the file of a soft GPU" in done.stderr
    assert precious.exists()
    done = gpuvirt("soft-gpu", "remove", "--board", str(tmp_path / "none"))
    assert (done.returncode, "there is no soft GPU" in done.stderr) == (1, True)


@pytest.mark.parametrize("arguments", [["--memory", "0"], ["--memory", "1M"], ["--devices", "0"], ["--devices", "17"]])
def test_wrong_sizes(gpuvirt: Cli, board: Path, arguments: list[str]) -> None:
    done = gpuvirt("soft-gpu", "create", "--board", str(board), *arguments)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1


def test_life(gpuvirt: Cli, board: Path, built: Path) -> None:
    done = gpuvirt("soft-gpu", "create", "--memory", "64M", "--devices", "2", "--board", str(board))
    assert (done.returncode, done.stdout) == (0, f"soft GPU {board}: 2 devices of 64 MiB\n"), done.stderr
    again = gpuvirt("soft-gpu", "create", "--board", str(board))
    assert (again.returncode, "there is a soft GPU already" in again.stderr) == (1, True)
    rows = json.loads(gpuvirt("soft-gpu", "show", "--board", str(board), "-o", "json").stdout)
    assert [row["memory_total"] for row in rows] == [64 << 20] * 2
    assert "0/64" in gpuvirt("soft-gpu", "show", "--board", str(board)).stdout
    script = "import ctypes; print(ctypes.CDLL('libcuda.so.1').cuInit(0), flush=True); input()"
    user = subprocess.Popen(
        [*RUN, "soft-gpu", "run", "--board", str(board), sys.executable, "-c", script],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert user.stdout is not None
    assert user.stdout.readline() == "0\n"
    busy = gpuvirt("soft-gpu", "remove", "--board", str(board))
    assert (busy.returncode, f"in use by {user.pid}" in busy.stderr) == (1, True)
    user.communicate("\n", timeout=20)
    assert gpuvirt("soft-gpu", "remove", "--board", str(board)).returncode == 0
    assert not board.exists()


def test_a_card_scaled_down(gpuvirt: Cli, board: Path, built: Path) -> None:
    shape = ["--profile", "h100-80gb,t4", "--memory-scale", "0.01", "--model", "link=20:10:50", "--model", "reserved"]
    done = gpuvirt("soft-gpu", "create", "--board", str(board), *shape)
    assert (done.returncode, done.stdout) == (0, f"soft GPU {board}: 2 devices of 814 MiB and 152 MiB\n"), done.stderr
    large, small = json.loads(gpuvirt("soft-gpu", "show", "--board", str(board), "-o", "json").stdout)
    assert (large["profile"], small["profile"]) == ("h100-80gb", "t4")
    assert large["name"] == "Soft GPU (gpuvirt) h100-80gb"
    assert large["models"]["link"] == {
        "to_mb_s": 20000, "from_mb_s": 10000, "both_percent": 50, "pageable_percent": 40
    }  # fmt: skip
    assert list(large["models"]) == ["link", "reserved"]
    assert large["memory_used"] == large["models"]["reserved"]["bytes"] == 6 << 20
    table = gpuvirt("soft-gpu", "show", "--board", str(board), "-o", "wide").stdout
    assert "6/814" in table and "link,reserved" in table


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--profile", "h1000"], "there is no profile 'h1000'; known are default, h100-80gb,"),
        (["--model", "linc"], "'linc' is not understood; write all, or some of link="),
        (["--model", "link=fast"], "'link=fast' is not understood"),
        (["--memory", "8M", "--model", "reserved=8M"], "would reserve all"),
    ],
)
def test_wrong_shapes_are_named(gpuvirt: Cli, board: Path, built: Path, arguments: list[str], reason: str) -> None:
    done = gpuvirt("soft-gpu", "create", "--board", str(board), *arguments)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert reason in done.stderr
    assert not board.exists()


def test_no_room_for_the_board_is_named(gpuvirt: Cli, built: Path) -> None:
    done = gpuvirt("soft-gpu", "create", "--board", "/dev/full/board")
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert "cannot create the board /dev/full/board: Not a directory" in done.stderr or "cannot open" in done.stderr


def test_env_is_for_eval(gpuvirt: Cli, board: Path, built: Path) -> None:
    text = gpuvirt("softgpu", "env", "--memory", "32M", "--board", str(board)).stdout
    lines = [shlex.split(line) for line in text.splitlines()]
    assert all(line[0] == "export" for line in lines)
    values = dict(line[1].split("=", 1) for line in lines)
    assert values["LD_LIBRARY_PATH"].split(":")[0] == str(built)
    assert (values[softgpu.BOARD], values[softgpu.MEMORY]) == (str(board), str(32 << 20))


def test_run_leaves_gpuvirt_behind(gpuvirt: Cli, board: Path, built: Path) -> None:
    inside = {"LD_PRELOAD": "", "GPUVIRT_JOB": "t", "GPUVIRT_SOCKET": "/s", "GPUVIRT_DRIVER": "/d"}
    done = gpuvirt("soft-gpu", "run", "--board", str(board), "--", "env", environ=inside)
    assert "GPUVIRT_JOB" not in done.stdout
    assert f"GPUVIRT_SOFTGPU_BOARD={board}" in done.stdout
    assert gpuvirt("soft-gpu", "run", "no-such-program").returncode == 127


def test_both_spellings_are_understood() -> None:
    from click.testing import CliRunner

    from gpuvirt.cli.main import program

    told = CliRunner().invoke(program, ["soft-gpu", "--help"])
    assert told.exit_code == 0 and "gpuvirt soft-gpu run -- python my_cuda_test.py" in told.output
    assert CliRunner().invoke(program, ["softgpu", "--help"]).exit_code == 0


COUNT = "import pynvml as n, os; n.nvmlInit(); print(n.nvmlDeviceGetCount(), os.environ['GPUVIRT_SOFTGPU_BOARD'])"


def test_run_with_a_shape_has_a_gpu_of_its_own(built: Path, gpuvirt: Cli) -> None:
    done = gpuvirt("soft-gpu", "run", "--memory", "64M", "--devices", "3", "--", sys.executable, "-c", COUNT)
    count, own = done.stdout.split()
    assert (done.returncode, count) == (0, "3")
    assert not Path(own).exists()
    assert gpuvirt("soft-gpu", "run", "--devices", "2", "sh", "-c", "exit 7").returncode == 7
    assert gpuvirt("soft-gpu", "run", "--devices", "2", "sh", "-c", "kill -9 $$").returncode == -9
    missing = gpuvirt("soft-gpu", "run", "--devices", "2", "no-such-program")
    assert (missing.returncode, missing.stderr.count("\n")) == (127, 1)


def test_run_refuses_a_shape_for_a_gpu_that_has_one(built: Path, board: Path, gpuvirt: Cli) -> None:
    assert gpuvirt("soft-gpu", "create", "--memory", "64M", "--board", str(board)).returncode == 0
    done = gpuvirt("soft-gpu", "run", "--memory", "32M", "--board", str(board), "true")
    assert done.returncode == 1 and "has its shape already" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["--profile", "h1000"], "there is no profile 'h1000'"),
        (["--model", "linc"], "'linc' is not understood"),
        (["--memory-scale", "1e-9"], "GPUVIRT_SOFTGPU_MEMORY_SCALE=1e-09: the device must have at least 2M"),
    ],
)
def test_run_with_a_wrong_shape_starts_nothing(
    gpuvirt: Cli, built: Path, arguments: list[str], reason: str, tmp_path: Path
) -> None:
    witness = tmp_path / "started"
    done = gpuvirt("soft-gpu", "run", *arguments, "--", "touch", str(witness))
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert reason in done.stderr
    assert not witness.exists()


def test_run_never_meets_what_a_killed_one_left(gpuvirt: Cli, built: Path) -> None:
    script = ["sh", "-c", "echo $GPUVIRT_SOFTGPU_BOARD"]
    own = [gpuvirt("soft-gpu", "run", "--devices", "2", "--", *script).stdout.strip() for _ in range(2)]
    assert all(len(path.rsplit("-", 1)[1]) == 8 for path in own) and own[0] != own[1]


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("BOARD_MODE", "x"), ("BOARD_MODE", "0"), ("BOARD_MODE", "0777"), ("SLICE_US", "x"), ("SLICE_US", "0"),
        ("DEVICES", "2x"), ("DEVICES", "99"),
    ],
)  # fmt: skip
def test_wrong_variables_are_named(gpuvirt: Cli, board: Path, built: Path, variable: str, value: str) -> None:
    name = f"GPUVIRT_SOFTGPU_{variable}"
    done = gpuvirt("soft-gpu", "create", "--board", str(board), environ={name: value})
    assert (done.returncode, done.stderr.count("\n")) == (1, 1), done.stderr
    assert f"{name}={value}: must be" in done.stderr
    assert not board.exists()
