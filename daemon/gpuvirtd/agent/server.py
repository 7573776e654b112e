# SPDX-License-Identifier: Apache-2.0
"""The port of the agent: certificates, limits, health, reflection (on this machine only)."""

from __future__ import annotations

import contextlib
import ipaddress
from collections.abc import Mapping
from pathlib import Path

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from gpuvirt.errors import ConfigError
from gpuvirt.proto.gpuvirt.v1 import agent_pb2, agent_pb2_grpc
from gpuvirt.tokens import token_in
from gpuvirtd.agent.book import Book
from gpuvirtd.agent.roles import TOKEN, Roles
from gpuvirtd.agent.service import AgentService
from gpuvirtd.agent.work import Work
from gpuvirtd.config import AgentSection
from gpuvirtd.exporter import parse_address
from gpuvirtd.host import Host
from gpuvirtd.log import Logger

LARGEST_REQUEST, LARGEST_ANSWER = 1 << 20, 16 << 20
CALLS = 256  # at a time
OPTIONS = (
    ("grpc.max_receive_message_length", LARGEST_REQUEST),
    ("grpc.max_send_message_length", LARGEST_ANSWER),
    ("grpc.max_metadata_size", 16 << 10),
    ("grpc.max_concurrent_streams", CALLS),
    ("grpc.so_reuseport", 0),  # two daemons on one port would each get some of the calls
)
SERVICE = agent_pb2.DESCRIPTOR.services_by_name["Agent"].full_name


class AgentServer:
    """Everything of the agent. Raises ConfigError where it cannot be had as configured."""

    def __init__(
        self, host: Host, settings: AgentSection, runtime: Path, environ: Mapping[str, str], log: Logger
    ) -> None:
        self.settings, self.runtime, self.log = settings, runtime, log
        kept = Path(environ.get("STATE_DIRECTORY", runtime))  # set by systemd
        self.book = Book(Path(settings.database) if settings.database else kept / "agent.db")
        if self.book.note:
            log.error("agent_state_rebuilt", reason=self.book.note)
        logs = Path(settings.logs) if settings.logs else kept / "jobs"
        self.work = Work(host, self.book, runtime, logs, settings.users)
        tls = bool(settings.certificate)
        self.service = AgentService(
            self.work, self.book, Roles(None if tls else token_in(runtime / TOKEN), settings.roles if tls else {})
        )
        self.server = grpc.aio.server(options=OPTIONS, maximum_concurrent_rpcs=CALLS)

    async def start(self) -> None:
        self.work.begin()
        address = parse_address(self.settings.listen, key="agent.listen")
        assert not isinstance(address, Path)
        local = ipaddress.ip_address(address[0]).is_loopback
        name = f"[{address[0]}]:{address[1]}" if ":" in address[0] else f"{address[0]}:{address[1]}"
        agent_pb2_grpc.add_AgentServicer_to_server(self.service, self.server)  # type: ignore[no-untyped-call]
        servicer = health.aio.HealthServicer()
        health_pb2_grpc.add_HealthServicer_to_server(servicer, self.server)
        if local:
            names = (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME)
            reflection.enable_server_reflection(names, self.server)
        try:
            port = self._bind(name)
        except RuntimeError:
            raise ConfigError(f"agent.listen: {name} cannot be had", "choose another port, or end who has it") from None
        await self.server.start()
        for service in ("", SERVICE):
            await servicer.set(service, health_pb2.HealthCheckResponse.SERVING)
        self.log.info(
            "agent_listening", address=name.rpartition(":")[0], port=port, tls=bool(self.settings.certificate)
        )

    def _bind(self, name: str) -> int:
        settings = self.settings
        if not settings.certificate:
            return self.server.add_insecure_port(name)
        files = [_read(settings, key) for key in ("key", "certificate", "authority")]
        credentials = grpc.ssl_server_credentials([(files[0], files[1])], files[2], require_client_auth=True)
        return self.server.add_secure_port(name, credentials)

    async def close(self) -> None:
        """Jobs run on."""
        self.service.close()
        await self.server.stop(0.5)
        self.work.close()
        with contextlib.suppress(RuntimeError):
            self.book.close()


def _read(settings: AgentSection, key: str) -> bytes:
    path = Path(getattr(settings, key))
    try:
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"agent.{key}: {path}: {error.strerror}") from None
