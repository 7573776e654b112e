# SPDX-License-Identifier: Apache-2.0
"""What `status` answers: the daemon, its GPUs, its jobs. Bytes and seconds."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from gpuvirt.arbitration import ledger
from gpuvirt.arbitration.facts import Contender, Word
from gpuvirt.arbitration.policies import policy_of, turns
from gpuvirt.control.block import ClientState
from gpuvirtd.arbiter.arbiter import Arbiter
from gpuvirtd.identity import is_stopped
from gpuvirtd.job_events import Kind
from gpuvirtd.jobs import Job
from gpuvirtd.moves import SECOND, arena_of, link_of, lost_of, moved_of, turn_wait_of
from gpuvirtd.strangers import strangers
from gpuvirtd.turns import standing_row

if TYPE_CHECKING:
    from gpuvirtd.host import Host


def gpu_status(host: Host, arbiter: Arbiter) -> dict[str, Any]:
    """One GPU."""
    gpu = arbiter.gpu
    holder = gpu.contenders.get(gpu.holder) if gpu.holder is not None else None
    clients = gpu.clients()
    now = host.clock.now()
    places = turns(gpu, now)
    return {
        "index": arbiter.device.index,
        "uuid": arbiter.device.uuid,
        "name": arbiter.device.name,
        "memory_total": arbiter.device.memory_total,
        "memory_used": arbiter.usage.used if arbiter.usage is not None else None,
        "state": "ok" if arbiter.usage is not None else "unknown",
        "processes": list(arbiter.usage.pids) if arbiter.usage is not None else [],
        "strangers": strangers(arbiter, host.jobs),
        "residue": arbiter.residue.value,
        "capacity": gpu.capacity,
        "promised": ledger.promised(clients),
        "resident": sum(client.resident for client in clients),
        "charged": sum(client.charged for client in clients),
        "swapped": sum(client.swapped for client in clients),
        "fits": ledger.fits(gpu),
        "holder": gpu.holder,
        "lease": holder.word.value if holder is not None else "closed",
        "next": gpu.next,
        "queue": sorted(places, key=places.__getitem__),
        "epoch": gpu.epoch,
        "switches": gpu.switches,
        "last_switch_s": gpu.last_switch_ns / SECOND,
        "lost_s": arbiter.lost_time.of_gpu(now) / SECOND,
        "link": link_of(arbiter, now),
        "policy": gpu.policy,
        "quantum_s": (holder.quantum if holder is not None else gpu.rules.quantum) / SECOND,
        "waits_for": host.recovery.missing(arbiter),
    }


def job_status(host: Host, job: Job) -> dict[str, Any]:
    """One job, over all GPUs that its processes use."""
    now = host.clock.now()
    parts = [
        (arbiter, arbiter.gpu.contenders[job.id])
        for arbiter in host.arbiters.values()
        if job.id in arbiter.gpu.contenders
    ]
    for member in job.members.values():
        member.refresh(now)
    clients = [member.facts for member in job.members.values()]
    held = sum(arbiter.held(contender, now) for arbiter, contender in parts)
    everybody = sum(arbiter.held(other, now) for arbiter, _ in parts for other in arbiter.gpu.contenders.values())
    waited = sum(
        contender.wait_ns + (now - contender.waiting_since if contender.waiting_since is not None else 0)
        for _, contender in parts
    )
    state, reason = _state(host, job, parts)
    quotas = [arbiter.pages[job.id].quota for arbiter, _ in parts if job.id in arbiter.pages]
    return {
        "job": job.id,
        "name": job.name,
        "user": job.user,
        "uid": job.uid,
        "gpu": [arbiter.device.index for arbiter, contender in parts if contender.clients],
        "state": state,
        "reason": reason,
        "pids": sorted({member.process.pid for member in job.members.values()}),
        "root_pid": job.root.pid if job.root is not None else None,
        **standing_row(job),
        "memory": job.memory,
        "memory_soft": job.soft,
        "memory_reserve": job.reserve,
        "queued": host.line.row(job),
        "memory_quota": max(quotas, default=job.memory),
        "charged": sum(client.charged for client in clients),
        "resident": sum(client.resident for client in clients),
        "native": sum(client.native for client in clients),
        "pinned": sum(member.report.pinned_bytes for member in job.members.values()),
        "swapped": sum(client.swapped for client in clients),
        "arena": arena_of(host, job),
        "held_s": held / SECOND,
        "alone_s": sum(_alone(contender, now) for _, contender in parts) / SECOND,
        "busy_s": (job.totals["busy_ns"] + sum(member.busy(now) for member in job.members.values())) / SECOND,
        "gate_s": job.sum("waited_ns") / SECOND,
        "share": held / everybody if everybody else None,
        "waits": sum(contender.waits for _, contender in parts),
        "wait_s": waited / SECOND,
        "turn_wait_s": turn_wait_of(host, job),
        "switches": sum(contender.switches for _, contender in parts),
        "overruns": sum(contender.overruns for _, contender in parts),
        "overrun_s": sum(contender.overrun_ns for _, contender in parts) / SECOND,
        "out_bytes": job.sum("out_bytes"),
        "in_bytes": job.sum("in_bytes"),
        "moved": moved_of(job, list(host.arbiters.values())),
        **lost_of(host, job),
        "submitted": job.sum("submitted"),
        "passed_calls": job.sum("passed_calls"),
        "unknown_names": job.sum("unknown_names"),
        "events": [event.text for event in job.events.of(Kind.CLIENT)],
        "since": job.since,
        "command": job.command,
        "exit": job.exit,
        "attached": job.attached_once,
    }


def _alone(contender: Contender, now: int) -> int:
    if contender.charge_from is None or contender.word is not Word.OPEN:
        return contender.open_ns
    return contender.open_ns + now - contender.charge_from


def _state(host: Host, job: Job, parts: list[tuple[Arbiter, Contender]]) -> tuple[str, str]:
    """(state, reason) for people."""
    place = host.line.place(job)
    if place is not None:
        return "queued", f"place {place.position} in line: {place.reason}"
    if job.suspended and all(contender.word is Word.CLOSED for _, contender in parts):
        return "suspended", "its scheduler has taken it off the GPU; its processes are stopped until that lets it go on"
    if host.recovery.waits_for(job):
        return "recovering", "the daemon was restarted; its processes have not attached again yet"
    if not job.members:
        return ("idle", "no process of it uses a GPU now") if job.attached_once else ("new", "made no GPU call yet")
    for arbiter, contender in parts:
        if contender.word is not Word.CLOSED and _busy(job, arbiter):
            return "running", _reason(arbiter, contender)
    for arbiter, contender in parts:
        if any(client.moving for client in contender.clients.values()):
            return "swapping", _reason(arbiter, contender)
    for arbiter, contender in parts:
        if contender.waiting:
            return "waiting", _why(host, arbiter, contender)
    lost = [member.process.pid for member in job.members.values() if member.session is None]
    if lost:
        return "idle", f"process {lost[0]} has lost its connection"
    return "idle", next(filter(None, (_reason(arbiter, contender) for arbiter, contender in parts)), "")


def _busy(job: Job, arbiter: Arbiter) -> bool:
    return any(
        member.report.state is not ClientState.IDLE for member in job.members.values() if member.arbiter is arbiter
    )


def _reason(arbiter: Arbiter, contender: Contender) -> str:
    """What is wrong with a job."""
    return "; ".join(part for part in (named(arbiter, contender.reason), _stopped(arbiter, contender)) if part)


def named(arbiter: Arbiter, reason: str) -> str:
    """With the pids of processes in place of the arbiter's own numbers for them."""

    def pid(found: re.Match[str]) -> str:
        member = arbiter.members.get(int(found[1]))
        return f"process {member.process.pid}" if member is not None else found[0]

    return re.sub(r"\bclient (\d+)", pid, reason)


def _stopped(arbiter: Arbiter, contender: Contender) -> str:
    """A process of the job that is stopped (SIGSTOP, Ctrl-Z), with the way out: it may hold up everybody."""
    for number in contender.clients:
        pid = arbiter.members[number].process.pid
        if is_stopped(pid):
            return f"process {pid} is stopped (go on: kill -CONT {pid})"
    return ""


def _why(host: Host, arbiter: Arbiter, contender: Contender) -> str:
    """What a job waits for."""
    gpu = arbiter.gpu
    reason = _reason(arbiter, contender)
    if reason and contender.key != gpu.next:
        return reason
    missing = host.recovery.missing(arbiter)
    if missing:
        return f"GPU {arbiter.device.index} waits for processes {missing} of before the restart"
    refused = policy_of(gpu).admits(gpu, contender)
    if refused:
        return refused
    holder = gpu.contenders.get(gpu.holder) if gpu.holder is not None else None
    if holder is not None:
        return f"{holder.key} holds GPU {arbiter.device.index}{_which(arbiter, holder)}"
    movers = [
        f"{key}{_which(arbiter, other)}"
        for key, other in gpu.contenders.items()
        if any(client.moving for client in other.clients.values())
    ]
    moves = f"; memory moves of {', '.join(movers)}" if movers else ""
    if contender.key == gpu.next:
        return f"is next on GPU {arbiter.device.index}{moves}" if moves else reason
    ahead = f" behind {gpu.next}" if gpu.next is not None else ""
    return f"in the queue of GPU {arbiter.device.index}{ahead}{moves}"


def _which(arbiter: Arbiter, other: Contender) -> str:
    stopped = _stopped(arbiter, other)
    return (f", which {named(arbiter, other.reason)}" if other.reason else "") + (f"; its {stopped}" if stopped else "")
