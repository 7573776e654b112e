# SPDX-License-Identifier: Apache-2.0
"""A plain model of the device memory of several jobs, and the jobs that it is compared with (memory_model.c).

The model has the content of every allocation as an array. A step is chosen by a seeded generator, carried out in the
model and sent to the job; the answer is read when the same job is used again, so that jobs run side by side. The choice
depends on the seed and on which allocations were refused, and those by the job's own limit alone: a failing sequence
can be run again.
"""

from __future__ import annotations

import random
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from support.host import BIN, MIB, Host
from support.native import build

SLOTS = 40  # allocations of a job at a time
ODD = 0x9E3779B1
SLACK = 2 * 4 * MIB  # an allocation of the device below may bring two coarse extents more into use than its own bytes
DEVICE = 128 * MIB
LIMITS = (48 * MIB, 64 * MIB, 80 * MIB, 112 * MIB)


class ModelError(AssertionError):
    """Job and model disagree; the message says about what."""


@dataclass
class Job:
    """One running job, what the model knows of it, and the answer that is still to be read."""

    name: str
    process: subprocess.Popen[str]
    limit: int
    items: dict[int, np.ndarray[Any, Any]] = field(default_factory=dict)
    expected: Callable[[list[str]], None] | None = None  # of the outstanding answer
    sent: str = ""

    def send(self, line: str, expected: Callable[[list[str]], None]) -> None:
        """Sends a line; its answer is checked at the next `settle`."""
        self.settle()
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()
        self.sent, self.expected = line, expected

    def settle(self) -> None:
        """Reads and checks the answer that is outstanding. Raises ModelError."""
        if self.expected is None:
            return
        assert self.process.stdout is not None
        answer = self.process.stdout.readline().split()
        expected, self.expected = self.expected, None
        if not answer or answer[0] not in ("ok", "oom"):
            rest = "" if answer else f"it ended ({self.process.wait(10)})"
            raise ModelError(f"{self.name}: '{self.sent}' was answered: {' '.join(answer)}{rest}")
        expected(answer)

    def ask(self, line: str) -> list[int]:
        """The numbers of the answer."""
        found: list[list[str]] = []
        self.send(line, found.append)
        self.settle()
        return [int(word) for word in found[0][1:]]

    @property
    def asked(self) -> int:
        """Bytes of all its allocations."""
        return sum(4 * len(words) for words in self.items.values())


def digest(words: np.ndarray[Any, Any]) -> int:
    """What the program answers to `r`."""
    weights = np.arange(len(words), dtype=np.uint64) * np.uint64(2) + np.uint64(1)
    return int((words.astype(np.uint64) * weights).sum(dtype=np.uint64))


def nothing(answer: list[str]) -> None:
    """The answer says nothing but `ok`. Raises ModelError."""
    if answer[0] != "ok":
        raise ModelError(f"refused: {answer}")


class Model:
    """Several jobs on one GPU that they do not fit on together."""

    def __init__(self, machine: Host, seed: int, jobs: int) -> None:
        self._machine = machine
        self._random = random.Random(seed)
        self._program = str(build("") / "tests" / "shim" / "memory_model")
        self._started = 0
        self.history: list[str] = []
        self.jobs = [self._start() for _ in range(jobs)]
        self._current = self.jobs[0]
        self.counts: dict[str, int] = {}

    # ---- jobs

    def _start(self) -> Job:
        self._started += 1
        name, limit = f"model-{self._started}", self._random.choice(LIMITS)
        command = [str(BIN / "gpuvirt"), "run", "--name", name, "--memory", str(limit), "--", self._program]
        process = subprocess.Popen(
            command, env=self._machine.environ(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        job = Job(name, process, limit, expected=nothing, sent="its start")
        job.settle()
        return job

    def close(self) -> None:
        """Ends all jobs, whatever state they are in."""
        for job in self.jobs:
            job.process.kill()
            job.process.wait(20)

    def end(self) -> None:
        """All jobs end by themselves."""
        self.settle()
        for job in self.jobs:
            assert job.process.stdin is not None
            job.process.stdin.close()
            if job.process.wait(30) != 0:
                raise ModelError(f"{job.name} ended with {job.process.returncode}")

    def settle(self) -> None:
        """Reads all answers that are outstanding."""
        for job in self.jobs:
            job.settle()

    # ---- steps

    def step(self) -> None:
        """One random step of one job; mostly of the same as the last one, as a switch costs time."""
        if self._random.random() < 0.1:
            self._current = self._random.choice(self.jobs)
        job = self._current
        job.settle()
        kinds = ("allocate", "free", "write", "set", "copy", "launch", "read", "info", "limit", "kill")
        weights = (24, 13, 6, 16, 12, 12, 10, 3, 0.6, 0.12)
        kind = self._random.choices(kinds, weights)[0]
        if not job.items and kind not in ("info", "limit", "kill"):
            kind = "allocate"
        if kind == "free" and job.asked < job.limit * 0.7:
            kind = "allocate"  # together they shall need more than the device has
        self.counts[kind] = self.counts.get(kind, 0) + 1
        getattr(self, f"_{kind}")(job)

    def _send(self, job: Job, line: str, expected: Callable[[list[str]], None] = nothing) -> None:
        self.history.append(f"{job.name}: {line}")
        job.send(line, expected)

    def _pick(self, job: Job) -> tuple[int, np.ndarray[Any, Any]]:
        return self._random.choice(list(job.items.items()))

    def _part(self, count: int) -> tuple[int, int]:
        first = self._random.randrange(count)
        return first, self._random.randint(1, count - first)

    def _allocate(self, job: Job) -> None:
        slot = self._random.randrange(SLOTS)
        if slot in job.items:
            self._free(job, slot)
            return
        most = self._random.choices((2_000, 60_000, MIB, 5 * MIB, 12 * MIB, 40 * MIB), (14, 14, 24, 26, 16, 6))[0]
        size = self._random.randint(1, most // 4) * 4
        kind, value = self._random.choices("dpm", (5, 4, 1))[0], self._random.getrandbits(32)

        def answered(answer: list[str]) -> None:
            if answer[0] == "ok":
                job.items[slot] = np.full(int(answer[1]) // 4, value, np.uint32)
                if job.asked > max(job.limit, before):
                    raise ModelError(f"{job.name} has {job.asked} bytes with a limit of {job.limit}")
                return
            left, _ = job.ask("i")
            if left >= size + SLACK:
                raise ModelError(f"{job.name}: {size} bytes were refused with {left} free")

        before = job.asked
        self._send(job, f"a {slot} {kind} {size} {value}", answered)
        job.settle()  # what comes next depends on the answer

    def _free(self, job: Job, slot: int | None = None) -> None:
        slot = self._pick(job)[0] if slot is None else slot
        del job.items[slot]
        self._send(job, f"f {slot}")

    def _write(self, job: Job) -> None:
        slot, words = self._pick(job)
        value = self._random.getrandbits(32)
        words[:] = np.uint32(value) + np.arange(len(words), dtype=np.uint32) * np.uint32(ODD)
        self._send(job, f"w {slot} {value}")

    def _set(self, job: Job) -> None:
        slot, words = self._pick(job)
        first, count = self._part(len(words))
        value = self._random.choice((0, self._random.getrandbits(32)))
        words[first : first + count] = value
        self._send(job, f"s {slot} {first} {count} {value}")

    def _copy(self, job: Job) -> None:
        (to, target), (source, words) = self._pick(job), self._pick(job)
        if to == source:
            return
        count = self._random.randint(1, min(len(target), len(words)))
        at, begin = self._random.randint(0, len(target) - count), self._random.randint(0, len(words) - count)
        target[at : at + count] = words[begin : begin + count]
        self._send(job, f"c {to} {at} {source} {begin} {count}")

    def _launch(self, job: Job) -> None:
        slot, words = self._pick(job)
        count = self._random.randint(1, min(len(words), 65_536))
        index = np.arange(count, dtype=np.uint32)
        words[:count] = words[:count] * np.uint32(1664525) + np.uint32(1013904223) + index
        self._send(job, f"k {slot} {count}")

    def _read(self, job: Job, slot: int | None = None) -> None:
        slot = self._pick(job)[0] if slot is None else slot
        expected = digest(job.items[slot])

        def answered(answer: list[str]) -> None:
            if int(answer[1]) != expected:
                raise ModelError(f"{job.name}: the content of allocation {slot} is wrong")

        self._send(job, f"r {slot}", answered)

    def _info(self, job: Job) -> None:
        left, total = job.ask("i")
        self.history.append(f"{job.name}: i")
        if total > job.limit or total - left < min(job.asked, total):
            raise ModelError(f"{job.name}: {left} free of {total}; limit {job.limit}, allocated {job.asked}")

    def _limit(self, job: Job) -> None:
        job.limit = self._random.choice(LIMITS)
        self.history.append(f"{job.name}: limit {job.limit}")
        self._machine.admin.call("limit", job=job.name, memory=job.limit)

    def _kill(self, job: Job) -> None:
        """In the middle of whatever it does; another job takes its place."""
        if job.items and self._random.random() < 0.7:
            self._launch(job)
        self.history.append(f"{job.name}: kill")
        job.process.kill()  # `gpuvirt run` takes its child with it
        job.process.wait(20)
        self.jobs[self.jobs.index(job)] = self._current = self._start()

    # ---- comparisons

    def check_contents(self) -> None:
        """Every allocation of every job."""
        for job in self.jobs:
            for slot in list(job.items):
                self._read(job, slot)
        self.settle()

    def check_accounts(self) -> None:
        """What the daemon says is charged, against the model and the job's own view. All answers have been read."""
        for job in self.jobs:
            left, total = job.ask("i")
            # A process that is alone in its job tells the daemon when it next has to, or after half a second of quiet.
            self._machine.until(
                lambda job=job, left=left, total=total: left == max(0, total - self._row(job)["charged"]),
                f"{job.name} to be charged what it says: {left} free of {total}", 5.0,
            )  # fmt: skip
            row = self._row(job)
            quota, charged = row["memory_quota"], row["charged"]
            if not job.asked <= charged <= max(quota, self._bound(job)):
                raise ModelError(f"{job.name}: {charged} bytes charged for {job.asked}, quota {quota}")

    def _row(self, job: Job) -> dict[str, Any]:
        return self._machine.job_named(job.name)

    def _bound(self, job: Job) -> int:
        """No more than so much can be charged for what it has: each allocation rounded up to extents on both sides."""
        return sum(4 * len(words) + SLACK for words in job.items.values())
