# SPDX-License-Identifier: Apache-2.0
"""A screen of its own on any terminal that knows the usual control sequences, given back however it ends.

No library: what is shown is a list of lines, and a terminal is left as it was found after q, Ctrl-C, Ctrl-Z, a signal
or a mistake of ours.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
import sys
import termios
import time
import tty
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any, TextIO

_ENTER = "\x1b[?1049h\x1b[?25l\x1b[?7l"  # the other screen, no cursor, lines that are too long are cut and not wrapped
_LEAVE = "\x1b[?7h\x1b[?25h\x1b[?1049l"
_HOME, _END_OF_LINE, _BELOW = "\x1b[H", "\x1b[K", "\x1b[J"
_ENDING = (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Ended(Exception):
    """A signal asks us to end."""

    def __init__(self, number: int) -> None:
        self.number = number


def usable(stream: TextIO, environ: Mapping[str, str]) -> bool:
    """Can a screen be shown there?"""
    return stream.isatty() and environ.get("TERM", "dumb") not in ("", "dumb")


class Screen:
    """Shows lines and hears keys. Use it as a context."""

    def __init__(self, out: TextIO = sys.stdout, keys: TextIO | None = sys.stdin) -> None:
        self._out = out.fileno()
        self._keys = keys.fileno() if keys is not None and keys.isatty() else None
        self._before: list[Any] | None = None
        self._handlers: dict[int, Any] = {}
        self._wake = (-1, -1)
        self._resized = False

    def __enter__(self) -> Screen:
        self._wake = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        for number in (*_ENDING, signal.SIGWINCH, signal.SIGTSTP):
            self._handlers[number] = signal.signal(number, self._signalled)
        try:
            self._take()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *reason: object) -> None:
        with contextlib.suppress(OSError):  # the terminal may have gone
            self._give_back()
        for number, handler in self._handlers.items():
            signal.signal(number, handler)
        for end in self._wake:
            os.close(end)

    def size(self) -> tuple[int, int]:
        """(columns, lines)."""
        with contextlib.suppress(OSError):
            found = os.get_terminal_size(self._out)
            if found.columns > 0 and found.lines > 0:
                return found.columns, found.lines
        return shutil.get_terminal_size((80, 24))

    def show(self, lines: Sequence[str]) -> None:
        """These lines and nothing else; written over the old ones, so that nothing flickers."""
        body = f"{_END_OF_LINE}\r\n".join(lines)
        self._write(f"{_HOME}{body}{_END_OF_LINE}{_BELOW}")

    def wait(self, timeout_s: float) -> str:
        """The next key, "resize", or "" when the time is over. Raises Ended at a signal."""
        deadline = time.monotonic() + timeout_s
        sources = [self._wake[0]] + ([self._keys] if self._keys is not None else [])
        while True:
            ready, _, _ = select.select(sources, [], [], max(0.0, deadline - time.monotonic()))
            if self._wake[0] in ready:
                self._heed(os.read(self._wake[0], 64))
                if self._resized:
                    self._resized = False
                    return "resize"
            elif self._keys in ready and self._keys is not None:
                data = os.read(self._keys, 64)
                if not data:
                    raise Ended(signal.SIGHUP)
                return data.decode(errors="replace")
            elif not ready:
                return ""

    def _signalled(self, number: int, frame: FrameType | None) -> None:
        with contextlib.suppress(OSError):
            os.write(self._wake[1], bytes([number]))

    def _heed(self, numbers: bytes) -> None:
        for number in numbers:
            if number in _ENDING:
                raise Ended(number)
            if number == signal.SIGTSTP:
                self._suspend()
            self._resized = True  # also after a stop: the window may be another one

    def _suspend(self) -> None:
        """Ctrl-Z: the shell gets its terminal as it was, and we get ours when we go on."""
        self._give_back()
        mine = signal.signal(signal.SIGTSTP, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGTSTP)
        signal.signal(signal.SIGTSTP, mine)
        self._take()

    def _take(self) -> None:
        if self._keys is not None:
            self._before = termios.tcgetattr(self._keys)
            tty.setcbreak(self._keys, termios.TCSADRAIN)
        self._write(_ENTER)

    def _give_back(self) -> None:
        self._write(_LEAVE)
        if self._keys is not None and self._before is not None:
            termios.tcsetattr(self._keys, termios.TCSADRAIN, self._before)

    def _write(self, text: str) -> None:
        data = text.encode(errors="replace")
        while data:
            data = data[os.write(self._out, data) :]


@contextlib.contextmanager
def screen() -> Iterator[Screen]:
    """A screen on standard output."""
    sys.stdout.flush()
    with Screen() as shown:
        yield shown
