# SPDX-License-Identifier: Apache-2.0
"""The link between host and device: the soft GPU's model of it, and the best that can be done with it. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """Bytes per second of one way alone, and what each way keeps of that while both are in use (0 to 1]."""

    rate: float
    both: float

    @property
    def model(self) -> str:
        """As GPUVIRT_SOFTGPU_MODEL writes it."""
        return f"link={self.rate / 1e9:g}:{self.rate / 1e9:g}:{self.both * 100:.0f}"

    def one_way(self, size: int) -> float:
        """Seconds for `size` bytes, one way, nothing the other way."""
        return size / self.rate

    def best(self, out: int, back: int) -> float:
        """Seconds for `out` bytes one way and `back` bytes the other, both begun at once: nothing can be faster."""
        least, rest = min(out, back), abs(out - back)
        return least / (self.rate * self.both) + rest / self.rate
