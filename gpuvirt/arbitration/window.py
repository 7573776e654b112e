# SPDX-License-Identifier: Apache-2.0
"""How much time of something lies in the last seconds: a sliding window in little memory."""

from __future__ import annotations

from dataclasses import dataclass, field

BUCKETS = 100  # a window is exact to a hundredth of its length


@dataclass(slots=True)
class Window:
    """Times as [number of the bucket, ns within it], the oldest first. All calls must name the same length."""

    buckets: list[list[int]] = field(default_factory=list)
    total: int = 0

    def add(self, start: int, end: int, length: int) -> None:
        """Count the time from `start` to `end`, none of which may be before what was counted already."""
        width = max(1, length // BUCKETS)
        start = max(start, end - length)
        while start < end:
            number = start // width
            stop = min(end, (number + 1) * width)
            if self.buckets and self.buckets[-1][0] == number:
                self.buckets[-1][1] += stop - start
            else:
                self.buckets.append([number, stop - start])
            self.total += stop - start
            start = stop
        self._drop(end - length, width)

    def used(self, now: int, length: int) -> int:
        """Time counted in the last `length` ns. Of the bucket that is half in it, its part."""
        width = max(1, length // BUCKETS)
        edge = now - length
        self._drop(edge, width)
        if not self.buckets or self.buckets[0][0] * width >= edge:
            return self.total
        number, time = self.buckets[0]
        return self.total - time * (edge - number * width) // width

    def _drop(self, edge: int, width: int) -> None:
        while self.buckets and (self.buckets[0][0] + 1) * width <= edge:
            self.total -= self.buckets.pop(0)[1]


@dataclass(slots=True)
class Recent:
    """What one contender had in the last Rules.window."""

    held: Window = field(default_factory=Window)  # the lease, while others waited too
    alone: Window = field(default_factory=Window)  # the lease, while nobody else wanted it
    waited: Window = field(default_factory=Window)  # waits that are over
