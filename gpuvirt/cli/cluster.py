# SPDX-License-Identifier: Apache-2.0
"""How verbs reach the scheduler of a cluster: its address and the file with its token."""

from __future__ import annotations

import getpass
import uuid
from collections.abc import Callable
from functools import wraps
from pathlib import Path
from typing import Any

import click

from gpuvirt.errors import DaemonUnavailable, RefusedError, UsageError

ADDRESS = "127.0.0.1:7410"
CALL_S = 30.0


class Scheduler:
    """A client. Raises GpuvirtError with what the scheduler says."""

    def __init__(self, address: str, token_file: str) -> None:
        try:
            import grpc

            from gpuvirt.proto.gpuvirt.v1 import scheduler_pb2, scheduler_pb2_grpc
        except ImportError:
            raise UsageError("the verbs of a cluster need gRPC", "pip install 'gpuvirt[cluster]'") from None
        self.pb: Any = scheduler_pb2
        self._grpc, self._address = grpc, address
        self._metadata: tuple[tuple[str, str], ...] = ()
        if token_file:
            try:
                self._metadata = (("authorization", f"Bearer {Path(token_file).read_text().strip()}"),)
            except OSError as error:
                raise UsageError(f"--token-file: {token_file}: {error.strerror}") from None
        self._stub: Any = scheduler_pb2_grpc.SchedulerStub(grpc.insecure_channel(address))  # type: ignore[no-untyped-call]

    def call(self, name: str, request: Any) -> Any:
        """One call of the scheduler."""
        code = self._grpc.StatusCode
        try:
            return getattr(self._stub, name)(request, timeout=CALL_S, metadata=self._metadata)
        except self._grpc.RpcError as error:
            said = error.details() or error.code().name.lower()
            if error.code() is code.UNAVAILABLE and "lead" not in said:
                raise DaemonUnavailable(f"no scheduler answers at {self._address}", "see --scheduler") from None
            if error.code() is code.UNAUTHENTICATED:
                raise RefusedError(said, "its token is in scheduler.token beside its store") from None
            if error.code() in (code.INVALID_ARGUMENT, code.NOT_FOUND):
                raise UsageError(said) from None
            raise RefusedError(said) from None

    def jobs(self, **chosen: Any) -> list[Any]:
        """All that match, page by page."""
        found: list[Any] = []
        page = ""
        while True:
            reply = self.call("List", self.pb.ListRequest(page=page, page_size=1000, **chosen))
            found += reply.jobs
            page = reply.next_page
            if not page:
                return found

    def state(self, job: Any) -> str:
        """Of a job, in a word."""
        return str(self.pb.SubmittedJob.State.Name(job.state)).lower()


def scheduler_options(verb: Callable[..., Any]) -> Callable[..., Any]:
    """The options with which a verb finds its scheduler; the verb takes it as `scheduler`."""

    @wraps(verb)
    def connected(*arguments: Any, address: str, token_file: str, **others: Any) -> Any:
        return verb(*arguments, scheduler=Scheduler(address, token_file), **others)

    connected = click.option(
        "--token-file", "token_file", envvar="GPUVIRT_SCHEDULER_TOKEN_FILE", default="", metavar="FILE",
        help="With the scheduler's token (or GPUVIRT_SCHEDULER_TOKEN_FILE).",
    )(connected)  # fmt: skip
    return click.option(
        "--scheduler", "address", envvar="GPUVIRT_SCHEDULER", default=ADDRESS, show_default=True, metavar="ADDRESS",
        help="Of the cluster (or GPUVIRT_SCHEDULER).",
    )(connected)  # fmt: skip


def request_id() -> str:
    """Another one each time."""
    return uuid.uuid4().hex


def user() -> str:
    """Who hands a job in."""
    return getpass.getuser()


def row_of(scheduler: Scheduler, job: Any) -> dict[str, Any]:
    """A job as a table and JSON show it."""
    return {
        "job": job.id,
        "name": job.spec.name,
        "queue": job.spec.queue,
        "user": job.spec.user,
        "tier": job.spec.tier,
        "state": scheduler.state(job),
        "members": [{"rank": one.rank, "node": one.node, "gpus": list(one.gpus)} for one in job.members],
        "members_min": job.spec.members_min,
        "members_max": job.spec.members_max,
        "gpus": job.spec.demand.gpus * job.spec.demand.gpu_thousandths / 1000,
        "gpu_seconds": job.gpu_seconds,
        "gpu_fraction": job.gpu_fraction,
        "submitted": job.submitted,
        "started": job.started or None,
        "ended": job.ended or None,
        "exit": job.exit if job.HasField("exit") else None,
        "reason": job.reason,
        "command": list(job.spec.program.command),
    }
