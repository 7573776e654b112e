# SPDX-License-Identifier: Apache-2.0
"""A GPU that computes for one process at a time, as hardware does: kernels of a process in order, and slices of time in
a circle between processes that have any.

Under leases only one process has work but for what is left of the one before. Without them (`--bare`) this is all that
shares the GPU. Kernels of several processes side by side (MPS) are not modelled.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from gpuvirt.simulation.agenda import Agenda, Entry


class Owner(Protocol):
    """Who gives work to the GPU."""

    def completed(self) -> None:
        """Its oldest kernel has ended."""
        ...


class Engine:
    """slice_ns: of a process, while others have work too; switch_ns: from one process to the next."""

    def __init__(
        self, agenda: Agenda, slice_ns: int, switch_ns: int, changed: Callable[[Owner, int], None] | None = None
    ) -> None:
        self.changed = changed  # told when somebody else than before begins on a GPU that stood still, since when
        self.agenda, self.slice_ns, self.switch_ns = agenda, slice_ns, switch_ns
        self.busy: dict[Owner, int] = {}  # ns that kernels have run, up to the last end of a kernel or slice
        self._queues: dict[Owner, deque[int]] = {}
        self._circle: deque[Owner] = deque()
        self._last: Owner | None = None  # whose context the GPU has
        self._stopped = 0  # when it last had nothing to do
        self._still = True
        self._ready = 0  # when the GPU has its context
        self._began = 0  # since when the first of the circle runs, or will
        self._slice_began = 0
        self._end: Entry | None = None

    def submit(self, owner: Owner, length: int) -> None:
        """One more kernel (ns)."""
        queue = self._queues.setdefault(owner, deque())
        queue.append(length)
        if len(queue) == 1:
            self._circle.append(owner)
            if len(self._circle) == 1:
                if self.changed is not None and self._last is not None and self._last is not owner and self._still:
                    self.changed(owner, self._stopped)
                self._still = False
                self._slice_began = self.agenda.now
                self._start()
            elif len(self._circle) == 2 and self._end is not None:  # it was alone: from now on its slices end
                passed = max(0, self.agenda.now - self._slice_began)
                self._slice_began += passed - passed % self.slice_ns
                self._pause()
                self._start()

    def queued(self, owner: Owner) -> int:
        """Kernels that have not ended."""
        return len(self._queues.get(owner, ()))

    def cut(self, owner: Owner, length: int) -> int:
        """Work that can be interrupted anywhere: at most so much more of the last kernel; returns what it loses."""
        queue = self._queues.get(owner)
        if not queue:
            return 0
        running = self._circle[0] is owner
        if running:
            self._pause()
        lost = max(0, queue[-1] - length)
        queue[-1] -= lost
        if running:
            self._start()
        return lost

    def remove(self, owner: Owner) -> None:
        """It died: so did its work."""
        if owner in self._circle:
            running = self._circle[0] is owner
            if running:
                self._pause()
            self._circle.remove(owner)
            self._queues[owner].clear()
            if running:
                self._slice_began = self.agenda.now
                self._start()

    def computed(self, owner: Owner) -> int:
        """ns that kernels of this process have run so far."""
        now = 0
        if self._circle and self._circle[0] is owner and self._end is not None:
            now = max(0, self.agenda.now - self._began)
        return self.busy.get(owner, 0) + now

    def _start(self) -> None:
        """The first of the circle computes."""
        if not self._circle:
            if not self._still:
                self._still, self._stopped = True, self.agenda.now
            return
        owner, now = self._circle[0], self.agenda.now
        if self._last is not owner:
            self._ready = now + (self.switch_ns if self._last is not None else 0)
            self._last, self._slice_began = owner, self._ready
        self._began = max(now, self._ready)
        end = self._began + self._queues[owner][0]
        if len(self._circle) > 1:
            end = min(end, max(self._slice_began + self.slice_ns, self._began))
        self._end = self.agenda.at(end, self._stop)

    def _pause(self) -> int:
        """Accounts what the first of the circle has computed; returns it."""
        assert self._end is not None
        self._end.cancel()
        self._end = None
        owner = self._circle[0]
        ran = max(0, min(self.agenda.now - self._began, self._queues[owner][0]))
        self._queues[owner][0] -= ran
        self.busy[owner] = self.busy.get(owner, 0) + ran
        return ran

    def _stop(self) -> None:
        """A kernel has ended, or a slice."""
        self._pause()
        owner = self._circle[0]
        queue = self._queues[owner]
        ended = queue[0] <= 0
        if ended:
            queue.popleft()
        over = len(self._circle) > 1 and self.agenda.now >= self._slice_began + self.slice_ns
        if not queue:
            self._circle.popleft()
        elif over:
            self._circle.rotate(-1)
        if over or not queue:
            self._slice_began = self.agenda.now
        if ended:
            owner.completed()  # it may submit, which starts an engine that stands still
        if self._end is None:
            self._start()
