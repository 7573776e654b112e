# SPDX-License-Identifier: Apache-2.0
"""Stops, continues and kills the processes of a job that does not give the GPU back."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterable

from gpuvirt.arbitration.facts import Signals
from gpuvirtd.jobs import Member
from gpuvirtd.log import Logger

NUMBERS = {
    Signals.STOP: signal.SIGSTOP,
    Signals.CONTINUE: signal.SIGCONT,
    Signals.KILL: signal.SIGKILL,
}


def send(members: Iterable[Member], kind: Signals, log: Logger) -> None:
    """To all of them, by their pidfds: never to another process of the same number. What fails is logged."""
    for member in members:
        try:
            signal.pidfd_send_signal(member.process.pidfd, NUMBERS[kind])
        except OSError as error:
            log.warning("signal_failed", job=member.job.id, pid=member.process.pid, signal=kind.value, error=str(error))


def continue_process(pidfd: int) -> None:
    """SIGCONT; nothing if it has ended or is not ours."""
    with contextlib.suppress(OSError):
        signal.pidfd_send_signal(pidfd, signal.SIGCONT)
