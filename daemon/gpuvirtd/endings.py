# SPDX-License-Identifier: Apache-2.0
"""The line of the log that says how a job has ended.

The death of its last process is seen before its starter, which alone knows the exit code, can tell it: the line waits
for that, for a moment.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from gpuvirtd.jobs import Job, end_reason

if TYPE_CHECKING:
    from gpuvirtd.host import Host

PATIENCE_S = 10.0  # then its starter has died, or was none that tells
UNTOLD = "its starter has not said how"


class Endings:
    """Jobs that have ended and of which nobody has said how."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._open: dict[str, tuple[Job, asyncio.TimerHandle]] = {}

    def ended(self, job: Job) -> None:
        """It has no process any more."""
        if job.exit is not None:
            self._log(job)
        else:
            self._open[job.id] = (job, self.host.loop.call_later(PATIENCE_S, self._give_up, job.id))

    def told(self, name: str, uid: int, code: int | None) -> bool:
        """A starter says how its job ended. False if that is going on, or is not known: nothing has been done then."""
        job, timer = self._open.get(name, (None, None))
        if job is not None and timer is not None and uid in (0, job.uid):
            timer.cancel()
            del self._open[name]
            job.exit = code
            self._log(job)
        return self.host.jobs.note_exit(name, uid, code)

    def _give_up(self, name: str) -> None:
        job, _ = self._open.pop(name)
        self._log(job)

    def _log(self, job: Job) -> None:
        how = {"exit": job.exit} if job.exit is not None else {}
        reason = end_reason(job.verdict or ("" if how else UNTOLD), job.exit)
        self.host.log.info("job_ended", job=job.id, name=job.name, **how, **({"reason": reason} if reason else {}))

    def close(self) -> None:
        """What is open is written as it is known."""
        for name, (_, timer) in list(self._open.items()):
            timer.cancel()
            self._give_up(name)
