# SPDX-License-Identifier: Apache-2.0
"""How much of the link between a GPU and the host swapping takes. Pure; bytes, bytes/s and nanoseconds."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping

WINDOW_NS = 5_000_000_000  # "now" is this long
KEPT = 64  # samples; whoever looks more often than once a second takes one, too
APART_NS = 100_000_000


class LinkMeter:
    """Adds up what the clients say they have copied, and how fast that grows."""

    def __init__(self) -> None:
        self.out = 0
        self.inward = 0
        self._known: dict[int, tuple[int, int]] = {}
        self._samples: deque[tuple[int, int, int]] = deque(maxlen=KEPT)  # (time, out, in)

    def sample(self, now: int, counters: Mapping[int, tuple[int, int]]) -> None:
        """The counters (out, in) of all clients by their number. Those of one that ended stay in the sums."""
        for number, (out, inward) in counters.items():
            if number in self._known:
                self.out += max(0, out - self._known[number][0])
                self.inward += max(0, inward - self._known[number][1])
        self._known = {number: both for number, both in counters.items() if number in self._known}
        if not self._samples or now - self._samples[-1][0] >= APART_NS:
            self._samples.append((now, self.out, self.inward))

    def begin(self, number: int, counters: tuple[int, int] = (0, 0)) -> None:
        """A new client counts from now on; one that came back brings counters of before."""
        self._known.setdefault(number, counters)

    def knows(self, number: int) -> bool:
        """Does it count?"""
        return number in self._known

    def rates(self, now: int) -> tuple[float, float]:
        """(out, in), bytes/s over the last WINDOW_NS, or since the first sample if that is later."""
        base = next((sample for sample in self._samples if now - sample[0] <= WINDOW_NS), None)
        if base is None or now - base[0] < APART_NS:
            return 0.0, 0.0
        seconds = (now - base[0]) / 1e9
        return (self.out - base[1]) / seconds, (self.inward - base[2]) / seconds
