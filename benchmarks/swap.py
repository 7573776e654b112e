#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a switch between two jobs that do not fit costs, against the best that the link between host and device allows.

Two jobs of the same size take turns (probes/pages.c). A switch is timed from the giver's last completed launch, or from
the moment at which the daemon took the GPU from it if that is later (an idle giver), to the first launch of the taker
that completed; so quanta and idle times are not in it, all else is. What had to move is what the daemon's ledger lacks:
both jobs less what the device has for jobs. First on the soft GPU's modelled link (--link), then without one, against
memcpy on one core. Every word is compared on the device in every turn. On a real GPU (--real) the link is what plain
pinned copies reach in the same run.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from gpuvirt.units import format_size
from harness import bench, probes, record, switches, turns
from harness.daemon import Daemon
from harness.link import Link
from harness.processes import Children
from harness.real import real_gpu
from harness.softgpu import Device, soft_gpu

DEVICE, EACH_MIB = 512 << 20, 448
REAL_SWITCHED = 40_000_000_000  # bytes out and as many in on a real GPU, as far as host memory has room for both jobs
REAL_HOST_PART = 0.75  # of the host's memory, for what both have swapped
QUANTUM_MS, GAP_US = 400, 20000
QUICK_SWITCHES = 2  # of each kind and direction, at least
COLD = 2  # switches at the start that are left out: nothing had ever been copied before them
LIMIT = 120.0  # seconds for the switches of one kind
COPY_BYTES = 4 << 24  # of one repetition of loops memcpy
PLAIN_MIB, PIECE_KIB = 256, 2048  # of probes/link.c
KINDS, QUICK_KINDS = ("dirty", "clean", "zero", "same"), ("dirty",)
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
    moved: list[dict[str, Any]]  # by job: what the daemon counted from start to end

    def errors(self, key: str) -> int:
        """Hash or verify errors of both jobs."""
        return sum(int(moved[key]) for moved in self.moved)


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


@dataclass(frozen=True)
class Setting:
    """The device, the memory of each of the two jobs on it, and settings of the daemon."""

    device: Device
    each_mib: int
    daemon: dict[str, dict[str, Any]]
    label: str = ""


def watch(work: bench.Bench, setting: Setting, kinds: tuple[str, str]) -> Seen:
    """Two jobs with memory of these kinds on a daemon of their own. Raises ProbeFailed or GpuvirtError."""
    device, each_mib = setting.device, setting.each_mib
    probe = work.scratch / "pages"
    wanted = COLD + 2 + (QUICK_SWITCHES if work.options.quick else work.options.switches) * (1 + ("fresh" in kinds))
    settings = {**setting.daemon, "daemon": {"log_level": "debug", "log_format": "json"}}
    runtime = (
        work.scratch
        / f"{Path(device.variables.get('GPUVIRT_SOFTGPU_BOARD', 'real')).name}-{setting.label}{'-'.join(kinds)}"
    )
    daemon = Daemon(runtime, device, QUANTUM_MS, settings)
    stop = runtime.with_suffix(".stop")
    offset = time.time_ns() - time.monotonic_ns()
    with Children(work.children.interrupts) as children:
        server = daemon.start(children)
        jobs = {}
        for name, kind in zip("ab", kinds, strict=True):
            program = [str(probe), str(each_mib), str(LIMIT), str(GAP_US), kind]
            environ = {**daemon.environ(), "PAGES_STOP": str(stop)}
            jobs[name] = children.start(name, daemon.run_command(name, program), environ)
        for child, kind in zip(jobs.values(), kinds, strict=True):
            if kind != "fresh":
                children.wait(child, LIMIT, until="ready")
        status = daemon.status()
        wanted += int(status["gpus"][0]["switches"])
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
    deficit = charged.get("a", 0) + (each_mib << 20) - capacity
    seen = {name: [(int(a), int(b)) for a, b in answer["turns"]] for name, answer in answers.items()}
    log = switches.switches(switches.read(lines, offset))
    overs = turns.hand_overs(seen)
    timed = match(overs, log, names)[COLD:]
    if not timed:
        what = f"{len(log)} switches, {len(overs)} of them seen by the jobs"
        raise probes.ProbeFailed(f"jobs with {' and '.join(kinds)} memory: too few turns to measure ({what})")
    return Seen(timed, deficit, all(answer["checked"] for answer in answers.values()), [r["moved"] for r in rows])


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


def measure_on(work: bench.Bench, setting: Setting, label: str) -> dict[str, Any]:
    """All kinds of switches on one soft GPU."""
    found: dict[str, Any] = {}
    work.say(f"{label}: one way")
    one_way = watch(work, setting, ("dirty", "fresh"))
    for name, giver in (("out", "a"), ("in", "b")):
        some = [s for s in one_way.switches if s.giver == giver]
        if not some:
            raise probes.ProbeFailed("the job with fresh memory never came to the GPU")
        found[name] = {**summary(some), "had_to_move": one_way.deficit}
    seen = {"one way": one_way}
    for kind in QUICK_KINDS if work.options.quick else KINDS:
        work.say(f"{label}: two jobs, memory {kind}")
        seen[kind] = watch(work, setting, (kind, kind))
        found[kind] = {
            **summary(seen[kind].switches),
            "had_to_move": seen[kind].deficit,
            "counted_from_start_to_end": seen[kind].moved,
        }
    found["checked"] = all(one.checked for one in seen.values())
    for key in ("hash_errors", "verify_errors"):
        found[key] = sum(one.errors(key) for one in seen.values())
    return found


def verified(work: bench.Bench, setting: Setting) -> dict[str, Any]:
    """The same kinds, not timed, with the daemon's verify mode: what comes back is hashed again and compared."""
    work.options.quick = True  # a few switches are enough
    checking = replace(setting, daemon={"memory": {**setting.daemon.get("memory", {}), "verify": True}}, label="verify")
    found: dict[str, Any] = {}
    for kind in ("dirty", "same"):
        work.say(f"verify mode: two jobs, memory {kind}")
        seen = watch(work, checking, (kind, kind))
        found[kind] = {key: seen.errors(key) for key in ("hash_errors", "verify_errors")}
        found[kind]["switches"] = len(seen.switches)
        found[kind]["checked"] = seen.checked
    return found


def ratios(found: dict[str, Any], link: Link) -> dict[str, float | None]:
    """Times over the best possible on `link`, and shares of its rate. None: not measured."""

    def median(name: str) -> float:
        return float(found[name]["seconds"]["median"])

    def needed(name: str) -> int:
        return int(found[name]["had_to_move"])

    def over_copying(kind: str) -> float | None:
        return median(kind) / link.best(needed(kind), needed(kind)) if kind in found else None

    def came(name: str, key: str) -> int:
        return min(needed(name), int(found[name][key]))  # not what moved beyond the need, nor what did not move

    return {
        "out_share_of_link": link.best(came("out", "out_bytes"), 0) / median("out"),
        "in_share_of_link": link.best(0, came("in", "in_bytes")) / median("in"),
        "switch_dirty_ratio": over_copying("dirty"),
        "switch_clean_ratio": median("clean") / link.best(0, needed("clean")) if "clean" in found else None,
        "zero_over_copying": over_copying("zero"),
        "duplicate_over_copying": over_copying("same"),
    }


def table(found: dict[str, Any], link: Link, title: str) -> str:
    """What was measured beside what it is compared with."""
    rows = []
    both = "both ways at once" if link.out_both > link.out / 2 else "out, then in"
    against = {
        "out": ("out only (the taker's memory is new)", "out", 1, 0),
        "in": ("in only (the giver's memory is gone)", "in", 0, 1),
        "dirty": ("all pages written", both, 1, 1),
        "clean": ("nothing written: out is free", "in", 0, 1),
        "zero": ("all pages zero", both, 1, 1),
        "same": ("all pages of a job equal", both, 1, 1),
    }
    for name, (what, how, out, back) in against.items():
        if name not in found:
            continue
        spread, needed = found[name]["seconds"], int(found[name]["had_to_move"])
        if name in ("out", "in"):
            needed = min(needed, int(found[name][f"{name}_bytes"]))
        best = link.best(out * needed, back * needed)
        rows.append(
            (
                what,
                f"{spread['median'] * 1e3:.0f} ms",
                f"{spread['p5'] * 1e3:.0f}-{spread['p95'] * 1e3:.0f}",
                f"{spread['count']:.0f}",
                format_size(needed),
                f"{best * 1e3:.0f} ms {how}",
                f"{best / spread['median']:.2f}" if name in ("out", "in") else f"{spread['median'] / best:.2f}",
            )
        )
    header = ("switch", "median", "p5-p95", "seen", "had to move", "best possible", "ratio")
    return f"{title}\n{record.table(header, rows)}"


def measured_link(rates: dict[str, float]) -> Link:
    """What plain copies were seen to reach."""
    both = rates["out_beside_the_other"], rates["in_beside_the_other"]
    return Link(*(rate * 1e9 for rate in (rates["out"], rates["in"], *both)))


def real_setting(memory: int) -> Setting:
    """Two jobs on the first NVIDIA GPU with REAL_SWITCHED bytes too much, or what the host has room for.

    Raises NoRealGpu.
    """
    device = real_gpu()
    switched = min(REAL_SWITCHED, int(memory * REAL_HOST_PART / 2.2), int(device.memory * 0.8))
    each = int((device.memory * 0.97 + switched) / 2)
    return Setting(device, each >> 20, {"memory": {"host_budget": f"{REAL_HOST_PART:.0%}"}})


def on_link(work: bench.Bench, setting: Setting, link: Link | None) -> dict[str, Any]:
    """On a link that is known, or measured by plain copies first."""
    rates = plain(work, setting.device)
    known = link or measured_link(rates)
    found = measure_on(work, setting, setting.device.name)
    lost = "" if link is None else f", {known.out_both / known.out:.0%} of it when both are in use"
    title = (
        f"Two jobs of {format_size(setting.each_mib << 20)} on {setting.device.name}; link {known.out / 1e9:.3g} GB/s "
        f"out, {known.back / 1e9:.3g} in{lost}. Plain copies reach {rates['out']:.2f} out, {rates['in']:.2f} in, both "
        f"at once {rates['out_beside_the_other']:.2f} and {rates['in_beside_the_other']:.2f} GB/s.\n"
        "Ratio: time over the best possible; for out and in alone, share of the link."
    )
    print(table(found, known, title))
    return {**ratios(found, known), "with_link": found, "plain_copies_gb_per_s": rates}


def measure(work: bench.Bench) -> dict[str, Any]:
    """With the modelled link, then without; or on a real GPU. Raises ProbeFailed, NoRealGpu or GpuvirtError."""
    options = work.options
    for name in ("pages", "link", "loops"):
        probes.build(name, work.scratch)
    bare_setting = Setting(work.device, EACH_MIB, {})
    if options.real:
        bare_setting = real_setting(int(record.machine()["memory_bytes"]))
        results = on_link(work, bare_setting, None)
    else:
        link = Link.even(options.link * 1e9, options.both / 100)
        device = soft_gpu(work.scratch, DEVICE, {"GPUVIRT_SOFTGPU_MODEL": link.model}, "linked")
        results = on_link(work, Setting(device, EACH_MIB, {}), None if options.measured else link)
    if not (options.quick or options.real):
        copy_ns = statistics.median(probes.plain_c(work.scratch / "loops", "memcpy", 20))
        memcpy = Link.even(COPY_BYTES / (copy_ns / 1e9), 0.5)
        bare = measure_on(work, bare_setting, "no link")
        results["without_link"] = {**ratios(bare, memcpy), **bare, "memcpy_bytes_per_second": memcpy.out}
        print(
            table(bare, memcpy, f"\nThe same without a link, against memcpy on one core ({memcpy.out / 1e9:.1f} GB/s):")
        )
    found = results["with_link"]
    for key in ("hash_errors", "verify_errors"):
        results[key] = found[key]
    if not options.quick:
        results["verify_mode"] = verified(work, bare_setting)
        for key in ("hash_errors", "verify_errors"):
            results[key] += sum(kind[key] for kind in results["verify_mode"].values())
    good = found["checked"] and all(kind["checked"] for kind in results.get("verify_mode", {}).values())
    mode = "with verify mode too" if "verify_mode" in results else "verify mode not tried"
    print(
        f"Contents compared in every turn: {'all right' if good else 'WRONG'}; hash errors {results['hash_errors']}, "
        f"verify errors {results['verify_errors']} ({mode})"
    )
    results["quantum_ms"] = QUANTUM_MS
    return results


def parser() -> argparse.ArgumentParser:
    """Options."""
    options = record.parser(__doc__)
    options.add_argument(
        "--link", type=float, default=1.0, metavar="GB/S", help="modelled rate of each way (default 1)"
    )
    options.add_argument("--both", type=float, default=71.0, metavar="PERCENT", help="of it with both in use (71)")
    options.add_argument("--switches", type=int, default=10, metavar="N", help="of each kind, at least (default 10)")
    options.add_argument("--measured", action="store_true", help="compare with what plain copies reach, not the model")
    options.add_argument("--real", action="store_true", help="on the first NVIDIA GPU of this machine")
    options.add_argument("--quick", action="store_true", help="a few switches, with the link and dirty pages only")
    return options


if __name__ == "__main__":
    sys.exit(bench.run("swap", parser(), DEVICE, measure, HEADLINE))
