# SPDX-License-Identifier: Apache-2.0
"""The processes of a scheduler's job: the session that its supervisor leads, and those that are attached.

Found by /proc, each held by a pidfd before it is signalled: never another process of the same number.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterable

from gpuvirtd.identity import ProcessGone, is_stopped, open_process, start_time

ROUNDS = 100  # a process that forks without end is not followed for ever


def session(leader: int) -> list[int]:
    """Pids of the session, without its leader. 0: of none."""
    found: list[int] = []
    if leader <= 0:
        return found
    for name in os.listdir("/proc"):
        if name.isdigit() and int(name) != leader:
            with contextlib.suppress(OSError):
                if os.getsid(int(name)) == leader:
                    found.append(int(name))
    return found


def leader(pid: int, start: int) -> int:
    """The leader of the session that was meant; 0 if its number is another's now. A session keeps its number."""
    now = start_time(pid)
    return pid if pid > 0 and (now is None or now == start) else 0


def send(pids: Iterable[int], number: signal.Signals) -> None:
    """What has ended meanwhile is left out."""
    for pid in pids:
        with contextlib.suppress(ProcessGone, OSError):
            process = open_process(pid)
            try:
                signal.pidfd_send_signal(process.pidfd, number)
            finally:
                process.close()


def running(pids: Iterable[int]) -> list[int]:
    """Those that are neither stopped nor dead."""
    return [pid for pid in pids if not is_stopped(pid) and not _is_dead(pid)]


def stop_all(first: int, others: Iterable[int]) -> bool:
    """SIGSTOP to all but the leader, until none runs: one that forks while we look is found in the next round."""
    for _ in range(ROUNDS):
        rest = running({*session(first), *others} - {first})
        if not rest:
            return True
        send(rest, signal.SIGSTOP)
    return False


def continue_all(first: int, others: Iterable[int]) -> None:
    send({*session(first), *others}, signal.SIGCONT)


def kill_all(first: int, others: Iterable[int]) -> None:
    send(({*session(first), first, *others}) - {0}, signal.SIGKILL)


def _is_dead(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] in ("Z", "X")
    except (OSError, IndexError):
        return True
