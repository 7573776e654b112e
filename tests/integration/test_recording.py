# SPDX-License-Identifier: Apache-2.0
"""Real programs, a daemon that dies and comes back: what it recorded, played once more, is decided alike."""

from __future__ import annotations

import json
import signal
import subprocess

from support.host import BIN, Host


def test_arbiter_and_simulator_agree() -> None:
    machine = Host(settings='[time]\nquantum = "30ms"\nswap_share = 0.6')
    folder = machine.folder / "tapes"
    try:
        daemon = machine.start_daemon(GPUVIRT_RECORD=str(folder))
        jobs = [
            machine.job("mixer.py", "--memory", "160", "--seconds", "100", name=name, options=("--weight", weight))
            for name, weight in (("first", "1"), ("second", "2"))
        ]
        for job in jobs:
            job.wait_for("step 1")
        machine.until(lambda: len(machine.admin.call("switches")["switches"]) >= 4, "four switches with memory", 60)
        daemon.kill(signal.SIGKILL)
        daemon.wait()
        daemon = machine.start_daemon(GPUVIRT_RECORD=str(folder))
        machine.until(lambda: len(machine.admin.call("switches")["switches"]) >= 2, "two switches after it", 60)
        jobs[0].kill()
        machine.job("mixer.py", "--memory", "8", "--seconds", "1", name="third").wait_for("result: OK")
        daemon.kill(signal.SIGTERM)
        daemon.wait()
        tapes = sorted(map(str, folder.iterdir()))
        done = subprocess.run(
            [str(BIN / "gpuvirt"), "simulate", "replay", "-o", "json", *tapes],
            capture_output=True, text=True, timeout=120, check=False,
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        rows = json.loads(done.stdout)
        assert len(rows) == 2
        assert all(row["difference"] is None and row["grants"] >= 2 and row["events"] > 10 for row in rows), rows
    finally:
        machine.close()
