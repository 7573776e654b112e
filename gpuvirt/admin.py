# SPDX-License-Identifier: Apache-2.0
"""Client of the daemon's admin socket (one JSON object per line). Imports only what is fast to import."""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from gpuvirt.errors import DaemonUnavailable, ProtocolError, RefusedError
from gpuvirt.paths import ADMIN_SOCKET, candidate_runtimes

HINT = "start one with: gpuvirtd"


class AdminClient:
    """A connection to the first daemon that answers on one of the runtime folders.

    `where` is an admin socket, or runtime folders to try in turn; None: those of this user and of the system.
    Connects at the first call; `path` is the socket of the daemon found. timeout_s bounds every call.
    """

    def __init__(self, where: Path | Sequence[Path] | None = None, timeout_s: float = 30.0) -> None:
        if where is None:
            where = candidate_runtimes(os.environ, os.getuid())
        self.paths = [where] if isinstance(where, Path) else [runtime / ADMIN_SOCKET for runtime in where]
        self.timeout_s = timeout_s
        self.path: Path | None = None
        self._socket: socket.socket | None = None
        self._rest = b""

    def call(self, op: str, **arguments: Any) -> dict[str, Any]:
        """The daemon's answer to one request.

        Raises DaemonUnavailable if none answers, RefusedError with the daemon's own words if it says no.
        """
        connection = self._connect()
        request = {
            "op": op,
            **{key: str(value) if isinstance(value, Path) else value for key, value in arguments.items()},
        }
        try:
            connection.sendall(json.dumps(request).encode() + b"\n")
            line = self._line(connection)
        except OSError as error:
            self.close()
            raise DaemonUnavailable(
                f"gpuvirtd on {self.path} stopped answering: {_reason(error)}", "try again"
            ) from None
        try:
            answer = json.loads(line)
        except ValueError:
            answer = None
        if not isinstance(answer, dict) or "ok" not in answer:
            self.close()
            raise ProtocolError(f"{self.path} did not answer as gpuvirtd does")
        if not answer.pop("ok"):
            raise RefusedError(str(answer.get("error", "refused")), str(answer.get("hint", "")))
        return answer

    def _connect(self) -> socket.socket:
        if self._socket is not None:
            return self._socket
        reasons = []
        for path in self.paths:
            connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
            connection.settimeout(self.timeout_s)
            try:
                connection.connect(str(path))
            except OSError as error:
                connection.close()
                reasons.append(f"{path} ({_reason(error)})")
                continue
            self.path, self._socket, self._rest = path, connection, b""
            return connection
        raise DaemonUnavailable(f"no gpuvirtd answers on {', '.join(reasons)}", HINT)

    def _line(self, connection: socket.socket) -> bytes:
        while b"\n" not in self._rest:
            part = connection.recv(1 << 16)
            if not part:
                raise ConnectionResetError("it closed the connection")
            self._rest += part
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def __enter__(self) -> AdminClient:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def _reason(error: OSError) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    return (error.strerror or str(error)).lower()
