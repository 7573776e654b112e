#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a switch between two jobs that do not fit costs, against the best that the link between host and device allows.

Two jobs of the same size take turns (probes/pages.c). A switch is timed from the giver's last completed launch, or from
the moment at which the daemon took the GPU from it if that is later (an idle giver), to the first launch of the taker
that completed; so quanta and idle times are not in it, all else is. What had to move is what the daemon's ledger lacks:
both jobs less what the device has for jobs. First on the soft GPU's modelled link (--link), then without one, against
memcpy on one core. Every word is compared on the device in every turn.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpuvirt.units import format_size
from harness import bench, probes, record, switches, turns
from harness.daemon import Daemon
from harness.link import Link
from harness.processes import Children
from harness.softgpu import Device, soft_gpu

DEVICE, EACH_MIB = 512 << 20, 448
QUANTUM_MS, GAP_US = 400, 20000
SWITCHES, QUICK_SWITCHES = 10, 3  # of each kind and direction, at least
COLD = 2  # switches at the start that are left out: nothing had ever been copied before them
LIMIT = 120.0  # seconds for the switches of one kind
COPY_BYTES = 4 << 24  # of one repetition of loops memcpy
PLAIN_MIB, PIECE_KIB = 256, 2048  # of probes/link.c
KINDS = ("dirty", "clean", "zero", "same")
HEADLINE = (
    "out_share_of_link",
    "in_share_of_link",
    "switch_dirty_ratio",
    "switch_clean_ratio",
    "zero_over_copying",
    "duplicate_over_copying",
    "hash_errors",
    "verify_errors",
)


@dataclass(frozen=True)
class Timed:
    """One switch: seconds in all and of its parts, bytes that went over the link each way, by the daemon's log."""

    giver: str
    taker: str
    seconds: float
    drain: float  # from the word DRAIN to the last "drained"
    move: float  # from there to the grant
    first: float  # from the grant to the first completed launch
    out: int
    back: int
    log: switches.Switch


@dataclass(frozen=True)
class Seen:
    """What two jobs did to each other. deficit: bytes that both have beyond what the device has for jobs."""

    switches: list[Timed]
    deficit: int
    checked: bool
    errors: dict[str, int | None]


def errors_of(rows: list[dict[str, Any]]) -> dict[str, int | None]:
    """Hash and verify errors of all jobs; None where the daemon does not tell."""
    return {
        key: sum(int(row[key]) for row in rows) if all(key in row for row in rows) else None
        for key in ("hash_errors", "verify_errors")
    }


def match(overs: list[turns.HandOver], log: list[switches.Switch], names: dict[str, str]) -> list[Timed]:
    """The hand-overs that the jobs saw with what the daemon says about them. Those without a line are left out."""
    found = []
    for over in overs:
        start, end = over.at, over.at + over.gap
        for switch in log:
            if (names.get(switch.giver), names.get(switch.taker)) != (over.giver, over.taker):
                continue
            if not (start <= switch.granted and switch.drained <= end):  # the grant acts before its line is written
                continue
            found.append(
                Timed(
                    over.giver,
                    over.taker,
                    (end - max(start, switch.told)) / 1e9,
                    max(0, switch.drained - switch.told) / 1e9,
                    (switch.granted - switch.drained) / 1e9,
                    max(0, end - switch.granted) / 1e9,
                    switch.moved("evicted"),
                    switch.moved("restored"),
                    switch,
                )
            )
            break
    return found


def watch(work: bench.Bench, device: Device, kinds: tuple[str, str], verify: bool = False) -> Seen:
    """Two jobs with memory of these kinds on a daemon of their own. Raises ProbeFailed or GpuvirtError."""
    probe = work.scratch / "pages"
    wanted = COLD + 3 + (QUICK_SWITCHES if work.options.quick else SWITCHES) * (2 if "fresh" in kinds else 1)
    settings: dict[str, dict[str, Any]] = {"daemon": {"log_level": "debug", "log_format": "json"}}
    if verify:
        settings["memory"] = {"verify": True}
    runtime = Path(str(device.variables["GPUVIRT_SOFTGPU_BOARD"]) + f"-{'-'.join(kinds)}{'-verify' * verify}")
    daemon = Daemon(runtime, device, QUANTUM_MS, settings)
    stop = runtime.with_suffix(".stop")
    offset = time.time_ns() - time.monotonic_ns()
    with Children(work.children.interrupts) as children:
        server = daemon.start(children)
        jobs = {}
        for name, kind in zip("ab", kinds, strict=True):
            program = [str(probe), str(EACH_MIB), str(LIMIT), str(GAP_US), kind]
            environ = {**daemon.environ(), "PAGES_STOP": str(stop)}
            jobs[name] = children.start(name, daemon.run_command(name, program), environ)
        status = daemon.status()
        while jobs["a"].exit_code is None and status["gpus"][0]["switches"] < wanted:
            children.wait(jobs["a"], 0.3)
            status = daemon.status()
        capacity = int(status["gpus"][0]["capacity"])
        stop.touch()
        for child in jobs.values():
            children.wait(child, LIMIT)
        answers = {name: probes.answer(child) for name, child in jobs.items()}
        rows = daemon.jobs()
        names = {str(row["job"]): str(row["name"]) for row in rows}
        lines = list(server.lines)
    charged = {str(row["name"]): int(row["charged"]) for row in status["jobs"]}
    deficit = charged.get("a", 0) + (EACH_MIB << 20) - capacity
    seen = {name: [(int(a), int(b)) for a, b in answer["turns"]] for name, answer in answers.items()}
    log = switches.switches(switches.read(lines, offset))
    overs = turns.hand_overs(seen)
    timed = match(overs, log, names)[COLD:]
    if not timed:
        what = f"{len(log)} switches, {len(overs)} of them seen by the jobs"
        raise probes.ProbeFailed(f"jobs with {' and '.join(kinds)} memory: too few turns to measure ({what})")
    return Seen(timed, deficit, all(answer["checked"] for answer in answers.values()), errors_of(rows))


def summary(seen: list[Timed]) -> dict[str, Any]:
    """Spread of times and bytes."""
    return {
        "seconds": record.spread([s.seconds for s in seen]),
        "drain_s": record.spread([s.drain for s in seen]),
        "move_s": record.spread([s.move for s in seen]),
        "first_launch_s": record.spread([s.first for s in seen]),
        "out_bytes": statistics.median(s.out for s in seen),
        "in_bytes": statistics.median(s.back for s in seen),
        "moves": [
            {"event": move.event, "after_s": round((move.at - s.log.drained) / 1e9, 4), **move.fields}
            for s in seen[-1:]
            for move in s.log.moves
        ],
    }


def plain(work: bench.Bench, device: Device) -> dict[str, float]:
    """GB/s of plain copies without gpuvirt on the same link: each way, and both ways by two processes at once."""

    def start(way: str, at: int) -> Any:
        command = [str(work.scratch / "link"), way, str(PLAIN_MIB // 2), str(PIECE_KIB)]
        return work.children.start(way, [*command, *(("at", str(at)) if at else ())], device.environ())

    def rate(child: Any, way: str) -> float:
        work.children.wait(child, 60)
        answer = probes.answer(child)
        return float(answer["bytes"] / (answer[f"{way}_end"] - answer["start"]))

    found = {way: rate(start(way, 0), way) for way in ("out", "in")}
    at = time.monotonic_ns() + 1_500_000_000
    both = [(start(way, at), way) for way in ("out", "in")]
    return {**found, **{f"{way}_beside_the_other": rate(child, way) for child, way in both}}


def measure_on(work: bench.Bench, device: Device, label: str) -> dict[str, Any]:
    """All kinds of switches on one soft GPU."""
    found: dict[str, Any] = {}
    work.say(f"{label}: one way")
    one_way = watch(work, device, ("dirty", "fresh"))
    for name, giver in (("out", "a"), ("in", "b")):
        some = [s for s in one_way.switches if s.giver == giver]
        if not some:
            raise probes.ProbeFailed("the job with fresh memory never came to the GPU")
        found[name] = {**summary(some), "had_to_move": one_way.deficit}
    seen = {"one way": one_way}
    for kind in KINDS:
        work.say(f"{label}: two jobs, memory {kind}")
        seen[kind] = watch(work, device, (kind, kind))
        found[kind] = {**summary(seen[kind].switches), "had_to_move": seen[kind].deficit}
    found["checked"] = all(one.checked for one in seen.values())
    for key in ("hash_errors", "verify_errors"):
        told = [one.errors[key] for one in seen.values()]
        found[key] = None if None in told else sum(error or 0 for error in told)
    return found


def ratios(found: dict[str, Any], link: Link) -> dict[str, float]:
    """Times over the best possible on `link`, and shares of its rate."""

    def median(name: str) -> float:
        return float(found[name]["seconds"]["median"])

    def needed(name: str) -> int:
        return int(found[name]["had_to_move"])

    copying = {kind: link.best(needed(kind), needed(kind)) for kind in KINDS}
    return {
        "out_share_of_link": link.one_way(needed("out")) / median("out"),
        "in_share_of_link": link.one_way(needed("in")) / median("in"),
        "switch_dirty_ratio": median("dirty") / copying["dirty"],
        "switch_clean_ratio": median("clean") / link.one_way(needed("clean")),
        "zero_over_copying": median("zero") / copying["zero"],
        "duplicate_over_copying": median("same") / copying["same"],
    }


def table(found: dict[str, Any], link: Link, rates: dict[str, float], title: str) -> str:
    """What was measured beside what it is compared with."""
    rows = []
    both = "both ways at once" if link.both != 0.5 else "out, then in"
    against = {
        "out": ("out only (the taker's memory is new)", "one way", link.one_way(found["out"]["had_to_move"])),
        "in": ("in only (the giver's memory is gone)", "one way", link.one_way(found["in"]["had_to_move"])),
        "dirty": ("all pages written", both, link.best(*[found["dirty"]["had_to_move"]] * 2)),
        "clean": ("nothing written: out is free", "in alone", link.one_way(found["clean"]["had_to_move"])),
        "zero": ("all pages zero", both, link.best(*[found["zero"]["had_to_move"]] * 2)),
        "same": ("all pages of a job equal", both, link.best(*[found["same"]["had_to_move"]] * 2)),
    }
    for name, (what, how, best) in against.items():
        spread = found[name]["seconds"]
        rows.append(
            (
                what,
                f"{spread['median'] * 1e3:.0f} ms",
                f"{spread['p5'] * 1e3:.0f}-{spread['p95'] * 1e3:.0f}",
                f"{spread['count']:.0f}",
                f"{format_size(int(found[name]['had_to_move']))}",
                f"{best * 1e3:.0f} ms {how}",
                f"{best / spread['median']:.2f}" if name in ("out", "in") else f"{spread['median'] / best:.2f}",
            )
        )
    del rates
    header = ("switch", "median", "p5-p95", "seen", "had to move", "best possible", "ratio")
    return f"{title}\n{record.table(header, rows)}"


def measure(work: bench.Bench) -> dict[str, Any]:
    """With the modelled link, then without. Raises ProbeFailed or GpuvirtError."""
    options = work.options
    link = Link(options.link * 1e9, options.both / 100)
    for name in ("pages", "link", "loops"):
        probes.build(name, work.scratch)
    copy_ns = statistics.median(probes.plain_c(work.scratch / "loops", "memcpy", 20))
    memcpy = Link(COPY_BYTES / (copy_ns / 1e9), 0.5)
    modelled = soft_gpu(work.scratch, DEVICE, {"GPUVIRT_SOFTGPU_MODEL": link.model}, "linked")
    rates = plain(work, modelled)
    found = measure_on(work, modelled, "modelled link")
    results: dict[str, Any] = {**ratios(found, link), "with_link": found, "plain_copies_gb_per_s": rates}
    title = (
        f"Two jobs of {EACH_MIB} MiB on {format_size(DEVICE)}; link {link.rate / 1e9:g} GB/s each way, {link.both:.0%} "
        f"of it when both are in use. Plain copies reach {rates['out']:.2f} out, {rates['in']:.2f} in, both at once "
        f"{rates['out_beside_the_other']:.2f} and {rates['in_beside_the_other']:.2f} GB/s.\n"
        "Ratio: time over the best possible; for out and in alone, share of the link."
    )
    print(table(found, link, rates, title))
    if not options.quick:
        bare = measure_on(work, work.device, "no link")
        results["without_link"] = {**ratios(bare, memcpy), **bare, "memcpy_bytes_per_second": memcpy.rate}
        title = f"\nThe same without a link, against memcpy on one core ({memcpy.rate / 1e9:.1f} GB/s):"
        print(table(bare, memcpy, {}, title))
    for key in ("hash_errors", "verify_errors"):
        results[key] = found[key]
    print(f"Contents compared in every turn: {'all right' if found['checked'] else 'WRONG'}; {errors_text(results)}")
    results["quantum_ms"] = QUANTUM_MS
    return results


def errors_text(results: dict[str, Any]) -> str:
    """For people."""
    return ", ".join(
        f"{key.replace('_', ' ')} {'not told' if results[key] is None else results[key]}"
        for key in ("hash_errors", "verify_errors")
    )


def parser() -> argparse.ArgumentParser:
    """Options."""
    options = record.parser(__doc__)
    options.add_argument(
        "--link", type=float, default=1.0, metavar="GB/S", help="modelled rate of each way (default 1)"
    )
    options.add_argument("--both", type=float, default=71.0, metavar="PERCENT", help="of it with both in use (71)")
    options.add_argument("--quick", action="store_true", help="fewer switches, with the link only")
    return options


if __name__ == "__main__":
    sys.exit(bench.run("swap", parser(), DEVICE, measure, HEADLINE))
