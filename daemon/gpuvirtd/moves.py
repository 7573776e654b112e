# SPDX-License-Identifier: Apache-2.0
"""How status, describe and metrics tell what moved: the words for what the arbiters recorded. Bytes and seconds."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from gpuvirtd.arbiter.arbiter import Arbiter
from gpuvirtd.arbiter.switches import MOVED_KEPT, Flow, Switch
from gpuvirtd.jobs import Job

if TYPE_CHECKING:
    from gpuvirtd.host import Host

SECOND = 1e9
LEFT_BY_KIND = {"zero": "zero_bytes", "clean": "clean_bytes", "duplicate": "duplicate_bytes"}


def moved_of(job: Job, arbiters: list[Arbiter]) -> dict[str, Any]:
    """What a job has moved in all, over these GPUs: key "moved" of `status`.

    Copied bytes and what left are of the clients' pages; what came without a copy is of their answers to RESTORE.
    """
    came = [arbiter.switches.came[job.id] for arbiter in arbiters if job.id in arbiter.switches.came]
    out = {"copied": job.sum("out_bytes"), **{kind: job.sum(name) for kind, name in LEFT_BY_KIND.items()}}
    return {
        "out": {**out, "early": job.sum("early_bytes")},
        "in": {
            "copied": job.sum("in_bytes"),
            "zero": sum(flow.zero for flow in came),
            "clean": sum(flow.clean for flow in came),
            "duplicate": sum(flow.duplicate for flow in came),
        },
        "copy_s": job.sum("copy_ns") / SECOND,
        "hash_s": job.sum("hash_ns") / SECOND,
        "map_s": job.sum("map_ns") / SECOND,
        "hash_errors": job.sum("hash_errors"),
        "verify_errors": job.sum("verify_errors"),
    }


def lost_of(host: Host, job: Job) -> dict[str, Any]:
    """Time that a job has lost to switching, and its share of the time since the job began."""
    now = host.clock.now()
    lost = sum(arbiter.lost_time.of(job.id, now) for arbiter in host.arbiters.values()) / SECOND
    wall = max(time.time() - job.since, lost)
    return {"lost_s": lost, "lost_share": lost / wall if wall > 0 else 0.0}


def turn_wait_of(host: Host, job: Job) -> float | None:
    """How long the job waits for a turn: the median of the last waits, of the GPU where that is longest."""
    known = [
        arbiter.timeline.waits[job.id].typical()
        for arbiter in host.arbiters.values()
        if job.id in arbiter.timeline.waits
    ]
    return max((wait / SECOND for wait in known if wait is not None), default=None)


def link_of(arbiter: Arbiter, now: int) -> dict[str, Any]:
    """Swapping on the link of a GPU: bytes/s now, in all, and the share of the link of the busier direction."""
    meter, rate = arbiter.measure(now), arbiter.gpu.link_rate
    out, inward = meter.rates(now)
    return {
        "out_rate": out,
        "in_rate": inward,
        "rate": rate,
        "measured": arbiter.switches.copied,
        "share": min(1.0, max(out, inward) / rate) if rate > 0 else 0.0,
        "out_bytes": meter.out,
        "in_bytes": meter.inward,
    }


def arena_of(host: Host, job: Job) -> int:
    """Bytes of host memory that swapped memory of a job takes."""
    return host.places.arenas.used(job.id)


def switch_rows(host: Host, gpu: int | None, job: str | None, count: int, everything: bool) -> list[dict[str, Any]]:
    """The last switches, the newest first: of one GPU (its index), of one job (its id), or all."""
    now, clock = host.clock.now(), time.time()
    found = [
        (switch, arbiter.device.index)
        for arbiter in host.arbiters.values()
        if gpu in (None, arbiter.device.index)
        for switch in arbiter.switches.last(2 * MOVED_KEPT, everything)
        if job is None or job in (switch.source, switch.target)
    ]
    found.sort(key=lambda pair: -pair[0].at)
    return [_row(switch, index, clock - (now - switch.at) / SECOND) for switch, index in found[:count]]


def _row(switch: Switch, gpu: int, at: float) -> dict[str, Any]:
    return {
        "at": at,
        "gpu": gpu,
        "kind": switch.kind,
        "from": switch.source,
        "to": switch.target,
        "delay_s": switch.delay_ns / SECOND,
        "drain_s": switch.drain_ns / SECOND,
        "stayed": switch.stayed,
        "out": _flow(switch.out),
        "in": _flow(switch.inward),
    }


def _flow(flow: Flow) -> dict[str, Any]:
    return {
        "copied": flow.copied,
        "zero": flow.zero,
        "clean": flow.clean,
        "duplicate": flow.duplicate,
        "copy_s": flow.copy_ns / SECOND,
        "hash_s": flow.hash_ns / SECOND,
        "map_s": flow.map_ns / SECOND,
        "rate": flow.rate,
        "requests": flow.requests,
        "failed": flow.failed,
    }
