# SPDX-License-Identifier: Apache-2.0
"""Training jobs of a given size, and the curve by quantum."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from harness import curve
from harness.probes import ProbeFailed
from harness.training import CLASSES, FEATURES, NETWORK_PART, Training


@pytest.mark.parametrize("mib", [24, 64, 120, 40_000])
def test_the_network_takes_its_part_of_the_memory(mib: int) -> None:
    job = Training(mib << 20, 1, 10, 32)
    width = job.hidden
    parameters = FEATURES * width + width + width * width + width + width * CLASSES + CLASSES
    assert 16 * parameters / job.memory == pytest.approx(NETWORK_PART, rel=0.01)


def test_command_says_all_that_the_result_depends_on(tmp_path: Path) -> None:
    words = Training(64 << 20, 7, 12, 16).command(tmp_path / "r.json", "--wait-for", "x")
    pairs = dict(zip(words[2::2], words[3::2], strict=True))
    assert {key: pairs[key] for key in ("--memory", "--seed", "--steps", "--batch", "--wait-for")} == {
        "--memory": "64M",
        "--seed": "7",
        "--steps": "12",
        "--batch": "16",
        "--wait-for": "x",
    }


def test_plot_of_both_curves(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    file = tmp_path / "new" / "curve.svg"
    points = [(3.0, 1.03), (0.5, 1.2), (0.05, 2.5)]
    curve.draw(file, points, 0.06)
    first = file.read_bytes()
    curve.draw(file, points, 0.06)
    assert file.read_bytes() == first  # so that a committed plot changes with its figures only
    assert b"<svg" in first


def test_no_matplotlib_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "matplotlib", None)
    with pytest.raises(ProbeFailed, match="pip install matplotlib"):
        curve.draw(tmp_path / "x.svg", [(1.0, 1.0)], 1.0)


def test_published_figures_are_over_serial() -> None:
    assert json.loads(json.dumps(curve.NVSHARE))  # goes into the results
    assert curve.NVSHARE[10] / curve.NVSHARE_SERIAL == pytest.approx(1.27, abs=0.01)
