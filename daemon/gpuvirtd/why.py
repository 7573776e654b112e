# SPDX-License-Identifier: Apache-2.0
"""What `why` and `trace` answer: why a job does not run now and when it will, and what happened lately.

Bytes and seconds; the records of `trace` are in nanoseconds of CLOCK_MONOTONIC.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import msgspec

from gpuvirt.arbitration.facts import MILLISECOND, Contender, Word
from gpuvirt.arbitration.forecast import forecast
from gpuvirt.arbitration.policies import policy_of
from gpuvirt.arbitration.room import deficit
from gpuvirt.errors import RefusedError
from gpuvirtd.arbiter.arbiter import Arbiter
from gpuvirtd.arbiter.timeline import Record, Waits
from gpuvirtd.describe import find
from gpuvirtd.jobs import Job
from gpuvirtd.moves import SECOND, switch_rows
from gpuvirtd.status import job_status, named

if TYPE_CHECKING:
    from gpuvirtd.host import Host

DRAIN_NS = MILLISECOND // 5  # while no drain has been seen
RECENT = 32  # switches that tell how long a drain takes
PART = 2000  # records in one answer: the daemon encodes them while jobs wait


class Why(msgspec.Struct, tag_field="op", tag="why", forbid_unknown_fields=True):
    """Why a job does not run: by id, number or name."""

    job: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class Trace(msgspec.Struct, tag_field="op", tag="trace", forbid_unknown_fields=True):
    """What happened on a GPU: records from number `start` on, or (without it) what ended in the last `last_ns`."""

    gpu: Annotated[int, msgspec.Meta(ge=0)]
    start: Annotated[int, msgspec.Meta(ge=0)] | None = None
    last_ns: Annotated[int, msgspec.Meta(ge=1)] = 30_000_000_000


def why(host: Host, word: str) -> dict[str, Any]:
    """Everything that decides when the job runs next. Raises RefusedError for one that is not there, or has ended."""
    job = find(host, word)
    status = job_status(host, job)
    parts = [
        _on_gpu(host, job, arbiter, arbiter.gpu.contenders[job.id])
        for arbiter in host.arbiters.values()
        if job.id in arbiter.gpu.contenders and arbiter.gpu.contenders[job.id].clients
    ]
    kept = ("job", "name", "user", "weight", "share", "state", "reason", "queued")
    return {**{key: status[key] for key in kept}, "gpus": parts}


def _on_gpu(host: Host, job: Job, arbiter: Arbiter, contender: Contender) -> dict[str, Any]:
    gpu, now = arbiter.gpu, host.clock.now()
    holder = gpu.contenders.get(gpu.holder) if gpu.holder is not None else None
    queue = [one.key for one in gpu.contenders.values() if one.waiting and not one.may_launch]
    waiting = job.id in queue
    names = {one.key: arbiter.jobs[one.key].name for one in gpu.contenders.values() if one.key in arbiter.jobs}
    return {
        "gpu": arbiter.device.index,
        "uuid": arbiter.device.uuid,
        "names": names,
        "policy": gpu.policy,
        "standing": policy_of(gpu).says(gpu, contender, now),
        "lease": contender.word.value,
        "waiting": waiting,
        "waits_s": (now - contender.waiting_since) / SECOND
        if waiting and contender.waiting_since is not None
        else None,
        "holder": _holder(arbiter, holder, now) if holder is not None else None,
        "next": gpu.next,
        "queue": len(queue),
        **(_outlook(arbiter, contender, now) if waiting else {}),
        "lately": _lately(arbiter.timeline.waits.get(job.id)),
        "reason": named(arbiter, contender.reason),
        "memory": _memory(arbiter, contender),
        "quantum_s": contender.quantum / SECOND if contender.quantum else None,
    }


def _holder(arbiter: Arbiter, holder: Contender, now: int) -> dict[str, Any]:
    draining = holder.word is Word.DRAIN
    return {
        "job": holder.key,
        "lease": holder.word.value,
        "held_s": (now - holder.granted_ns) / SECOND,
        "left_s": max(0, holder.deadline - now) / SECOND if holder.deadline and not draining else None,
        "draining_s": (now - arbiter.gpu.drain_since) / SECOND if draining else None,
        "idle": holder.idle,
        "reason": named(arbiter, holder.reason),
    }


def _outlook(arbiter: Arbiter, contender: Contender, now: int) -> dict[str, Any]:
    """Its place, and when its turn comes: if turns are as they have been, and if everybody uses all of his."""
    drain = typical_drain(arbiter)
    known = {job: waits.pause() for job, waits in arbiter.timeline.waits.items()}
    pauses = {job: pause for job, pause in known.items() if pause is not None}
    expected = forecast(arbiter.gpu, contender.key, now, drain, pauses)
    longest = forecast(arbiter.gpu, contender.key, now, drain, pauses, whole=True)
    ahead = list(dict.fromkeys(expected.ahead))
    return {
        "ahead": ahead,
        "position": len(ahead) + 1,
        "turns_ahead": len(expected.ahead),
        "expected_s": None if expected.wait_ns is None else expected.wait_ns / SECOND,
        "longest_s": None if longest.wait_ns is None else longest.wait_ns / SECOND,
    }


def typical_drain(arbiter: Arbiter) -> int:
    """How long a drain takes here (ns): the median of the last ones."""
    drains = sorted(switch.drain_ns for switch in arbiter.switches.last(RECENT, everything=True) if switch.source)
    return drains[len(drains) // 2] if drains else DRAIN_NS


def _lately(waits: Waits | None) -> dict[str, Any] | None:
    typical = waits.typical() if waits is not None else None
    if waits is None or typical is None:
        return None
    return {"turns": len(waits.lately), "median_s": typical / SECOND, "longest_s": max(waits.lately) / SECOND}


def _memory(arbiter: Arbiter, contender: Contender) -> dict[str, Any]:
    """What has to move before it can run. move_s: both ways go at once."""
    gpu, clients = arbiter.gpu, list(contender.clients.values())
    missing = sum(client.swapped for client in clients)
    leaves = max(0, deficit(gpu, contender, clients)) if missing else 0
    return {
        "charged": sum(client.charged for client in clients),
        "missing": missing,
        "leaves": leaves,
        "move_s": max(missing, leaves) / gpu.link_rate if gpu.link_rate > 0 else None,
    }


def trace(host: Host, request: Trace) -> dict[str, Any]:
    """A part of the records of one GPU; "next" is where the next part begins (None: nothing more).

    The first part (without `start`) also has what goes on, what the last switches moved, and the clocks.
    """
    arbiter = next((one for one in host.arbiters.values() if one.device.index == request.gpu), None)
    if arbiter is None:
        raise RefusedError(f"there is no GPU {request.gpu}", "see: gpuvirt gpus")
    timeline, now = arbiter.timeline, host.clock.now()
    start = timeline.first(now - request.last_ns) if request.start is None else request.start
    records = timeline.since(start, PART)
    more = max(start, timeline.count - timeline.kept) + len(records)
    answer: dict[str, Any] = {"records": records, "next": more if more < timeline.count else None}
    if request.start is None:
        answer |= {
            "now": now,
            "clocks": {"realtime": time.time_ns(), "boottime": time.clock_gettime_ns(time.CLOCK_BOOTTIME)},
            "gpu": {"index": arbiter.device.index, "uuid": arbiter.device.uuid, "name": arbiter.device.name},
            "fields": Record._fields,
            "resident": timeline.resident(),
            "open": list(timeline.open()),
            "names": _names(host),
            "pids": {str(number): member.process.pid for number, member in arbiter.members.items()},
            "switches": [
                {**row, "age_s": time.time() - row["at"]} for row in switch_rows(host, request.gpu, None, 1000, False)
            ],
        }
    return answer


def _names(host: Host) -> dict[str, str]:
    ended = {str(row["job"]): str(row["name"]) for row in host.jobs.ended}
    return ended | {job.id: job.name for job in host.jobs}
