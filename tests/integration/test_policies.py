# SPDX-License-Identifier: Apache-2.0
"""Policies on a running system: real programs under the real daemon."""

from __future__ import annotations

import json
import subprocess

from support.host import BIN, Host


def gpuvirt(machine: Host, *words: str) -> str:
    done = subprocess.run(
        [str(BIN / "gpuvirt"), *words], env=machine.environ(), capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_policies_and_weights_change_while_jobs_run(machine: Host) -> None:
    """Under each of them both jobs get the GPU, and neither notices."""
    options = ("--priority", "high", "--tier", "premium", "--deadline", "50ms")
    first = machine.job("mixer.py", "--memory", "176", "--seconds", "600", name="first", options=options)
    assert "a tier makes no difference under policy 'fair'" in first.wait_for("note: a tier")
    first.wait_for("ready")
    second = machine.job("mixer.py", "--memory", "176", "--seconds", "600", name="second")
    second.wait_for("ready")
    for policy in ("priority", "deadline", "tiers", "fair"):
        rows = json.loads(gpuvirt(machine, "policy", "all", policy, "-o", "json"))
        assert [row["policy"] for row in rows] == [policy]
        before = {name: machine.job_named(name)["switches"] for name in ("first", "second")}
        machine.until(
            lambda before=before: all(machine.job_named(name)["switches"] > turns for name, turns in before.items()),
            f"turns of both under {policy}",
            60,
        )
    assert gpuvirt(machine, "weight", "second", "4").startswith(f"{machine.job_named('second')['job']}: weight 4")
    assert machine.job_named("second")["weight"] == 4
    assert "priority high, tier premium, deadline 50 ms" in gpuvirt(machine, "describe", "first")
    assert first.running and second.running, machine.report()


def test_an_exclusive_gpu_goes_from_job_to_job(machine: Host) -> None:
    gpuvirt(machine, "policy", "0", "exclusive")
    first = machine.job("mixer.py", "--memory", "16", "--seconds", "600", name="first")
    first.wait_for("ready")
    machine.until(lambda: machine.gpu()["holder"] is not None, "the first to have the GPU")
    second = machine.job("mixer.py", "--memory", "16", "--steps", "2", name="second")
    machine.until(
        lambda: any("has the GPU for itself" in job["reason"] for job in machine.status()["jobs"]), "the second to wait"
    )
    assert "exclusive" in gpuvirt(machine, "policy")
    first.kill()
    assert second.wait() == 0, second.text
    assert "result: OK" in second.text
