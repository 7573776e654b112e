# SPDX-License-Identifier: Apache-2.0
"""Time lost to switching: while a job wants the GPU and memory that moves is all that keeps it from it.

Pure. At each instant a job loses time when it waits, and
 - it holds the lease, and a RESTORE of one of its processes, or what leaves to make room for it, is not answered; or
 - nobody holds the lease, and an EVICT or RESTORE of one of its processes, or one that makes room for it (it is next),
   is not answered.
While somebody else holds the lease a job waits for its turn, whatever moves meanwhile: that is sharing, not switching.
Requests that are overdue (their process is stopped, or hangs) count for nobody, nor do RESTOREs that wait for credit:
what they wait for does.
"""

from __future__ import annotations

from gpuvirt.arbitration.facts import Contender, Gpu


def moving(contender: Contender) -> bool:
    """An EVICT or RESTORE of one of its processes is not answered, nor overdue, nor waiting for credit."""
    requests = [client.request for client in contender.clients.values() if client.request is not None]
    return any(not request.late and not request.waits for request in requests)


def loses(gpu: Gpu, contender: Contender) -> bool:
    """Does this job lose time to switching at this instant?"""
    if not contender.waiting or gpu.holder not in (None, contender.key):
        return False
    if moving(contender):
        return True
    served = contender.key in (gpu.holder, gpu.next)
    return served and any(moving(other) for other in gpu.contenders.values())


def stands_still(gpu: Gpu) -> bool:
    """Nobody can use the GPU because memory moves, and somebody would."""
    contenders = gpu.contenders.values()
    return gpu.holder is None and any(map(moving, contenders)) and any(other.waiting for other in contenders)


class LostTime:
    """Adds it up, by job and for the GPU. Told after every change of the facts."""

    def __init__(self) -> None:
        self._total: dict[str, int] = {}
        self._since: dict[str, int] = {}
        self._still = 0
        self._still_since: int | None = None

    def look(self, gpu: Gpu, now: int) -> None:
        """The facts are as they are from now on (ns)."""
        losing = {key for key, contender in gpu.contenders.items() if loses(gpu, contender)}
        for key in self._since.keys() - losing:  # also of those that have ended
            self._total[key] = self.of(key, now)
            del self._since[key]
        for key in losing - self._since.keys():
            self._since[key] = now
        still = stands_still(gpu)
        if still and self._still_since is None:
            self._still_since = now
        elif not still:
            self._still, self._still_since = self.of_gpu(now), None

    def of(self, job: str, now: int) -> int:
        """ns that the job has lost so far."""
        since = self._since.get(job)
        return self._total.get(job, 0) + (max(0, now - since) if since is not None else 0)

    def of_gpu(self, now: int) -> int:
        """ns that the GPU has stood still so far."""
        return self._still + (max(0, now - self._still_since) if self._still_since is not None else 0)

    def forget(self, job: str) -> None:
        """It has ended."""
        self._total.pop(job, None)
        self._since.pop(job, None)
