# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt simulate`: tables, JSON, pictures, and one line for each mistake. No daemon answers, none is asked."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from gpuvirt.arbitration import events
from gpuvirt.arbitration.facts import Client, Gpu
from gpuvirt.arbitration.lease import decide
from gpuvirt.arbitration.tape import Tape

Cli = Callable[..., subprocess.CompletedProcess[str]]
SCENARIO = """
title = "Two trainings"
duration = "3s"
warmup = "1s"
report = "1s"
[[job]]
name = "heavy"
weight = 3
kernels = 50
kernel = "200us"
[[job]]
name = "light"
kernels = 50
kernel = { lognormal = "300us", sigma = 0.5 }
"""


@pytest.fixture
def scenario(tmp_path: Path) -> Path:
    path = tmp_path / "two.toml"
    path.write_text(SCENARIO)
    return path


def lines(done: subprocess.CompletedProcess[str]) -> list[list[str]]:
    assert (done.returncode, done.stderr) == (0, "")
    return [line.split() for line in done.stdout.splitlines()]


def test_tables(gpuvirt: Cli, scenario: Path) -> None:
    heading, heavy, light, _, gpus, gpu = lines(gpuvirt("simulate", "host", str(scenario)))
    assert heading == ["JOB", "WEIGHT", "SHARE", "OF", "SOLO", "REQ/s", "P50", "P99", "xSOLO", "WAIT99", "TURNS"]
    assert (heavy[:2], light[:2]) == (["heavy", "3"], ["light", "1"])
    assert float(heavy[2].rstrip("%")) == pytest.approx(75, abs=2)
    assert gpus[:5] == ["GPU", "COMPUTING", "IDLE", "LOSS", "ERROR"]
    assert gpu[0] == "0" and float(gpu[3].rstrip("%")) < 2


def test_policies_side_by_side_in_json(gpuvirt: Cli, scenario: Path) -> None:
    arguments = ("simulate", "host", str(scenario), "--policy", "fair", "--policy", "bare", "-o", "json")
    done = gpuvirt(*arguments)
    found = json.loads(done.stdout)
    assert found["title"] == "Two trainings"
    fair, bare = found["runs"]
    assert (fair["policy"], bare["policy"]) == ("fair", "bare")
    assert fair["jobs"][0]["share"] > 0.7 > 0.6 > bare["jobs"][0]["share"]
    assert fair["jobs"][0]["normalised"] > 0.7
    assert gpuvirt(*arguments).stdout == done.stdout


def test_what_the_command_line_changes(gpuvirt: Cli, scenario: Path) -> None:
    def figures(*options: str) -> list[list[str]]:
        return lines(gpuvirt("simulate", "host", str(scenario), "--no-solo", *options))

    base = figures()
    assert figures("--seed", "1") == base
    assert figures("--seed", "2") != base
    assert base[1][3] == "-"  # alone was not tried
    turns = [int(figures("--for", length)[5][6]) for length in ("2s", "3s")]
    assert turns[1] > 1.5 * turns[0]


def test_those_that_come_with_it(gpuvirt: Cli) -> None:
    names = [line[0] for line in lines(gpuvirt("simulate", "scenarios"))]
    assert names[0] == "NAME" and {"equal", "service", "swap", "weights"} <= set(names)
    assert lines(gpuvirt("simulate", "host", "weights", "--for", "2s", "--no-solo"))[1][0] == "one"


def test_a_picture(gpuvirt: Cli, scenario: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "two.svg"
    lines(gpuvirt("simulate", "host", str(scenario), "--plot", str(picture)))
    text = picture.read_text()
    assert "<svg" in text and "heavy" in text


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (("nothing",), "there is no scenario 'nothing'; give a file, or one of deadlines, equal,"),
        (("no/such.toml",), "no/such.toml: No such file or directory; see 'gpuvirt simulate scenarios'"),
        (("equal", "--policy", "luck"), "there is no policy 'luck'; known: "),
        (("equal", "--for", "1s"), "--for 1s ends before the warmup of 1.0 s is over"),
        (("equal", "--plot", "x.doc"), "--plot x.doc: no kind of picture; let it end with .pdf, .png, .svg"),
        (("swap", "--policy", "bare"), "the jobs of GPU 0 need 160 GiB, it has 80 GiB, and without an arbiter nothing"),
    ],
)
def test_mistakes(gpuvirt: Cli, arguments: tuple[str, ...], text: str) -> None:
    done = gpuvirt("simulate", "host", *arguments)
    assert done.returncode in (1, 2) and done.stdout == ""
    assert done.stderr.startswith(f"gpuvirt simulate: error: {text}") and done.stderr.count("\n") == 1


def test_without_matplotlib(gpuvirt: Cli, scenario: Path, tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text("import sys\nsys.modules['matplotlib'] = None\n")
    picture = tmp_path / "x.png"
    done = gpuvirt("simulate", "host", str(scenario), "--plot", str(picture), environ={"PYTHONPATH": str(tmp_path)})
    assert done.stderr == (
        "gpuvirt simulate: error: --plot needs matplotlib, which is not installed; pip install matplotlib, or leave it "
        "out\n"
    )
    assert done.returncode == 1 and not picture.exists()


def test_replay(gpuvirt: Cli, tmp_path: Path) -> None:
    lines_written: list[bytes] = []
    gpu = Gpu("GPU-1", 100)
    gpu.tape = Tape(gpu, lines_written.append)
    events.attach(gpu, "a", 1, Client(1))
    events.want(gpu, 1, 0, 0, 1000)
    decide(gpu, 1000)
    good, bad, none = tmp_path / "good.tape", tmp_path / "bad.tape", tmp_path / "none.tape"
    good.write_bytes(b"".join(lines_written))
    bad.write_bytes(good.read_bytes().replace(b'"open"', b'"granted"'))
    none.write_text("hello\n")
    heading, row = lines(gpuvirt("simulate", "replay", str(good)))
    assert heading == ["TAPE", "TIME", "EVENTS", "DECISIONS", "ACTIONS", "GRANTS", "RESULT"]
    assert row[2:] == ["2", "1", "2", "1", "same"]
    done = gpuvirt("simulate", "replay", str(good), str(bad), "-o", "json")
    first, second = json.loads(done.stdout)
    assert done.returncode == 3 and first["difference"] is None and second["difference"].startswith("line 4: recorded")
    done = gpuvirt("simulate", "replay", str(none))
    assert done.returncode == 1 and done.stderr.startswith(f"gpuvirt simulate: error: {none}: line 1 is of no tape")
    done = gpuvirt("simulate", "replay", str(tmp_path / "absent"))
    assert done.returncode == 2 and "No such file or directory" in done.stderr
