# SPDX-License-Identifier: Apache-2.0
"""Training jobs of a given size and length, alone one after the other or together: programs/train_mlp.py."""

from __future__ import annotations

import json
import math
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from harness.daemon import Daemon
from harness.jobs import PROGRAMS
from harness.probes import ProbeFailed
from harness.processes import Child, Children
from harness.softgpu import Device

FEATURES, CLASSES = 256, 16
NETWORK_PART = 0.7  # of a job's memory: weights, gradients and Adam's two vectors; the rest is data set and activations
LIMIT = 600.0  # seconds for any one group of jobs


@dataclass(frozen=True)
class Training:
    """One job: its memory in bytes, the seed of data and weights, steps and samples of a step."""

    memory: int
    seed: int
    steps: int
    batch: int

    @property
    def hidden(self) -> int:
        """Width of the hidden layers, so that the network takes NETWORK_PART of the memory."""
        parameters = self.memory * NETWORK_PART / 16
        linear = FEATURES + CLASSES + 2
        return int((math.sqrt(linear**2 + 4 * parameters) - linear) / 2)

    def command(self, report: Path, *extra: str) -> list[str]:
        """Its command line."""
        options = {
            "--memory": f"{self.memory >> 20}M",
            "--seed": str(self.seed),
            "--steps": str(self.steps),
            "--batch": str(self.batch),
            "--hidden": str(self.hidden),
            "--features": str(FEATURES),
            "--every": "1000000",
            "--json": str(report),
        }
        words = [word for pair in options.items() for word in pair]
        return [sys.executable, str(PROGRAMS / "train_mlp.py"), *words, *extra]


@dataclass(frozen=True)
class Trained:
    """What a job reported: its result, when (CLOCK_MONOTONIC ns) and for how long (s) it trained; start to end (s)."""

    result: str
    began: int
    ended: int
    seconds: float
    wall: float

    @classmethod
    def read(cls, file: Path, child: Child) -> Trained:
        """Raises ProbeFailed when the job failed."""
        if child.exit_code != 0:
            said = child.lines[-1] if child.lines else "it said nothing"
            raise ProbeFailed(f"{child.name} ended with {child.exit_code}: {said}")
        fields: dict[str, Any] = json.loads(file.read_text())
        times = int(fields["began_ns"]), int(fields["ended_ns"])
        return cls(str(fields["result"]), *times, float(fields["run_s"]), child.seconds)


def alone(children: Children, device: Device, scratch: Path, job: Training) -> Trained:
    """The job with the GPU to itself, without gpuvirt. Raises ProbeFailed."""
    file = scratch / "alone.json"
    child = children.start(f"job {job.seed} alone", job.command(file), device.environ())
    if not children.wait(child, LIMIT):
        child.stop()
    return Trained.read(file, child)


def together(children: Children, daemon: Daemon, scratch: Path, jobs: list[Training]) -> list[Trained]:
    """All jobs under gpuvirt: they set themselves up, then all begin to train at once. Raises ProbeFailed."""
    go = scratch / "go"
    go.unlink(missing_ok=True)
    files = [scratch / f"together-{index}.json" for index in range(len(jobs))]
    running = []
    for index, (job, file) in enumerate(zip(jobs, files, strict=True)):
        command = daemon.run_command(f"train{index}", job.command(file, "--wait-for", str(go)))
        running.append(children.start(f"train{index}", command, daemon.environ()))
    for child in running:
        if not children.wait(child, LIMIT, until="ready"):
            raise ProbeFailed(f"{child.name} did not get ready: {child.lines[-1] if child.lines else 'no output'}")
    go.touch()
    for child in running:
        if not children.wait(child, LIMIT):
            child.stop()
    return [Trained.read(file, child) for file, child in zip(files, running, strict=True)]
