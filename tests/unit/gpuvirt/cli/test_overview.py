# SPDX-License-Identifier: Apache-2.0
"""The picture of `gpuvirt top`, made of two answers of the daemon."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpuvirt.cli.overview import Look, compared, lines

MIB = 1 << 20
LINK = {"out_rate": 9.5e8, "in_rate": 1.1e9, "rate": 4.4e9, "share": 0.25, "measured": True}
GPU: dict[str, Any] = {
    "index": 0, "uuid": "GPU-0", "name": "Soft GPU", "memory_used": 350 * MIB, "memory_total": 512 * MIB,
    "swapped": 50 * MIB, "link": LINK, "switches": 10, "holder": "j1", "queue": ["j2"],
}  # fmt: skip
JOB: dict[str, Any] = {
    "job": "j1", "name": "train", "user": "alice", "gpu": [0], "state": "running", "held_s": 10.0, "lost_s": 1.0,
    "charged": 300 * MIB, "resident": 300 * MIB, "arena": 60 * MIB, "reason": "",
}  # fmt: skip
WAITING = {**JOB, "job": "j2", "name": "evaluation", "state": "waiting", "reason": "j1 holds GPU 0"}
DAEMON = {"host_budget": 12 << 30, "host_used": 50 * MIB, "uptime_s": 100.0, "state": "ready"}


def look(at: float, jobs: list[dict[str, Any]], **gpu: Any) -> Look:
    return Look(at, {"daemon": DAEMON, "gpus": [{**GPU, **gpu}], "jobs": jobs})


def test_shares_are_of_the_time_between_two_looks() -> None:
    before = look(100.0, [JOB, WAITING])
    now = look(104.0, [{**JOB, "held_s": 13.0, "lost_s": 1.2}, {**WAITING, "held_s": 10.0}], switches=18)
    gpus, jobs = compared(before, now)
    assert gpus[0]["turns"] == 2.0
    assert [(job["job"], job["share"]) for job in jobs] == [("j1", 0.75), ("j2", 0.0)]
    assert jobs[0]["lost_now"] == pytest.approx(0.05)


def test_a_new_job_and_one_on_two_gpus() -> None:
    before = look(100.0, [])
    _, jobs = compared(before, look(110.0, [{**JOB, "gpu": [0, 1], "held_s": 15.0, "lost_s": 30.0}]))
    assert jobs[0]["share"] == 0.75, "of two GPUs"
    assert jobs[0]["lost_now"] == 1.0


def test_one_look_alone_has_no_shares() -> None:
    first = look(100.0, [JOB])
    gpus, jobs = compared(first, first)
    assert (gpus[0]["turns"], jobs[0]["share"], jobs[0]["lost_now"]) == (None, None, None)


def test_the_order() -> None:
    jobs = [{**JOB, "job": f"j{number}", "state": state} for number, state in
            enumerate(["idle", "waiting", "new", "running", "ended", "swapping"])]  # fmt: skip
    _, rows = compared(look(1, jobs), look(2, jobs))
    assert [row["state"] for row in rows] == ["running", "swapping", "waiting", "idle", "new"], "ended ones are gone"


def test_the_picture() -> None:
    text = lines(look(100.0, [JOB, WAITING]), look(105.0, [{**JOB, "held_s": 14.0}, WAITING]), 0.0, 80)
    assert text[0].split("  ")[1:] == ["last 5.00s", "host memory for swap 50M of 12.0G", "up 1m40s"]
    assert text[2].split() == ["GPU", "NAME", "USED", "SWAPPED", "LINK", "OUT/IN", "GB/s", "TURNS/s", "HOLDS", "WAIT"]
    assert text[3].split()[-7:] == ["350M/512M", "50M", "25%", "0.95/1.10", "0.0", "j1", "j2"]
    assert text[5].split() == ["JOB", "NAME", "USER", "STATE", "SHARE", "WAIT", "LOST", "MEM", "RES", "HOST", "REASON"]
    assert text[6].split() == ["j1", "train", "alice", "running", "80%", "0%", "0%", "300M", "300M", "60M"]
    assert "j1 ho" in text[7]
    assert max(map(len, text)) <= 80


def test_waits_are_shown_where_there_is_room() -> None:
    before = look(100.0, [{**JOB, "weight": 3}, {**WAITING, "weight": 1, "wait_s": 2.0}])
    waits = {**WAITING, "weight": 1, "wait_s": 5.0, "turn_wait_s": 0.038}
    now = look(105.0, [{**JOB, "weight": 3, "held_s": 14.0}, waits])
    _, jobs = compared(before, now)
    assert [job["waited_now"] for job in jobs] == [0.0, pytest.approx(0.6)]
    wide = lines(before, now, 0.0, 120)
    assert wide[5].split() == [
        "JOB",
        "NAME",
        "USER",
        "WT",
        "STATE",
        "SHARE",
        "WAIT",
        "EACH",
        "LOST",
        "MEM",
        "RES",
        "HOST",
        "REASON",
    ]
    assert wide[6].split()[:8] == ["j1", "train", "alice", "3", "running", "80%", "0%", "-"]
    assert wide[7].split()[:8] == ["j2", "evaluation", "alice", "1", "waiting", "0%", "60%", "38ms"]
    narrow = lines(before, now, 0.0, 80)
    assert "EACH" not in narrow[5] and "WAIT" in narrow[5] and max(map(len, narrow)) <= 80


def test_several_gpus_are_told_apart() -> None:
    job = {**JOB, "gpu": [1]}
    several = Look(1.0, {"daemon": DAEMON, "gpus": [GPU, {**GPU, "uuid": "GPU-1", "index": 1}], "jobs": [job]})
    text = lines(several, several, 0.0, 120)
    assert text[6].split()[:5] == ["JOB", "NAME", "USER", "GPU", "STATE"] and text[7].split()[3] == "1"


def test_a_gpu_on_its_way_says_to_whom() -> None:
    under_way = look(2.0, [WAITING], holder=None, next="j2")
    assert lines(under_way, under_way, 0.0, 80)[3].split()[-2:] == ["->j2", "j2"]


def test_large_values_fit_into_80_characters() -> None:
    big = {
        "memory_used": 79 << 30,
        "memory_total": 80 << 30,
        "swapped": 160 << 30,
        "queue": [f"j{n}" for n in range(9)],
    }
    job = {**JOB, "job": "j123456", "name": "n" * 64, "user": "somebody-else", "gpu": [0, 1], "state": "recovering",
           "charged": 160 << 30, "resident": 80 << 30, "arena": 80 << 30, "reason": "r" * 200}  # fmt: skip
    text = lines(look(1.0, [job], **big), look(2.0, [job], **big), 0.0, 80)
    assert "+6" in "".join(lines(look(1.0, [job], **big), look(2.0, [job], **big), 0.0, 120))
    assert max(map(len, text)) <= 80, text


def test_a_window_that_is_too_low_says_so() -> None:
    jobs = [{**JOB, "job": f"j{number}"} for number in range(30)]
    text = lines(look(1, jobs), look(2, jobs), 0.0, 80, 12)
    assert len(text) == 12
    assert text[-1] == "... 25 more jobs: make the window higher, or see 'gpuvirt ps'"


def test_nothing_there() -> None:
    empty = Look(1.0, {"daemon": {}, "gpus": [], "jobs": []})
    text = "\n".join(lines(empty, empty, 0.0, 80))
    assert "no GPU" in text and "no jobs" in text


def test_a_daemon_that_recovers_is_said() -> None:
    there = Look(1.0, {"daemon": {**DAEMON, "state": "recovering"}, "gpus": [GPU], "jobs": []})
    assert lines(there, there, 0.0, 80)[0].endswith("recovering")


def test_names_of_others_cannot_write_to_the_terminal() -> None:
    evil = {**JOB, "name": "\x1b[2J", "reason": "\x1b]0;x\x07"}
    text = "\n".join(lines(look(1, [evil]), look(2, [evil]), 0.0, 120, colour=False))
    assert "\x1b" not in text


@given(width=st.integers(40, 200), height=st.integers(1, 60), count=st.integers(0, 40))
def test_no_window_is_overrun(width: int, height: int, count: int) -> None:
    jobs = [{**JOB, "job": f"j{number}", "reason": "x" * number} for number in range(count)]
    text = lines(look(1, jobs), look(2, jobs), 0.0, width, height)
    assert len(text) <= height
    if width >= 80:
        assert max(map(len, text)) <= width
