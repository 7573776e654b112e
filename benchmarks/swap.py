#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""What a switch costs when two jobs do not fit: time and bytes, against plain memcpy on the same machine."""

from __future__ import annotations

import statistics
import sys
from typing import Any

from gpuvirt.units import format_size
from harness import bench, probes, record, turns
from harness.daemon import Daemon

DEVICE, EACH_MIB = 512 << 20, 352
QUANTUM_MS, SECONDS, GAP_US = 1000, 14.0, 20000
COPY_BYTES = 4 << 24  # of one repetition of loops memcpy


def measure(work: bench.Bench) -> dict[str, Any]:
    """Two jobs of EACH_MIB, which write all of their memory again in every turn. Raises ProbeFailed or GpuvirtError."""
    copy_ns = statistics.median(probes.plain_c(probes.build("loops", work.scratch), "memcpy", 20))
    program = [str(probes.build("spin", work.scratch)), str(EACH_MIB), str(SECONDS), str(GAP_US), "dirty"]
    daemon = Daemon(work.scratch / "run", work.device, QUANTUM_MS)
    daemon.start(work.children)
    work.say(f"two jobs of {EACH_MIB} MiB on {format_size(DEVICE)} for {SECONDS:.0f} s")
    running = {
        name: work.children.start(name, daemon.run_command(name, program), daemon.environ()) for name in ("a", "b")
    }
    for child in running.values():
        work.children.wait(child, SECONDS * 3)
    answers = {name: probes.answer(child) for name, child in running.items()}
    seen = {name: [(int(a), int(b)) for a, b in answer["turns"]] for name, answer in answers.items()}
    accounts = list(daemon.accounts().values())

    gaps = [event.gap / 1e6 for event in turns.hand_overs(seen)]
    if not gaps:
        raise probes.ProbeFailed("the jobs never took turns")
    out, back = (sum(int(row[key]) for row in accounts) for key in ("out_bytes", "in_bytes"))
    switches = sum(int(row["switches"]) for row in accounts)
    per_switch = (out + back) / max(switches, 1)
    spread = record.spread(gaps)
    speed = per_switch / (spread["median"] / 1e3)
    plain = COPY_BYTES / (copy_ns / 1e9)
    deficit = 2 * (EACH_MIB << 20) - DEVICE
    print(
        f"Two jobs of {EACH_MIB} MiB on a {work.device.name}: {deficit >> 20} MiB too much; all rewritten every turn."
    )
    rows = [
        (
            "switch, launch to launch",
            f"{spread['median']:.0f} ms",
            f"p95 {spread['p95']:.0f} ms, {spread['count']} seen",
        ),
        ("bytes of a switch, out and in", format_size(int(per_switch)), f"{switches} switches"),
        ("bytes moved per second", f"{speed / 1e9:.2f} GB/s", f"{speed / plain:.2f} of memcpy"),
        ("memcpy on this machine", f"{plain / 1e9:.2f} GB/s", "one core"),
        ("contents checked at the end", "yes" if all(a["checked"] for a in answers.values()) else "NO", "every word"),
    ]
    print(record.table(("", "measured", "note"), rows))
    return {
        "switch_ms": spread,
        "switches": switches,
        "out_bytes": out,
        "in_bytes": back,
        "bytes_per_switch": per_switch,
        "deficit_bytes": deficit,
        "bytes_per_second": speed,
        "memcpy_bytes_per_second": plain,
        "quantum_ms": QUANTUM_MS,
    }


if __name__ == "__main__":
    sys.exit(bench.run("swap", record.parser(__doc__), DEVICE, measure))
