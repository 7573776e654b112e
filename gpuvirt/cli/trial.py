# SPDX-License-Identifier: Apache-2.0
"""Runs a program for `gpuvirt doctor` and looks, all the while, at what it and its descendants have loaded."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

_PR_SET_CHILD_SUBREAPER = 36
_LOOK_S, _LOOK_MOST_S = 0.01, 0.1  # between two looks, at the beginning and later
_GRACE_S = 3.0  # from SIGTERM to SIGKILL
_TAIL_BYTES = 4000
_STOPPING = (
    signal.SIGINT,
    signal.SIGTERM,
    signal.SIGHUP,
)  # the program has a session of its own and hears none of them


@dataclass
class Seen:
    """One program in one process: after an exec, the same pid is another entry."""

    pid: int
    program: str = ""  # its executable
    preload: str = ""  # LD_PRELOAD that it was started with
    readable: bool = True  # False: neither environment nor mappings may be read (it runs as somebody else)
    libraries: dict[str, int] = field(default_factory=dict)  # path -> most times that it was loaded at once


@dataclass(frozen=True)
class Trial:
    """What happened."""

    code: int | None  # None: it was stopped at the limit; negative: ended by this signal
    seconds: float
    said: str  # the last of its output
    processes: list[Seen]


def run(
    program: Path, words: Sequence[str], environ: Mapping[str, str], limit_s: float, each: Callable[[set[int]], None]
) -> Trial:
    """Runs the program without input and with its output kept, for at most limit_s seconds; ends all that it started.

    `each` is called after every look with the living pids. Raises OSError when it cannot be started. A signal that ends
    this process ends the program first; a second one changes nothing.
    """
    ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # whom it leaves behind, we inherit
    seen: dict[tuple[int, str], Seen] = {}
    began, wait = time.monotonic(), _LOOK_S
    with _signals() as caught, tempfile.TemporaryFile() as output:
        child = subprocess.Popen(
            list(words), executable=str(program), env=dict(environ), stdin=subprocess.DEVNULL,
            stdout=output, stderr=subprocess.STDOUT, start_new_session=True,
        )  # fmt: skip
        try:
            while child.poll() is None and not caught and time.monotonic() - began < limit_s:
                alive = descendants(os.getpid())
                for pid in alive:
                    look(pid, seen)
                each(alive)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    child.wait(wait)
                wait = min(_LOOK_MOST_S, wait * 1.3)
            code = child.poll()
            seconds = time.monotonic() - began
        finally:
            _end_all(child)
        _end_by(caught)
        size = output.seek(0, os.SEEK_END)
        output.seek(max(0, size - _TAIL_BYTES))
        said = output.read().decode(errors="replace")
    return Trial(code, seconds, said, sorted(seen.values(), key=lambda process: process.pid))


@contextlib.contextmanager
def _signals() -> Iterator[list[int]]:
    """The signals that came meanwhile and would have ended this process. They interrupt nothing: not the start of the
    program, of which the pid would be lost, and not its end."""
    caught: list[int] = []
    before = {number: signal.getsignal(number) for number in _STOPPING}
    for number, handler in before.items():
        if handler != signal.SIG_IGN:  # nohup
            signal.signal(number, lambda arrived, _: caught.append(arrived))
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _end_by(caught: Sequence[int]) -> None:
    """What the first of these signals means. Raises KeyboardInterrupt, SystemExit."""
    if caught and caught[0] == signal.SIGINT:
        raise KeyboardInterrupt
    if caught:
        sys.exit(128 + caught[0])


def descendants(ancestor: int) -> set[int]:
    """Pids of all that this process has started, directly or through others."""
    found: set[int] = set()
    waiting = [ancestor]
    while waiting:
        pid = waiting.pop()
        with contextlib.suppress(OSError):
            for listing in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    new = {int(word) for word in listing.read_text().split()} - found
                    found |= new
                    waiting += new
    return found


def look(pid: int, seen: dict[tuple[int, str], Seen]) -> None:
    """Adds what the process has loaded now. One that has ended, or is just between fork and exec, changes nothing."""
    folder = Path(f"/proc/{pid}")
    try:
        program = os.readlink(folder / "exe")
        environment = (folder / "environ").read_bytes()
        maps = (folder / "maps").read_text(errors="replace")
    except PermissionError:
        with contextlib.suppress(OSError):
            program = (folder / "comm").read_text().strip()
            seen.setdefault((pid, program), Seen(pid, program)).readable = False
        return
    except OSError:
        return
    libraries = loaded(maps)
    starting = not environment and len(libraries) < 2  # in the middle of its exec; `env -i` has an empty one for ever
    if not maps or starting or environment == Path("/proc/self/environ").read_bytes():
        return  # ending, or between fork and exec
    process = seen.setdefault((pid, program), Seen(pid, program))
    for entry in environment.split(b"\0"):
        if entry.startswith(b"LD_PRELOAD="):
            process.preload = os.fsdecode(entry.removeprefix(b"LD_PRELOAD="))
    for path, times in libraries.items():
        process.libraries[path] = max(times, process.libraries.get(path, 0))


def loaded(maps: str) -> dict[str, int]:
    """Shared libraries in the text of /proc/PID/maps, and how often each is loaded (its first page counts)."""
    found: dict[str, int] = {}
    for line in maps.splitlines():
        fields = line.split(None, 5)
        if len(fields) == 6 and fields[5].startswith("/") and ".so" in Path(fields[5]).name:
            path = fields[5].removesuffix(" (deleted)")
            found[path] = found.get(path, 0) + (int(fields[2], 16) == 0)
    return found


def _end_all(child: subprocess.Popen[bytes]) -> None:
    """SIGTERM, then SIGKILL, for the child and whoever it has left behind."""
    deadline = time.monotonic() + _GRACE_S
    number = signal.SIGTERM
    while True:
        if child.poll() is not None:
            _reap()
        rest = descendants(os.getpid())
        if not rest:
            return
        if time.monotonic() > deadline:
            number = signal.SIGKILL
        for pid in rest:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, number)
        time.sleep(0.05)
        if time.monotonic() > deadline + _GRACE_S:
            return  # somebody else's, or stuck in the kernel


def _reap() -> None:
    with contextlib.suppress(ChildProcessError):
        while os.waitpid(-1, os.WNOHANG)[0]:
            pass
