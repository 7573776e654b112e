# SPDX-License-Identifier: Apache-2.0
"""The host's agent beyond this machine: both sides show certificates, and a name says what its owner may do."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import grpc
import pytest

from gpuvirt.proto.gpuvirt.v1 import agent_pb2 as agent
from gpuvirt.proto.gpuvirt.v1 import agent_pb2_grpc
from gpuvirt.proto.gpuvirt.v1 import types_pb2 as types
from support.agent import port_of, problem, settings
from support.host import host

Code = grpc.StatusCode
Reason = types.Problem
pytestmark = pytest.mark.skipif(shutil.which("openssl") is None, reason="needs openssl to make certificates")


class Authority:
    """Makes certificates; another one's are worth nothing."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self._openssl("req", "-x509", *self._new("ca"), "-subj", "/CN=authority", "-days", "2")

    def _new(self, name: str) -> list[str]:
        curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
        return [*curve, "-keyout", str(self.folder / f"{name}.key"), "-out", str(self.folder / f"{name}.pem")]

    def _openssl(self, *words: str) -> None:
        subprocess.run(["openssl", *words], check=True, capture_output=True, timeout=60)

    def sign(self, name: str, *dates: str) -> None:
        """For a day, or for these dates."""
        request, names = self.folder / f"{name}.csr", self.folder / f"{name}.txt"
        self._openssl("req", *self._new(name)[:-1], str(request), "-subj", f"/CN={name}")
        names.write_text(f"subjectAltName=DNS:{name}" + (",IP:127.0.0.1" if name == "host" else ""))
        self._openssl(
            *("x509", "-req", "-in", str(request), "-CA", str(self.folder / "ca.pem"), "-CAkey"),
            *(str(self.folder / "ca.key"), "-extfile", str(names), "-out", str(self.folder / f"{name}.pem")),
            *(dates or ("-days", "1")),
        )

    def stub(self, port: int, name: str = "", root: Path | None = None) -> agent_pb2_grpc.AgentStub:
        """A client with this certificate (empty: with none)."""
        key, chain = ((self.folder / f"{name}.{end}").read_bytes() for end in ("key", "pem")) if name else (None, None)
        trusted = ((root or self.folder) / "ca.pem").read_bytes()
        channel = grpc.secure_channel(f"127.0.0.1:{port}", grpc.ssl_channel_credentials(trusted, key, chain))
        return agent_pb2_grpc.AgentStub(channel)  # type: ignore[no-untyped-call]


def test_certificates_say_who_calls(tmp_path: Path) -> None:
    authority, foreign = Authority(tmp_path / "ours"), Authority(tmp_path / "theirs")
    for name in ("host", "scheduler-1", "watcher", "unknown"):
        authority.sign(name)
    authority.sign("expired", "-days", "-1")
    foreign.sign("scheduler-1")
    files = {"certificate": "host.pem", "key": "host.key", "authority": "ca.pem"}
    more = "\n".join(f'{key} = "{authority.folder / file}"' for key, file in files.items())
    more += '\nroles = { scheduler-1 = "scheduler", expired = "scheduler", watcher = "viewer" }'
    with host(settings=settings("0.0.0.0:0", more)) as machine:
        port = port_of(machine)
        register = agent.RegisterRequest(term=3)

        def fails(stub: agent_pb2_grpc.AgentStub, request: agent.RegisterRequest = register) -> grpc.RpcError:
            with pytest.raises(grpc.RpcError) as caught:
                stub.Register(request, timeout=60)
            return caught.value

        assert authority.stub(port, "scheduler-1").Register(register, timeout=60).now.term == 3
        watcher = authority.stub(port, "watcher")
        assert next(iter(watcher.Heartbeats(agent.HeartbeatsRequest(), timeout=60))).term == 3
        for name in ("watcher", "unknown"):
            error = fails(authority.stub(port, name))
            assert (error.code(), problem(error).reason) == (Code.PERMISSION_DENIED, Reason.NOT_PERMITTED)
        expired, other = authority.stub(port, "expired"), foreign.stub(port, "scheduler-1", authority.folder)
        for stub in (authority.stub(port), expired, other):
            assert fails(stub).code() == Code.UNAVAILABLE  # the handshake fails: nobody's words were heard
        assert fails(authority.stub(port, "scheduler-1", foreign.folder)).code() == Code.UNAVAILABLE  # not our host
        assert authority.stub(port, "scheduler-1").Register(register, timeout=60).now.term == 3
