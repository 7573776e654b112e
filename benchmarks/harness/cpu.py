# SPDX-License-Identifier: Apache-2.0
"""Processor time of processes, as the kernel counts it (/proc), and their threads."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Spent:
    """ns on a processor, and ns in which a thread could have run and had none."""

    run_ns: int = 0
    wait_ns: int = 0

    def __sub__(self, other: Spent) -> Spent:
        return Spent(self.run_ns - other.run_ns, self.wait_ns - other.wait_ns)


def threads(pid: int) -> list[str]:
    """Names of the threads of a process; empty when it is gone."""
    found = []
    for task in _tasks(pid):
        try:
            found.append((task / "comm").read_text().strip())
        except OSError:
            continue
    return found


def spent(pids: Iterable[int]) -> Spent:
    """Of all threads that live, together. What ended threads had is not in it."""
    run = wait = 0
    for pid in pids:
        for task in _tasks(pid):
            try:
                ran, waited, _ = (task / "schedstat").read_text().split()
            except (OSError, ValueError):
                continue
            run, wait = run + int(ran), wait + int(waited)
    return Spent(run, wait)


def _tasks(pid: int) -> list[Path]:
    try:
        return list(Path(f"/proc/{pid}/task").iterdir())
    except OSError:
        return []
