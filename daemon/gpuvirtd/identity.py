# SPDX-License-Identifier: Apache-2.0
"""Who is at the other end of a socket, as the kernel says: pid, uid and a pidfd, never a number from a message."""

from __future__ import annotations

import os
import select
import socket
import struct
from dataclasses import dataclass

SO_PEERPIDFD = 77  # Linux 6.5; not in Python 3.11's socket module
PF_EXITING = 0x4  # include/linux/sched.h; in /proc/PID/stat
UCRED = struct.Struct("iII")


@dataclass(slots=True)
class Process:
    """A process that cannot be mistaken for a later one with the same number. Own: close() it."""

    pid: int
    uid: int
    start: int  # clock ticks after boot
    pidfd: int

    def alive(self) -> bool:
        """False once the process (not only its main thread) has ended."""
        if self.pidfd < 0:
            return False
        poll = select.poll()
        poll.register(self.pidfd, select.POLLIN)
        return not poll.poll(0)

    def close(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1


class ProcessGone(Exception):
    """The process ended before it could be identified, or is not visible from here."""


def peer_process(connection: socket.socket) -> Process:
    """The process that connected. Raises ProcessGone."""
    pid, uid, _ = UCRED.unpack(connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))
    if pid <= 0:
        raise ProcessGone("the peer is in a pid namespace that this daemon cannot see")
    try:
        raw = connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD, 4)
        pidfd = struct.unpack("i", raw)[0]
        os.set_inheritable(pidfd, False)
        start = start_time(pid)
        if start is None:
            os.close(pidfd)
            raise ProcessGone(f"process {pid} has ended")
    except OSError:
        # Before Linux 6.5: the number may have been given to another process between connect and here.
        return open_process(pid, uid)
    return Process(pid, uid, start, pidfd)


def open_process(pid: int, uid: int | None = None, start: int | None = None) -> Process:
    """A process by number, checked against uid and start time where these are known. Raises ProcessGone."""
    before = start_time(pid)
    try:
        pidfd = os.pidfd_open(pid)
    except OSError:
        raise ProcessGone(f"process {pid} does not exist") from None
    after = start_time(pid)
    owner = uid_of(pid)
    wrong_owner = uid is not None and owner != uid
    if before is None or before != after or (start is not None and start != after) or owner is None or wrong_owner:
        os.close(pidfd)
        raise ProcessGone(f"process {pid} is not the one that was meant")
    return Process(pid, owner, before, pidfd)


def _stat(pid: int) -> list[str] | None:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()
    except OSError:
        return None


def start_time(pid: int) -> int | None:
    """Clock ticks after boot at which the process started; None if it does not exist."""
    fields = _stat(pid)
    return int(fields[19]) if fields else None


def parent_of(pid: int) -> int | None:
    """Parent's pid; None if the process does not exist."""
    fields = _stat(pid)
    return int(fields[1]) if fields else None


def is_stopped(pid: int) -> bool:
    """True if the process is stopped by a signal or a debugger."""
    fields = _stat(pid)
    return fields is not None and fields[0] in ("T", "t")


def is_exiting(pid: int) -> bool:
    """True if the process (its main thread) has begun to end: its pidfd says so with its last thread."""
    fields = _stat(pid)
    return fields is not None and bool(int(fields[6]) & PF_EXITING)


def uid_of(pid: int) -> int | None:
    """Effective uid; None if the process does not exist."""
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("Uid:"):
                    return int(line.split()[2])
    except OSError:
        pass
    return None


def is_descendant(pid: int, ancestor: int, generations: int = 16) -> bool:
    """True if `pid` is `ancestor` or was started by it, directly or through others."""
    current: int | None = pid
    for _ in range(generations):
        if current == ancestor:
            return True
        if current is None or current <= 1:
            return False
        current = parent_of(current)
    return False


def boot_id() -> str:
    """Differs after every boot: pids and start times of another boot mean nothing."""
    try:
        with open("/proc/sys/kernel/random/boot_id") as file:
            return file.read().strip()
    except OSError:
        return ""
