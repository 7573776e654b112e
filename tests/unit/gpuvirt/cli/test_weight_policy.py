# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt weight` and `gpuvirt policy`: what they ask the daemon, and what they print."""

from __future__ import annotations

import json
from typing import Any

import pytest

STANDING = {"job": "j3", "weight": 3, "priority": "high", "tier": None, "deadline_s": 0.02}
ROW = {"gpu": 0, "uuid": "GPU-1", "policy": "fair", "summary": "by weight", "configured": "fair", "owner": None}


def test_weight_is_shown_and_changed(make_daemon: Any, gpuvirt: Any) -> None:
    daemon = make_daemon(weight={"standing": STANDING, "notes": ["a priority makes no difference"]})
    done = gpuvirt("weight", "train", "3")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == [
        "j3: weight 3, priority high, deadline 20 ms",
        "note: a priority makes no difference",
    ]
    assert daemon.requests[-1] == {"op": "weight", "job": "train", "weight": 3}
    done = gpuvirt("weight", "train", "-o", "json")
    assert json.loads(done.stdout)["standing"] == STANDING
    assert daemon.requests[-1]["weight"] is None


def test_policies_are_shown_and_changed(make_daemon: Any, gpuvirt: Any) -> None:
    daemon = make_daemon(policy={"policies": [ROW]})
    done = gpuvirt("policy")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[1].split() == ["0", "fair", "fair", "-", "by", "weight"]
    assert daemon.requests[-1] == {"op": "policy", "gpu": None, "name": None}
    assert gpuvirt("policy", "all", "priority").returncode == 0
    assert daemon.requests[-1] == {"op": "policy", "gpu": None, "name": "priority"}
    assert gpuvirt("policy", "0", "tiers", "-o", "json").returncode == 0
    assert daemon.requests[-1] == {"op": "policy", "gpu": "0", "name": "tiers"}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["weight", "a", "0"], "0 is not in the range"),
        (["weight", "a", "many"], "not a valid integer"),
        (["weight", ""], "no name of a job"),
        (["policy", "fair"], "for every GPU: gpuvirt policy all fair"),
    ],
)
def test_wrong_usage_is_one_line(make_daemon: Any, gpuvirt: Any, words: list[str], said: str) -> None:
    daemon = make_daemon()
    done = gpuvirt(*words)
    assert done.returncode == 2
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not daemon.requests
