# SPDX-License-Identifier: Apache-2.0
"""Tracks of what happened on the GPUs, made of the daemon's answers to `trace`. Pure: for `gpuvirt trace` and pictures.

A track has slices that follow each other, or points of a counter. Times are nanoseconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

HELD = ("alone", "held", "grows", "step", "drain")
WAITS = ("waits", "waits for memory")
Value = str | int | float | bool


@dataclass(slots=True)
class Slice:
    """Something that lasts. end None: it goes on. flow: the arrow that leaves here; ends: the one that arrives."""

    name: str
    begin: int
    end: int | None
    arguments: dict[str, Value] = field(default_factory=dict)
    flow: int | None = None
    ends: int | None = None


@dataclass(slots=True)
class Track:
    """One line of the picture."""

    group: str  # "GPU 0 (name)" or "train (j1)"
    name: str
    slices: list[Slice] = field(default_factory=list)
    points: list[tuple[int, int]] = field(default_factory=list)  # of a counter of bytes
    notes: list[tuple[int, str]] = field(default_factory=list)


@dataclass(slots=True)
class Part:
    """All answers about one GPU together: the first one, and the records of all."""

    head: Mapping[str, Any]
    records: list[dict[str, Any]]

    @classmethod
    def of(cls, answers: Sequence[Mapping[str, Any]]) -> Part:
        head = answers[0]
        rows = [row for answer in answers for row in answer["records"]]
        fields = head["fields"]
        return cls(head, [dict(zip(fields, row, strict=False)) for row in rows + list(head["open"])])


def tracks(parts: Sequence[Part]) -> list[Track]:
    """GPUs first, then jobs in the order in which they came; within a group in a fixed order."""
    found: list[Track] = []
    several = len(parts) > 1
    for part in parts:
        found += _gpu(part)
    jobs: dict[str, list[Track]] = {}
    for part in parts:
        for job, lines in _jobs(part, several).items():
            jobs.setdefault(job, []).extend(lines)
    for job in sorted(jobs, key=_number):
        found += jobs[job]
    return found


def label(part: Part, job: str) -> str:
    """ "train (j1)"; the id alone for one that the daemon has forgotten."""
    name = part.head["names"].get(job)
    return f"{name} ({job})" if name else job


def span(parts: Iterable[Part]) -> tuple[int, int]:
    """(first, last) moment that anything is known of; the last one is when the daemon answered."""
    begins = [row["begin"] for part in parts for row in part.records]
    last = max((int(part.head["now"]) for part in parts), default=0)
    return min(begins, default=last), last


def _number(job: str) -> tuple[int, str]:
    return (int(job[1:]) if job[1:].isdigit() else 0), job


def _end(row: Mapping[str, Any]) -> int | None:
    return int(row["end"]) or None


def _gpu(part: Part) -> list[Track]:
    gpu = part.head["gpu"]
    group = f"GPU {gpu['index']} ({gpu['name']})"
    lease, prepares, moved = Track(group, "lease"), Track(group, "hand-over"), Track(group, "memory moved")
    for row in part.records:
        if row["lane"] == "lease" and row["name"] in HELD:
            name = label(part, row["job"]) + ("" if row["name"] in ("alone", "held") else f": {row['name']}")
            arguments: dict[str, Value] = {"job": row["job"], "lease": row["name"], "epoch": row["epoch"]}
            lease.slices.append(Slice(name, row["begin"], _end(row), arguments))
        elif row["lane"] == "gpu":
            name = f"prepares {label(part, row['job'])}"
            prepares.slices.append(Slice(name, row["begin"], _end(row), {"job": row["job"]}))
    for row in part.head.get("switches", []):
        moved.slices.append(_switch(part, row))
    for track in (prepares, moved):
        track.slices.sort(key=lambda one: one.begin)
    return [*_side_by_side(lease), prepares, moved]


def _side_by_side(track: Track) -> list[Track]:
    """More than one track where slices overlap: one job's work ends while the next one has the GPU already."""
    found = [Track(track.group, track.name)]
    for one in sorted(track.slices, key=lambda one: (one.begin, one.arguments["lease"] == "drain")):
        free = (lane for lane in found if not lane.slices or (lane.slices[-1].end or one.begin + 1) <= one.begin)
        lane = next(free, None)
        if lane is None:
            lane = Track(track.group, f"{track.name}, beside it" + (f" {len(found)}" if len(found) > 1 else ""))
            found.append(lane)
        lane.slices.append(one)
    return found


def _switch(part: Part, row: Mapping[str, Any]) -> Slice:
    """A record of `gpuvirt switches` that moved memory."""
    end = int(part.head["now"] - row["age_s"] * 1e9)
    source = label(part, row["from"]) if row["from"] else "nobody"
    name = f"{source} to {label(part, row['to'])}" if row["kind"] == "turn" else f"room for {label(part, row['to'])}"
    arguments: dict[str, Value] = {"drain_ms": row["drain_s"] * 1e3, "stayed_bytes": int(row["stayed"])}
    for way in ("out", "in"):
        for kind in ("copied", "zero", "clean", "duplicate"):
            arguments[f"{way}_{kind}_bytes"] = int(row[way][kind])
    return Slice(name, end - int(row["delay_s"] * 1e9), end, arguments)


def _jobs(part: Part, several: bool) -> dict[str, list[Track]]:
    gpu = part.head["gpu"]["index"]
    where = f"GPU {gpu} " if several else ""
    lease: dict[str, Track] = {}
    memory: dict[str, Track] = {}
    swaps: dict[tuple[str, int], Track] = {}
    first = min((row["begin"] for row in part.records), default=part.head["now"])
    for row in part.records:
        job = row["job"]
        group = label(part, job)
        if row["lane"] == "lease":
            track = lease.setdefault(job, Track(group, f"{where}lease"))
            arguments: dict[str, Value] = {"gpu": gpu} | ({"epoch": row["epoch"]} if row["epoch"] else {})
            track.slices.append(Slice(row["name"], row["begin"], _end(row), arguments))
        elif row["lane"] == "note":
            lease.setdefault(job, Track(group, f"{where}lease")).notes.append((row["begin"], row["name"]))
        elif row["lane"] == "memory":
            memory.setdefault(job, Track(group, f"{where}on the device")).points.append((row["begin"], row["bytes"]))
        elif row["lane"] == "swap":
            pid = part.head["pids"].get(str(row["client"]))
            name = f"{where}swaps of {f'pid {pid}' if pid else 'client ' + str(row['client'])}"
            track = swaps.setdefault((job, row["client"]), Track(group, name))
            track.slices.append(Slice(row["name"], row["begin"], _end(row), _moved(row.get("moved"))))
    for job, size in part.head.get("resident", {}).items():
        if job not in memory:  # it has not changed
            memory[job] = Track(label(part, job), f"{where}on the device", points=[(first, size)])
    for track in [*lease.values(), *swaps.values()]:
        track.slices.sort(key=lambda one: one.begin)
    _arrows(int(gpu), lease)
    found: dict[str, list[Track]] = {}
    for job in lease.keys() | memory.keys() | {job for job, _ in swaps}:
        lines = [lease[job]] if job in lease else []
        lines += [swaps[key] for key in sorted(swaps) if key[0] == job]
        found[job] = lines + ([memory[job]] if job in memory else [])
    return found


def _moved(moved: Sequence[int] | None) -> dict[str, Value]:
    if not moved:
        return {}
    names = ("resident_before_bytes", "resident_after_bytes", "copied_bytes", "saved_bytes", "status")
    return dict(zip(names, map(int, moved), strict=False))


def _arrows(gpu: int, lease: Mapping[str, Track]) -> None:
    """From the last slice of who had the GPU to the first one of who got it next."""
    held = [(one.begin, job, one) for job, track in lease.items() for one in track.slices if one.name in HELD]
    held.sort(key=lambda row: (row[0], row[2].name != "drain", row[1]))
    for (_, before, source), (_, after, target) in itertools.pairwise(held):
        if before != after and source.flow is None and target.name != "drain":
            source.flow = target.ends = ((gpu + 1) << 48) | int(target.arguments.get("epoch", 0))
