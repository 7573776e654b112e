# SPDX-License-Identifier: Apache-2.0
"""Tapes of what the arbiters are told and decide: `[daemon] record`. `gpuvirt simulate replay` plays them.

One file for each GPU and start of the daemon, which only its user can read. A line is in the file before the decision
is carried out: the tape of a daemon that was killed is whole but for its last line. It is for looking into things: it
grows by about a kilobyte for each hand-over.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from gpuvirt.arbitration.tape import Tape
from gpuvirt.errors import ConfigError
from gpuvirtd.arbiter.arbiter import Arbiter
from gpuvirtd.log import Logger

LIMIT = 1 << 30  # bytes of one tape


class Recording:
    """The tape of one GPU, until it is closed, is full, or cannot be written."""

    def __init__(self, arbiter: Arbiter, path: Path, log: Logger, limit: int = LIMIT) -> None:
        self.arbiter, self.path, self.log, self.limit = arbiter, path, log, limit
        self._size = 0
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        arbiter.gpu.tape = Tape(arbiter.gpu, self._write)

    def _write(self, line: bytes) -> None:
        if self._descriptor < 0:
            return
        try:
            if self._size + len(line) > self.limit:
                raise OSError(0, f"it has {self._size} bytes, and at most {self.limit} are written")
            os.write(self._descriptor, line)
            self._size += len(line)
        except OSError as error:
            self.log.warning("recording_ended", path=str(self.path), reason=error.strerror)
            self.close()

    def close(self) -> None:
        """No more of it. The tape stays."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1
            self.arbiter.gpu.tape = None


def record(folder: Path, arbiters: Iterable[Arbiter], generation: int, log: Logger) -> list[Recording]:
    """Begins a tape for each arbiter in `folder`, which is made. Raises ConfigError."""
    try:
        folder.mkdir(mode=0o700, exist_ok=True)
        made = [
            Recording(arbiter, folder / f"gpu{arbiter.device.index}-{generation}-{os.getpid()}.tape", log)
            for arbiter in arbiters
        ]
    except OSError as error:
        raise ConfigError(
            f"daemon.record: {error.filename or folder}: {error.strerror}", "name another folder"
        ) from None
    log.info("recording", folder=str(folder), tapes=len(made))
    return made
