# SPDX-License-Identifier: Apache-2.0
"""The line to one host's agent: what it says, and what it is told. What to tell it, others decide."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

import grpc

from gpuvirt.proto.gpuvirt.v1 import agent_pb2 as agent
from gpuvirt.proto.gpuvirt.v1 import agent_pb2_grpc
from gpuvirt.proto.gpuvirt.v1 import types_pb2 as types
from gpuvirt.scheduler.reconcile import Command, Report, Seen, Verb
from gpuvirt.scheduler.state import Job, Member
from gpuvirt_scheduler.settings import HostSettings
from gpuvirtd.log import Logger

PERIOD_S, AGAIN_S, FRESH_S = 1.0, 1.0, 2.0
SUSPEND_S, GRACE_S, ANSWER_S = 30.0, 10.0, 60.0
SEEN = {agent.Job.SUSPENDED: Seen.SUSPENDED, agent.Job.ENDED: Seen.ENDED}
FINAL = (grpc.StatusCode.INVALID_ARGUMENT, grpc.StatusCode.PERMISSION_DENIED)  # asking again would not help


class Link:
    """One host. `changed` is called when it has said something new."""

    def __init__(self, host: HostSettings, changed: Callable[[], None], log: Logger) -> None:
        self.host, self._changed = host, changed
        self._log = log.bind(host=host.name)
        self.inventory: agent.RegisterReply | None = None
        self.reports: dict[str, Report] = {}
        self.heard_at: float | None = None  # of the loop's clock; None: not since this scheduler leads
        self.draining = False
        self.problem = "it has not been heard yet"
        self.refused: dict[tuple[str, int], str] = {}  # (name, attempt): why it will never start
        self._in_flight: dict[str, asyncio.Task[None]] = {}
        self._answers: dict[
            str, tuple[Report, float]
        ] = {}  # to commands, and when: heartbeats say the same a little later
        self._stub: agent_pb2_grpc.AgentStub | None = None
        self._term = 0

    async def run(self, term: int) -> None:
        """Listens until it is cancelled."""
        self._term = term
        while True:
            try:
                await self._listen()
            except grpc.aio.AioRpcError as error:
                self.problem = f"{error.code().name.lower()}: {error.details()}"
                self._log.info("host_silent", reason=self.problem)
            except OSError as error:
                self.problem = f"{error.filename}: {error.strerror}"
                self._log.warning("host_unreachable", reason=self.problem)
            self._stub = None
            self._changed()
            await asyncio.sleep(AGAIN_S)

    async def _listen(self) -> None:
        async with self._channel() as channel:
            stub = agent_pb2_grpc.AgentStub(channel)  # type: ignore[no-untyped-call]
            request = agent.RegisterRequest(term=self._term, scheduler="gpuvirt-scheduler")
            self.inventory = await stub.Register(request, metadata=self._metadata(), timeout=10)
            self._hear(self.inventory.now)
            self._stub = stub
            beats = stub.Heartbeats(
                agent.HeartbeatsRequest(term=self._term, period_seconds=PERIOD_S), metadata=self._metadata()
            )
            while True:
                beat = await asyncio.wait_for(beats.read(), 3 * PERIOD_S + 2)
                if beat is grpc.aio.EOF:
                    self.problem = "its agent has ended"
                    return
                self._hear(beat)

    def _hear(self, beat: agent.Heartbeat) -> None:
        self.heard_at = asyncio.get_running_loop().time()
        self.problem = ""
        if beat.recovering:
            return  # not all that runs there is known yet
        reports = {job.id: _report(job) for job in beat.jobs}
        news = reports != self.reports or beat.draining != self.draining
        self.reports, self.draining = reports, beat.draining
        if news or beat.sequence <= 1:
            self._changed()

    @property
    def silent_for(self) -> float:
        """Seconds since it was heard."""
        return float("inf") if self.heard_at is None else asyncio.get_running_loop().time() - self.heard_at

    def send(self, commands: Iterable[Command]) -> None:
        """Each at most once at a time. What it leads to the next heartbeat says."""
        stub = self._stub
        if stub is None:
            return
        for command in commands:
            if command.name in self._in_flight:
                continue
            if command.verb is Verb.START and _key(command) in self.refused:
                continue
            task = asyncio.get_running_loop().create_task(self._tell(stub, command))
            self._in_flight[command.name] = task

    def _done(self, name: str) -> None:
        self._in_flight.pop(name, None)
        self._changed()

    async def _tell(self, stub: agent_pb2_grpc.AgentStub, command: Command) -> None:
        order = agent.Order(term=self._term, command=f"{command.name}:{command.verb}:{uuid.uuid4().hex}")
        name = command.name
        try:
            metadata = self._metadata()
            match command.verb:
                case Verb.START:
                    reply = await stub.Start(_start(command, order), metadata=metadata, timeout=ANSWER_S)
                case Verb.SUSPEND:
                    suspend = agent.SuspendRequest(order=order, job=name, patience_seconds=SUSPEND_S)
                    reply = await stub.Suspend(suspend, metadata=metadata, timeout=SUSPEND_S + ANSWER_S)
                case Verb.RESUME:
                    resume = agent.ResumeRequest(order=order, job=name)
                    reply = await stub.Resume(resume, metadata=metadata, timeout=ANSWER_S)
                case Verb.STOP:
                    stop = agent.StopRequest(order=order, job=name, grace_seconds=GRACE_S)
                    reply = await stub.Stop(stop, metadata=metadata, timeout=GRACE_S + ANSWER_S)
            self._answers[name] = (_report(reply.job), asyncio.get_running_loop().time())
        except grpc.aio.AioRpcError as error:
            self._log.warning("command_refused", verb=command.verb, job=command.name, reason=error.details())
            final = error.code() in FINAL or _reason(error) == types.Problem.REFUSED
            if command.verb is Verb.START and final:
                self.refused[_key(command)] = str(error.details())
            else:
                await asyncio.sleep(AGAIN_S)
        except OSError as error:
            self._log.warning("host_unreachable", reason=f"{error.filename}: {error.strerror}")
            await asyncio.sleep(AGAIN_S)
        finally:
            self._done(name)

    @property
    def latest(self) -> Mapping[str, Report]:
        """What it has, as far as what to tell it goes. (What became of its members, heartbeats say, in their order.)"""
        now = asyncio.get_running_loop().time()
        self._answers = {name: one for name, one in self._answers.items() if now - one[1] < FRESH_S}
        return {**self.reports, **{name: report for name, (report, _) in self._answers.items()}}

    @property
    def in_flight(self) -> frozenset[str]:
        """Names of members that something is being done with."""
        return frozenset(self._in_flight)

    def close(self) -> None:
        """Commands that go on are the next scheduler's to ask about."""
        for task in list(self._in_flight.values()):
            task.cancel()

    def _channel(self) -> grpc.aio.Channel:
        host = self.host
        if not host.certificate:
            return grpc.aio.insecure_channel(host.address)
        files = [Path(one).read_bytes() for one in (host.authority, host.key, host.certificate)]
        return grpc.aio.secure_channel(host.address, grpc.ssl_channel_credentials(*files))

    def _metadata(self) -> tuple[tuple[str, str], ...]:
        if not self.host.token_file:
            return ()
        return (("authorization", f"Bearer {Path(self.host.token_file).read_text().strip()}"),)


def _report(job: agent.Job) -> Report:
    ended = job.exit if job.HasField("exit") else None
    return Report(job.attempt, SEEN.get(job.state, Seen.RUNNING), ended, job.reason)


def _key(command: Command) -> tuple[str, int]:
    assert command.member is not None
    return (command.name, command.member.attempt)


def _reason(error: grpc.aio.AioRpcError) -> int:
    with contextlib.suppress(ValueError, TypeError):
        for key, value in error.trailing_metadata() or ():
            if key == "gpuvirt-problem-bin" and isinstance(value, bytes):
                return int(types.Problem.FromString(value).reason)
    return 0


def _start(command: Command, order: agent.Order) -> agent.StartRequest:
    job, member = command.job, command.member
    assert job is not None and member is not None
    spec = job.spec
    environment = {
        **spec.program.environment,
        "GPUVIRT_CLUSTER_JOB": job.id,
        "GPUVIRT_RANK": str(member.rank),
        "GPUVIRT_MEMBERS": str(_members(job, member)),
    }
    return agent.StartRequest(
        order=order,
        job=command.name,
        attempt=member.attempt,
        user=spec.user,
        program=types.Program(command=spec.program.command, environment=environment, folder=spec.program.folder),
        limits=types.Limits(memory_bytes=spec.memory_limit_bytes),
        standing=types.Standing(weight=spec.weight),
        gpus=member.gpus,
    )


def _members(job: Job, member: Member) -> int:
    return max(1, len(job.members))
