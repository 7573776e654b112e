# SPDX-License-Identifier: Apache-2.0
"""The admin socket: one JSON object per line in, one per line out. The client side is gpuvirt.admin.

{"op": "ping"}                                                     {"ok": true, ...}
{"op": "create_job", "name": "a", "memory": null, "weight": 1, "command": ["python", "a.py"], "pid": 123, "wait": true}
{"op": "await_start", "job": "j1", "position": 2}
{"op": "limit", "job": "j1", "memory": 1048576}
{"op": "job_started", "job": "j1", "pid": 124}                     {"ok": false, "error": "...", "hint": "..."}
{"op": "end_job", "job": "j1", "exit": 0}
{"op": "status", "all": true}
{"op": "describe", "job": "train"}
{"op": "switches", "gpu": 0, "job": "train", "count": 20, "all": false}
{"op": "metrics"}
{"op": "weight", "job": "train", "weight": 3}
{"op": "policy", "gpu": 0, "name": "priority"}
{"op": "why", "job": "train"}
{"op": "trace", "gpu": 0, "last_ns": 30000000000}
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

import gpuvirt
from gpuvirt.arbitration.limits import Limits
from gpuvirt.arbitration.policies.words import PRIORITIES
from gpuvirt.arbitration.standing import Standing
from gpuvirt.errors import GpuvirtError, RefusedError
from gpuvirtd.creation import change_limits, create_job, limits_row
from gpuvirtd.describe import describe, find, id_of
from gpuvirtd.host import Host
from gpuvirtd.identity import Process, ProcessGone, peer_process
from gpuvirtd.jobs import Job
from gpuvirtd.log import Logger
from gpuvirtd.metrics import served
from gpuvirtd.moves import switch_rows
from gpuvirtd.status import gpu_status, job_status
from gpuvirtd.turns import SetPolicy, Weight, notes, policy_answer, weight_answer
from gpuvirtd.why import Trace, Why, trace, why

LINE_LIMIT = 1 << 20
CONNECTIONS = 256
FAREWELL_S = 1.0
PATIENCE_S = 10.0  # an await_start is answered after so long at the latest
Size = Annotated[int, msgspec.Meta(ge=1, lt=1 << 62)]


class Ping(msgspec.Struct, tag_field="op", tag="ping", forbid_unknown_fields=True):
    """Is anybody there?"""


class CreateJob(msgspec.Struct, tag_field="op", tag="create_job", forbid_unknown_fields=True):
    """A new job of the peer's user. memory: bytes, null for the device. pid: its root, the peer itself if left out.

    trial: it is not shown any more when it has ended. wait: it may wait in line; the answer then says "queued", and its
    program must not be started before await_start says that it may.
    """

    name: Annotated[str, msgspec.Meta(min_length=1, max_length=64, pattern=r"^[\w.:@+-]+$")]
    command: Annotated[list[str], msgspec.Meta(min_length=1, max_length=4096)]
    memory: Size | None = None
    weight: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 1
    priority: Literal["low", "normal", "high"] = "normal"
    tier: Annotated[str, msgspec.Meta(max_length=64)] = ""
    deadline_ns: Annotated[int, msgspec.Meta(ge=0, lt=1 << 62)] = 0
    pid: Annotated[int, msgspec.Meta(ge=1, lt=1 << 31)] | None = None
    trial: bool = False
    soft: Size | None = None
    reserve: Size | None = None
    wait: bool = False


class AwaitStart(msgspec.Struct, tag_field="op", tag="await_start", forbid_unknown_fields=True):
    """Answers when the job may start, when its position in line is another than this one, or after some seconds."""

    job: str
    position: int = 0


class Limit(msgspec.Struct, tag_field="op", tag="limit", forbid_unknown_fields=True):
    """Other limits for a job; what is left out stays, null removes it."""

    job: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]
    memory: Size | msgspec.UnsetType | None = msgspec.UNSET
    soft: Size | msgspec.UnsetType | None = msgspec.UNSET
    reserve: Size | msgspec.UnsetType | None = msgspec.UNSET


class JobStarted(msgspec.Struct, tag_field="op", tag="job_started", forbid_unknown_fields=True):
    """The root process of the job is `pid` now."""

    job: str
    pid: Annotated[int, msgspec.Meta(ge=1, lt=1 << 31)]


class EndJob(msgspec.Struct, tag_field="op", tag="end_job", forbid_unknown_fields=True):
    """The main process of the job ended with this code."""

    job: str
    exit: int | None = None


class Status(msgspec.Struct, tag_field="op", tag="status", forbid_unknown_fields=True):
    """Everything. all: the last jobs that ended, too (state "ended")."""

    all: bool = True


class Describe(msgspec.Struct, tag_field="op", tag="describe", forbid_unknown_fields=True):
    """One job with everything: by id ("j3"), number ("3") or name."""

    job: Annotated[str, msgspec.Meta(min_length=1, max_length=64)]


class Switches(msgspec.Struct, tag_field="op", tag="switches", forbid_unknown_fields=True):
    """The last switches: of one GPU, of one job, or all; without `all` only those that moved memory."""

    gpu: Annotated[int, msgspec.Meta(ge=0)] | None = None
    job: Annotated[str, msgspec.Meta(min_length=1, max_length=64)] | None = None
    count: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 20
    all: bool = False


class Metrics(msgspec.Struct, tag_field="op", tag="metrics", forbid_unknown_fields=True):
    """What a monitoring system wants to know, as the text that Prometheus reads."""


class Usage(msgspec.Struct, tag_field="op", tag="usage", forbid_unknown_fields=True):
    """Bills of a period (seconds since 1970; until null: now), by tenant, job or GPU."""

    since: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    until: Annotated[float, msgspec.Meta(ge=0)] | None = None
    by: Literal["tenant", "job", "gpu"] = "tenant"


Question = Ping | Status | Switches | Metrics | Describe | Why | Trace | Usage
Request = Question | CreateJob | AwaitStart | Limit | Weight | SetPolicy | JobStarted | EndJob


class Facts(msgspec.Struct):
    """What the admin socket tells about the daemon itself."""

    runtime: Path
    socket: Path
    library_folder: Path
    shim: Path
    nvml_shim: Path | None
    driver: Path
    nvml: Path
    environment: dict[str, str]
    config: dict[str, Any]
    started: int
    counters: Callable[[], dict[str, int]]


class AdminServer:
    """Serves the admin socket."""

    def __init__(self, host: Host, facts: Facts, log: Logger) -> None:
        self.host = host
        self.facts = facts
        self.log = log
        self.decoder = msgspec.json.Decoder(Request)
        self.encoder = msgspec.json.Encoder()
        self.server: asyncio.Server | None = None
        self.connections: set[asyncio.StreamWriter] = set()

    async def start(self, listener: socket.socket) -> None:
        self.server = await asyncio.start_unix_server(self._serve, sock=listener, limit=LINE_LIMIT)

    def close(self) -> None:
        if self.server is not None:
            self.server.close()
        for writer in list(self.connections):
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer: Process | None = None
        try:
            if len(self.connections) >= CONNECTIONS:
                await self._farewell(reader, writer, f"gpuvirtd has {CONNECTIONS} admin connections already")
                return
            self.connections.add(writer)
            peer = peer_process(writer.get_extra_info("socket"))
            while line := await reader.readline():
                if line.strip():
                    writer.write(self.encoder.encode(await self._in_time(peer, line)) + b"\n")
                    await writer.drain()
        except ValueError:
            await self._farewell(reader, writer, f"a line longer than {LINE_LIMIT} bytes")
        except (ProcessGone, ConnectionError):
            pass
        except asyncio.CancelledError:
            pass
        finally:
            self.connections.discard(writer)
            if peer is not None:
                peer.close()
            writer.close()

    async def _in_time(self, peer: Process, line: bytes) -> dict[str, Any]:
        """The answer, when there is one: that to await_start comes when something has changed."""
        answer = self.answer(peer, line)
        if "slowly" in answer:  # in steps, or by another thread: nobody's turn waits for it
            try:
                found = await answer["slowly"]
                return {"ok": True, **(found if isinstance(found, dict) else {"text": found})}
            except GpuvirtError as error:
                return failure(error.message, error.hint)
            except Exception as error:
                return self._mistake(line, error)
        if "unchanged" in answer and len(self.connections) < CONNECTIONS // 2:  # else it may ask again
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(PATIENCE_S):
                    while "unchanged" in answer:
                        await self.host.line.change()
                        answer = self.answer(peer, line)
        return answer

    async def _farewell(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, error: str) -> None:
        """The last answer. What the peer still sends is read, for a moment: closing on it would destroy the answer."""
        with contextlib.suppress(TimeoutError, ConnectionError):
            async with asyncio.timeout(FAREWELL_S):
                writer.write(self.encoder.encode(failure(error)) + b"\n")
                writer.write_eof()
                while await reader.read(1 << 16):
                    pass

    def answer(self, peer: Process, line: bytes) -> dict[str, Any]:
        """The response to one request line; never raises."""
        try:
            request = self.decoder.decode(line)
            return {"ok": True, **self._carry_out(peer, request)}
        except msgspec.ValidationError as error:
            return failure(_plain(str(error)))
        except msgspec.DecodeError as error:
            return failure(f"not a JSON object: {error}")
        except GpuvirtError as error:
            return failure(error.message, error.hint)
        except Exception as error:
            return self._mistake(line, error)

    def _mistake(self, line: bytes, error: Exception) -> dict[str, Any]:
        """Of ours: logged, and told."""
        self.log.error("internal_error", request=line[:200].decode(errors="replace"), error=repr(error), exc_info=error)
        return failure(f"internal error: {error!r}", "see the log of gpuvirtd")

    def _carry_out(self, peer: Process, request: Request) -> dict[str, Any]:
        match request:
            case Ping():
                return {"version": gpuvirt.__version__, "pid": os.getpid(), "generation": self.host.generation}
            case CreateJob():
                limits = Limits(request.memory, request.soft, request.reserve or 0)
                asked = Standing(request.weight, PRIORITIES[request.priority], request.tier, request.deadline_ns)
                job = create_job(
                    self.host, peer, request.name, limits, asked, request.command, request.pid, request.wait
                )
                if request.trial:
                    job.trial = True
                    self.host.write("put_trial", job.id)
                return self._job_environment(job) | {"queued": self.host.line.row(job), "notes": notes(self.host, job)}
            case AwaitStart():
                row = self.host.line.row(self._own(peer, request.job))
                same = row is not None and row["position"] == request.position
                return {"queued": row} | ({"unchanged": True} if same else {})
            case Limit():
                return self._limit(peer, request)
            case Weight():
                return weight_answer(self.host, self._owned(peer, find(self.host, request.job)), request.weight)
            case SetPolicy():
                return policy_answer(self.host, peer, request)
            case JobStarted():
                job = self._own(peer, request.job)
                if job.queued is not None:
                    raise RefusedError(f"job {job.id} waits in line", "wait until it may start")
                self.host.job_started(peer, job, request.pid)
                return {}
            case EndJob():
                if not self.host.endings.told(request.job, peer.uid, request.exit):
                    self.host.end_job(self._own(peer, request.job), request.exit)
                return {}
            case Describe():
                return {"job": describe(self.host, request.job)}
            case Why():
                return {"why": why(self.host, request.job)}
            case Trace():
                return trace(self.host, request)
            case Switches():
                job_id = id_of(self.host, request.job) if request.job is not None else None
                return {"switches": switch_rows(self.host, request.gpu, job_id, request.count, request.all)}
            case Metrics():
                return {"slowly": served(self.host, self.facts.counters(), self.facts.started)}
            case Usage():
                return {"slowly": self.host.books.bills(request.since, request.until, request.by)}
            case Status():
                return self._status(peer, request.all)

    def _limit(self, peer: Process, request: Limit) -> dict[str, Any]:
        job = self._owned(peer, find(self.host, request.job))
        given = {name: getattr(request, name) for name in ("memory", "soft", "reserve")}
        given = {name: value for name, value in given.items() if value is not msgspec.UNSET}
        if not given:
            return {"limits": limits_row(job), "notes": []}
        if given.get("reserve", 0) is None:
            given["reserve"] = 0
        notes = change_limits(self.host, job, dataclasses.replace(job.limits, **given))
        return {"limits": limits_row(job), "notes": notes}

    def _own(self, peer: Process, name: str) -> Job:
        job = self.host.jobs.by_id.get(name)
        if job is None:
            raise RefusedError(f"there is no job '{name}'", "see: gpuvirt ps")
        return self._owned(peer, job)

    def _owned(self, peer: Process, job: Job) -> Job:
        if peer.uid not in (0, job.uid):
            raise RefusedError(f"job {job.id} belongs to {job.user}", "only its owner and root may change it")
        return job

    def _job_environment(self, job: Job) -> dict[str, Any]:
        facts = self.facts
        return {
            "job": job.id,
            "token": job.token,
            "environment": {
                **facts.environment,
                "GPUVIRT_SOCKET": str(facts.socket),
                "GPUVIRT_JOB": job.token,
                "GPUVIRT_DRIVER": str(facts.driver),
                "GPUVIRT_NVML": str(facts.nvml),
            },
            "preload": str(facts.shim),
            "library_path": str(facts.library_folder),
            "nvml_path": str(facts.nvml),
            "nvml_preload": str(facts.nvml_shim) if facts.nvml_shim is not None else None,
        }

    def _status(self, peer: Process, everything: bool) -> dict[str, Any]:
        host, facts = self.host, self.facts
        host.poll_soon()  # for who looks again
        jobs = [job_status(host, job) for job in host.jobs]
        return {
            "daemon": {
                "version": gpuvirt.__version__,
                "generation": host.generation,
                "pid": os.getpid(),
                "uid": os.getuid(),
                "uptime_s": (host.clock.now() - facts.started) / 1e9,
                "runtime": str(facts.runtime),
                "state": "recovering" if host.recovery.active() else "ready",
                "driver": str(facts.driver),
                "nvml": str(facts.nvml),
                "driver_version": host.inventory.driver_version,
                "host_budget": host.policy.host_budget,
                "host_room": host.host_room(),
                "host_used": host.places.arenas.used_by(),
                "counters": facts.counters(),
                "config": facts.config,
            },
            "gpus": [gpu_status(host, arbiter) for arbiter in host.arbiters.values()],
            "jobs": jobs + (list(host.jobs.ended) if everything else []),
        }


def failure(error: str, hint: str = "") -> dict[str, Any]:
    """A response that says no."""
    return {"ok": False, "error": error, "hint": hint}


def _plain(text: str) -> str:
    """msgspec's message with the key first: "Expected `int` >= 1 - at `$.weight`" -> "weight: expected `int` >= 1"."""
    reason, _, place = text.partition(" - at `$")
    key = place.strip("`.")
    reason = reason[0].lower() + reason[1:]
    return f"{key}: {reason}" if key else reason
