# SPDX-License-Identifier: Apache-2.0
"""Metrics for Prometheus over HTTP, where the configuration says so: GET /metrics, and nothing else.

There is no password: whoever reaches the address reads the names of jobs and users. So it is off by default, and one
that others can reach is warned of.
"""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import os
import socket
import stat
from collections.abc import Awaitable, Callable
from pathlib import Path

from gpuvirt.errors import ConfigError
from gpuvirt.metrics import CONTENT_TYPE
from gpuvirtd.log import Logger

HEAD_LIMIT = 8192  # bytes of a request
PATIENCE_S = 5.0  # for a request to come and its answer to be taken
CONNECTIONS = 16
BACKLOG = 16
METHODS = ("GET", "HEAD")
REASONS = {
    200: "OK",
    400: "Bad Request",
    404: "Not Found",
    405: "Method Not Allowed",
    500: "Internal Server Error",
    503: "Service Unavailable",
}

Address = tuple[str, int] | Path


def parse_address(text: str, source: str = "configuration", key: str = "metrics.listen") -> Address:
    """(IP address, port) of "127.0.0.1:9456", "[::1]:9456" or ":9456" (this machine only), or a path.

    Raises ConfigError. Port 0 is any free one (the log says which). Names are not looked up.
    """
    if text.startswith("/"):
        if len(os.fsencode(text)) > 107:
            raise ConfigError(f"{source}: {key}: '{text}' is too long for a socket (107 bytes)")
        return Path(text)
    host, colon, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]") or "127.0.0.1"
    try:
        if not colon or not port.isascii() or not port.isdigit() or not 0 <= int(port) < 1 << 16:
            raise ValueError
        return str(ipaddress.ip_address(host)), int(port)
    except ValueError:
        raise ConfigError(
            f"{source}: {key}: '{text}' is neither ADDRESS:PORT nor an absolute path",
            "write for example 127.0.0.1:9456",
        ) from None


class Exporter:
    """Serves `text` on all addresses. One that cannot be had is logged: jobs matter more than figures."""

    def __init__(self, addresses: list[str], text: Callable[[], Awaitable[str]], log: Logger) -> None:
        self.addresses = [parse_address(address) for address in addresses]
        self.text = text
        self.log = log
        self._servers: list[asyncio.Server] = []
        self._paths: list[Path] = []
        self._open: set[asyncio.StreamWriter] = set()

    async def start(self) -> None:
        for address in self.addresses:
            try:
                server = await self._listen(address)
            except OSError as error:
                self.log.error(
                    "metrics_not_served",
                    address=_name(address),
                    reason=error.strerror or str(error),
                    fix="free it, or choose another metrics.listen",
                )
                continue
            self._servers.append(server)
            for bound in server.sockets:
                name = bound.getsockname()
                self.log.info("metrics_served", address=_name(address if isinstance(address, Path) else name))
            if not isinstance(address, Path) and not ipaddress.ip_address(address[0]).is_loopback:
                self.log.warning("metrics_in_the_open", address=_name(address), reason="everybody can read them there")

    async def _listen(self, address: Address) -> asyncio.Server:
        if not isinstance(address, Path):
            return await asyncio.start_server(
                self._serve, address[0], address[1], limit=HEAD_LIMIT, backlog=BACKLOG, start_serving=True
            )
        remove_stale(address)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        try:
            mask = os.umask(0o177)  # nobody else until chmod says who may
            try:
                listener.bind(str(address))
            finally:
                os.umask(mask)
            address.chmod(0o666 if os.getuid() == 0 else 0o600)  # as the admin socket, which tells more
            self._paths.append(address)
            return await asyncio.start_unix_server(self._serve, sock=listener, limit=HEAD_LIMIT, backlog=BACKLOG)
        except BaseException:
            listener.close()
            raise

    def close(self) -> None:
        for server in self._servers:
            server.close()
        for writer in list(self._open):
            writer.close()
        for path in self._paths:
            path.unlink(missing_ok=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One request, one answer."""
        self._open.add(writer)
        with contextlib.suppress(ConnectionError, TimeoutError, asyncio.CancelledError):
            async with asyncio.timeout(PATIENCE_S):
                if len(self._open) > CONNECTIONS:
                    await answer(writer, 503, f"{CONNECTIONS} others ask already\n")
                else:
                    await self._converse(reader, writer)
        self._open.discard(writer)
        writer.close()

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = await reader.readuntil(b"\r\n\r\n")
        except asyncio.IncompleteReadError:
            return  # it has gone
        except asyncio.LimitOverrunError:
            await answer(writer, 400, f"a request of more than {HEAD_LIMIT} bytes\n")
            return
        words = head.split(b"\r\n", 1)[0].decode("latin-1").split(" ")
        if len(words) != 3 or not words[2].startswith("HTTP/1."):
            await answer(writer, 400, "not a request of HTTP/1\n")
            return
        method, path = words[0], words[1].split("?")[0]
        if method not in METHODS:
            await answer(writer, 405, "only GET and HEAD\n", (f"Allow: {', '.join(METHODS)}",))
        elif path == "/metrics":
            await self._metrics(writer, method == "HEAD")
        elif path == "/":
            await answer(writer, 200, "gpuvirtd: see /metrics\n", silent=method == "HEAD")
        else:
            await answer(writer, 404, "only /metrics is here\n", silent=method == "HEAD")

    async def _metrics(self, writer: asyncio.StreamWriter, silent: bool) -> None:
        try:
            text = await self.text()
        except Exception as error:
            self.log.error("internal_error", request="GET /metrics", error=repr(error), exc_info=True)
            await answer(writer, 500, "see the log of gpuvirtd\n")
            return
        await answer(writer, 200, text, kind=CONTENT_TYPE, silent=silent)


async def answer(
    writer: asyncio.StreamWriter,
    status: int,
    text: str,
    headers: tuple[str, ...] = (),
    kind: str = "text/plain; charset=utf-8",
    silent: bool = False,
) -> None:
    """The whole answer; silent: without the body, as HEAD wants it."""
    body = text.encode()
    head = [
        f"HTTP/1.1 {status} {REASONS[status]}",
        f"Content-Type: {kind}",
        f"Content-Length: {len(body)}",
        "Connection: close",
        *headers,
    ]
    writer.write("\r\n".join([*head, "", ""]).encode("latin-1") + (b"" if silent else body))
    await writer.drain()


def remove_stale(path: Path) -> None:
    """The socket of a daemon that was killed. What else has the name stays, and bind says so."""
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            return
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
            try:
                probe.connect(str(path))
            except ConnectionRefusedError:
                path.unlink()


def _name(address: Address | tuple[object, ...]) -> str:
    if isinstance(address, Path):
        return str(address)
    host, port = address[0], address[1]
    return f"[{host}]:{port}" if ":" in str(host) else f"{host}:{port}"
