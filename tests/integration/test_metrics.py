# SPDX-License-Identifier: Apache-2.0
"""`gpuvirt metrics` with a job that works and one that has moved."""

from __future__ import annotations

import re
import subprocess

from support.host import BIN, MIB, Host


def scrape(machine: Host) -> dict[str, dict[str, float]]:
    """{job: {metric: value}} of the series of one job, as the command prints them; those of no job under ""."""
    done = subprocess.run(
        [str(BIN / "gpuvirt"), "metrics"], env=machine.environ(), capture_output=True, text=True, timeout=30, check=True
    )
    assert done.stderr == ""
    found: dict[str, dict[str, float]] = {}
    for line in done.stdout.splitlines():
        match = re.fullmatch(r"(gpuvirt_\w+)(?:\{(.*)\})? (\S+)", line)
        assert line.startswith("# ") or match is not None, line
        if match is not None:
            labels = dict(re.findall(r'(\w+)="([^"]*)"', match[2] or ""))
            name = match[1] + "".join(f"_{labels[key]}" for key in ("direction", "kind") if key in labels)
            found.setdefault(labels.get("job", ""), {})[name] = float(match[3])
    return found


def test_jobs_that_do_not_fit(machine: Host) -> None:
    """Two jobs of 160 MiB on 256: what the programs did is what the metrics say."""
    for name in ("first", "second"):
        machine.job("mixer.py", "--memory", "160", "--seconds", "60", name=name).wait_for("step 1")
    first = machine.job_named("first")["job"]

    def moved() -> dict[str, dict[str, float]] | None:
        metrics = scrape(machine)
        return metrics if metrics[first]["gpuvirt_swap_bytes_total_out"] > 0 else None

    metrics = machine.until(moved, "a swap")
    job, host = metrics[first], metrics[""]
    assert job["gpuvirt_memory_charged_bytes"] == 160 * MIB and job["gpuvirt_clients"] == 1
    assert job["gpuvirt_memory_resident_bytes"] <= 160 * MIB
    assert job["gpuvirt_submissions_total"] > 10 and job["gpuvirt_lease_held_seconds_total"] > 0
    assert job["gpuvirt_memory_fixed_bytes_arrays"] == 0
    assert host["gpuvirt_jobs"] == 2 and host["gpuvirt_gpu_switches_total"] >= 1
    assert host["gpuvirt_gpu_memory_size_bytes"] == machine.memory
