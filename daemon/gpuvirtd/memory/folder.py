# SPDX-License-Identifier: Apache-2.0
"""Where arenas are made: a folder on tmpfs or hugetlbfs; and whether a file that is handed over is of such a place."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import secrets
import stat
from dataclasses import dataclass
from pathlib import Path

from gpuvirt.errors import ConfigError, GpuvirtError

KINDS = ("tmpfs", "hugetlbfs")
HUGE_PAGE_MAX = 2 << 20  # of one page of an arena
AT_EMPTY_PATH, AT_STATX_DONT_SYNC = 0x1000, 0x4000
STATX_BASIC_STATS = 0x7FF

_libc = ctypes.CDLL(None, use_errno=True)


class TrustError(GpuvirtError):
    """A file that a process hands over as its arena, and that is none."""


@dataclass(frozen=True, slots=True)
class Folder:
    """A folder for arenas."""

    path: Path
    huge: int  # bytes of a huge page; 0: tmpfs

    @classmethod
    def open(cls, path: Path) -> Folder:
        """Look what it is. Raises ConfigError if arenas cannot be made there."""
        try:
            found = path.stat()
        except OSError as error:
            raise ConfigError(
                f"memory.arena_folder: {path}: {error.strerror}", "mount a tmpfs there, or name another"
            ) from None
        kind = mounts().get(found.st_dev, "")
        if kind not in KINDS:
            raise ConfigError(
                f"memory.arena_folder: {path} is not on tmpfs or hugetlbfs{f' but on {kind}' if kind else ''}",
                "name a folder that is, for example /dev/shm",
            )
        huge = os.statvfs(path).f_bsize if kind == "hugetlbfs" else 0
        if huge > HUGE_PAGE_MAX:
            raise ConfigError(
                f"memory.arena_folder: the pages of {path} have {huge} bytes", "mount a hugetlbfs with pagesize=2M"
            )
        folder = cls(path, huge)
        try:
            os.close(folder.new_file())
        except GpuvirtError as error:
            raise ConfigError(f"memory.arena_folder: {error.message}", error.hint) from None
        return folder

    def new_file(self) -> int:
        """Descriptor of a new file without a name. Raises GpuvirtError."""
        try:
            try:
                return os.open(self.path, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
            except OSError as error:
                if error.errno not in (errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL):
                    raise
            # An old hugetlbfs: a name for a moment, which nobody else can open.
            path = self.path / f".gpuvirt-{secrets.token_hex(8)}"
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            path.unlink()
        except OSError as error:
            raise GpuvirtError(f"no arena in {self.path}: {error.strerror}", "mount a tmpfs there") from None
        return fd

    def room(self) -> int | None:
        """Bytes that arenas may have of this file system, however little of it is in use now; None: no limit.

        A little less than it has: tables, and segments that are backed as a whole.
        """
        try:
            found = os.statvfs(self.path)
        except OSError:
            return None
        return found.f_blocks * found.f_frsize // 16 * 15 or None

    def rounded(self, size: int) -> int:
        """Bytes, up to whole pages of this file system."""
        page = self.huge or 4096
        return -(-size // page) * page


def mounts() -> dict[int, str]:
    """Kind of every mounted file system, by device number."""
    found: dict[int, str] = {}
    with contextlib.suppress(OSError), open("/proc/self/mountinfo") as file:
        for line in file:
            left, _, right = line.partition(" - ")
            major, _, minor = left.split()[2].partition(":")
            found[os.makedev(int(major), int(minor))] = right.split()[0]
    return found


@dataclass(frozen=True, slots=True)
class HandedOver:
    """What is known of a file that a process handed over."""

    size: int
    key: tuple[int, int]  # device, inode
    huge: bool


class _Time(ctypes.Structure):
    _fields_ = (("seconds", ctypes.c_int64), ("ns", ctypes.c_uint32), ("reserved", ctypes.c_int32))


class _Statx(ctypes.Structure):
    _fields_ = (
        ("mask", ctypes.c_uint32),
        ("blksize", ctypes.c_uint32),
        ("attributes", ctypes.c_uint64),
        ("nlink", ctypes.c_uint32),
        ("uid", ctypes.c_uint32),
        ("gid", ctypes.c_uint32),
        ("mode", ctypes.c_uint16),
        ("reserved", ctypes.c_uint16),
        ("ino", ctypes.c_uint64),
        ("size", ctypes.c_uint64),
        ("blocks", ctypes.c_uint64),
        ("attributes_mask", ctypes.c_uint64),
        ("times", _Time * 4),
        ("rdev", ctypes.c_uint32 * 2),
        ("dev", ctypes.c_uint32 * 2),
        ("rest", ctypes.c_uint64 * 14),
    )


def handed_over(fd: int) -> HandedOver:
    """Check that a daemon of this user has made the file. Raises TrustError.

    A job's process may send anything, also a file whose server never answers: nothing here waits for a file system
    before it is known to be memory of this host.
    """
    found = _Statx()
    flags = AT_EMPTY_PATH | AT_STATX_DONT_SYNC
    if _libc.statx(fd, b"", flags, STATX_BASIC_STATS, ctypes.byref(found)) != 0:
        raise TrustError(os.strerror(ctypes.get_errno()))
    device = os.makedev(*found.dev)
    kind = mounts().get(device, "")
    if kind not in KINDS or not stat.S_ISREG(found.mode):
        raise TrustError("it is not a file on a tmpfs or hugetlbfs of this host")
    # Only a daemon makes files of its user without a name and closed to all others; who has one got it from a daemon.
    if found.uid != os.geteuid() or found.nlink != 0 or stat.S_IMODE(found.mode) != 0o600:
        raise TrustError("no gpuvirtd has made it")
    if fcntl.fcntl(fd, fcntl.F_GETFL) & os.O_ACCMODE != os.O_RDWR:
        raise TrustError("it is not open for reading and writing")
    return HandedOver(int(found.size), (device, int(found.ino)), kind == "hugetlbfs")
