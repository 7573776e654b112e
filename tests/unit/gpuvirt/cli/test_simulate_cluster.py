# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt simulate cluster`: tables, JSON, pictures, and one line for each mistake."""

from __future__ import annotations

import gzip
import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gpuvirt.cli import simulate_cluster_plot
from gpuvirt.scheduler.order import POLICIES
from gpuvirt.scheduler.order.job import Terms
from gpuvirt.scheduler.simulate.engine import Engine, Request

Cli = Callable[..., subprocess.CompletedProcess[str]]
TRACE = """timestamp,duration,num_gpus,gpu_time,cluster
2017-10-01 00:00:00,36000,4,0,long
2017-10-01 02:00:00,600,4,0,short
"""


@pytest.fixture
def trace(tmp_path: Path) -> Path:
    path = tmp_path / "jobs.csv"
    path.write_text(TRACE)
    return path


def test_tables(gpuvirt: Cli, trace: Path) -> None:
    done = gpuvirt(
        "simulate", "cluster", "--trace", str(trace), "--hosts", "1x4", "--policy", "fifo", "--policy", "las"
    )
    assert (done.returncode, done.stderr) == (0, "")
    lines = [line.split() for line in done.stdout.splitlines()]
    assert lines[0][:3] == ["POLICY", "JCT", "P50"]
    assert [line[0] for line in lines[1:3]] == ["fifo", "las"]
    assert [line[-2] for line in lines[1:3]] == ["0", "1"]
    assert lines[4][:2] == ["POLICY", "TENANT"]
    assert [line[:2] for line in lines[5:]] == [["fifo", "long"], ["fifo", "short"], ["las", "long"], ["las", "short"]]


def test_json_costs_and_a_compressed_trace(gpuvirt: Cli, trace: Path, tmp_path: Path) -> None:
    packed = tmp_path / "jobs.csv.gz"
    packed.write_bytes(gzip.compress(TRACE.encode()))
    arguments = ("--hosts", "2x2", "--suspend", "10s", "--resume", "20s", "-o", "json")
    found = json.loads(gpuvirt("simulate", "cluster", "--trace", str(packed), *arguments).stdout)
    assert (found["gpus"], found["suspend_s"], found["resume_s"]) == (4, 10, 20)
    (row,) = found["runs"]
    assert row["policy"] == "attained" and row["suspensions"] == 1 and row["lost_gpu_s"] == 4 * 30
    assert row["jct_avg_s"] == pytest.approx((36000 + 600 + 30 + 600 + 10) / 2)
    plain = json.loads(gpuvirt("simulate", "cluster", "--trace", str(trace), *arguments).stdout)
    assert plain["runs"] == found["runs"]


def test_one_tenant(gpuvirt: Cli, trace: Path) -> None:
    done = gpuvirt("simulate", "cluster", "--trace", str(trace), "--hosts", "1", "--tenant", "short", "-w")
    assert (done.returncode, done.stderr) == (0, "")
    assert len(done.stdout.splitlines()) == 2 and "ALL DONE" in done.stdout


def test_a_picture(gpuvirt: Cli, trace: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "queue.svg"
    done = gpuvirt("simulate", "cluster", "--trace", str(trace), "--hosts", "1x4", "--plot", str(picture))
    assert (done.returncode, done.stderr) == (0, "")
    assert "<svg" in picture.read_text()


def test_averages_of_the_picture() -> None:
    run = Engine([Request(0, 2, 100), Request(50, 4, 100)], Terms(4), POLICIES["fifo"]).run()
    edges, given, waiting = simulate_cluster_plot.averages(run, 4)
    assert [edge * simulate_cluster_plot.DAY for edge in edges] == pytest.approx([0, 50, 100, 150, 200])
    assert given == pytest.approx([2, 2, 4, 4]) and waiting == pytest.approx([0, 1, 0, 0])


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("--hosts", "1x2"), "a job wants 4 GPUs, the fleet has 2; add hosts"),
        (("--hosts", "0x4"), "--hosts 0x4: not hosts and their GPUs; write for example 5x4"),
        (("--hosts", "many"), "--hosts many: not hosts and their GPUs; write for example 5x4"),
        (("--hosts", "1x4", "--policy", "luck"), "there is no policy 'luck'; known: attained, las,"),
        (("--hosts", "1x4", "--resume", "-1s"), "duration '-1s' is not a number with a unit"),
        (("--hosts", "1x4", "--tenant", "x"), "{trace}: no jobs of cluster 'x'"),
        (("--hosts", "1x4", "--plot", "x.doc"), "--plot x.doc: no kind of picture"),
        (("--hosts", "1x4", "--trace", "no/such.csv"), "no/such.csv: No such file or directory; give a CSV file"),
    ],
)
def test_mistakes(gpuvirt: Cli, trace: Path, arguments: tuple[str, ...], text: str) -> None:
    done = gpuvirt("simulate", "cluster", "--trace", str(trace), *arguments)
    assert done.returncode in (1, 2) and done.stdout == ""
    assert done.stderr.startswith(f"gpuvirt simulate: error: {text.format(trace=trace)}"), done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b"a,b\n1,2\n", b""])
@pytest.mark.parametrize("name", ["jobs.csv", "jobs.csv.gz"])
def test_what_is_no_trace(gpuvirt: Cli, tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    done = gpuvirt("simulate", "cluster", "--trace", str(path), "--hosts", "1")
    assert done.returncode == 1 and done.stderr.startswith(f"gpuvirt simulate: error: {path}: ")
    assert done.stderr.count("\n") == 1
