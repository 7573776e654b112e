# SPDX-License-Identifier: Apache-2.0
"""All conformance cases against every driver that this machine has; one closing line a driver.

    run.py [--target soft|shim-over-soft|real]... [--file case_NAME.py]... [--workers N] [--json FILE]

Exit code 1 when a case failed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from support.conformance import FILES, TARGETS, Outcome, real_gpu, run_file


def closing_line(target: str, outcomes: Iterable[Outcome]) -> str:
    """`conformance soft: 210 passed, 2 skipped, 1 expected differences, 0 failed`."""
    own = [outcome for outcome in outcomes if outcome.target == target]
    skipped, differs, failed = (sum(len(getattr(o, kind)) for o in own) for kind in ("skipped", "differs", "failed"))
    passed = sum(outcome.passed for outcome in own)
    return f"conformance {target}: {passed} passed, {skipped} skipped, {differs} expected differences, {failed} failed"


def show(outcome: Outcome) -> None:
    """One line a file; what failed with its output."""
    state = "FAILED" if outcome.failed else "ok"
    line = f"{outcome.target:15} {outcome.file:32} {outcome.passed:4} passed {outcome.seconds:6.1f} s  {state}"
    print(line, flush=True)
    if outcome.failed:
        print(outcome.output[-20000:], flush=True)


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--target", action="append", choices=TARGETS, help="default: every driver there is")
    parser.add_argument("--file", action="append", choices=FILES, metavar="FILE", help="default: all of cases/")
    parser.add_argument("--workers", type=int, default=2, metavar="N", help="files at the same time (default 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every outcome there")
    options = parser.parse_args()
    targets = options.target or [target for target in TARGETS if target != "real" or real_gpu()]
    if "real" in targets and not real_gpu():
        parser.error("there is no NVIDIA GPU here for --target real; name another target, or leave it out")
    if options.workers < 1:
        parser.error(f"--workers {options.workers}: give at least 1")
    outcomes: list[Outcome] = []
    with ThreadPoolExecutor(options.workers) as pool:
        tasks = [pool.submit(run_file, target, file) for target in targets for file in options.file or FILES]
        for task in tasks:
            outcomes.append(task.result())
            show(outcomes[-1])
    if options.json is not None:
        options.json.write_text(json.dumps([dataclasses.asdict(outcome) for outcome in outcomes], indent=1) + "\n")
    for kind, title in (("differs", "expected difference"), ("skipped", "skipped")):
        for outcome in outcomes:
            for name, reason in getattr(outcome, kind):
                print(f"{title}: {outcome.target}: {name}: {reason}")
    for target in targets:
        print(closing_line(target, outcomes))
    return 1 if any(outcome.failed for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
