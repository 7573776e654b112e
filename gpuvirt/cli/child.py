# SPDX-License-Identifier: Apache-2.0
"""Starts the program of `gpuvirt run`, stands in for it towards its parent and ends as it ends.

The child stays in our process group, so that the terminal's job control works on both. It waits before exec until the
daemon knows its pid. Signals that reach only us are passed on; those of the terminal reach the child by themselves.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NoReturn

from gpuvirt.cli.program import NotExecutable
from gpuvirt.errors import GpuvirtError

_SI_KERNEL = 0x80  # si_code of a signal that the terminal sent, and not a process
_PASSED_ON = (signal.SIGINT, signal.SIGQUIT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)
_PYTHON_IGNORES = (signal.SIGPIPE, signal.SIGXFSZ)  # set by Python at its start, must not be inherited


class Child:
    """A started program that waits for `release` before it runs."""

    def __init__(self, program: Path, command: Sequence[str], environ: Mapping[str, str]) -> None:
        """Forks. From here on signals wait for `finish`."""
        self._program = program
        # A parent may have left it ignored: then no child can be waited for.
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        self._blocked = signal.pthread_sigmask(signal.SIG_BLOCK, [*_PASSED_ON, signal.SIGCHLD])
        go_read, self._go = os.pipe()
        self._failed, failed_write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self._go)
            self._become(command, environ, go_read, failed_write)
        os.close(go_read)
        os.close(failed_write)

    def _become(self, command: Sequence[str], environ: Mapping[str, str], go: int, failed: int) -> NoReturn:
        """In the child: waits, then executes. Never returns into the caller's code."""
        try:
            for number in _PYTHON_IGNORES:
                signal.signal(number, signal.SIG_DFL)
            if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
                signal.signal(signal.SIGINT, signal.SIG_DFL)
            if os.read(go, 1) != b"!":
                os._exit(126)  # the parent has gone or has changed its mind
            signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked)
            os.execve(self._program, list(command), dict(environ))
        except OSError as error:
            os.write(failed, str(error.errno or errno.ENOEXEC).encode())
        finally:
            os._exit(126)

    def release(self) -> None:
        """Lets the program run. Raises NotExecutable when the kernel refuses it."""
        with contextlib.suppress(BrokenPipeError):  # it has been killed meanwhile: `finish` will tell
            os.write(self._go, b"!")
        os.close(self._go)
        report = os.read(self._failed, 16)
        os.close(self._failed)
        if report:
            os.waitpid(self.pid, 0)
            reason = os.strerror(int(report))
            raise NotExecutable(
                f"'{self._program}' cannot be executed ({reason})", "check the file and its interpreter"
            )

    def abandon(self) -> None:
        """Ends the child before it has run anything."""
        os.close(self._go)
        os.close(self._failed)
        os.waitpid(self.pid, 0)
        signal.pthread_sigmask(signal.SIG_SETMASK, self._blocked)

    def finish(self) -> int:
        """Waits for the end of the program, passing signals on; returns its wait status."""
        waited = {*_PASSED_ON, signal.SIGCHLD}
        while True:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid == self.pid:
                return status
            caught = signal.sigwaitinfo(waited)
            if caught.si_signo != signal.SIGCHLD and self._concerns_child(caught):
                os.kill(self.pid, caught.si_signo)  # not yet waited for, so the pid is still its own

    def _concerns_child(self, caught: signal.struct_siginfo) -> bool:
        if caught.si_code == _SI_KERNEL:
            # The terminal has told the whole foreground group, but of a hang-up only the leader of the session.
            return caught.si_signo == signal.SIGHUP and os.getsid(0) == os.getpid()
        return caught.si_pid != self.pid  # a program that signals its own group has had its signal


def end_like(status: int) -> int:
    """The exit code for a wait status. After death by signal does the same to this process, so that shells see it."""
    if not os.WIFSIGNALED(status):
        return os.waitstatus_to_exitcode(status)
    number = os.WTERMSIG(status)
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (0, hard))  # the child's core is enough
    if number not in (signal.SIGKILL, signal.SIGSTOP):
        signal.signal(number, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [number])
    os.kill(os.getpid(), number)
    return 128 + number


def replace_by(program: Path, command: Sequence[str], environ: Mapping[str, str]) -> NoReturn:
    """Becomes the program, without any supervision. Raises GpuvirtError when the kernel refuses it."""
    for number in _PYTHON_IGNORES:
        signal.signal(number, signal.SIG_DFL)
    try:
        os.execve(program, list(command), dict(environ))
    except OSError as error:
        raise NotExecutable(
            f"'{program}' cannot be executed ({error.strerror})", "check the file and its interpreter"
        ) from None
    raise GpuvirtError("unreachable")
