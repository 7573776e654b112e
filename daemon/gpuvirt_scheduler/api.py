# SPDX-License-Identifier: Apache-2.0
"""The scheduler's calls: checked, written down, then answered. A token says that the caller may."""

from __future__ import annotations

import contextlib
import hmac
import pwd
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import grpc

from gpuvirt.errors import GpuvirtError, RefusedError, UsageError
from gpuvirt.proto.gpuvirt.v1 import scheduler_pb2 as pb
from gpuvirt.proto.gpuvirt.v1 import scheduler_pb2_grpc
from gpuvirt.proto.gpuvirt.v1 import types_pb2 as types
from gpuvirt.scheduler.decide.place import DOMAINS
from gpuvirt.scheduler.decide.promise import counted, fraction
from gpuvirt.scheduler.state import ENDED, TIERS, Demand, Job, NodeState, Phase, Program, Served, Spec
from gpuvirt_scheduler.leader import Leader
from gpuvirt_scheduler.store.base import NotLeader, StoreAway

Context = grpc.aio.ServicerContext[Any, Any]
State = pb.SubmittedJob
STATES = {
    Phase.PENDING: State.PENDING,
    Phase.STARTING: State.STARTING,
    Phase.RUNNING: State.RUNNING,
    Phase.SUSPENDING: State.SUSPENDED,
    Phase.SUSPENDED: State.SUSPENDED,
    Phase.RESUMING: State.STARTING,
    Phase.STOPPING: State.CANCELLING,
    Phase.SUCCEEDED: State.SUCCEEDED,
    Phase.FAILED: State.FAILED,
    Phase.CANCELLED: State.CANCELLED,
}
NODE_STATES = {
    NodeState.READY: pb.Node.READY,
    NodeState.DRAINING: pb.Node.DRAINING,
    NodeState.DRAINED: pb.Node.DRAINED,
    NodeState.UNKNOWN: pb.Node.UNKNOWN,
    NodeState.LOST: pb.Node.LOST,
}
MOST_MEMBERS, MOST_GPUS, SECONDS_MOST = 4096, 64, 1e9


class Api(scheduler_pb2_grpc.SchedulerServicer):
    """gpuvirt.v1.Scheduler."""

    def __init__(self, token: str) -> None:
        self.token = token
        self.leader: Leader | None = None

    async def Submit(self, request: pb.SubmitRequest, context: Context) -> pb.SubmittedJob:
        async with self._answering(context) as leader:
            book = leader.book
            if request.request in book.requests:
                return self._job(leader, book.jobs[book.requests[request.request]])
            if not 0 < len(request.request) <= 128:
                raise UsageError("a request needs an id of 1 to 128 characters")
            spec = spec_of(request.spec, book.queues.keys())
            now = leader.clock()
            name = book.next_name()
            free = book.rules.fractions.get(spec.tier, 0.0) <= 0
            job = Job(name, request.request, spec, now, changed=now, guaranteed=free, served=Served(until=now))
            await leader.edit(job)
            return self._job(leader, book.jobs[name])

    async def List(self, request: pb.ListRequest, context: Context) -> pb.ListReply:
        async with self._answering(context) as leader:
            jobs = [
                self._job(leader, job)
                for job in sorted(leader.book.jobs.values(), key=lambda job: (job.submitted, job.id))
                if (not request.queue or job.spec.queue == request.queue)
                and (not request.user or job.spec.user == request.user)
                and (not request.states or STATES[job.phase] in request.states)
            ]
            size = min(request.page_size or 100, 1000)
            begin = int(request.page) if request.page.isdigit() else 0
            more = str(begin + size) if begin + size < len(jobs) else ""
            return pb.ListReply(jobs=jobs[begin : begin + size], next_page=more)

    async def Cancel(self, request: pb.CancelRequest, context: Context) -> pb.SubmittedJob:
        async with self._answering(context) as leader:
            job = _known(leader, request.job)
            if job.phase in ENDED:
                return self._job(leader, job)
            now = leader.clock()
            served = counted(job, now, leader.book.rules)
            then = replace(job, then=Phase.CANCELLED, reason="cancelled", served=served, changed=now)
            if job.members:
                await leader.edit(replace(then, phase=Phase.STOPPING))
            else:
                await leader.edit(replace(then, phase=Phase.CANCELLED, ended=now, then=Phase.PENDING))
            return self._job(leader, leader.book.jobs[job.id])

    async def Change(self, request: pb.ChangeRequest, context: Context) -> pb.SubmittedJob:
        async with self._answering(context) as leader:
            job = _known(leader, request.job)
            if job.phase in ENDED:
                raise RefusedError(f"job {job.id} has ended", "hand it in again")
            spec = job.spec
            if request.HasField("queue"):
                spec = replace(spec, queue=_queue(request.queue, leader.book.queues.keys()))
            if request.HasField("tier"):
                spec = replace(spec, tier=_tier(request.tier))
            held = request.suspended if request.HasField("suspended") else job.held
            served = counted(job, leader.clock(), leader.book.rules)
            await leader.edit(replace(job, spec=spec, held=held, served=served))
            return self._job(leader, leader.book.jobs[job.id])

    async def Nodes(self, request: pb.NodesRequest, context: Context) -> pb.NodesReply:
        async with self._answering(context) as leader:
            nodes = [node for node in leader.book.nodes.values() if request.name in ("", node.name)]
            return pb.NodesReply(nodes=[self._node(leader, node.name) for node in nodes])

    async def DrainNode(self, request: pb.DrainNodeRequest, context: Context) -> pb.Node:
        async with self._answering(context) as leader:
            node = leader.book.nodes.get(request.node)
            if node is None:
                raise UsageError(f"there is no host '{request.node}'", "see: gpuvirt nodes")
            patience = leader.clock() + _seconds("patience_seconds", request.patience_seconds)
            leader.book.put_node(
                replace(node, draining=request.draining, drain_reason=request.reason, patience_until=patience)
            )
            await leader.written()
            return self._node(leader, node.name)

    async def Explain(self, request: pb.ExplainRequest, context: Context) -> pb.Explanation:
        async with self._answering(context) as leader:
            job = _known(leader, request.job)
            found = leader.plan.explanations.get(job.id)
            if found is None:
                return pb.Explanation(job=job.id, reason=job.reason or f"it is {job.phase.value}")
            near = [pb.Explanation.Miss(node=miss.node, lacks=miss.lacks) for miss in found.misses]
            return pb.Explanation(job=job.id, reason=found.reason, misses=near, position=found.position)

    # ---- how they are answered

    @contextlib.asynccontextmanager
    async def _answering(self, context: Context) -> AsyncIterator[Leader]:
        shown = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
        wanted = f"Bearer {self.token}"
        if not any(isinstance(one, str) and hmac.compare_digest(one.encode(), wanted.encode()) for one in shown):
            await context.abort(grpc.StatusCode.UNAUTHENTICATED, "the caller shows no valid token; see --token-file")
        if self.leader is None:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "this scheduler does not lead now; ask again")
        assert self.leader is not None
        try:
            yield self.leader
        except UsageError as error:
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
        except RefusedError as error:
            await context.abort(grpc.StatusCode.FAILED_PRECONDITION, str(error))
        except (NotLeader, StoreAway) as error:
            await context.abort(grpc.StatusCode.UNAVAILABLE, str(error))
        except GpuvirtError as error:
            await context.abort(grpc.StatusCode.NOT_FOUND, str(error))

    def _job(self, leader: Leader, job: Job) -> pb.SubmittedJob:
        now, spec = leader.clock(), job.spec
        served = counted(job, now, leader.book.rules)
        why = leader.plan.explanations.get(job.id)
        waits = job.phase in (Phase.PENDING, Phase.SUSPENDED)
        found = pb.SubmittedJob(
            id=job.id,
            spec=pb.JobSpec(
                name=spec.name, queue=spec.queue, user=spec.user, tier=spec.tier,
                program=types.Program(command=spec.program.command, folder=spec.program.folder),
                demand=pb.Demand(
                    gpus=spec.demand.gpus, gpu_thousandths=spec.demand.gpu_thousandths,
                    gpu_memory_bytes=spec.demand.gpu_memory_bytes, cpu_thousandths=spec.demand.cpu_thousandths,
                    memory_bytes=spec.demand.memory_bytes, gpu_types=spec.demand.gpu_types,
                ),
                members_min=spec.members_min, members_max=spec.members_max, topology=spec.topology,
            ),
            state=STATES[job.phase],
            reason=why.reason if why is not None and waits else job.reason,
            members=[
                pb.Member(rank=one.rank, node=one.node, gpus=one.gpus, attempt=one.attempt) for one in job.members
            ],
            submitted=job.submitted, started=job.started or 0.0, ended=job.ended or 0.0,
            gpu_seconds=served.gpu_seconds, gpu_fraction=fraction(served),
        )  # fmt: skip
        if job.exit is not None:
            found.exit = job.exit
        return found

    def _node(self, leader: Leader, name: str) -> pb.Node:
        node = leader.book.nodes[name]
        used = 0
        for job in leader.book.jobs.values():
            if job.phase in (Phase.STARTING, Phase.RUNNING, Phase.RESUMING):
                here = sum(member.node == name for member in job.members)
                used += here * job.spec.demand.gpus * job.spec.demand.gpu_thousandths
        return pb.Node(
            name=name, address=node.address, state=NODE_STATES[node.state],
            gpus=[
                types.Gpu(uuid=gpu.uuid, index=gpu.index, type=gpu.type, memory_bytes=gpu.memory_bytes)
                for gpu in node.gpus
            ],
            total=pb.Resources(gpu_thousandths=1000 * len(node.gpus), cpu_thousandths=node.cpu_thousandths),
            used=pb.Resources(gpu_thousandths=used), reason=node.reason, domains=dict(node.domains),
        )  # fmt: skip


def spec_of(told: pb.JobSpec, queues: Any) -> Spec:
    """What a user asks for, checked. Raises UsageError."""
    demand = told.demand
    if not told.program.command:
        raise UsageError("a job needs a program", "give its command")
    thousandths = demand.gpu_thousandths or 1000
    if thousandths > 1000 or demand.gpus > MOST_GPUS:
        raise UsageError(
            f"{thousandths / 1000:g} of each of {demand.gpus} GPUs", f"at most {MOST_GPUS} whole GPUs a member"
        )
    if demand.gpus > 1 and thousandths < 1000:
        raise UsageError("parts of several GPUs for one member", "ask for a part of one GPU, or for more members")
    least = told.members_min or 1
    most = told.members_max or least
    if not 1 <= least <= most <= MOST_MEMBERS:
        raise UsageError(f"{least} to {most} members", f"1 to {MOST_MEMBERS}, the fewest first")
    if told.topology and told.topology not in DOMAINS:
        raise UsageError(f"there is no domain '{told.topology}'", f"known: {', '.join(DOMAINS)}")
    try:
        pwd.getpwnam(told.user)
    except KeyError:
        raise UsageError(f"there is no user '{told.user}' here") from None
    return Spec(
        name=told.name[:100] or "job",
        queue=_queue(told.queue or "default", queues),
        user=told.user,
        tier=_tier(told.tier or TIERS[-1]),
        program=Program(tuple(told.program.command), dict(told.program.environment), told.program.folder),
        demand=Demand(
            demand.gpus, thousandths, demand.gpu_memory_bytes, demand.cpu_thousandths, demand.memory_bytes,
            tuple(demand.gpu_types),
        ),
        members_min=least,
        members_max=most,
        estimate_seconds=_seconds("estimate_seconds", told.estimate_seconds),
        topology=told.topology,
        regions=tuple(told.regions),
        weight=told.standing.weight or 1,
        memory_limit_bytes=told.limits.memory_bytes,
    )  # fmt: skip


def _seconds(name: str, value: float) -> float:
    """JSON has neither infinity nor what is no number: written down, nobody could read the store any more."""
    if not 0 <= value < SECONDS_MOST:
        raise UsageError(f"{name} {value:g}", f"a number of seconds from 0 to {SECONDS_MOST:g}")
    return value


def _queue(name: str, queues: Any) -> str:
    if name != "default" and name not in queues:
        raise UsageError(f"there is no queue '{name}'", f"known: {', '.join(sorted({*queues, 'default'}))}")
    return name


def _tier(name: str) -> str:
    if name not in TIERS:
        raise UsageError(f"there is no tier '{name}'", f"known: {', '.join(TIERS)}")
    return name


def _known(leader: Leader, name: str) -> Job:
    job = leader.book.jobs.get(name)
    if job is None:
        raise GpuvirtError(f"there is no job '{name}'", "see: gpuvirt jobs")
    return job
