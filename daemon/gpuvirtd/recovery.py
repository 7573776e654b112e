# SPDX-License-Identifier: Apache-2.0
"""After a restart: takes over jobs, and grants nothing on a GPU until its clients of before are back, dead, or late.

Any of them may still be launching under a lease page of the daemon before us, which nobody can write any more.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from gpuvirtd.arbiter.arbiter import Arbiter
from gpuvirtd.arbiter.signals import continue_process
from gpuvirtd.identity import Process, ProcessGone, is_stopped, open_process
from gpuvirtd.jobs import Job
from gpuvirtd.state import StoredClient, StoredExtra

if TYPE_CHECKING:
    from gpuvirtd.host import Host

Key = tuple[int, int, str]  # pid, start time, UUID of the GPU


class Recovery:
    """Clients of before the restart that have not come back."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._expected: dict[Key, tuple[Process, str]] = {}  # who it is, and whose
        self._owners: dict[Key, int] = {}  # and its number in its job's arena
        self._until = 0  # ns: no newcomer waits for them longer than this

    def begin(self) -> None:
        """Read the state of the daemon before us."""
        host = self.host
        stored, trials, extras = host.state.jobs(), host.state.trials(), host.state.extras()
        host.jobs.skip_ids([job.id for job in stored])
        alive = self._expect_clients({job for job, extra in extras.items() if extra.suspended})
        for job in stored:
            root: Process | None = None
            with contextlib.suppress(ProcessGone):
                root = open_process(job.root_pid, start=job.root_start)
            if root is None and job.id not in alive:
                host.write("remove_job", job.id)
                continue
            taken = Job(
                job.id,
                job.token,
                job.name,
                job.uid,
                job.weight,
                job.memory,
                job.command,
                root,
                job.since,
                attached_once=job.id in alive,
                trial=job.id in trials,
            )
            extra = extras.get(job.id, StoredExtra())
            taken.soft, taken.reserve, taken.queued = extra.soft, extra.reserve, extra.queued
            taken.priority, taken.tier, taken.due_in = extra.priority, extra.tier, extra.due_in
            taken.suspended, taken.origin = extra.suspended, extra.origin
            host.jobs.add(taken)
            if root is not None:
                host.watch(root.pidfd, host.root_died, taken)
        if self._expected:
            grace = host.policy.recovery_grace
            self._until = host.clock.now() + grace
            host.log.info("recovering", clients=len(self._expected), jobs=len(host.jobs.by_id))
            host.loop.call_later(grace / 1e9, self._ends)
            for arbiter in host.arbiters.values():
                if self.missing(arbiter):
                    arbiter.hold_until(host.clock.now() + grace)

    def _expect_clients(self, suspended: set[str]) -> set[str]:
        """Jobs that have living clients; those on our GPUs are waited for."""
        host = self.host
        alive: set[str] = set()
        known = {arbiter.device.uuid for arbiter in host.arbiters.values()}
        for client in host.state.clients():
            try:
                process = open_process(client.pid, start=client.start)
            except ProcessGone:
                host.places.gone_before(client.job, client.owner)
                host.write("remove_client", client)
                continue
            alive.add(client.job)
            if host.policy.rules.on_overrun == "stop" and is_stopped(client.pid) and client.job not in suspended:
                continue_process(process.pidfd)  # by the daemon before us, and nobody comes back from that
            if client.device not in known:
                process.close()
                continue
            key = (client.pid, client.start, client.device)
            self._expected[key] = (process, client.job)
            self._owners[key] = client.owner
            host.watch(process.pidfd, self._died, key)
        return alive

    def missing(self, arbiter: Arbiter) -> list[int]:
        """Pids that this GPU still waits for. Not those of suspended jobs: they had given it back before."""
        return [
            pid
            for (pid, _, device), (_, owner) in self._expected.items()
            if device == arbiter.device.uuid and not self._suspended(pid, owner)
        ]

    def _suspended(self, pid: int, owner: str) -> bool:
        job = self.host.jobs.by_id.get(owner)
        return job is not None and job.suspended and is_stopped(pid)

    def lacks(self, arbiter: Arbiter, job: str) -> bool:
        """True while this GPU gets no grants because a client of this job has not come back."""
        device = arbiter.device.uuid
        return arbiter.recovering() and any(
            key[2] == device and owner == job for key, (_, owner) in self._expected.items()
        )

    def waits_for(self, job: Job) -> bool:
        """True if a client of this job has not come back."""
        return any(owner == job.id for _, owner in self._expected.values())

    def holds_back(self, job: Job) -> bool:
        """True while a newcomer of this job should wait for those who know its arena."""
        return self.waits_for(job) and self.host.clock.now() < self._until

    def owners_of(self, job: Job) -> list[int]:
        """Numbers in the job's arena of those who have not come back."""
        return [
            self._owners[key]
            for key, (_, owner) in self._expected.items()
            if owner == job.id and self._owners[key] >= 0
        ]

    def active(self) -> bool:
        """True while some GPU gets no grants for it."""
        now = self.host.clock.now()
        return any(arbiter.gpu.hold_until > now for arbiter in self.host.arbiters.values())

    def back(self, key: Key) -> None:
        """This client attached again (or is none of those that we wait for)."""
        entry = self._expected.pop(key, None)
        if entry is None:
            return
        self.host.unwatch(entry[0].pidfd)
        entry[0].close()
        for arbiter in self.host.arbiters.values():
            if arbiter.device.uuid == key[2] and not self.missing(arbiter):
                arbiter.hold_until(0)
        if not self._expected:
            self.host.log.info("recovered")

    def _died(self, key: Key) -> None:
        owner = self._expected[key][1]
        self.back(key)
        self.host.places.gone_before(owner, self._owners[key])
        self.host.write("remove_client", StoredClient(key[0], key[1], owner, key[2]))
        self.host.line.look()
        job = self.host.jobs.by_id.get(owner)
        if job is not None:
            self.host.maybe_ended(job)

    def _ends(self) -> None:
        for (pid, _, device), (_, job) in self._expected.items():
            # What it has on the device shows in NVML and counts as residue from now on.
            self.host.log.warning("straggler", pid=pid, job=job, device=device, reason="did not attach again in time")
        for arbiter in self.host.arbiters.values():
            arbiter.hold_until(0)
        self.host.line.look()

    def close(self) -> None:
        for process, _ in self._expected.values():
            process.close()
