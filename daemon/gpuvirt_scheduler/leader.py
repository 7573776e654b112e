# SPDX-License-Identifier: Apache-2.0
"""One term of a scheduler: hears hosts, decides, writes down, commands. Always in this order.

Nothing is sent that is not in the store; what hosts say is asked for again by whoever leads next.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Mapping
from dataclasses import replace

from gpuvirt.proto.gpuvirt.v1 import agent_pb2 as agent
from gpuvirt.scheduler.actions import Plan
from gpuvirt.scheduler.changes import decided
from gpuvirt.scheduler.decide import decide
from gpuvirt.scheduler.decide.promise import with_guarantee
from gpuvirt.scheduler.reconcile import advanced, commands, gone, name_of, told
from gpuvirt.scheduler.state import ENDED, Gpu, Job, MemberState, Node, NodeState, Phase
from gpuvirt_scheduler.book import Book
from gpuvirt_scheduler.hosts import Link
from gpuvirt_scheduler.settings import Settings
from gpuvirt_scheduler.store.base import Store
from gpuvirtd.log import Logger

LOOK_EVERY_S = 1.0
SILENT_S = 3.5


class Leader:
    """From the election to its end."""

    def __init__(self, settings: Settings, store: Store, log: Logger, clock: Callable[[], float] = time.time) -> None:
        self.settings, self.store, self.log, self.clock = settings, store, log, clock
        self.book = Book(settings.the_rules())
        self.links = {host.name: Link(host, self.wake, log) for host in settings.hosts}
        self.plan = Plan()
        self.term = 0
        self._wake = asyncio.Event()
        self._edits = self._covered = 0
        self._written = asyncio.Condition()

    def wake(self) -> None:
        """Something has happened."""
        self._wake.set()

    async def begin(self) -> None:
        """Waits until this scheduler leads, and reads what there is."""
        self.term = await self.store.lead()
        self.book.read(await self.store.load())
        for queue in self.settings.the_queues():
            self.book.put_queue(queue)
        for name in sorted(self.book.nodes.keys() - self.links.keys()):
            self.book.put_node(replace(self.book.nodes[name], state=NodeState.UNKNOWN, reason="not configured"))
        self.log.info("leads", term=self.term, jobs=len(self.book.jobs))

    async def run(self) -> None:
        """Until it is cancelled, or does not lead any more: NotLeader, StoreAway."""
        lines = [asyncio.create_task(link.run(self.term)) for link in self.links.values()]
        try:
            while True:
                await self._turn()
        finally:
            for line in lines:
                line.cancel()
            for link in self.links.values():
                link.close()

    async def edit(self, job: Job) -> None:
        """Writes a job down as a user wants it; returns when it is in the store."""
        self.book.put_job(job)
        await self.written()

    async def written(self) -> None:
        """Returns when everything that is in the book now is in the store."""
        self._edits += 1
        mine = self._edits
        self.wake()
        async with self._written:
            await self._written.wait_for(lambda: self._covered >= mine)

    async def _turn(self) -> None:
        wait = min(LOOK_EVERY_S, max(0.0, self.plan.again_at - self.clock()))
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._wake.wait(), max(wait, 0.01))
        self._wake.clear()
        now = self.clock()
        self._hear(now)
        self._decide(now)
        covered, jobs = self._edits, dict(self.book.jobs)
        changes = self.book.take_changes()
        if changes is not None:
            await self.store.commit(self.term, changes)
        here = _by_node(jobs)
        for name, link in self.links.items():
            link.send(commands(here.get(name, ()), name, link.latest))
        async with self._written:
            self._covered = covered
            self._written.notify_all()

    # ---- what hosts say

    def _hear(self, now: float) -> None:
        here = _by_node(self.book.jobs)
        for name, link in self.links.items():
            node = self._node(link, bool(here.get(name)), now)
            self.book.put_node(node)
            for job in (self.book.jobs[one.id] for one in here.get(name, ())):
                if job.phase in ENDED:
                    continue  # by what another host has said just now
                if node.state is NodeState.LOST:
                    self.book.put_job(advanced(gone(job, name), now, self.book.rules))
                elif link.heard_at is not None and not link.problem:
                    self.book.put_job(self._told(job, link, now))

    def _told(self, job: Job, link: Link, now: float) -> Job:
        if job.phase is Phase.STOPPING and any(name_of(job, one) in link.in_flight for one in job.members):
            return job  # what is under way may still start it
        for member in job.members:
            why = link.refused.get((name_of(job, member), member.attempt))
            if why is not None and member.node == link.host.name and member.state is MemberState.ASSIGNED:
                members = tuple(replace(one, state=MemberState.ENDED) if one is member else one for one in job.members)
                refused = f"{link.host.name} does not start it: {why}"
                job = replace(
                    job, phase=Phase.STOPPING, then=Phase.FAILED, reason=refused, members=members, changed=now
                )
                break
        return advanced(told(job, link.host.name, link.reports), now, self.book.rules)

    def _node(self, link: Link, in_use: bool, now: float) -> Node:
        name = link.host.name
        known = self.book.nodes.get(name) or Node(name, link.host.address, since=now)
        has = link.inventory
        if has is not None:
            known = replace(
                known,
                gpus=tuple(
                    Gpu(gpu.uuid, gpu.index, gpu.type, gpu.memory_bytes, _healthy(link, gpu.uuid)) for gpu in has.gpus
                ),
                cpu_thousandths=1000 * has.cpus,
                memory_bytes=has.memory_bytes,
                swap_bytes=has.swap_bytes,
                boot=has.boot,
            )
        known = replace(known, address=link.host.address, domains={"host": name, **link.host.domains})
        state, reason = self._state_of(link, known, in_use)
        return replace(known, state=state, reason=reason, since=known.since if state is known.state else now)

    def _state_of(self, link: Link, known: Node, in_use: bool) -> tuple[NodeState, str]:
        if link.silent_for > SILENT_S:
            lost = self.settings.lost_after
            if known.state is NodeState.LOST or (link.heard_at is not None and 0 < lost <= link.silent_for):
                return NodeState.LOST, known.reason if known.state is NodeState.LOST else link.problem or "silent"
            return NodeState.UNKNOWN, link.problem or "silent"
        if known.draining:
            return (NodeState.DRAINING if in_use else NodeState.DRAINED), known.drain_reason
        if link.draining:
            return NodeState.UNKNOWN, "its own operator lets it take no new jobs"
        return NodeState.READY, ""

    # ---- what is done about it

    def _decide(self, now: float) -> None:
        snapshot = self.book.snapshot()
        self.plan = decide(snapshot, now)
        rules = self.book.rules
        for name, taken in self.plan.guaranteed.items():
            self.book.put_job(with_guarantee(self.book.jobs[name], taken, now, rules))
        for action in self.plan.actions:
            job = decided(self.book.jobs[action.job], action, now, rules)
            self.book.put_job(job)
            self.log.info("decided", action=type(action).__name__.lower(), job=job.id, reason=job.reason)


def _by_node(jobs: Mapping[str, Job]) -> dict[str, list[Job]]:
    """Jobs that have not ended, by the hosts of their members."""
    found: dict[str, list[Job]] = {}
    for job in jobs.values():
        if job.phase not in ENDED:
            for node in {member.node for member in job.members}:
                found.setdefault(node, []).append(job)
    return found


def _healthy(link: Link, uuid: str) -> bool:
    usage = {gpu.uuid: gpu.healthy for gpu in _beat(link).gpus}
    return usage.get(uuid, True)


def _beat(link: Link) -> agent.Heartbeat:
    assert link.inventory is not None
    return link.inventory.now
