# SPDX-License-Identifier: Apache-2.0
"""A cluster of values: plans are carried out at once, or step by step, and its promises are looked at after each."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace

from gpuvirt.scheduler.actions import Plan
from gpuvirt.scheduler.changes import decided, ended, settled
from gpuvirt.scheduler.decide import decide
from gpuvirt.scheduler.decide.promise import with_guarantee
from gpuvirt.scheduler.decide.queues import amounts, path
from gpuvirt.scheduler.decide.room import ASIDE, OCCUPYING, living, memory_of
from gpuvirt.scheduler.state import (
    ENDED,
    Demand,
    Gpu,
    Job,
    Node,
    NodeState,
    Phase,
    Program,
    Queue,
    Resources,
    Rules,
    Snapshot,
    Spec,
)

GIB = 1 << 30


def node(name: str, gpus: int = 4, *, kind: str = "H100", rack: str = "", **fields: object) -> Node:
    """A host that is ready."""
    cards = tuple(Gpu(f"GPU-{name}-{index}", index, kind, 80 * GIB) for index in range(gpus))
    domains = {"rack": rack} if rack else {}
    values: dict[str, object] = {
        "cpu_thousandths": 64_000,
        "memory_bytes": 1024 * GIB,
        "swap_bytes": 512 * GIB,
        "state": NodeState.READY,
        "domains": domains,
    }
    return Node(name, f"{name}:1", cards, **(values | fields))  # type: ignore[arg-type]


def spec(
    name: str = "job",
    gpus: int = 1,
    *,
    tier: str = "basic",
    queue: str = "main",
    thousandths: int = 1000,
    **more: object,
) -> Spec:
    fields: dict[str, object] = {"demand": Demand(gpus, thousandths)}
    return Spec(name, queue, "ann", tier, Program(("true",)), **(fields | more))  # type: ignore[arg-type]


class Cluster:
    """Jobs, hosts, queues and a clock."""

    def __init__(self, *nodes: Node, queues: Mapping[str, Queue] | None = None, rules: Rules | None = None) -> None:
        self.nodes = {one.name: one for one in nodes}
        self.queues = dict(queues or {"main": Queue("main")})
        self.rules = rules or Rules()
        self.jobs: dict[str, Job] = {}
        self.gone: dict[str, Job] = {}
        self.now = 1000.0
        self.plan = Plan()
        self.plans = 0

    def submit(self, wanted: Spec, name: str = "") -> str:
        name = name or f"j{len(self.jobs) + len(self.gone) + 1}"
        served = replace(Job("", "", wanted, 0.0).served, until=self.now)
        guaranteed = self.rules.fractions.get(wanted.tier, 0.0) <= 0
        self.jobs[name] = Job(name, name, wanted, self.now, guaranteed=guaranteed, served=served, changed=self.now)
        return name

    def snapshot(self) -> Snapshot:
        return Snapshot(dict(self.jobs), dict(self.nodes), dict(self.queues), self.rules)

    def decide(self) -> Plan:
        """A plan, written down. What it says must hold is looked at."""
        before = self.snapshot()
        self.plan = decide(before, self.now)
        self.plans += 1
        assert decide(before, self.now) == self.plan, "equal snapshots, other plans"
        names = [action.job for action in self.plan.actions]
        assert not [name for name, count in Counter(names).items() if count > 1], "a job in two actions"
        for name, taken in self.plan.guaranteed.items():
            self.jobs[name] = with_guarantee(self.jobs[name], taken, self.now, self.rules)
        for action in self.plan.actions:
            self.jobs[action.job] = decided(self.jobs[action.job], action, self.now, self.rules)
        self.check(before)
        return self.plan

    def settle(self) -> None:
        """The hosts have done all."""
        for name, job in list(self.jobs.items()):
            self._put(name, settled(job, self.now, self.rules))

    def turn(self) -> Plan:
        """Decides until nothing changes; the hosts do it at once."""
        for _ in range(50):
            plan = self.decide()
            self.settle()
            if not plan.actions:
                return plan
        raise AssertionError(f"it does not come to rest: {self.plan.actions}")

    def once(self) -> Plan:
        """One plan, done at once."""
        plan = self.decide()
        self.settle()
        return plan

    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    def end(self, name: str, code: int = 0) -> None:
        self._put(name, ended(self.jobs[name], self.now, self.rules, code))

    def set_node(self, name: str, **fields: object) -> None:
        self.nodes[name] = replace(self.nodes[name], **fields)  # type: ignore[arg-type]

    def phase(self, name: str) -> Phase:
        return (self.jobs.get(name) or self.gone[name]).phase

    def on(self, name: str) -> list[str]:
        """The hosts of a job's members."""
        return [member.node for member in self.jobs[name].members]

    def _put(self, name: str, job: Job) -> None:
        if job.phase in ENDED:
            del self.jobs[name]
            self.gone[name] = job
        else:
            self.jobs[name] = job

    def check(self, before: Snapshot) -> None:
        """What must hold after every plan."""
        self._check_capacity()
        self._check_queues(before)
        for job in self.jobs.values():
            count = len(living(job))
            if job.phase in OCCUPYING or job.phase in ASIDE:
                assert job.spec.members_min <= count <= job.spec.members_max, f"{job.id}: {count} members"
                assert len({member.rank for member in living(job)}) == count, f"{job.id}: two members of one rank"
            self._check_domain(job)
            if job.phase is Phase.PENDING:
                assert not job.members, f"{job.id} waits and has members"
            if job.phase in (Phase.PENDING, Phase.SUSPENDED):
                assert self.plan.explanations[job.id].reason, f"{job.id} waits and nobody says why"

    def _check_domain(self, job: Job) -> None:
        """All members are in one domain of the kind that was asked for."""
        members = living(job)
        if job.spec.topology == "gpu":
            assert len({(member.node, member.gpus) for member in members}) <= 1, f"{job.id}: not on one GPU"
        elif job.spec.topology == "host":
            assert len({member.node for member in members}) <= 1, f"{job.id}: not on one host"
        elif job.spec.topology == "rack" and len({member.node for member in members}) > 1:
            racks = {self.nodes[member.node].domains.get("rack") for member in members}
            assert len(racks) == 1 and None not in racks, f"{job.id}: not in one rack"

    def _check_capacity(self) -> None:
        thousandths: Counter[str] = Counter()
        promised: Counter[str] = Counter()
        cpu: Counter[str] = Counter()
        memory: Counter[str] = Counter()
        aside: Counter[str] = Counter()
        cards = {gpu.uuid: gpu for one in self.nodes.values() for gpu in one.gpus}
        for job in self.jobs.values():
            demand = job.spec.demand
            for member in living(job):
                if job.phase in OCCUPYING:
                    cpu[member.node] += demand.cpu_thousandths
                    memory[member.node] += demand.memory_bytes
                    assert len(member.gpus) == demand.gpus
                    for uuid in member.gpus:
                        thousandths[uuid] += demand.gpu_thousandths
                        promised[uuid] += memory_of(demand, cards[uuid])
                        assert not demand.gpu_types or cards[uuid].type in demand.gpu_types
                elif job.phase in ASIDE:
                    memory[member.node] += demand.memory_bytes
                    aside[member.node] += sum(memory_of(demand, cards[uuid]) for uuid in member.gpus)
        assert all(count <= 1000 for count in thousandths.values()), f"overcommitted: {thousandths}"
        for one in self.nodes.values():
            over = sum(max(0, promised[gpu.uuid] - gpu.memory_bytes) for gpu in one.gpus)
            for gpu in one.gpus:
                assert promised[gpu.uuid] <= gpu.memory_bytes * self.rules.oversubscribe, f"{gpu.uuid}: memory"
            assert over + aside[one.name] <= one.swap_bytes, f"{one.name}: swap"
            assert cpu[one.name] <= one.cpu_thousandths, f"{one.name}: CPU"
            assert memory[one.name] <= one.memory_bytes - one.swap_bytes, f"{one.name}: memory"

    def _check_queues(self, before: Snapshot) -> None:
        """No limit is exceeded by what was put on GPUs; fractions that are promised are there."""
        cards = {gpu.uuid: gpu for one in self.nodes.values() for gpu in one.gpus}
        used: dict[str, list[int]] = defaultdict(lambda: [0, 0, 0, 0])
        new: set[str] = set()
        for job in self.jobs.values():
            demand = job.spec.demand
            if job.phase in OCCUPYING:
                for member in living(job):
                    row = (
                        demand.gpus * demand.gpu_thousandths,
                        sum(memory_of(demand, cards[uuid]) for uuid in member.gpus),
                        demand.cpu_thousandths,
                        demand.memory_bytes,
                    )
                    for name in path(job.spec.queue):
                        used[name] = [had + more for had, more in zip(used[name], row, strict=True)]
                if before.jobs[job.id].phase not in OCCUPYING:
                    new |= set(path(job.spec.queue))
        for name in new & self.queues.keys():
            for limit, amount in zip(amounts(self.queues[name].limit), used[name], strict=True):
                assert not limit or amount <= limit, f"queue {name}: {amount} of {limit}"
        capacity = 1000 * sum(
            gpu.healthy
            for one in self.nodes.values()
            if one.state in (NodeState.READY, NodeState.UNKNOWN)
            for gpu in one.gpus
        )
        promised = sum(
            self.rules.fractions.get(job.spec.tier, 0.0)
            * job.spec.members_min
            * job.spec.demand.gpus
            * job.spec.demand.gpu_thousandths
            for job in self.jobs.values()
            if job.guaranteed and job.phase is not Phase.STOPPING
        )
        assert promised <= capacity + 1e-6, "more is promised than there is"


def gpus(count: float) -> Resources:
    return Resources(gpu_thousandths=round(1000 * count))


def kinds(cluster: Cluster) -> list[tuple[str, str]]:
    """Actions of the last plan, and their jobs."""
    return [(type(action).__name__, action.job) for action in cluster.plan.actions]
