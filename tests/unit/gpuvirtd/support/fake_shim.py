# SPDX-License-Identifier: Apache-2.0
"""A client of the daemon that does what the shim does, in Python, in a process of its own (identity is per process).

FakeShim runs in the child: it answers DRAIN, EVICT and RESTORE like a well-behaved shim, or misbehaves as told.
Remote is the test's handle on it.
"""

from __future__ import annotations

import array
import contextlib
import multiprocessing
import os
import select
import socket
import time
from multiprocessing.connection import Connection
from typing import Any

from fake_arena import ArenaUser

from gpuvirt.control import messages
from gpuvirt.control.block import ClientState, ClientWriter, LeaseState, LeaseView

MIB = 1 << 20
LAUNCHABLE = (LeaseState.OPEN, LeaseState.GRANTED)


class FakeShim(ArenaUser):
    """The child's side. Memory is counted, not moved."""

    def __init__(self) -> None:
        super().__init__()
        self.socket: socket.socket | None = None
        self.lease: LeaseView | None = None
        self.page: ClientWriter | None = None
        self.counts: dict[str, int] = {}  # what EVICTED says of bytes and times besides
        self.welcome: messages.Welcome | None = None
        self.refused: messages.Refused | None = None
        self.closed, self.received = False, list[str]()
        self.charged = self.resident = self.allowance = 0
        self.out = self.inward = self.brought = 0
        self.window, self.delay_s = 16 * MIB, 0.0  # of an EVICT; before RESTORED
        self.restoring: messages.Restore | None = None
        self.credits: list[int] = []  # of all RESTOREs, as they came
        self.busy, self.drain = False, True  # busy: always has work: wants the GPU whenever it has not got it
        self.evict = "ok"  # ok, fail, half (of it leaves, then it fails), silent
        self.restore = "ok"  # ok, oom, silent
        self.oom_short = self.largest_resident = self.drained_epoch = 0
        self.intervals: list[list[float]] = []  # [from, to] in which it could have work on the GPU
        self.state, self.since_ns, self.busy_ns = ClientState.IDLE, 0, 0
        self.options: dict[str, Any] = {}

    # ---- commands of the test

    def hello(self, path: str, job_token: str, uuid: bytes, **changes: Any) -> str:
        """Attach; "welcome", or the reason of the refusal, or "closed"."""
        self.options = {"path": path, "token": job_token, "uuid": uuid}
        self.connect(path)
        assert self.socket is not None
        self.socket.settimeout(5)
        self.closed = False
        version = changes.pop("version", messages.VERSION)
        extra = changes.pop("extra", 0)
        fields = {
            "minimum_version": 1,
            "claimed_pid": os.getpid(),
            "device": 0,
            "reattach": 0,
            "granularity": MIB,
            "device_total": 512 * MIB,
            "charged_bytes": self.charged,
            "resident_bytes": self.resident,
            "device_uuid": uuid,
            "token": job_token,
        }
        fields |= changes
        handed = [self.arena] if fields["reattach"] and self.arena >= 0 else []  # what its memory is in
        handed += handed[:1] * extra
        fields.setdefault("owner", self.owner)
        socket.send_fds(self.socket, [messages.encode(messages.Hello(**fields), version)], handed)
        return self._answer()

    def options_of(self) -> tuple[str, str, bytes]:
        """What the last hello() was called with."""
        return self.options["path"], self.options["token"], self.options["uuid"]

    def connect(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.socket.connect(path)

    def _answer(self) -> str:
        assert self.socket is not None
        packet, ancillary, _, _ = self.socket.recvmsg(4096, socket.CMSG_SPACE(16 * 4))
        if not packet:
            self.closed = True
            return "closed"
        fds = array.array("i")
        for _, kind, data in ancillary:
            if kind == socket.SCM_RIGHTS:
                fds.frombytes(data)
        message = messages.decode(packet)
        if isinstance(message, messages.Refused):
            self.refused = message
            return message.reason
        assert isinstance(message, messages.Welcome)
        self.welcome = message
        self.lease, self.page = LeaseView(fds[0]), ClientWriter(fds[1])
        if self.arena < 0:  # else it keeps the arena that its memory is in
            self.arena, self.owner = fds[2], message.owner
            fds.pop()
        for fd in fds[1:]:
            os.close(fd)
        self.allowance = message.allowance
        self.drained_epoch = 0
        if self.intervals and len(self.intervals[-1]) == 1:
            self.intervals[-1].append(time.monotonic())  # what was given under an old page is finished first
        self.send(messages.Drained(0))
        self.send(messages.Memory(self.charged, self.resident, 0))
        if self.busy:
            self.want()
        self.socket.setblocking(False)
        return "welcome"

    def want(self, size: int | None = None, busy: bool = True) -> None:
        """Have work and (at least) this much memory."""
        if size is not None:
            self.charged = size
        self.busy = busy
        self._publish(ClientState.WAITING)
        self.send(messages.Want(self.charged, self.resident))

    def finish(self) -> None:
        """No work any more."""
        self.busy = False
        self._publish(ClientState.IDLE)
        self.send(messages.Idle(time.monotonic_ns()))

    def configure(self, **values: Any) -> None:
        for name, value in values.items():
            setattr(self, name, value)

    def write_page(self, **fields: int) -> None:
        assert self.page is not None
        self.page.set(**fields)

    def scribble(self, data: bytes) -> None:
        assert self.page is not None
        self.page.scribble(data)

    def raw(self, data: bytes, times: int = 1) -> None:
        assert self.socket is not None
        for _ in range(times):
            self.socket.send(data)

    def send(self, message: messages.Message) -> None:
        if self.socket is None:
            return
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.socket.send(messages.encode(message))

    def drop(self) -> None:
        """Close the connection, live on."""
        assert self.socket is not None
        self.socket.close()
        self.socket = None

    def view(self) -> dict[str, Any]:
        """What the test may want to know."""
        word = self.lease.word if self.lease is not None else (0, LeaseState.CLOSED)
        return {
            "word": word[1].name,
            "epoch": word[0],
            "quota": self.lease.quota if self.lease is not None else None,
            "window_us": self.lease.window_us if self.lease is not None else None,
            "fits": self.lease.fits if self.lease is not None else None,
            "charged": self.charged,
            "resident": self.resident,
            "allowance": self.allowance,
            "largest_resident": self.largest_resident,
            "out": self.out,
            "in": self.inward,
            "intervals": self.intervals,
            "received": self.received,
            "credits": self.credits,
            "closed": self.closed,
            "welcome": None if self.welcome is None else (self.welcome.generation, self.welcome.arena_bytes),
        }

    # ---- the shim's own work

    def _publish(self, state: ClientState) -> None:
        if self.page is not None:
            now = time.monotonic_ns()
            if self.state is ClientState.RUNNING:
                self.busy_ns += now - self.since_ns
            self.state, self.since_ns = state, now
            self.page.set(
                state=int(state),
                ready_since_ns=now,
                busy_ns=self.busy_ns,
                charged_bytes=self.charged,
                resident_bytes=self.resident,
                out_bytes=self.out,
                in_bytes=self.inward,
                drained_epoch=self.drained_epoch,
            )

    def look(self) -> None:
        """Follow the lease word."""
        if self.lease is None:
            return
        epoch, state = self.lease.word
        running = bool(self.intervals) and len(self.intervals[-1]) == 1
        if state in LAUNCHABLE and self.busy and not running and self.charged <= self.resident:
            self.intervals.append([time.monotonic()])
            self._publish(ClientState.RUNNING)
        if state is LeaseState.DRAIN and self.drain and self.drained_epoch != epoch:
            if running:
                self.intervals[-1].append(time.monotonic())
            self.drained_epoch = epoch
            self._publish(ClientState.WAITING if self.busy else ClientState.IDLE)
            self.send(messages.Drained(epoch))
            if self.busy:
                self.send(messages.Want(self.charged, self.resident))
        if state is LeaseState.CLOSED and running:
            self.intervals[-1].append(time.monotonic())

    def receive(self) -> None:
        assert self.socket is not None
        try:
            packet = self.socket.recv(4096)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self.closed = True
            self.socket.close()
            self.socket = None
            return
        message = messages.decode(packet)
        self.received.append(type(message).__name__)
        if isinstance(message, messages.Evict):
            self._evict(message)
        elif isinstance(message, messages.Restore):
            self._restore(message)
        elif isinstance(message, messages.Backed):
            self.answers.append(message)
        elif isinstance(message, messages.Credit):
            self._credit(message)

    def _evict(self, message: messages.Evict) -> None:
        if self.evict == "silent":
            return
        if self.evict == "fail":
            self.send(messages.Evicted(2, self.charged, self.resident, 0, 0, 1000))
            return
        moved = max(0, self.resident - message.target)
        self.allowance = message.target
        if self.evict == "half":
            self.resident -= moved // 2
            self.out += moved // 2
            self.send(messages.Progress(self.resident))
            self.send(messages.Evicted(999, self.charged, self.resident, moved // 2, 0, 1000))
            return
        for left in range(moved, 0, -self.window):  # a window at a time
            self.resident -= min(self.window, left)
            self.out += min(self.window, left)
            if self.resident > message.target:
                self.send(messages.Progress(self.resident))
        self._publish(ClientState.WAITING if self.busy else ClientState.IDLE)
        self.send(messages.Evicted(0, self.charged, self.resident, moved, 0, 1000 + moved, **self.counts))

    def _restore(self, message: messages.Restore) -> None:
        if self.restore == "silent":
            return
        if self.restore == "oom":
            self.send(messages.Restored(2, self.charged, self.resident, 0, self.oom_short, 1000))
            return
        self.restoring = message
        self.credits.append(message.credit)
        self.brought = 0
        self._bring(message.credit)

    def _credit(self, message: messages.Credit) -> None:
        if self.restoring is None or self.restore == "silent":
            return
        if message.cancelled:
            self._restored(600)
        else:
            self.credits.append(message.credit)
            self._bring(message.credit)

    def _bring(self, credit: int) -> None:
        """What the credit allows comes in; it is done when that is all."""
        assert self.restoring is not None
        self.allowance = credit
        moved = max(0, min(self.charged, credit) - self.resident)
        self.resident += moved
        self.inward += moved
        self.brought += moved
        self.largest_resident = max(self.largest_resident, self.resident)
        if self.resident >= self.charged or credit >= self.restoring.allowance:
            self._restored(0)
        else:
            self.send(messages.Memory(self.charged, self.resident, 0))

    def _restored(self, status: int) -> None:
        self.restoring = None
        time.sleep(self.delay_s)
        self._publish(ClientState.WAITING if self.busy else ClientState.IDLE)
        self.send(messages.Restored(status, self.charged, self.resident, self.brought, 0, 1000 + self.brought))


def _child(pipe: Connection) -> None:
    shim = FakeShim()
    while True:
        sources: list[Any] = [pipe]
        if shim.socket is not None and shim.welcome is not None:
            sources.append(shim.socket)
        ready, _, _ = select.select(sources, [], [], 0.001)
        if shim.socket is not None and shim.socket in ready:
            shim.receive()
        shim.look()
        if pipe not in ready:
            continue
        try:
            name, arguments, keywords = pipe.recv()
        except EOFError:
            os._exit(0)
        if name == "exit":
            os._exit(0)
        try:
            pipe.send((True, getattr(shim, name)(*arguments, **keywords)))
        except Exception as error:
            pipe.send((False, f"{type(error).__name__}: {error}"))


class Remote:
    """A FakeShim in a child process; methods of FakeShim are called through it."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("fork")
        self._pipe, child = context.Pipe()
        self.process = context.Process(target=self._start, args=(child,), daemon=True)
        self.process.start()
        child.close()

    def _start(self, pipe: Connection) -> None:
        self._pipe.close()
        _child(pipe)

    @property
    def pid(self) -> int:
        assert self.process.pid is not None
        return self.process.pid

    def __getattr__(self, name: str) -> Any:
        def call(*arguments: Any, **keywords: Any) -> Any:
            self._pipe.send((name, arguments, keywords))
            fine, result = self._pipe.recv()
            if not fine:
                raise RuntimeError(result)
            return result

        return call

    def kill(self) -> None:
        """SIGKILL, and wait for the end."""
        self.process.kill()
        self.process.join(10)

    def close(self) -> None:
        self.kill()
        self._pipe.close()
        self.process.close()


def until(condition: Any, timeout: float = 5.0, what: str = "condition") -> Any:
    """Wait until condition() is true (not a fixed sleep); returns its value."""
    end = time.monotonic() + timeout
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.002)
    raise AssertionError(f"{what} did not come true within {timeout} s")
