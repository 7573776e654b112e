#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How long a GPU stands still when it goes from job to job and nothing has to be swapped.

Jobs that never pause; a hand-over is the time from the last kernel of one that ended to the first launch of the next
that passed, both as the jobs saw it: telling the giver, its drain, the daemon, waking the taker are all in it. (Where
threads wait for a processor the giver may see its end late: overlaps.) Metrics are scraped meanwhile. In a run of its
own the daemon's debug log says how much of it is the drain, and how much the daemon.
"""

from __future__ import annotations

import statistics
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from gpuvirt.errors import GpuvirtError
from harness import bench, cpu, probes, record, shares, switches, turns
from harness.daemon import Daemon
from harness.ledger import Ledger
from harness.sides import Job, Sides

MEMORY = 64 << 20
JOBS = (2, 8)
SECONDS, QUICK_SECONDS, WARM_S = 20.0, 1.5, 0.5
BLOCK_NS, LONG_US = 20_000, 80
SCRAPE_S = 1.0
BOUNDS = {"handoff_p50_us": 150.0, "handoff_p99_us": 2000.0}
LOG = {"daemon": {"log_level": "debug", "log_format": "json"}}
PARTS = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}


@contextmanager
def scraped(daemon: Daemon) -> Iterator[list[float]]:
    """Asks for the metrics every SCRAPE_S; yields the milliseconds that each answer took."""
    took: list[float] = []
    over = threading.Event()

    def scrape() -> None:
        while not over.wait(SCRAPE_S):
            began = time.monotonic()
            try:
                daemon.metrics()
            except GpuvirtError:
                continue
            took.append(1e3 * (time.monotonic() - began))

    thread = threading.Thread(target=scrape)
    thread.start()
    try:
        yield took
    finally:
        over.set()
        thread.join()


def case(sides: Sides, count: int, seconds: float, log: bool) -> dict[str, Any]:
    """`count` jobs side by side. Raises ProbeFailed or GpuvirtError."""
    sides.settings = LOG if log else {}
    job = Job(sides.work.scratch / "handoff", (str(BLOCK_NS), str(LONG_US)))
    offset = time.clock_gettime_ns(time.CLOCK_REALTIME) - time.clock_gettime_ns(time.CLOCK_MONOTONIC)
    with sides.group([job] * count, gpuvirt=True) as (group, daemon):
        assert daemon is not None
        group.run(WARM_S)
        group.progress()
        before, began = cpu.spent([*group.pids, daemon.pid]), time.monotonic()
        with scraped(daemon) as took:
            group.run(seconds)
            group.progress()
            group.progress()
        waited = (cpu.spent([*group.pids, daemon.pid]) - before).wait_ns / 1e9 / (time.monotonic() - began)
        group.stop()
        answers = [probes.answer(child)["turns"] for child in group.running]
        seen = {f"job{i}": [(int(a), int(b)) for a, b in spans] for i, spans in enumerate(answers)}
        lines = daemon.log_lines()
    found: dict[str, Any] = {"jobs": count, "scrape_ms": took, "cpu_wait_pct": 100 * waited}
    gaps = [over.gap / 1e3 for over in turns.hand_overs(seen)]
    if not gaps:
        raise probes.ProbeFailed("the jobs never took turns")
    found |= {"count": len(gaps), "overlaps": sum(gap < 0 for gap in gaps)}
    found["handoff_us"] = {name: shares.percentile(gaps, part) for name, part in PARTS.items()}
    if log:
        found["stages_us"] = stages(switches.switches(switches.read(lines, offset)))
    return found


def stages(all_switches: list[switches.Switch]) -> dict[str, dict[str, float]]:
    """By the daemon's log: from DRAIN to drained, from there to the next grant."""
    if not all_switches:
        raise probes.ProbeFailed("the daemon's log has no switches")
    told = [(one.drained - one.told) / 1e3 for one in all_switches]
    granted = [(one.granted - one.drained) / 1e3 for one in all_switches]
    named = {"drain": told, "grant": granted}
    return {stage: {name: shares.percentile(us, part) for name, part in PARTS.items()} for stage, us in named.items()}


def row(name: str, values: Mapping[str, float], more: tuple[str, ...]) -> tuple[str, ...]:
    return (name, *(f"{values[part]:.0f}" for part in PARTS), *more)


def measure(work: bench.Bench) -> dict[str, Any]:
    """2 and 8 jobs, then the stages. Raises ProbeFailed or GpuvirtError."""
    probes.build("handoff", work.scratch)
    sides, quick = Sides(work, Ledger(work.device)), work.options.quick
    seconds, counts = (QUICK_SECONDS, (3,)) if quick else (SECONDS, JOBS)
    rows, cases = [], {}
    for count in counts:
        work.say(f"{count} jobs")
        found = case(sides, count, seconds, log=False)
        cases[str(count)] = found
        scrape = f"{statistics.median(found['scrape_ms']):.1f} ms" if found["scrape_ms"] else ""
        more = (str(found["count"]), str(found["overlaps"]), scrape, f"{found['cpu_wait_pct']:.0f} %")
        rows.append(row(f"{count} jobs", found["handoff_us"], more))
    work.say(f"{counts[-1]} jobs with the daemon's log")
    logged = case(sides, counts[-1], seconds, log=True)
    print(f"Hand-overs in us on a {work.device.name}, nothing to swap, {seconds:g} s each; metrics scraped each second")
    print(record.table(("", *PARTS, "of", "overlaps", "a scrape", "no processor"), rows))
    print(f"\nStages by the daemon's debug log, {counts[-1]} jobs, us (the log itself takes time):")
    drains = [row(name, values, ()) for name, values in logged["stages_us"].items()]
    print(record.table(("", *PARTS), [row("whole", logged["handoff_us"], ()), *drains]))
    print(
        '"no processor": time in which threads of jobs and daemon could have run and had no processor, over the time.\n'
    )
    last = cases[str(counts[-1])]["handoff_us"]
    results = {"handoff_p50_us": last["p50"], "handoff_p99_us": last["p99"], "cases": cases, "logged": logged}
    checks = [
        (name, f"{results[name]:.0f}", f"{bound:g}", "holds" if results[name] <= bound else "FAILS")
        for name, bound in BOUNDS.items()
    ]
    print(record.table(("", "measured", "at most", ""), checks))
    return results


def options() -> Any:
    """The command line."""
    parser = record.parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="three jobs, short: for tests")
    return parser


if __name__ == "__main__":
    sys.exit(bench.run("handoff", options(), MEMORY, measure, tuple(BOUNDS)))
