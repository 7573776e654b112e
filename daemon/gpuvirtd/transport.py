# SPDX-License-Identifier: Apache-2.0
"""A SOCK_SEQPACKET connection in the event loop: never blocks, never queues more than a little."""

from __future__ import annotations

import array
import asyncio
import os
import select
import socket
import threading
from collections import deque
from collections.abc import Callable, Iterable, Sequence

from gpuvirt.control.messages import LARGEST, SHARE_MAX

INT_BYTES = array.array("i").itemsize
QUEUE_LIMIT = 64  # packets that a client may leave unread beyond its socket buffer
PACKETS_PER_TURN = 32  # so that one client that floods does not keep the loop from the others


def received(ancillary: Sequence[tuple[int, int, bytes]]) -> list[int]:
    """The descriptors in what recvmsg returned beside a packet."""
    fds = array.array("i")
    for level, kind, data in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            fds.frombytes(data[: len(data) - len(data) % INT_BYTES])
    return list(fds)


def close_all(fds: Iterable[int]) -> None:
    """Close descriptors that a client sent.

    They may be anything, also a file whose closing waits for a server of the client's: not in the loop's thread.
    """
    mine = list(fds)

    def close() -> None:
        for fd in mine:
            os.close(fd)

    if mine:
        threading.Thread(target=close, daemon=True).start()


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
        self._received: list[int] = []  # descriptors that came with the packet that on_packet has now
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
        self._queue.append((packet, [os.dup(fd) for fd in fds]))  # the caller may close its own meanwhile

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
            for fd in fds:
                os.close(fd)
        if not self.closed:
            self.loop.remove_writer(self.connection.fileno())

    def _readable(self) -> None:
        for _ in range(PACKETS_PER_TURN):
            if self.closed:
                return
            try:
                # One byte more than the largest message, so that a longer packet is seen to be too long. More
                # descriptors than a message may have are dropped by the kernel.
                packet, ancillary, _, _ = self.connection.recvmsg(
                    LARGEST + 1, socket.CMSG_SPACE(SHARE_MAX * INT_BYTES), socket.MSG_CMSG_CLOEXEC
                )
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                self.close(error.strerror or "receive failed")
                return
            if not packet:
                self.close("closed by the client")
                return
            self._received = received(ancillary)
            self.on_packet(packet)
            close_all(self.take_descriptors())

    def take_descriptors(self) -> list[int]:
        """What came with the packet that on_packet is about; the caller's from now on."""
        fds, self._received = self._received, []
        return fds

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
        for _, fds in self._queue:
            for fd in fds:
                os.close(fd)
        self._queue.clear()
        self.connection.close()
        self.on_close(reason)
