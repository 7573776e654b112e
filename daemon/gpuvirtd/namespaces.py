# SPDX-License-Identifier: Apache-2.0
"""Which number a process has in another one's pid namespace."""

from __future__ import annotations

import fcntl
import os

NS_GET_PARENT = 0xB702  # ioctl of namespace descriptors (linux/nsfs.h)
NESTING = 32  # levels of pid namespaces that the kernel allows


def pid_seen_by(pid: int, observer: int) -> int | None:
    """The number under which `observer` sees process `pid`; both are numbers of this process's namespace.

    None when the observer cannot see it, or one of them has ended.
    """
    target, own = numbers(pid), numbers(observer)
    if not target or not own or len(target) < len(own):
        return None
    if len(own) == 1:
        return target[0]  # the observer lives in our namespace
    place = _namespace_at(pid, len(target) - len(own))
    return target[len(own) - 1] if place is not None and place == _namespace_at(observer, 0) else None


def numbers(pid: int) -> list[int]:
    """Its pids from our namespace down to its own; empty when it has ended."""
    try:
        with open(f"/proc/{pid}/status") as file:
            for line in file:
                if line.startswith("NSpid:"):
                    return [int(word) for word in line.split()[1:]]
    except OSError:
        pass
    return []


def _namespace_at(pid: int, levels: int) -> tuple[int, int] | None:
    """(device, inode) of the pid namespace that many levels above the process's own."""
    try:
        fd = os.open(f"/proc/{pid}/ns/pid", os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        for _ in range(min(levels, NESTING)):
            parent = fcntl.ioctl(fd, NS_GET_PARENT)
            os.close(fd)
            fd = parent
        found = os.fstat(fd)
        return found.st_dev, found.st_ino
    except OSError:
        return None
    finally:
        os.close(fd)
