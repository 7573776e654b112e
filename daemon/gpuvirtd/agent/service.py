# SPDX-License-Identifier: Apache-2.0
"""The calls: who may make them, which are new, what is answered.

A command goes on when its caller hangs up, and its outcome is kept for who asks again. Written down in this order: the
term before anything is done for it, the outcome before it is answered.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import sqlite3
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any, Protocol, TypeVar

import grpc
from google.protobuf.message import Message

from gpuvirt import fencing
from gpuvirt.errors import GpuvirtError
from gpuvirt.proto.gpuvirt.v1 import agent_pb2 as agent
from gpuvirt.proto.gpuvirt.v1 import agent_pb2_grpc
from gpuvirtd.agent import views
from gpuvirtd.agent.book import Attempt, Book
from gpuvirtd.agent.problems import STATUS, Problem, Reason, invalid, metadata_of, problem_of
from gpuvirtd.agent.roles import SCHEDULER, VIEWER, Roles
from gpuvirtd.agent.work import Work

COMMAND_LIMIT = 128
PERIOD_S, SHORTEST_S, LONGEST_S = 1.0, 0.1, 60.0
AT_ONCE_S = 0.02  # changes that come within it are told together
Context = grpc.aio.ServicerContext[Any, Any]


class Commanded(Protocol):
    """A request that is a command."""

    order: agent.Order

    def SerializeToString(self, *, deterministic: bool = ...) -> bytes: ...


Reply = TypeVar("Reply", agent.JobReply, agent.DrainReply)


class AgentService(agent_pb2_grpc.AgentServicer):
    """gpuvirt.v1.Agent."""

    def __init__(self, work: Work, book: Book, roles: Roles) -> None:
        self.work, self.book, self.roles = work, book, roles
        self.log = work.host.log
        self.fence = fencing.Fence.of(book.term(), book.done())
        self._written = self.fence.term
        self._open: dict[str, asyncio.Task[Any]] = {}
        self._ending = asyncio.Event()

    # ---- calls

    async def Register(self, request: agent.RegisterRequest, context: Context) -> agent.RegisterReply:
        async with self._answering(context, SCHEDULER):
            await self._hear(request.term)
            self.log.info("registered", scheduler=request.scheduler[:100], term=request.term)
            return views.inventory(self.work, views.heartbeat(self.work, 0, self.fence.term))

    async def Heartbeats(self, request: agent.HeartbeatsRequest, context: Context) -> AsyncIterator[agent.Heartbeat]:
        async with self._answering(context, SCHEDULER if request.term else VIEWER):
            period = request.period_seconds or PERIOD_S
            if not SHORTEST_S <= period <= LONGEST_S:
                raise invalid(f"a period of {period:g} s is not between {SHORTEST_S:g} and {LONGEST_S:g}")
            sequence = 0
            while not self._ending.is_set():
                if request.term:
                    await self._hear(request.term)
                sequence += 1
                seen = self.work.changes
                yield views.heartbeat(self.work, sequence, self.fence.term)
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(period):
                        while self.work.changes == seen:
                            await self.work.change()
                        await asyncio.sleep(AT_ONCE_S)
            raise Problem(Reason.DRAINING, "gpuvirtd ends", "call again: another one may follow")

    async def Start(self, request: agent.StartRequest, context: Context) -> agent.JobReply:
        async def start() -> agent.JobReply:
            async with self.work.busy(request.job):
                return self._job(await self.work.start(request))

        return await self._command(request, context, agent.JobReply, start)

    async def Resize(self, request: agent.ResizeRequest, context: Context) -> agent.JobReply:
        async def resize() -> agent.JobReply:
            return self._job(*self.work.resize(request))

        return await self._command(request, context, agent.JobReply, resize)

    async def Limit(self, request: agent.LimitRequest, context: Context) -> agent.JobReply:
        async def limit() -> agent.JobReply:
            return self._job(*self.work.limit(request))

        return await self._command(request, context, agent.JobReply, limit)

    async def Suspend(self, request: agent.SuspendRequest, context: Context) -> agent.JobReply:
        async def suspend() -> agent.JobReply:
            async with self.work.busy(request.job):
                return self._job(await self.work.suspend(request.job, request.patience_seconds))

        return await self._command(request, context, agent.JobReply, suspend)

    async def Resume(self, request: agent.ResumeRequest, context: Context) -> agent.JobReply:
        async def resume() -> agent.JobReply:
            async with self.work.busy(request.job):
                return self._job(self.work.resume(request.job))

        return await self._command(request, context, agent.JobReply, resume)

    async def Stop(self, request: agent.StopRequest, context: Context) -> agent.JobReply:
        async def stop() -> agent.JobReply:  # waits for no other command of the job
            return self._job(await self.work.stop(request.job, request.grace_seconds))

        return await self._command(request, context, agent.JobReply, stop)

    async def Drain(self, request: agent.DrainRequest, context: Context) -> agent.DrainReply:
        async def drain() -> agent.DrainReply:
            await self.work.drain(request.draining, request.reason)
            return agent.DrainReply(draining=request.draining)

        return await self._command(request, context, agent.DrainReply, drain)

    def close(self) -> None:
        """No more heartbeats; commands that go on are left to whoever repeats them."""
        self._ending.set()
        self.work.tell()
        for task in self._open.values():
            task.cancel()

    # ---- how they are answered

    async def _command(
        self, request: Commanded, context: Context, kind: type[Reply], carry_out: Callable[[], Awaitable[Reply]]
    ) -> Reply:
        async with self._answering(context, SCHEDULER):
            command = request.order.command
            if not 0 < len(command) <= COMMAND_LIMIT:
                raise invalid(f"a command needs an id of 1 to {COMMAND_LIMIT} characters", "set order.command")
            order = fencing.Order(request.order.term, command)
            content = _digest(request)
            while True:
                await self._hear(order.term)
                verdict = self.fence.admit(order, content)
                match verdict:
                    case fencing.Repeat(outcome):
                        reply = kind.FromString(outcome)
                        reply.repeated = True
                        return reply
                    case fencing.Carry():
                        task = asyncio.get_running_loop().create_task(self._carry_out(command, carry_out))
                        task.add_done_callback(_heard)  # also where its caller has hung up
                        self._open[command] = task
                        return await asyncio.shield(task)
                    case fencing.Wait():
                        await asyncio.wait([self._open[command]])

    async def _carry_out(self, command: str, carry_out: Callable[[], Awaitable[Reply]]) -> Reply:
        """Settled or given up when it ends, whoever still listens."""
        settled = False
        try:
            reply = await carry_out()
            done, forgotten = self.fence.settle(command, reply.SerializeToString())
            settled = True
            try:
                await self.book.put_done(done, forgotten)
            except sqlite3.Error:
                self.fence.done.pop(command, None)  # what it did is found as done by who asks again
                raise
            return reply
        finally:
            if not settled:
                self.fence.give_up(command)
            self._open.pop(command, None)

    async def _hear(self, term: int) -> None:
        """A scheduler of this term speaks; a new one's is written down first. Raises Stale, Problem."""
        if term < 1:
            raise invalid("term 0: terms count from 1")
        self.fence.hear(term)
        if self._written < self.fence.term:
            heard = self.fence.term
            await self.book.put_term(heard)
            self._written = max(self._written, heard)
            self.fence.hear(term)  # a later one may have spoken meanwhile

    def _job(self, attempt: Attempt, notes: list[str] | None = None) -> agent.JobReply:
        return agent.JobReply(job=views.job_of(self.work, attempt), notes=notes or [])

    @contextlib.asynccontextmanager
    async def _answering(self, context: Context, role: str) -> AsyncIterator[None]:
        """Whatever goes wrong in it becomes a status with its reason."""
        try:
            self.roles.check(context, role)
            yield
        except GpuvirtError as error:
            await self._refuse(context, problem_of(error))
        except sqlite3.Error as error:
            why = f"it cannot be recorded in {self.book.path}: {error}"
            await self._refuse(context, Problem(Reason.REFUSED, why, "free space there"))
        except (asyncio.CancelledError, GeneratorExit):
            raise
        except Exception as error:
            if isinstance(error, (grpc.aio.AbortError, grpc.RpcError)):
                raise
            self.log.error("internal_error", where="agent", error=repr(error), exc_info=error)
            await self._refuse(context, Problem(Reason.INTERNAL, f"internal error: {error!r}", "see gpuvirtd's log"))

    async def _refuse(self, context: Context, problem: Problem) -> None:
        await context.abort(STATUS[problem.reason], str(problem), metadata_of(problem, self.fence.term))


def _heard(task: asyncio.Task[Any]) -> None:
    if not task.cancelled():
        task.exception()


def _digest(request: Commanded) -> str:
    """Of what is asked, whoever asks: the same command of a later scheduler is the same."""
    assert isinstance(request, Message)
    copy = type(request)()
    copy.CopyFrom(request)
    copy.ClearField("order")
    return hashlib.sha256(type(request).__name__.encode() + copy.SerializeToString(deterministic=True)).hexdigest()
