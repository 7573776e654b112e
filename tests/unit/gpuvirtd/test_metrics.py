# SPDX-License-Identifier: Apache-2.0
"""Metrics of a real daemon: what is in them, that they hold to the rules, and that they agree with `status`."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from fake_shim import MIB, until

from gpuvirt.errors import GpuvirtError
from gpuvirtd import metrics


def scrape(daemon):
    """{name: {labels: value}}, labels as sorted pairs."""
    found = {}
    for line in daemon.admin.call("metrics")["text"].splitlines():
        if not line.startswith("#"):
            name, labels, value = re.fullmatch(r"(\w+)(?:\{(.*)\})? (\S+)", line).groups()
            pairs = tuple(sorted(re.findall(r'(\w+)="([^"]*)"', labels or "")))
            found.setdefault(name, {})[pairs] = float(value)
    return found


def of(found, metric, /, **labels):
    """The one sample of this name with (at least) these labels."""
    [value] = [v for pairs, v in found[f"gpuvirt_{metric}"].items() if set(labels.items()) <= set(pairs)]
    return value


def test_every_metric_is_documented():
    """docs/metrics.md has each one with its kind and the words of its HELP line."""
    text = (Path(__file__).parents[3] / "docs" / "metrics.md").read_text()
    written = dict(re.findall(r"^\| `gpuvirt_(\w+)`[^|]*\| (\w+ \| [^|]*) \|$", text, re.M))
    tables = (metrics.DAEMON, metrics.GPU, metrics.JOB, metrics.SHARE)
    assert written == {name: f"{kind} | {words}" for table in tables for name, kind, words in table}
    queried = set(re.findall(r"gpuvirt_(\w+?)(?:_bucket)?\b(?=[^`|]*`)", text.split("## The daemon")[0]))
    assert {name for name in queried if name not in written} == set()


def test_a_daemon_alone(new_daemon):
    found = scrape(new_daemon(gpus=2).start())
    assert of(found, "jobs") == 0 and of(found, "refused_clients_total") == 0
    assert of(found, "daemon_generation") == 1 and of(found, "daemon_uptime_seconds") > 0
    assert of(found, "gpu_memory_size_bytes", gpu="1") == 512 * MIB
    assert not any(name.startswith("gpuvirt_memory") for name in found)


def test_a_job(daemon, attach):
    shim, job = attach("train", memory=200 * MIB, weight=3)
    shim.want(64 * MIB)
    until(lambda: daemon.job(job)["resident"] == 64 * MIB, what="its memory")
    shim.write_page(submitted=7, passed_calls=5, unknown_names=2, pinned_bytes=4096, waited_ns=2_000_000_000)
    found, status = scrape(daemon), daemon.job(job)
    assert of(found, "job_info", job=job, name="train", user=status["user"]) == 1
    assert of(found, "job_weight", job=job) == 3
    expected = {
        "clients": 1,
        "memory_limit_bytes": 200 * MIB,
        "memory_charged_bytes": 64 * MIB,
        "memory_resident_bytes": 64 * MIB,
        "memory_swapped_bytes": 0,
        "memory_pinned_bytes": 4096,
        "submissions_total": 7,
        "passed_calls_total": 5,
        "unknown_names_total": 2,
        "gate_wait_seconds_total": 2.0,
        "lease_grants_total": 1,
    }
    uuid = daemon.gpu()["uuid"]
    assert {name: of(found, name, job=job, gpu="0", uuid=uuid) for name in expected} == expected
    assert of(found, "memory_fixed_bytes", job=job, kind="arrays") == 0
    assert of(found, "swap_bytes_total", job=job, direction="out") == 0
    assert of(found, "gpu_held") == 1
    assert not re.search(rf"\b{shim.pid}\b", daemon.admin.call("metrics")["text"]), "no pids"


def test_what_moved_and_what_it_cost(daemon, attach):
    """Two jobs of 300 MiB on 512: the figures of the shims are those of status, switches and metrics."""
    one, first = attach("one")
    two, second = attach("two")
    one.configure(counts={"zero_bytes": 3 * MIB, "clean_bytes": 2 * MIB, "duplicate_bytes": MIB, "copy_ns": 5_000_000})
    two.configure(delay_s=0.05)
    one.want(300 * MIB)
    until(lambda: daemon.job(first)["resident"] == 300 * MIB, what="the first job's memory")
    two.want(300 * MIB)
    until(lambda: daemon.job(second)["resident"] == 300 * MIB, what="the second job's memory")
    until(lambda: daemon.job(first)["swapped"] > 0, what="the swap")
    one.finish()
    one.write_page(zero_bytes=3 * MIB, hash_ns=2_000_000_000, host_bytes=88 * MIB, early_bytes=4096)
    found, job = scrape(daemon), daemon.job(first)
    moved = job["out_bytes"]
    assert moved >= 88 * MIB and job["moved"]["out"]["copied"] == moved
    assert job["moved"]["out"]["zero"] == 3 * MIB and job["moved"]["hash_s"] == 2.0
    assert of(found, "swap_bytes_total", job=first, direction="out") == moved
    assert of(found, "swap_saved_bytes_total", job=first, direction="out", kind="zero") == 3 * MIB
    assert of(found, "swap_early_bytes_total", job=first) == 4096
    assert of(found, "swap_work_seconds_total", job=first, work="hash") == 2.0
    assert of(found, "memory_host_bytes", job=first) == 88 * MIB
    assert of(found, "swap_hash_errors_total", job=first) == of(found, "swap_verify_errors_total", job=first) == 0
    assert of(found, "gpu_link_bytes_total", direction="out") == moved
    lost = of(found, "swap_lost_seconds_total", job=second)
    assert 0.05 <= lost <= daemon.job(second)["lost_s"] < 5
    assert of(found, "gpu_swap_idle_seconds_total") >= 0.05
    assert of(found, "gpu_switch_seconds_count", memory="moved") >= 1
    assert of(found, "gpu_switch_seconds_bucket", memory="moved", le="+Inf") >= 1
    assert 0 <= of(found, "gpu_link_share_ratio") <= 1
    host = of(found, "host_swap_used_bytes")
    assert host == of(found, "job_arena_bytes", job=first) + of(found, "job_arena_bytes", job=second)
    rows = daemon.admin.call("switches", job="two")["switches"]
    turn = next(row for row in reversed(rows) if row["to"] == second)
    assert (turn["kind"], turn["from"], turn["gpu"]) == ("turn", first, 0)
    assert (turn["out"]["zero"], turn["out"]["clean"], turn["out"]["duplicate"]) == (3 * MIB, 2 * MIB, MIB)
    assert turn["out"]["copy_s"] == 0.005 and turn["out"]["rate"] == turn["out"]["copied"] / 0.005
    assert turn["delay_s"] >= 0.05 and turn["stayed"] == 300 * MIB - turn["out"]["copied"]
    assert daemon.admin.call("switches", gpu=1)["switches"] == []
    described = daemon.admin.call("describe", job="two")["job"]["last_switches"]
    assert [row["to"] for row in described] == [row["to"] for row in rows[:5]]
    with pytest.raises(GpuvirtError, match="no job 'three'"):
        daemon.admin.call("switches", job="three")


def test_what_was_counted_stays_when_a_process_ends(daemon, shims):
    one, two = shims(), shims()
    job = daemon.create(one)
    one.hello(daemon.socket, job["token"], daemon.uuid())
    two.hello(daemon.socket, job["token"], daemon.uuid())
    two.write_page(submitted=11, unknown_names=1)
    until(lambda: of(scrape(daemon), "submissions_total", job=job["job"]) == 11, what="the count")
    two.kill()
    until(lambda: of(scrape(daemon), "clients", job=job["job"]) == 1, what="the end of one")
    assert of(scrape(daemon), "submissions_total", job=job["job"]) == 11
    assert of(scrape(daemon), "unknown_names_total", job=job["job"]) == 1


def test_refused_clients_are_counted(daemon, shims):
    shims().hello(daemon.socket, "0" * 32, daemon.uuid())
    until(lambda: of(scrape(daemon), "refused_clients_total") == 1, what="the refusal")


def test_a_name_cannot_break_the_text(daemon, shims):
    """What a user chooses is in quotes; the daemon allows few characters anyway."""
    daemon.create(shims(), "a.b:c@d+e-f")
    assert of(scrape(daemon), "job_info", name="a.b:c@d+e-f") == 1
