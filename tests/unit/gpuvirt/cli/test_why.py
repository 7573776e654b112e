# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt why`: what people read of what the daemon answers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from typing import Any

from gpuvirt.cli.why import lines

Cli = Callable[..., subprocess.CompletedProcess[str]]
HOLDER = {
    "job": "j1", "lease": "granted", "held_s": 0.012, "left_s": 0.008, "draining_s": None, "idle": False, "reason": "",
}  # fmt: skip
PART = {
    "gpu": 0, "uuid": "GPU-0", "names": {"j1": "train", "j2": "eval", "j3": "big"}, "lease": "closed", "waiting": True,
    "waits_s": 0.25, "holder": HOLDER, "next": None, "queue": 2, "ahead": ["j3"], "position": 2, "turns_ahead": 1,
    "expected_s": 0.045, "longest_s": 0.08, "lately": {"turns": 13, "median_s": 0.038, "longest_s": 0.061},
    "reason": "", "memory": {"charged": 100 << 20, "missing": 40 << 20, "leaves": 30 << 20, "move_s": 0.5},
    "quantum_s": 0.02, "policy": "fair", "standing": "weight 2: 67% of the time that others want too",
}  # fmt: skip
WHY = {
    "job": "j2", "name": "eval", "user": "ann", "weight": 2, "share": 0.34, "state": "waiting",
    "reason": "j1 holds GPU 0", "queued": None, "gpus": [PART],
}  # fmt: skip


def test_a_job_that_waits(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon(why={"why": WHY})
    assert gpuvirt("why", "eval", environ={"COLUMNS": "120"}).stdout.splitlines() == [
        "eval (j2) of ann: waiting: j1 holds GPU 0",
        "  share      34% of the time so far, at weight 2",
        "",
        "GPU 0",
        "  holder     train (j1): for 12ms, for 8.0ms more at most",
        "  policy     fair: weight 2: 67% of the time that others want too",
        "  place      2 of 2, after big (j3)",
        "  expected   in 45ms; 80ms if everybody before it uses a whole turn",
        "  waiting    for 250ms now; before, for 38ms (median of 13), 61ms at most",
        "  memory     40M of 100M must come in, 30M of others must leave for it; about 500ms at the speed of the link",
    ]
    assert max(map(len, gpuvirt("why", "eval").stdout.splitlines())) <= 80
    assert json.loads(gpuvirt("why", "eval", "-o", "json").stdout) == WHY


HERE = {"lease": "granted", "waiting": False, "queue": 1}


def test_other_states() -> None:
    cases: list[tuple[dict[str, Any], str]] = [
        ({"holder": {**HOLDER, "job": "j2"}, **HERE}, "holder     this job: for 12ms, for 8.0ms more at most"),
        ({"holder": {**HOLDER, "job": "j2"}, **HERE}, "queue      1 job waits for it"),
        ({"holder": {**HOLDER, "left_s": None, "idle": True}}, "for 12ms, until somebody wants it, idle"),
        (
            {"holder": {**HOLDER, "draining_s": 0.5, "reason": "does not drain yet"}},
            "500ms ago; its work ends; it does",
        ),
        ({"holder": None, "next": "j3"}, "holder     nobody; it is being made ready for big (j3)"),
        ({"holder": None}, "holder     nobody"),
        ({"ahead": [], "position": 1}, "place      1 of 2, next"),
        ({"waiting": False}, "place      none: it has no work for the GPU now"),
        ({"expected_s": None, "longest_s": None}, "expected   cannot be said"),
        ({"expected_s": 0.08}, "expected   in 80ms\n"),
        ({"lately": None}, "waiting    for 250ms now\n"),
        ({"reason": "needs 3 GiB of 2 GiB"}, "trouble    needs 3 GiB of 2 GiB"),
        ({"gpus": [], "queued": {"position": 3, "estimate_s": 240.0}}, "start      in about 4 min; place 3 in line"),
        ({"gpus": [], "queued": {"position": 1, "estimate_s": None}}, "start      no estimate yet; place 1 in line"),
        ({"gpus": [], "share": None, "reason": "", "state": "new"}, "eval (j2) of ann: new\n"),
    ]
    for changes, words in cases:
        part = {**PART, **{key: one for key, one in changes.items() if key in PART}}
        outside = {key: one for key, one in changes.items() if key not in PART or "gpus" in changes}
        assert words in "\n".join([*lines({**WHY, "gpus": [part], **outside}), ""])


def test_mistakes_are_one_line(make_daemon: Any, gpuvirt: Cli) -> None:
    make_daemon(why={"refused": "there is no job 'x'"})
    for arguments, code, words in (
        (("x",), 1, "there is no job 'x'"),
        ((), 2, "missing argument"),
        (("",), 2, "no name"),
    ):
        done = gpuvirt("why", *arguments)
        assert done.returncode == code and words in done.stderr.lower() and done.stderr.count("\n") == 1
