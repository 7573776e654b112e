# SPDX-License-Identifier: Apache-2.0
"""What the daemon knows, as metrics. Labels: gpu (index), uuid, job; gpuvirt_job_info has a job's name and user."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING

import gpuvirt
from gpuvirt.arbitration.facts import Contender
from gpuvirt.control import fixed
from gpuvirt.metrics import COUNTER, GAUGE, HISTOGRAM, Buckets, Family, families, rendered
from gpuvirtd.arbiter.arbiter import Arbiter
from gpuvirtd.arbiter.switches import BOUNDS_S
from gpuvirtd.jobs import Job, Member
from gpuvirtd.moves import LEFT_BY_KIND, SECOND, arena_of, link_of
from gpuvirtd.usage import quota_of

if TYPE_CHECKING:
    from gpuvirtd.host import Host

DAEMON = (
    ("build_info", GAUGE, "1, with the version of gpuvirtd."),
    ("daemon_generation", GAUGE, "Which start of gpuvirtd on its state this is."),
    ("daemon_uptime_seconds", GAUGE, "Time since gpuvirtd started."),
    ("daemon_recovering", GAUGE, "1 while processes of before the restart have not come back yet."),
    ("jobs", GAUGE, "Jobs that have not ended."),
    ("queued_jobs", GAUGE, "Of them, those that wait in line to be started."),
    ("refused_clients_total", COUNTER, "Processes that were not allowed to attach."),
    ("protocol_errors_total", COUNTER, "Connections closed because of a message that was wrong."),
    ("internal_errors_total", COUNTER, "Mistakes of gpuvirtd itself; each is in its log."),
    ("usage_queries_total", COUNTER, "Questions of NVML shims inside jobs."),
    ("host_swap_limit_bytes", GAUGE, "Host memory that swapped memory of jobs may take."),
    ("host_swap_free_bytes", GAUGE, "What is left of it."),
    ("host_swap_used_bytes", GAUGE, "Host memory that swapped memory of all jobs takes now."),
)
COUNTED = {"refused": "refused_clients_total", "protocol_errors": "protocol_errors_total",
           "internal_errors": "internal_errors_total", "queries": "usage_queries_total"}  # fmt: skip
GPU = (
    ("gpu_info", GAUGE, "1, with the name of the GPU."),
    ("gpu_answers", GAUGE, "1 when NVML answers for this GPU."),
    ("gpu_memory_size_bytes", GAUGE, "Memory of the device."),
    ("gpu_memory_used_bytes", GAUGE, "Memory in use on the device by anybody, as NVML says."),
    ("gpu_memory_capacity_bytes", GAUGE, "Memory of the device that jobs may have resident."),
    ("gpu_memory_others_bytes", GAUGE, "Memory in use that no job reports: contexts, other programs."),
    ("gpu_switches_total", COUNTER, "Times that the GPU went to another job."),
    ("gpu_last_switch_seconds", GAUGE, "How long the last such change took."),
    ("gpu_waiting_jobs", GAUGE, "Jobs that wait for the GPU."),
    ("gpu_held", GAUGE, "1 when a job holds the GPU."),
    (
        "gpu_switch_seconds",
        HISTOGRAM,
        "From asking the GPU back until the next job could go on, by what memory did.",
    ),
    ("gpu_wait_seconds", HISTOGRAM, "How long jobs waited for a turn, each time."),
    ("gpu_swap_idle_seconds_total", COUNTER, "Time that nobody could use the GPU because memory moved."),
    ("gpu_link_bytes_total", COUNTER, "Bytes that swapping copied over the link of the GPU."),
    ("gpu_link_bytes_per_second", GAUGE, "Bytes a second that the link is taken to do one way: learned from copies."),
    ("gpu_link_share_ratio", GAUGE, "Part of that which swapping took in the last seconds, of the busier direction."),
    ("gpu_unmanaged_processes", GAUGE, "Processes that use the device and are of no job."),
)
JOB = (
    ("job_info", GAUGE, "1, with the name and the user of the job."),
    ("job_weight", GAUGE, "GPU time that the job gets in proportion to others."),
    ("job_arena_bytes", GAUGE, "Host memory that the arena of the job takes."),
)
SHARE = (  # of one job on one GPU
    ("clients", GAUGE, "Processes of the job that use the GPU."),
    ("memory_limit_bytes", GAUGE, "Device memory that the job may charge."),
    ("memory_charged_bytes", GAUGE, "Device memory charged to the job, resident or swapped out."),
    ("memory_resident_bytes", GAUGE, "Of that, what is in device memory."),
    ("memory_swapped_bytes", GAUGE, "Of that, what is in host memory."),
    ("memory_fixed_bytes", GAUGE, "Device memory that cannot be moved, by kind."),
    ("memory_pinned_bytes", GAUGE, "Host memory that the job has pinned."),
    (
        "memory_host_bytes",
        GAUGE,
        "Pages of the arena that the processes refer to; what two share counts twice.",
    ),
    ("swap_bytes_total", COUNTER, "Bytes moved out of and into the device."),
    ("swap_saved_bytes_total", COUNTER, "Bytes that left or came without being copied, by the reason."),
    ("swap_early_bytes_total", COUNTER, "Bytes copied out ahead of a switch."),
    (
        "swap_work_seconds_total",
        COUNTER,
        "Time that moving memory took (copy; hash is a part of it), and in calls that map memory.",
    ),
    ("swap_lost_seconds_total", COUNTER, "Time that the job wanted the GPU and only moving memory kept it from it."),
    ("swap_hash_errors_total", COUNTER, "Unequal pages with equal hashes. Always 0."),
    ("swap_verify_errors_total", COUNTER, "Pages that came back with another content. Always 0."),
    ("lease_held_seconds_total", COUNTER, "GPU time: held while others waited, or busy while nobody did."),
    ("lease_wait_seconds_total", COUNTER, "Time that the job waited for the GPU."),
    ("lease_waits_total", COUNTER, "Times that the job began to wait for the GPU."),
    ("lease_grants_total", COUNTER, "Times that the job was given the GPU."),
    ("lease_overruns_total", COUNTER, "Times that work of the job went on too long after its turn."),
    ("lease_overrun_seconds_total", COUNTER, "How long that was in all."),
    ("busy_seconds_total", COUNTER, "Time that processes of the job had work on the GPU."),
    ("gate_wait_seconds_total", COUNTER, "Time that threads of the job were held back before a call."),
    ("submissions_total", COUNTER, "Calls of the job that gave work to the GPU."),
    ("passed_calls_total", COUNTER, "Calls of the job that went to the driver ungoverned."),
    ("unknown_names_total", COUNTER, "Driver functions that the job asked for and the shim does not know."),
)


async def served(host: Host, counters: Mapping[str, int], started: int) -> str:
    """The text of all families, in a fixed order, made in small steps between which the daemon does its real work.

    counters: those of the sessions; started: clock of the start, ns.
    """
    found = families([*DAEMON, *GPU, *JOB, *SHARE])
    for _ in collecting(found, host, counters, started):
        await asyncio.sleep(0)
    parts = []
    for part in rendered(found.values()):
        parts.append(part)
        await asyncio.sleep(0)
    return "".join(parts)


def collecting(found: dict[str, Family], host: Host, counters: Mapping[str, int], started: int) -> Iterator[None]:
    """Fills the families; between the steps jobs may come and end."""
    _daemon(found, host, counters, started)
    for arbiter in host.arbiters.values():
        _gpu(found, arbiter, host.clock.now())
        yield
    for job in list(host.jobs):
        if job.id not in host.jobs.by_id:
            continue
        found["job_info"].add(1, job=job.id, name=job.name, user=job.user)
        found["job_weight"].add(job.weight, job=job.id)
        found["job_arena_bytes"].add(arena_of(host, job), job=job.id)
        for arbiter in host.arbiters.values():
            contender = arbiter.gpu.contenders.get(job.id)
            if contender is not None:
                _share(found, host, job, arbiter, contender)
        yield


def _daemon(found: dict[str, Family], host: Host, counters: Mapping[str, int], started: int) -> None:
    found["build_info"].add(1, version=gpuvirt.__version__)
    found["daemon_generation"].add(host.generation)
    found["daemon_uptime_seconds"].add((host.clock.now() - started) / SECOND)
    found["daemon_recovering"].add(int(host.recovery.active()))
    found["jobs"].add(len(host.jobs.by_id))
    found["queued_jobs"].add(sum(job.queued is not None for job in host.jobs))
    for counter, name in COUNTED.items():
        found[name].add(counters.get(counter, 0))
    found["host_swap_limit_bytes"].add(host.policy.host_budget)
    found["host_swap_free_bytes"].add(host.host_room())
    found["host_swap_used_bytes"].add(host.places.arenas.used_by())


def _gpu(found: dict[str, Family], arbiter: Arbiter, now: int) -> None:
    gpu, labels = arbiter.gpu, _of(arbiter)
    found["gpu_info"].add(1, **labels, name=arbiter.device.name)
    found["gpu_answers"].add(int(arbiter.usage is not None), **labels)
    found["gpu_memory_size_bytes"].add(arbiter.device.memory_total, **labels)
    if arbiter.usage is not None:
        ours = {member.process.pid for member in arbiter.members.values()}
        found["gpu_memory_used_bytes"].add(arbiter.usage.used, **labels)
        found["gpu_unmanaged_processes"].add(len(set(arbiter.usage.pids) - ours), **labels)
    found["gpu_memory_capacity_bytes"].add(gpu.capacity, **labels)
    found["gpu_memory_others_bytes"].add(arbiter.residue.value, **labels)
    found["gpu_switches_total"].add(gpu.switches, **labels)
    found["gpu_last_switch_seconds"].add(gpu.last_switch_ns / SECOND, **labels)
    waiting = sum(contender.waiting and key != gpu.holder for key, contender in gpu.contenders.items())
    found["gpu_waiting_jobs"].add(waiting, **labels)
    found["gpu_held"].add(int(gpu.holder is not None), **labels)
    for moved, histogram in arbiter.switches.histograms.items():
        buckets = Buckets(BOUNDS_S, histogram.counts, histogram.total_ns / SECOND)
        found["gpu_switch_seconds"].add(buckets, **labels, memory="moved" if moved else "stayed")
    waited = arbiter.timeline.waited
    found["gpu_wait_seconds"].add(Buckets(BOUNDS_S, waited.counts, waited.total_ns / SECOND), **labels)
    found["gpu_swap_idle_seconds_total"].add(arbiter.lost_time.of_gpu(now) / SECOND, **labels)
    link = link_of(arbiter, now)
    found["gpu_link_bytes_total"].add(link["out_bytes"], **labels, direction="out")
    found["gpu_link_bytes_total"].add(link["in_bytes"], **labels, direction="in")
    found["gpu_link_bytes_per_second"].add(link["rate"], **labels)
    found["gpu_link_share_ratio"].add(link["share"], **labels)


def _share(found: dict[str, Family], host: Host, job: Job, arbiter: Arbiter, contender: Contender) -> None:
    now = host.clock.now()
    members = [member for member in job.members.values() if member.arbiter is arbiter]
    busy = sum(member.busy(now) for member in members)  # reads the pages, too
    past = job.past.get(arbiter.device.uuid, {})
    labels = {**_of(arbiter), "job": job.id}

    def total(name: str) -> int:
        return past.get(name, 0) + sum(int(getattr(member.report, name)) for member in members)

    found["clients"].add(len(members), **labels)
    found["memory_limit_bytes"].add(quota_of(host, job, arbiter), **labels)
    found["memory_charged_bytes"].add(sum(member.facts.charged for member in members), **labels)
    found["memory_resident_bytes"].add(sum(member.facts.resident for member in members), **labels)
    found["memory_swapped_bytes"].add(sum(member.facts.swapped for member in members), **labels)
    for kind, size in _fixed(members):
        found["memory_fixed_bytes"].add(size, **labels, kind=kind)
    found["memory_pinned_bytes"].add(sum(member.report.pinned_bytes for member in members), **labels)
    found["swap_bytes_total"].add(total("out_bytes"), **labels, direction="out")
    found["swap_bytes_total"].add(total("in_bytes"), **labels, direction="in")
    found["memory_host_bytes"].add(sum(member.report.host_bytes for member in members), **labels)
    came = arbiter.switches.came.get(job.id)
    for kind, name in LEFT_BY_KIND.items():
        found["swap_saved_bytes_total"].add(total(name), **labels, direction="out", kind=kind)
        found["swap_saved_bytes_total"].add(getattr(came, kind) if came else 0, **labels, direction="in", kind=kind)
    found["swap_early_bytes_total"].add(total("early_bytes"), **labels)
    for work in ("copy", "hash", "map"):
        found["swap_work_seconds_total"].add(total(f"{work}_ns") / SECOND, **labels, work=work)
    found["swap_lost_seconds_total"].add(arbiter.lost_time.of(job.id, now) / SECOND, **labels)
    found["swap_hash_errors_total"].add(total("hash_errors"), **labels)
    found["swap_verify_errors_total"].add(total("verify_errors"), **labels)
    waited = contender.wait_ns + (now - contender.waiting_since if contender.waiting_since is not None else 0)
    found["lease_held_seconds_total"].add(arbiter.held(contender, now) / SECOND, **labels)
    found["lease_wait_seconds_total"].add(waited / SECOND, **labels)
    found["lease_waits_total"].add(contender.waits, **labels)
    found["lease_grants_total"].add(contender.switches, **labels)
    found["lease_overruns_total"].add(contender.overruns, **labels)
    found["lease_overrun_seconds_total"].add(contender.overrun_ns / SECOND, **labels)
    found["busy_seconds_total"].add((past.get("busy_ns", 0) + busy) / SECOND, **labels)
    found["gate_wait_seconds_total"].add(total("waited_ns") / SECOND, **labels)
    found["submissions_total"].add(total("submitted"), **labels)
    found["passed_calls_total"].add(total("passed_calls"), **labels)
    found["unknown_names_total"].add(total("unknown_names"), **labels)


def _of(arbiter: Arbiter) -> dict[str, str]:
    return {"gpu": str(arbiter.device.index), "uuid": arbiter.device.uuid}


def _fixed(members: Iterable[Member]) -> list[tuple[str, int]]:
    """(kind, bytes) for every kind, also where there is nothing: a series that comes and goes is hard to add up."""
    sizes = {kind.name: 0 for kind in fixed.KINDS}
    for member in members:
        for kind, size, _ in fixed.kinds_of(member.report.fixed):
            sizes[kind.name] += size
    return list(sizes.items())
