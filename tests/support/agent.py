# SPDX-License-Identifier: Apache-2.0
"""A scheduler's side of the host agent: a real client of a real daemon."""

from __future__ import annotations

import itertools
import os
import pwd
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import grpc

from gpuvirt.proto.gpuvirt.v1 import agent_pb2 as agent
from gpuvirt.proto.gpuvirt.v1 import agent_pb2_grpc
from gpuvirt.proto.gpuvirt.v1 import types_pb2 as types
from support.host import PROGRAMS, Host

CALL_S = 60.0  # no call takes longer
LISTENING = re.compile(r"agent_listening.*\bport=(\d+)")


def settings(listen: str = "127.0.0.1:0", more: str = "") -> str:
    """For gpuvirt.toml: our own user's jobs, root's included."""
    user = pwd.getpwuid(os.getuid()).pw_name
    return f'[agent]\nlisten = "{listen}"\nusers = ["{user}"]\n{more}\n[time]\nquantum = "30ms"\nswap_share = 0.6\n'


def port_of(machine: Host) -> int:
    assert machine.daemon is not None
    found = LISTENING.search(machine.daemon.wait_for("agent_listening"))
    assert found is not None
    return int(found[1])


def problem(error: grpc.RpcError) -> types.Problem:
    """What the trailing metadata say."""
    assert isinstance(error, grpc.Call)
    for key, value in error.trailing_metadata() or ():
        if key == "gpuvirt-problem-bin":
            return types.Problem.FromString(value)
    raise AssertionError(f"no problem is told: {error}")


class Scheduler:
    """Gives commands, each with an id of its own, with one term."""

    def __init__(self, machine: Host, term: int = 1, token: str | None = None) -> None:
        self.machine, self.term = machine, term
        shown = token if token is not None else (machine.runtime / "agent.token").read_text().strip()
        self.metadata = (("authorization", f"Bearer {shown}"),)
        self.channel = grpc.insecure_channel(f"127.0.0.1:{port_of(machine)}")
        self.stub: Any = agent_pb2_grpc.AgentStub(self.channel)  # type: ignore[no-untyped-call]
        self._count = itertools.count(1)

    def order(self, command: str = "") -> agent.Order:
        return agent.Order(term=self.term, command=command or f"{id(self)}-{self.term}-{next(self._count)}")

    def call(self, name: str, request: Any) -> Any:
        return getattr(self.stub, name)(request, timeout=CALL_S, metadata=self.metadata)

    def refused(self, name: str, request: Any) -> tuple[grpc.StatusCode, types.Problem]:
        """The call must fail."""
        try:
            answer = self.call(name, request)
        except grpc.RpcError as error:
            return error.code(), problem(error)
        raise AssertionError(f"{name} was answered: {answer}")

    def register(self) -> Any:
        return self.call("Register", agent.RegisterRequest(term=self.term, scheduler="test"))

    def start_request(self, job: str, *words: str, attempt: int = 1, command: str = "", **more: Any) -> Any:
        environ = {k: v for k, v in self.machine.environ().items() if k.startswith(("GPUVIRT_SOFT", "PYTHONUNB"))}
        program = types.Program(command=words, environment=environ)
        return agent.StartRequest(order=self.order(command), job=job, attempt=attempt, program=program, **more)

    def start(self, job: str, *words: str, **more: Any) -> Any:
        return self.call("Start", self.start_request(job, *words, **more))

    def mixer(self, job: str, *arguments: str, **more: Any) -> Any:
        return self.start(job, sys.executable, str(PROGRAMS / "mixer.py"), *arguments, **more)

    def job_command(self, name: str, job: str, command: str = "", **more: Any) -> Any:
        request = getattr(agent, f"{name}Request")(order=self.order(command), job=job, **more)
        return self.call(name, request)

    def job(self, name: str) -> Any:
        """As the host tells it now; None if it does not know it."""
        return next((job for job in self.register().now.jobs if job.id == name), None)

    def until(self, job: str, holds: Callable[[Any], bool], what: str) -> Any:
        def look() -> Any:
            found = self.job(job)
            return found if found is not None and holds(found) else None

        return self.machine.until(look, f"{job} {what}", 60.0)

    def until_state(self, job: str, state: int) -> Any:
        return self.until(job, lambda found: found.state == state, agent.Job.State.Name(state))

    def until_said(self, job: str, text: str) -> str:
        """The whole log, when it has this text."""
        path = Path(self.job(job).log)
        return str(
            self.machine.until(
                lambda: said if text in (said := path.read_text()) else None, f"{job} to say {text}", 60.0
            )
        )

    def close(self) -> None:
        self.channel.close()
