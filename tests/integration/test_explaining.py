# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt why` and `gpuvirt trace` of jobs that do not fit together: that they say what is so."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

from support.host import BIN, MIB, Host
from support.pftrace import Track, read

HELD = ("alone", "held", "grows", "step", "drain")
NAMES = ("first", "second", "third")


def gpuvirt(machine: Host, *arguments: str) -> str:
    command, environ = [str(BIN / "gpuvirt"), *arguments], machine.environ(COLUMNS="120")
    done = subprocess.run(command, env=environ, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def swapping(machine: Host) -> dict[str, str]:
    """Three jobs of 100 MiB on 256, of which each has had the GPU some times; {name: id}."""
    for name in NAMES:
        machine.job("mixer.py", "--memory", "100", "--seconds", "100", name=name).wait_for("step 1")
    rows = lambda: {row["name"]: row for row in machine.status()["jobs"]}  # noqa: E731
    machine.until(lambda: all(row["switches"] >= 3 for row in rows().values()), "some turns of each", 60)
    return {name: row["job"] for name, row in rows().items()}


def why(machine: Host, job: str) -> dict[str, Any]:
    answer: dict[str, Any] = machine.admin.call("why", job=job)["why"]
    return answer


def test_why_a_job_waits(machine: Host) -> None:
    ids = swapping(machine)

    def waits() -> dict[str, Any] | None:
        answers = [why(machine, job) for job in ids.values()]
        return next((one for one in answers if one["gpus"] and one["gpus"][0]["waiting"]), None)

    answer = machine.until(waits, "one that waits")
    [part] = answer["gpus"]
    assert part["names"] == {job: name for name, job in ids.items()}
    assert part["policy"] == "fair" and part["standing"].startswith("weight 1: ")
    assert 1 <= part["position"] <= 3 and part["position"] == len(part["ahead"]) + 1
    assert answer["job"] not in part["ahead"] and set(part["ahead"]) <= set(ids.values())
    assert part["lately"]["turns"] >= 1 and 0 < part["lately"]["median_s"] <= part["lately"]["longest_s"]
    assert part["holder"] is None or part["holder"]["job"] in set(ids.values()) - {answer["job"]}
    told = machine.until(lambda: next((one for one in map(expected, waiting(machine, ids)) if one), None), "a forecast")
    assert 0 < told < 60, "turns here are of 30 ms and more"
    for name in NAMES:
        text = gpuvirt(machine, "why", name)
        assert text.startswith(f"{name} ({ids[name]}) of ") and "holder" in text and "None" not in text
        assert "  policy     fair: weight 1: " in text
    assert json.loads(gpuvirt(machine, "why", ids["first"], "-o", "json"))["name"] == "first"


def waiting(machine: Host, ids: dict[str, str]) -> list[dict[str, Any]]:
    return [part for job in ids.values() for part in why(machine, job)["gpus"] if part["waiting"]]


def expected(part: dict[str, Any]) -> float | None:
    found: float | None = part["expected_s"]
    return found


def test_a_job_alone_and_one_that_has_ended(machine: Host) -> None:
    job = machine.job("mixer.py", "--memory", "8", "--seconds", "2", name="alone")
    job.wait_for("step 1")
    [part] = why(machine, "alone")["gpus"]
    assert not part["waiting"] and part["queue"] == 0
    assert part["memory"]["missing"] == part["memory"]["leaves"] == 0
    assert job.wait() == 0
    machine.until(lambda: machine.job_named("alone")["state"] == "ended", "its end")
    done = subprocess.run(
        [str(BIN / "gpuvirt"), "why", "alone"], env=machine.environ(), capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 1 and "has ended" in done.stderr and done.stderr.count("\n") == 1


def test_a_trace_of_it_all(machine: Host, tmp_path: Path) -> None:
    ids = swapping(machine)
    path = tmp_path / "demo.pftrace"
    assert "open it at https://ui.perfetto.dev" in gpuvirt(machine, "trace", "--last", "100s", "-o", str(path))
    tracks, _ = read(path.read_bytes())
    gpu = next(name for parent, name in tracks if parent is None and name.startswith("GPU 0"))
    lease = [
        one for (parent, name), track in tracks.items() if parent == gpu and "lease" in name for one in track.slices
    ]
    lease.sort(key=lambda one: one.begin)
    assert {one.arguments["job"] for one in lease} == set(ids.values())
    for name, job in ids.items():
        group = f"{name} ({job})"
        own = tracks[group, "lease"].slices
        mine = [(one.begin, one.end) for one in lease if one.arguments["job"] == job]
        assert [(one.begin, one.end) for one in own if one.name in HELD] == mine, "both tracks say the same"
        assert {one.name for one in own} <= {*HELD, "waits", "waits for memory"}
        assert any(one.name == "waits" for one in own), "the others had it meanwhile"
        swaps(next(track for (parent, title), track in tracks.items() if parent == group and "swaps" in title))
        points = tracks[group, "on the device"].points
        assert points and all(0 <= size <= 110 * MIB for _, size in points)
    leaves = {flow for track in tracks.values() for one in track.slices for flow in one.flows}
    arrives = {flow for track in tracks.values() for one in track.slices for flow in one.ends}
    assert leaves == arrives and len(leaves) >= 2, "an arrow from job to job"
    assert tracks[gpu, "hand-over"].slices and tracks[gpu, "memory moved"].slices


def swaps(track: Track) -> None:
    """Of one process: what leaves gets less, what comes gets more."""
    done = [one for one in track.slices if one.end is not None and one.arguments]
    assert any(one.name == "evict" for one in done) or any(one.name == "restore" for one in done)
    for one in done:
        before, after = (one.arguments[f"resident_{when}_bytes"] for when in ("before", "after"))
        assert set(one.arguments) > {"copied_bytes", "saved_bytes", "status"}
        if one.name == "evict":
            assert after <= before
        if one.name == "restore":
            assert after >= before
