#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Makes the pictures of the README: trace.svg and top.svg, of three jobs that share a soft GPU for some seconds.

    python docs/pictures/make.py

What is drawn is what `gpuvirt trace` writes and `gpuvirt top` shows. Needs what `make environment` installs, no GPU.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "benchmarks")]

from draw import picture_of_text, picture_of_tracks  # noqa: E402

from gpuvirt.cli import overview  # noqa: E402
from gpuvirt.cli.timeline import tracks  # noqa: E402
from harness.daemon import Daemon  # noqa: E402
from harness.interrupts import Interrupts  # noqa: E402
from harness.processes import Children  # noqa: E402
from harness.softgpu import Scratch, soft_gpu  # noqa: E402

MEMORY = 256 << 20
PROGRAM = HERE.parents[1] / "tests" / "programs" / "mixer.py"
JOBS = (  # name, MiB, weight, seconds between two pieces of work
    ("batch-a", 120, 2, 0.0),
    ("batch-b", 120, 1, 0.0),
    ("service", 40, 1, 0.15),
)
SETTLE_S, WINDOW_S, TOP_S = 4.0, 1.5, 5.0
WIDTH = 100  # characters of `top`


def main() -> int:
    with Scratch("gpuvirt-pictures-", 2 * MEMORY) as scratch, Children(Interrupts()) as children:
        daemon = Daemon(scratch / "run", soft_gpu(scratch, MEMORY), 60)
        daemon.start(children)
        for name, size, weight, pause in JOBS:
            work = ("--memory", str(size), "--pause", str(pause), "--seconds", "1000")
            command = daemon.run_command(name, [sys.executable, str(PROGRAM), *work], "--weight", str(weight))
            children.wait(children.start(name, command, daemon.environ()), 60, until="step 1")
        time.sleep(SETTLE_S)
        before = overview.Look(time.monotonic(), daemon.status())
        time.sleep(TOP_S)
        now = overview.Look(time.monotonic(), daemon.status())
        parts = daemon.trace(WINDOW_S + 2.0)
    text = overview.lines(before, now, time.time(), WIDTH, colour=True)
    (HERE / "top.svg").write_text(picture_of_text("gpuvirt top", text))
    end = int(parts[0].head["now"]) - 200_000_000
    (HERE / "trace.svg").write_text(picture_of_tracks(tracks(parts), end - int(WINDOW_S * 1e9), end))
    print(f"{HERE / 'top.svg'}\n{HERE / 'trace.svg'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
