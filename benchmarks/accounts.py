#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What it costs to keep the books at a hand-over: the live file, beside the decision itself and a commit to SQLite.

Jobs that always want the GPU hand it to each other on a simulated clock, by the real decisions and the real meter; only
what the daemon does between DRAINED and the next grant is timed.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

from gpuvirt.arbitration import events
from gpuvirt.arbitration.facts import MILLISECOND, SECOND, Client, Gpu
from gpuvirt.arbitration.lease import decide
from gpuvirtd.accounts.account import Account, Owner, Sums
from gpuvirtd.accounts.database import Database, Entry
from gpuvirtd.accounts.live import Live
from gpuvirtd.accounts.meter import Meter
from harness import bench, record

JOBS, HAND_OVERS, GPU = (2, 8, 32), 5000, "GPU-0"


class Keeper:
    """Keeps accounts in a live file, as the daemon does."""

    def __init__(self, live: Live) -> None:
        self.live = live

    def open(self, gpu: str, job: str) -> Account:
        """A new account."""
        account = Account(Owner(job, 0.0, job, 0, "somebody", gpu, 0))
        self.live.take(account)
        return account

    def save(self, account: Account) -> None:
        """Into the file."""
        self.live.put(account)

    def busy(self, account: Account, now: int) -> int:
        """Nobody is alone here."""
        return 0

    def missing(self, gpu: str, job: str) -> bool:
        """Nothing was before."""
        return False


def hand_overs(folder: Path, jobs: int) -> dict[str, Any]:
    """ns of the decision and of the books, and what the books say against the arbiter's own figures."""
    folder.mkdir()
    live, database = Live(folder / "live"), Database(folder / "db")
    meter, gpu, now = Meter(GPU, Keeper(live)), Gpu(GPU, 100), SECOND
    live.begin(now, now)
    for number in range(jobs):
        events.attach(gpu, f"j{number}", 1, Client(number))
        events.want(gpu, number, 0, 0, now)
    decided, kept, committed = [], [], []
    for turn in range(HAND_OVERS):
        decide(gpu, now)
        meter.look(gpu, now)
        assert gpu.holder is not None
        holder = gpu.contenders[gpu.holder]
        (number,) = holder.clients
        now = holder.deadline
        decide(gpu, now)  # DRAIN
        meter.look(gpu, now)
        now += MILLISECOND // 10
        events.want(gpu, number, 0, 0, now)
        events.drained(gpu, number, holder.epoch)
        began = time.perf_counter_ns()
        decide(gpu, now)
        middle = time.perf_counter_ns()
        meter.look(gpu, now)
        live.beat(now, now)
        decided.append(middle - began)
        kept.append(time.perf_counter_ns() - middle)
        if turn % 10 == 0:
            began = time.perf_counter_ns()
            sums = {key: account.until(now, 0) for key, account in meter.accounts.items()}
            moved = (holder.key, gpu.holder)
            database.enter([Entry(meter.accounts[key].owner, [(turn, sums[key])]) for key in moved if key is not None])
            committed.append(time.perf_counter_ns() - began)
    billed = sum(sum(account.until(now, 0)[:2]) for account in meter.accounts.values())
    survived = {account.owner.job: account.sums for account in Live(folder / "live").accounts()}
    database.close()
    return {
        "decision_us": record.spread([ns / 1e3 for ns in decided]),
        "books_us": record.spread([ns / 1e3 for ns in kept]),
        "commit_us": record.spread([ns / 1e3 for ns in committed]),
        "unbilled_ns": now - SECOND - billed,
        "in_the_file": survived == {key: Sums(*account.sums) for key, account in meter.accounts.items()},
    }


def measure(work: bench.Bench) -> dict[str, Any]:
    """By the number of jobs."""
    found = {jobs: hand_overs(work.scratch / str(jobs), jobs) for jobs in JOBS}
    rows = []
    for jobs, case in found.items():
        parts = (case["decision_us"], case["books_us"], case["commit_us"])
        times = [f"{part['median']:.1f}/{part['p95']:.1f}" for part in parts]
        rows.append((str(jobs), *times, str(case["unbilled_ns"]), "yes" if case["in_the_file"] else "no"))
    print(f"{HAND_OVERS} hand-overs between DRAINED and the next grant; us, median/p95.")
    print(record.table(("jobs", "decision", "books", "SQLite instead", "unbilled ns", "in the file"), rows))
    return {"hand_overs": HAND_OVERS, "cases": {str(jobs): case for jobs, case in found.items()}}


if __name__ == "__main__":
    sys.exit(bench.run("accounts", record.parser(__doc__), 1 << 20, measure))
