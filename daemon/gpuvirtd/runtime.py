# SPDX-License-Identifier: Apache-2.0
"""The runtime folder:

Private, locked by one daemon, with its sockets and the library folder that jobs load the shim from.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import stat
from pathlib import Path

from gpuvirt.errors import ConfigError
from gpuvirt.paths import ADMIN_SOCKET, CLIENT_SOCKET

LOCK = "gpuvirtd.lock"
DRIVER_NAMES = ("libcuda.so.1", "libcuda.so")
NVML_NAMES = ("libnvidia-ml.so.1", "libnvidia-ml.so")
BACKLOG = 128


class Runtime:
    """The folder of one running daemon. Raises ConfigError where it cannot be had."""

    def __init__(self, folder: Path, uid: int) -> None:
        self.folder = folder
        self.uid = uid
        self.sockets: list[socket.socket] = []
        prepare_folder(folder, uid)
        self._lock = take_lock(folder)

    @property
    def library_folder(self) -> Path:
        return self.folder / "lib"

    def link_shims(self, shim: Path, nvml_shim: Path | None) -> None:
        """lib/libcuda.so.1 and lib/libcuda.so -> the shim, and the same for NVML, as true links:

        Two copies would be two shims in one process.
        """
        self.library_folder.mkdir(mode=0o755, exist_ok=True)
        if self.uid == 0:
            self.library_folder.chmod(0o755)
        targets = dict.fromkeys(DRIVER_NAMES, shim)
        if nvml_shim is not None:
            targets |= dict.fromkeys(NVML_NAMES, nvml_shim)
        for name, target in targets.items():
            link = self.library_folder / name
            temporary = self.library_folder / f".{name}.{os.getpid()}"
            temporary.unlink(missing_ok=True)
            temporary.symlink_to(target)
            temporary.replace(link)  # at once: a job that starts now sees the old link or the new one

    def listen(self) -> tuple[socket.socket, socket.socket]:
        """The client and the admin socket, listening. A dead daemon's are replaced (the lock says that it is dead)."""
        everyone = 0o666 if self.uid == 0 else 0o600
        client = self._bind(CLIENT_SOCKET, socket.SOCK_SEQPACKET, everyone)
        admin = self._bind(ADMIN_SOCKET, socket.SOCK_STREAM, everyone)
        return client, admin

    def _bind(self, name: str, kind: int, mode: int) -> socket.socket:
        path = self.folder / name
        if len(os.fsencode(path)) > 107:
            raise ConfigError(f"{path} is too long for a socket", "choose a shorter runtime folder (107 bytes in all)")
        path.unlink(missing_ok=True)
        server = socket.socket(socket.AF_UNIX, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        # Bound under a mask that lets nobody in before chmod says who may.
        mask = os.umask(0o177)
        try:
            server.bind(str(path))
        finally:
            os.umask(mask)
        path.chmod(mode)
        server.listen(BACKLOG)
        self.sockets.append(server)
        return server

    def remove(self) -> None:
        """Give the folder back: sockets, links, lock. Jobs keep what they have mapped."""
        for server in self.sockets:
            server.close()
        if not is_locked_by(self.folder, self._lock):
            # Somebody removed the folder under us, and what is there now is another daemon's.
            os.close(self._lock)
            return
        for name in (CLIENT_SOCKET, ADMIN_SOCKET):
            (self.folder / name).unlink(missing_ok=True)
        for name in (*DRIVER_NAMES, *NVML_NAMES):
            (self.library_folder / name).unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.library_folder.rmdir()
        (self.folder / LOCK).unlink(
            missing_ok=True
        )  # while locked: a waiter sees that its file is not the one any more
        os.close(self._lock)


def prepare_folder(folder: Path, uid: int) -> None:
    """Make the folder (0700; 0755 for root) or check that it is safe. Raises ConfigError."""
    mode = 0o755 if uid == 0 else 0o700
    try:
        folder.mkdir(mode=mode, parents=True)
    except FileExistsError:
        pass
    except OSError as error:
        raise ConfigError(
            f"runtime folder {folder} cannot be made: {error.strerror}", "choose one with --runtime"
        ) from None
    found = folder.lstat()
    if stat.S_ISLNK(found.st_mode):
        raise ConfigError(f"runtime folder {folder} is a symbolic link", "name the folder itself with --runtime")
    if not stat.S_ISDIR(found.st_mode):
        raise ConfigError(f"runtime folder {folder} is not a folder", "choose one with --runtime")
    if found.st_uid != uid:
        raise ConfigError(
            f"runtime folder {folder} belongs to uid {found.st_uid}, not {uid}", "choose one with --runtime"
        )
    if found.st_mode & 0o022:
        raise ConfigError(
            f"runtime folder {folder} is writable by others (mode {found.st_mode & 0o777:o})", f"chmod {mode:o} it"
        )
    folder.chmod(mode)


def is_locked_by(folder: Path, fd: int) -> bool:
    """True if the folder's lock file is the one that this descriptor holds."""
    try:
        return os.path.samestat(os.fstat(fd), (folder / LOCK).stat())
    except OSError:
        return False


def take_lock(folder: Path) -> int:
    """The locked descriptor. Raises ConfigError if a daemon lives here already."""
    path = folder / LOCK
    while True:
        fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(fd, 32, 0).decode(errors="replace").strip() or "unknown"
            os.close(fd)
            if error.errno not in (errno.EAGAIN, errno.EACCES):
                raise ConfigError(f"{path} cannot be locked: {error.strerror}") from None
            raise ConfigError(
                f"another gpuvirtd (pid {holder}) serves {folder}", "stop it, or choose another --runtime"
            ) from None
        with contextlib.suppress(FileNotFoundError):
            if os.fstat(fd).st_ino == path.stat().st_ino:
                os.ftruncate(fd, 0)
                os.pwrite(fd, f"{os.getpid()}\n".encode(), 0)
                return fd
        os.close(fd)  # the daemon before us removed the file while we opened it
