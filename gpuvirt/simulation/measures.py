# SPDX-License-Identifier: Apache-2.0
"""What is counted while a host is simulated: by job and by GPU, in windows of the report. Nanoseconds."""

from __future__ import annotations

from dataclasses import dataclass, field

SPANS_MAX = 200_000


class Stepwise:
    """For how long something was so, in windows of `width` from `start` on; what was before does not count."""

    def __init__(self, start: int, width: int) -> None:
        self.start, self.width = start, width
        self.total = 0
        self.windows: dict[int, int] = {}
        self._since: int | None = None

    def set(self, on: bool, now: int) -> None:
        """It is so from now on, or not."""
        if on:
            self._since = now if self._since is None else self._since
        elif self._since is not None:
            self._add(self._since, now)
            self._since = None

    def until(self, now: int) -> None:
        """Brings the figures up to date."""
        if self._since is not None:
            self._add(self._since, now)
            self._since = now

    def _add(self, begin: int, end: int) -> None:
        begin = max(begin, self.start)
        while begin < end:
            index = (begin - self.start) // self.width
            stop = min(end, self.start + (index + 1) * self.width)
            self.windows[index] = self.windows.get(index, 0) + stop - begin
            self.total += stop - begin
            begin = stop


@dataclass(frozen=True, slots=True)
class Span:
    """One bar of the picture. kind: lease, drain, evict, restore."""

    gpu: int
    job: str
    kind: str
    begin: int
    end: int


class Timeline:
    """All that began and ended, up to a bound."""

    def __init__(self) -> None:
        self.spans: list[Span] = []
        self._open: dict[tuple[int, str, str], int] = {}

    def begin(self, gpu: int, job: str, kind: str, now: int) -> None:
        """It begins, if it had not."""
        self._open.setdefault((gpu, job, kind), now)

    def end(self, gpu: int, job: str, kind: str, now: int) -> None:
        """It ends, if it had begun."""
        begin = self._open.pop((gpu, job, kind), None)
        if begin is not None and len(self.spans) < SPANS_MAX:
            self.spans.append(Span(gpu, job, kind, begin, now))

    def close(self, now: int) -> None:
        """All ends."""
        for gpu, job, kind in list(self._open):
            self.end(gpu, job, kind, now)


@dataclass(slots=True)
class Tally:
    """One job. What was before the warmup is over does not count."""

    wanted: Stepwise  # it had something to do
    held: Stepwise  # its lease word let it launch, or its work was not drained
    requests: int = 0
    latencies: list[int] = field(default_factory=list)
    waits: list[int] = field(default_factory=list)  # from the first thread at the gate to the grant
    drains: list[int] = field(default_factory=list)  # from DRAIN to CLOSED
    turns: int = 0
    quanta: list[int] = field(default_factory=list)  # what it was granted each time
    out: int = 0  # bytes that left the device, copied or not
    copied: int = 0  # of them, over the link
    inward: int = 0
    computed: dict[int, int] = field(default_factory=dict)  # by window of the report
    began: int = 0
    ended: int | None = None
    reason: str = ""  # the last thing that kept it from its memory


@dataclass(slots=True)
class GpuTally:
    """One GPU."""

    wanted: Stepwise  # somebody had something to do
    handovers: list[int] = field(
        default_factory=list
    )  # it stood still for so long, from one process to another that wanted it
    switches: int = 0
