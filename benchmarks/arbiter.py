#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""How the GPU goes from job to job: hand-over time and shares of two jobs that fit together and never pause."""

from __future__ import annotations

import sys
from typing import Any

from harness import bench, probes, record, turns
from harness.daemon import Daemon

QUANTUM_MS, SECONDS, GAP_US, MEMORY_MIB = 50, 8.0, 300, 16


def case(work: bench.Bench, title: str, weights: dict[str, int]) -> dict[str, Any]:
    """Runs one job per weight side by side under a daemon of their own. Raises ProbeFailed or GpuvirtError."""
    work.say(f"{title}: {SECONDS:.0f} s")
    daemon = Daemon(work.scratch / title.replace(" ", "-"), work.device, QUANTUM_MS)
    serving = daemon.start(work.children)
    program = [str(work.scratch / "spin"), str(MEMORY_MIB), str(SECONDS), str(GAP_US)]
    running = {
        name: work.children.start(name, daemon.run_command(name, program, "--weight", str(weight)), daemon.environ())
        for name, weight in weights.items()
    }
    for child in running.values():
        work.children.wait(child, SECONDS * 3)
    seen = {name: [(int(a), int(b)) for a, b in probes.answer(child)["turns"]] for name, child in running.items()}
    accounts = daemon.accounts()
    serving.stop()

    gaps = [event.gap / 1e3 for event in turns.hand_overs(seen)]
    if not gaps:
        raise probes.ProbeFailed(f"{title}: the jobs never took turns")
    got, due = turns.shares(seen), {name: weight / sum(weights.values()) for name, weight in weights.items()}
    return {
        "weights": weights,
        "hand_over_us": record.spread(gaps),
        "overlaps": sum(gap < 0 for gap in gaps),
        "shares": got,
        "share_error": max(abs(got[name] - due[name]) for name in weights),
        "daemon_shares": {name: accounts[name]["share"] for name in weights},
        "switches": {name: accounts[name]["switches"] for name in weights},
    }


def measure(work: bench.Bench) -> dict[str, Any]:
    """Equal weights, then one to three."""
    probes.build("spin", work.scratch)
    cases = {
        "equal weights": case(work, "equal weights", {"a": 1, "b": 1}),
        "one to three": case(work, "one to three", {"a": 1, "b": 3}),
    }
    rows = []
    for title, found in cases.items():
        gap = found["hand_over_us"]
        times = (f"{gap['median']:.0f} us", f"{gap['p95']:.0f} us", str(gap["count"]), str(found["overlaps"]))
        shares = "/".join(f"{share:.1%}" for share in found["shares"].values())
        rows.append((title, *times, shares, f"{found['share_error']:.1%}"))
    print(f"Two jobs that always want the {work.device.name}, quantum {QUANTUM_MS} ms, {SECONDS:.0f} s each case.")
    print("Hand-over: from the last launch that one job completed to the first of the other, as the jobs saw it.")
    print(record.table(("", "hand-over", "p95", "of", "overlaps", "shares", "error"), rows))
    return {"quantum_ms": QUANTUM_MS, "seconds": SECONDS, "cases": cases}


if __name__ == "__main__":
    sys.exit(bench.run("arbiter", record.parser(__doc__), 512 << 20, measure))
