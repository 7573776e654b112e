# SPDX-License-Identifier: Apache-2.0
"""One connection in the loop: it never blocks and never queues without limit."""

from __future__ import annotations

import asyncio
import os
import socket

from gpuvirtd.transport import QUEUE_LIMIT, PacketStream


def pair():
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


async def settle(condition, seconds=5.0):
    end = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < end, "did not settle"
        await asyncio.sleep(0.001)


def test_client_that_never_reads_is_disconnected():
    async def scene():
        ours, theirs = pair()
        reasons = []
        stream = PacketStream(asyncio.get_running_loop(), ours, lambda packet: None, reasons.append)
        sent = 0
        while not stream.closed:
            stream.send(bytes(64))
            sent += 1
            assert sent < 100_000
        assert reasons == [f"does not read: {QUEUE_LIMIT} messages are waiting"]
        assert sent > QUEUE_LIMIT
        stream.send(b"after the end")
        theirs.close()

    asyncio.run(scene())


def test_queue_drains_in_order_with_descriptors():
    async def scene():
        ours, theirs = pair()
        theirs.setblocking(False)
        stream = PacketStream(asyncio.get_running_loop(), ours, lambda packet: None, lambda reason: None)
        count = 0
        while not stream._queue:
            stream.send(count.to_bytes(8, "little"))
            count += 1
        read, write = os.pipe()
        stream.send(count.to_bytes(8, "little"), (write,))
        received = []
        fds = []
        while len(received) <= count:
            try:
                packet, ancillary, _, _ = socket.recv_fds(theirs, 64, 4)[0:4]
            except BlockingIOError:
                await asyncio.sleep(0.001)
                continue
            received.append(int.from_bytes(packet, "little"))
            fds += ancillary
        assert received == list(range(count + 1))
        os.write(fds[0], b"x")
        assert os.read(read, 1) == b"x"
        stream.close("done")
        for fd in (read, write, *fds):
            os.close(fd)
        theirs.close()

    asyncio.run(scene())


def test_packets_arrive_whole_and_the_end_is_told_once():
    async def scene():
        ours, theirs = pair()
        packets, reasons = [], []
        stream = PacketStream(asyncio.get_running_loop(), ours, packets.append, reasons.append)
        for number in range(100):
            theirs.send(bytes([number]) * (number + 1))
        await settle(lambda: len(packets) == 100)
        assert packets == [bytes([number]) * (number + 1) for number in range(100)]
        theirs.close()
        await settle(lambda: stream.closed)
        stream.close("again")
        assert reasons == ["closed by the client"]

    asyncio.run(scene())


def test_flooding_client_does_not_starve_the_loop():
    async def scene():
        ours, theirs = pair()
        theirs.setblocking(False)
        packets = []
        stream = PacketStream(asyncio.get_running_loop(), ours, packets.append, lambda reason: None)
        turns = 0
        while len(packets) < 2000:
            try:
                while True:
                    theirs.send(b"x" * 64)
            except BlockingIOError:
                pass
            await asyncio.sleep(0)
            turns += 1
        assert turns >= 2000 // 64
        stream.close("done")
        theirs.close()

    asyncio.run(scene())
