# SPDX-License-Identifier: Apache-2.0
"""What `describe` answers: everything known of one job. Bytes and seconds."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from gpuvirt.control.fixed import KINDS
from gpuvirt.errors import RefusedError
from gpuvirtd.jobs import Job, Member
from gpuvirtd.moves import LEFT_BY_KIND, SECOND, switch_rows
from gpuvirtd.status import job_status

if TYPE_CHECKING:
    from gpuvirtd.host import Host

SWITCHES = 5  # that are shown with a job


def describe(host: Host, word: str) -> dict[str, Any]:
    """The job of this id, number or name; of several of one name the one that lives. Raises RefusedError."""
    job = _living(host, word)
    if job is not None:
        return job_status(host, job) | _details(host, job) | {"last_switches": _switches(host, job.id)}
    row, events = _ended(host, word)
    details = {"processes": [], "fixed": [], "events": events, "last_switches": _switches(host, row["job"])}
    return row | details


def find(host: Host, word: str) -> Job:
    """The job that lives, by id, number or name. Raises RefusedError, also for one that has ended."""
    job = _living(host, word)
    if job is not None:
        return job
    for row in host.jobs.ended:
        if word in (row["job"], row["job"].removeprefix("j"), row["name"]):
            raise RefusedError(f"job {row['job']} has ended", "see: gpuvirt ps -a")
    raise RefusedError(f"there is no job '{word}'", "see: gpuvirt ps")


def _living(host: Host, word: str) -> Job | None:
    job = host.jobs.by_id.get(word) or host.jobs.by_id.get(f"j{word}")
    if job is not None:
        return job
    named = [job for job in host.jobs if job.name == word]
    if len(named) > 1:
        raise RefusedError(f"{len(named)} jobs have the name '{word}'", f"say which: {', '.join(j.id for j in named)}")
    return named[0] if named else None


def id_of(host: Host, word: str) -> str:
    """The id of the job with this id, number or name, also of one that has ended. Raises RefusedError."""
    job = _living(host, word)
    return job.id if job is not None else str(_ended(host, word)[0]["job"])


def _ended(host: Host, word: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    for row, events in zip(reversed(host.jobs.ended), reversed(host.jobs.ended_events), strict=True):
        if word in (row["job"], row["job"].removeprefix("j"), row["name"]):
            return row, events
    raise RefusedError(f"there is no job '{word}'", "see: gpuvirt ps -a")


def _details(host: Host, job: Job) -> dict[str, Any]:
    """What `ps` does not show. job_status has read the pages just now."""
    members = list(job.members.values())
    return {
        "processes": [_process(host, member) for member in members],
        "fixed": fixed_rows(members),
        "passed_calls": job.sum("passed_calls"),
        "unknown_names": job.sum("unknown_names"),
        "pinned_quota": host.policy.pinned_per_process,
        "events": job.events.rows(),
    }


def _switches(host: Host, job: str) -> list[dict[str, Any]]:
    return switch_rows(host, gpu=None, job=job, count=SWITCHES, everything=False)


def fixed_rows(members: list[Member]) -> list[dict[str, Any]]:
    """Fixed memory of all processes together by kind, the largest first, with the reason."""
    rows = []
    for kind in KINDS:
        entries = [m.report.fixed[kind.number] for m in members if kind.number < len(m.report.fixed)]
        size, pieces = (sum(column) for column in zip(*entries, strict=True)) if entries else (0, 0)
        if size or pieces:
            rows.append({"kind": kind.name, "bytes": size, "pieces": pieces, "what": kind.noun, "reason": kind.reason})
    return sorted(rows, key=lambda row: -int(row["bytes"]))


def _process(host: Host, member: Member) -> dict[str, Any]:
    report, client = member.report, member.facts
    return {
        "pid": member.process.pid,
        "client": member.number,
        "gpu": member.arbiter.device.index,
        "state": report.state.name.lower() if member.session is not None else "lost",
        "charged": report.charged_bytes,
        "resident": report.resident_bytes,
        "fixed": report.native_bytes,
        "allowance": client.allowance,
        "swapped": client.swapped,
        "host": report.host_bytes,
        "pinned": report.pinned_bytes,
        "busy_s": report.busy_ns / SECOND,
        "gate_s": report.waited_ns / SECOND,
        "out_bytes": report.out_bytes,
        "in_bytes": report.in_bytes,
        **{kind: getattr(report, name) for kind, name in LEFT_BY_KIND.items()},
        "submitted": report.submitted,
        "passed_calls": report.passed_calls,
        "unknown_names": report.unknown_names,
    }
