#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What gpuvirt costs a job that has the GPU to itself, and what the daemon costs while nobody wants anything.

What the calls cost: one process under gpuvirt does a few milliseconds of the same work by turns, once as every program
does, and once with its calls going around the shim to the driver itself. The overhead is the median over pairs of
turns. The soft GPU takes a launch in a fortieth of the time of a real driver: so the same is measured with its model of
what a launch costs there (4 us), and that is what must hold.

Beside it, not bounded: against the same program in a process of its own, without gpuvirt. Two processes differ by more
than the bound is; to show by how much, that one is compared with the same program with a library preloaded that has
nothing but a thread that sleeps.

Then threads that the shim adds, and the daemon's processor time.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from harness import bench, cpu, probes, record
from harness.daemon import Daemon
from harness.slices import Sliced
from harness.softgpu import Device, soft_gpu

MEMORY = 64 << 20
WORKS = {"launches": "launch-bound loop", "trips": "a launch and a wait, again and again", "steps": "training"}
SLICE_S = 0.005
PROCESSES, PAIRS = 6, 150  # pairs of turns of each pair of processes, and work
IDLE_S, IDLE_JOBS = 10.0, 8
SCRAPE_EVERY_S = 1.0
BOUNDS = {"solo_overhead_pct": 0.5, "daemon_idle_cpu_pct": 0.5, "shim_threads_alone": 0.0}
BOUND_WORKS = ("launches", "steps")  # those that the bound is for; a trip is the soft GPU's own wake-up time, mostly
MODELS = {"soft": {}, "as on a card": {"GPUVIRT_SOFTGPU_MODEL": "launch"}}
BOUND_MODEL = "as on a card"


SLEEPER = """
#include <pthread.h>
#include <unistd.h>
static void *asleep(void *unused)
{
    for (;;)
        pause();
    return unused;
}
__attribute__((constructor)) static void begin(void)
{
    pthread_t thread;
    pthread_create(&thread, NULL, asleep, NULL);
}
"""


class Trio:
    """A process under gpuvirt, one without, and one without that has another library preloaded."""

    def __init__(self, work: bench.Bench, daemon: Daemon, bare: Device, number: int) -> None:
        program, interrupts = [str(work.scratch / "alone")], work.children.interrupts
        assert bare.drivers is not None
        command = daemon.run_command(f"alone{number}", [*program, str(bare.drivers / "libcuda.so.1")])
        self.shim = Sliced(command, daemon.environ(), interrupts)
        self.bare = Sliced(program, bare.environ(), interrupts)
        self.sleeper = Sliced(program, bare.environ({"LD_PRELOAD": str(sleeper(work))}), interrupts)

    def __enter__(self) -> Trio:
        try:
            for one in (self.shim, self.bare, self.sleeper):
                one.ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for one in (self.shim, self.bare, self.sleeper):
            one.close()

    def compare(self, what: str, pairs: int, processes: bool) -> dict[str, float]:
        """Percent that the work took more: medians over pairs of turns, wall time but for `calls_cpu`."""
        through, around = (self.shim, what), (self.shim, f"around {what}")
        bare, sleeping = (self.bare, what), (self.sleeper, what)
        took = min(self.bare.slice(what, 20)[0] for _ in range(5))
        count = max(1, round(20 * SLICE_S * 1e9 / took))
        calls, calls_cpu = by_turns(through, around, count, pairs)
        found = {"calls": calls, "calls_cpu": calls_cpu}
        if processes:
            found["process"], _ = by_turns(through, bare, count, pairs)
            found["sleeper"], _ = by_turns(sleeping, bare, count, pairs)
        return found


Work = tuple[Sliced, str]


def by_turns(one: Work, other: Work, count: int, pairs: int) -> tuple[float, float]:
    """Percent of wall time and of processor time that the one took more than the other: medians of pairs of turns."""
    wall, processor = [], []
    for turn in range(pairs):
        times = {
            (process, what): process.slice(what, count)
            for process, what in ((one, other) if turn % 2 == 0 else (other, one))
        }
        wall.append(100 * (times[one][0] / times[other][0] - 1))
        processor.append(100 * (times[one][1] / times[other][1] - 1))
    return statistics.median(wall), statistics.median(processor)


def sleeper(work: bench.Bench) -> Path:
    """A library that does nothing but start a thread that sleeps. Raises ProbeFailed."""
    library, source = work.scratch / "sleeper.so", work.scratch / "sleeper.c"
    if not library.exists():
        source.write_text(SLEEPER)
        command = ["cc", "-shared", "-fPIC", "-O2", "-o", str(library), str(source), "-pthread"]
        if subprocess.run(command, check=False).returncode != 0:
            raise probes.ProbeFailed("the library with a thread that sleeps does not compile")
    return library


def solo(work: bench.Bench, model: str, processes: int, pairs: int) -> dict[str, Any]:
    """Overheads of each work, and threads alone and beside another job. Raises ProbeFailed."""
    device, bare = (
        soft_gpu(work.scratch, MEMORY, MODELS[model], board=f"board-{side}-{len(model)}") for side in ("ours", "bare")
    )
    daemon = Daemon(work.scratch / f"run-{len(model)}", device, None)
    serving = daemon.start(work.children)
    found: dict[str, list[dict[str, float]]] = {what: [] for what in WORKS}
    threads: dict[str, int] = {}
    for number in range(processes):
        work.say(f"alone ({model}): processes {number + 1} of {processes}")
        with Trio(work, daemon, bare, number) as trio:
            for what in WORKS:
                found[what].append(trio.compare(what, pairs, model == BOUND_MODEL))
            if number == 0:
                threads = added_threads(work, daemon, trio)
    if sum(float(row["busy_s"]) for row in daemon.jobs()) == 0.0:
        raise probes.ProbeFailed("the shim reported no work: it was not in the way")
    serving.stop()
    return {
        "overhead_pct": {
            what: {name: statistics.median(row[name] for row in rows) for name in rows[0]}
            for what, rows in found.items()
        },
        "by_process": found,
        "threads": threads,
    }


def added_threads(work: bench.Bench, daemon: Daemon, pair: Trio) -> dict[str, int]:
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
            *(
                f"{found['overhead_pct'][what][name]:+.2f} %" if name in found["overhead_pct"][what] else ""
                for name in ("calls", "calls_cpu", "process", "sleeper")
            ),
        )
        for model, found in alone.items()
        for what, title in WORKS.items()
    ]
    print(f"A job alone on a {work.device.name}, under gpuvirt: medians of pairs of turns of 5 ms, then of processes.")
    header = ("", "its calls", "their processor time", "against another process", "that with a thread asleep")
    print(record.table(header, rows))
    held = alone[BOUND_MODEL]
    print(f"\nthreads that the shim adds: {', '.join(f'{count} {when}' for when, count in held['threads'].items())}")
    print()
    print(record.table(("daemon", "of one processor"), [(title, f"{pct:.2f} %") for title, pct in daemon.items()]))
    results: dict[str, Any] = {
        "solo_overhead_pct": max(held["overhead_pct"][what]["calls"] for what in BOUND_WORKS),
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
