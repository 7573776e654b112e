# SPDX-License-Identifier: Apache-2.0
"""Accepts shims: one session per connection. Whatever is wrong with one connection closes that one and no other."""

from __future__ import annotations

import asyncio
import errno
import socket
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from gpuvirt.arbitration.events import UnexpectedAnswer
from gpuvirt.control import messages
from gpuvirt.errors import GpuvirtError, ProtocolError, RefusedError
from gpuvirtd import failpoints
from gpuvirtd.identity import Process, ProcessGone, peer_process
from gpuvirtd.jobs import Member
from gpuvirtd.log import Logger
from gpuvirtd.transport import PacketStream, close_all

if TYPE_CHECKING:
    from gpuvirtd.host import Host

HELLO_DEADLINE_S = 10.0
FAREWELL_S = 1.0
PATIENCE, PATIENCE_S = 20, 0.05  # how often, and after how long each, a HELLO is looked at again

# CUresults for REFUSED
NO_DEVICE = 100
INVALID_DEVICE = 101
NOT_PERMITTED = 800
NOT_READY = 802
DRIVER_MISMATCH = 803

FROM_CLIENT = (
    messages.Want,
    messages.Idle,
    messages.Drained,
    messages.Stuck,
    messages.Restored,
    messages.Evicted,
    messages.Progress,
    messages.Memory,
    messages.Charge,
    messages.Event,
    messages.Share,
    messages.Fetch,
    messages.Back,
)


class Refusal(RefusedError):
    """A client that may not attach; `code` is the CUresult that its cuInit gives."""

    def __init__(self, code: int, message: str, hint: str = "") -> None:
        super().__init__(message, hint)
        self.code = code


class AlreadyAttached(Refusal):
    """The process is a client already, and its connection is alive.

    After an exec that is so only while a forked child still has the old connection, for moments; a second copy of the
    shim (dlmopen) would take the place of the first for ever, and that one would take it back.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(
            NOT_PERMITTED,
            f"process {pid} is attached already, through another copy of the shim (dlmopen)",
            "use CUDA in one namespace of the loader only",
        )


class NotYet(Refusal):
    """It has to wait until other processes of its job are back, for moments after a restart of the daemon."""

    def __init__(self, message: str) -> None:
        super().__init__(NOT_READY, message)


class Session:
    """One connection of one process."""

    def __init__(self, server: Sessions, connection: socket.socket, process: Process) -> None:
        self.server = server
        self.process = process
        self.member: Member | None = None
        self.leaving = False
        self._patience = PATIENCE
        self.handed: list[int] = []  # descriptors that came with its HELLO
        self.asked = False  # it has asked a QUERY: no client, and its end is no news
        self.stream = PacketStream(server.loop, connection, self._packet, self._closed)
        self._deadline: asyncio.TimerHandle | None = server.loop.call_later(
            HELLO_DEADLINE_S, self.stream.close, "said no HELLO"
        )

    def send(self, message: messages.Message, fds: Sequence[int] = ()) -> None:
        self.stream.send(messages.encode(message), fds)
        if failpoints.message(message):
            self.stream.close("failpoint")

    def refuse(self, refusal: Refusal) -> None:
        """Say why, then close.

        The client hangs up first: closing with unread packets would destroy the reason on its way.
        """
        self.server.count("refused")
        self.server.log.warning("refused", pid=self.process.pid, uid=self.process.uid, reason=str(refusal))
        self.leaving = True
        self.send(messages.Refused(refusal.code, str(refusal)))
        if not self.stream.closed:
            self.stream.connection.shutdown(socket.SHUT_WR)
            self.server.loop.call_later(FAREWELL_S, self.stream.close, "refused")

    def _packet(self, packet: bytes) -> None:
        if self.leaving or self.stream.closed:
            return
        try:
            if self.member is None:
                self._hello(packet)
            else:
                self._message(packet)
        except AlreadyAttached as refusal:
            self._patience -= 1
            if self._patience == 0:
                self.refuse(refusal)
            else:
                self.server.loop.call_later(PATIENCE_S, self._packet, packet)
        except NotYet as reason:
            self._patience -= 1
            if self._patience == 0:
                self.stream.close(str(reason))  # it tries again, for longer than we hold back
            else:
                self.server.loop.call_later(PATIENCE_S, self._packet, packet)
        except Refusal as refusal:
            self.refuse(refusal)
        except (ProtocolError, UnexpectedAnswer) as error:
            self.server.count("protocol_errors")
            self.stream.close(f"protocol error: {error}")
        except Exception as error:  # a mistake of ours: it must not cost more than this session
            self.server.count("internal_errors")
            self.server.log.error("internal_error", pid=self.process.pid, error=repr(error), exc_info=True)
            self.stream.close(f"internal error: {error!r}")

    def _hello(self, packet: bytes) -> None:
        kind, version = messages.header_of(packet)
        if kind == messages.MessageType.HELLO and version != messages.VERSION:
            raise Refusal(
                DRIVER_MISMATCH,
                f"the shim speaks protocol {version}, gpuvirtd {messages.VERSION}",
                "install the same version of gpuvirt for both",
            )
        hello = messages.decode(packet)
        if isinstance(hello, messages.Query):
            self._query(hello)
            return
        if not isinstance(hello, messages.Hello):
            raise ProtocolError(f"{type(hello).__name__} before HELLO")
        if self._deadline is not None:
            self._deadline.cancel()
            self._deadline = None
        self.handed += self.stream.take_descriptors()
        try:
            self.server.host.hello(self, hello)
        except Refusal:
            raise
        except GpuvirtError as error:
            raise Refusal(NOT_READY, error.message, error.hint) from None
        except OSError as error:  # descriptors or memory of the daemon
            raise Refusal(NOT_READY, f"gpuvirtd cannot take another process: {error.strerror}") from None
        close_all(self.handed)  # what nobody had a use for
        self.handed = []

    def _query(self, query: messages.Query) -> None:
        """Answered at once; the connection may ask until the deadline for HELLO."""
        from gpuvirtd.usage import usage_of

        self.asked = True
        self.server.count("queries")
        usage = usage_of(self.server.host, self.process, query)
        if usage is None:
            self.stream.close("nothing to say yet")
        else:
            self.send(usage)

    def _message(self, packet: bytes) -> None:
        message = messages.decode(packet)
        if not isinstance(message, FROM_CLIENT):
            raise ProtocolError(f"{type(message).__name__} is not a client's message")
        assert self.member is not None
        if failpoints.message(message):
            self.stream.close("failpoint")
            return
        if isinstance(message, messages.Share):
            answer = self.server.host.shares.share(self.member, message, self.stream.take_descriptors())
            if message.request:
                self.send(answer)
        elif isinstance(message, messages.Back):
            self.server.host.places.back(self.member, message)
        elif isinstance(message, messages.Fetch) and message.pid == 0:
            self.send(self.server.host.shares.known(self.member, message, self.stream.take_descriptors()))
        elif isinstance(message, messages.Fetch):
            self.send(*self.server.host.shares.fetch(self.member, message))
        else:
            self.server.host.heard(self.member, message)

    def _closed(self, reason: str) -> None:
        if self._deadline is not None:
            self._deadline.cancel()
        close_all(self.handed)
        self.handed = []
        self.server.closed(self, reason)


class Sessions:
    """The listening client socket and all sessions."""

    def __init__(self, host: Host, listener: socket.socket, limit: int, log: Logger) -> None:
        self.host = host
        self.listener = listener
        self.limit = limit
        self.log = log
        self.loop = asyncio.get_running_loop()
        self.counters: Counter[str] = Counter()
        self.open: set[Session] = set()
        self._per_uid: Counter[int] = Counter()
        self.loop.add_reader(listener.fileno(), self._acceptable)

    def count(self, name: str) -> None:
        self.counters[name] += 1

    def _acceptable(self) -> None:
        for _ in range(16):
            try:
                connection, _ = self.listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self.log.error("accept_failed", error=error.strerror)
                if error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.ENOBUFS):
                    # Level-triggered: without a pause this would spin until somebody leaves.
                    self.loop.remove_reader(self.listener.fileno())
                    self.loop.call_later(0.1, self._resume)
                return
            self._accept(connection)

    def _resume(self) -> None:
        if self.listener.fileno() >= 0:
            self.loop.add_reader(self.listener.fileno(), self._acceptable)

    def _accept(self, connection: socket.socket) -> None:
        try:
            process = peer_process(connection)
        except (ProcessGone, OSError) as error:
            self.log.info("unidentified", reason=str(error))
            connection.close()
            return
        session = Session(self, connection, process)
        self.open.add(session)
        self._per_uid[process.uid] += 1
        if self._per_uid[process.uid] > self.limit:
            session.refuse(
                Refusal(
                    NOT_READY,
                    f"uid {process.uid} has {self.limit} connections to gpuvirtd already",
                    "raise limits.connections_per_user",
                )
            )

    def closed(self, session: Session, reason: str) -> None:
        self.open.discard(session)
        self._per_uid[session.process.uid] -= 1
        if session.member is not None:
            self.host.hung_up(session.member, session, reason)
        else:
            if not session.leaving and not session.asked:
                self.log.info("disconnected", pid=session.process.pid, reason=reason)
            session.process.close()

    def close(self) -> None:
        """Stop listening and drop all connections; nobody's memory is touched."""
        if self.listener.fileno() >= 0:
            self.loop.remove_reader(self.listener.fileno())
        for session in list(self.open):
            session.member = None
            session.stream.close("the daemon stops")
