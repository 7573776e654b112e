# SPDX-License-Identifier: Apache-2.0
"""A SOCK_SEQPACKET connection in the event loop: never blocks, never queues more than a little."""

from __future__ import annotations

import array
import asyncio
import select
import socket
from collections import deque
from collections.abc import Callable, Sequence

from gpuvirt.control.messages import LARGEST

QUEUE_LIMIT = 64  # packets that a client may leave unread beyond its socket buffer
PACKETS_PER_TURN = 32  # so that one client that floods does not keep the loop from the others


class PacketStream:
    """One connection. on_packet gets each packet, on_close the reason, once."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        connection: socket.socket,
        on_packet: Callable[[bytes], None],
        on_close: Callable[[str], None],
    ) -> None:
        self.loop = loop
        self.connection = connection
        self.on_packet = on_packet
        self.on_close = on_close
        self.closed = False
        self._queue: deque[tuple[bytes, list[int]]] = deque()
        connection.setblocking(False)
        loop.add_reader(connection.fileno(), self._readable)

    def send(self, packet: bytes, fds: Sequence[int] = ()) -> None:
        """Send now or queue; a client whose queue is full is disconnected. fds must stay open until they are sent."""
        if self.closed:
            return
        if not self._queue and self._try(packet, list(fds)):
            return
        if self.closed:
            return
        if len(self._queue) >= QUEUE_LIMIT:
            self.close(f"does not read: {QUEUE_LIMIT} messages are waiting")
            return
        if not self._queue:
            self.loop.add_writer(self.connection.fileno(), self._writable)
        self._queue.append((packet, list(fds)))

    def _try(self, packet: bytes, fds: list[int]) -> bool:
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds).tobytes())] if fds else []
        try:
            self.connection.sendmsg([packet], ancillary, socket.MSG_NOSIGNAL)
        except (BlockingIOError, InterruptedError):
            return False
        except OSError as error:
            self.close(error.strerror or "send failed")
            return False
        return True

    def _writable(self) -> None:
        while self._queue and not self.closed:
            packet, fds = self._queue[0]
            if not self._try(packet, fds):
                return
            self._queue.popleft()
        if not self.closed:
            self.loop.remove_writer(self.connection.fileno())

    def _readable(self) -> None:
        for _ in range(PACKETS_PER_TURN):
            if self.closed:
                return
            try:
                # One byte more than the largest message, so that a longer packet is seen to be too long. Descriptors
                # that a client may attach are dropped by the kernel: no control buffer is given.
                packet = self.connection.recv(LARGEST + 1)
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self.close(error.strerror or "receive failed")
                return
            if not packet:
                self.close("closed by the client")
                return
            self.on_packet(packet)

    def hung_up(self) -> bool:
        """Has the other end gone, whether or not that was read already?"""
        if self.closed:
            return True
        poll = select.poll()
        poll.register(self.connection.fileno(), 0)
        return bool(poll.poll(0))

    def close(self, reason: str) -> None:
        """Close once; on_close is told."""
        if self.closed:
            return
        self.closed = True
        self.loop.remove_reader(self.connection.fileno())
        self.loop.remove_writer(self.connection.fileno())
        self._queue.clear()
        self.connection.close()
        self.on_close(reason)
