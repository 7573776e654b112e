#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What gpuvirt costs a job that has the GPU to itself, and what the daemon costs while nobody wants anything.

The same program without gpuvirt and under it, each on a GPU of its own, does a few milliseconds of the same work by
turns; the overhead is the median over pairs of turns. The soft GPU takes a launch in a fortieth of the time of a real
driver: so the same is measured with its model of what a launch costs there (4 us), and that is what must hold.

Then threads that the shim adds, and the daemon's processor time.
"""

from __future__ import annotations

import statistics
import sys
from typing import Any

from harness import bench, cpu, probes, record
from harness.daemon import Daemon
from harness.slices import Sliced
from harness.softgpu import Device, soft_gpu

MEMORY = 64 << 20
WORKS = {"launches": "launch-bound loop", "trips": "a launch and a wait, again and again", "steps": "training"}
SLICE_S = 0.005
PROCESSES, PAIRS = 6, 250  # pairs of turns of each pair of processes, and work
IDLE_S, IDLE_JOBS = 10.0, 8
SCRAPE_EVERY_S = 1.0
BOUNDS = {"solo_overhead_pct": 0.5, "daemon_idle_cpu_pct": 0.5, "shim_threads_alone": 0.0}
BOUND_WORKS = ("launches", "steps")  # those that the bound is for; a trip is the soft GPU's own wake-up time, mostly
MODELS = {"soft": {}, "as on a card": {"GPUVIRT_SOFTGPU_MODEL": "launch"}}
BOUND_MODEL = "as on a card"


class Pair:
    """A process without gpuvirt, one under it."""

    def __init__(self, work: bench.Bench, daemon: Daemon, bare: Device, number: int) -> None:
        program = [str(work.scratch / "alone")]
        self.bare = Sliced(program, bare.environ(), work.children.interrupts)
        self.shim = Sliced(daemon.run_command(f"alone{number}", program), daemon.environ(), work.children.interrupts)

    def __enter__(self) -> Pair:
        try:
            self.bare.ready()
            self.shim.ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.bare.close()
        self.shim.close()


def overheads(pair: Pair, what: str, pairs: int) -> dict[str, list[float]]:
    """Percent of wall time and of processor time that the one under gpuvirt took more, of each pair of turns."""
    took = min(pair.bare.slice(what, 20)[0] for _ in range(5))
    count = max(1, round(20 * SLICE_S * 1e9 / took))
    found: dict[str, list[float]] = {"wall": [], "cpu": []}
    for turn in range(pairs):
        first, second = (pair.bare, pair.shim) if turn % 2 == 0 else (pair.shim, pair.bare)
        times = {first: first.slice(what, count), second: second.slice(what, count)}
        (bare, bare_cpu), (shim, shim_cpu) = times[pair.bare], times[pair.shim]
        found["wall"].append(100 * (shim / bare - 1))
        found["cpu"].append(100 * (shim_cpu / bare_cpu - 1))
    return found


def solo(work: bench.Bench, model: str, processes: int, pairs: int) -> dict[str, Any]:
    """Overheads of each work, and threads alone and beside another job. Raises ProbeFailed."""
    device, bare = (
        soft_gpu(work.scratch, MEMORY, MODELS[model], board=f"board-{side}-{len(model)}") for side in ("ours", "bare")
    )
    daemon = Daemon(work.scratch / f"run-{len(model)}", device, None)
    serving = daemon.start(work.children)
    wall: dict[str, list[float]] = {what: [] for what in WORKS}
    processor: dict[str, list[float]] = {what: [] for what in WORKS}
    threads: dict[str, int] = {}
    for number in range(processes):
        work.say(f"alone ({model}): processes {number + 1} of {processes}")
        with Pair(work, daemon, bare, number) as pair:
            for what in WORKS:
                found = overheads(pair, what, pairs)
                wall[what].append(statistics.median(found["wall"]))
                processor[what].append(statistics.median(found["cpu"]))
            if number == 0:
                threads = added_threads(work, daemon, pair)
    if sum(float(row["busy_s"]) for row in daemon.jobs()) == 0.0:
        raise probes.ProbeFailed("the shim reported no work: it was not in the way")
    serving.stop()
    return {
        "overhead_pct": {what: statistics.median(values) for what, values in wall.items()},
        "overhead_cpu_pct": {what: statistics.median(values) for what, values in processor.items()},
        "by_process": wall,
        "threads": threads,
    }


def added_threads(work: bench.Bench, daemon: Daemon, pair: Pair) -> dict[str, int]:
    """Threads that a process has more under gpuvirt: alone, and when another job has worked beside it."""
    threads = {"alone": pair.shim.threads() - pair.bare.threads()}
    other = Sliced(daemon.run_command("other", pair.bare.command), daemon.environ(), work.children.interrupts)
    try:
        other.ready()
        other.slice("launches", 1000)
        pair.shim.slice("launches", 1000)
        threads["beside another"] = pair.shim.threads() - pair.bare.threads()
    finally:
        other.close()
    return threads


def idle(work: bench.Bench, seconds: float) -> dict[str, float]:
    """Percent of one processor that the daemon takes while nobody wants anything. Raises ProbeFailed."""
    daemon = Daemon(work.scratch / "run-idle", work.device, None)
    serving = daemon.start(work.children)
    found = {}

    def measure(title: str, scrape: bool = False) -> None:
        work.say(f"idle daemon, {title}")
        work.children.interrupts.sleep(1.0)
        before = cpu.spent([daemon.pid])
        for _ in range(max(1, round(seconds / SCRAPE_EVERY_S))):
            if scrape:
                daemon.metrics()
            work.children.interrupts.sleep(SCRAPE_EVERY_S)
        found[title] = 100 * (cpu.spent([daemon.pid]) - before).run_ns / 1e9 / seconds

    measure("no job")
    program = [str(work.scratch / "alone")]
    jobs = []
    try:
        for number in range(IDLE_JOBS):
            jobs.append(
                Sliced(daemon.run_command(f"idle{number}", program), daemon.environ(), work.children.interrupts)
            )
        for job in jobs:
            job.ready()
        measure(f"{IDLE_JOBS} idle jobs")
        measure(f"{IDLE_JOBS} idle jobs, metrics scraped every second", scrape=True)
    finally:
        for job in jobs:
            job.close()
    serving.stop()
    return found


def measure(work: bench.Bench) -> dict[str, Any]:
    """All of it. Raises ProbeFailed or GpuvirtError."""
    probes.build("alone", work.scratch)
    quick = work.options.quick
    models = (BOUND_MODEL,) if quick else tuple(MODELS)
    alone = {model: solo(work, model, *((1, 10) if quick else (PROCESSES, PAIRS))) for model in models}
    daemon = idle(work, 1.0 if quick else IDLE_S)
    rows = [
        (
            f"{title}, launches {model}",
            f"{found['overhead_pct'][what]:+.2f} %",
            f"{found['overhead_cpu_pct'][what]:+.2f} %",
        )
        for model, found in alone.items()
        for what, title in WORKS.items()
    ]
    print(f"A job alone on a {work.device.name}, under gpuvirt against without: medians of pairs of turns of 5 ms.")
    print(record.table(("", "time", "processor time"), rows))
    held = alone[BOUND_MODEL]
    print(f"\nthreads that the shim adds: {', '.join(f'{count} {when}' for when, count in held['threads'].items())}")
    print()
    print(record.table(("daemon", "of one processor"), [(title, f"{pct:.2f} %") for title, pct in daemon.items()]))
    results: dict[str, Any] = {
        "solo_overhead_pct": max(held["overhead_pct"][what] for what in BOUND_WORKS),
        "daemon_idle_cpu_pct": daemon[f"{IDLE_JOBS} idle jobs"],
        "shim_threads_alone": held["threads"]["alone"],
        "alone": alone,
        "daemon": daemon,
    }
    checks = [
        (name, f"{results[name]:.2f}", f"{bound:g}", "holds" if results[name] <= bound else "FAILS")
        for name, bound in BOUNDS.items()
    ]
    print()
    print(record.table(("", "measured", "at most", ""), checks))
    return results


def options() -> Any:
    """The command line."""
    parser = record.parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="one pair of processes, short: for tests")
    return parser


if __name__ == "__main__":
    sys.exit(bench.run("alone", options(), MEMORY, measure, tuple(BOUNDS)))
