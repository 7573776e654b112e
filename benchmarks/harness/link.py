# SPDX-License-Identifier: Apache-2.0
"""The link between host and device: the soft GPU's model of it, and the best that can be done with it. Pure."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Link:
    """Bytes per second out of the device and back, each alone, and each while the other way is in use too."""

    out: float
    back: float
    out_both: float
    back_both: float

    @classmethod
    def even(cls, rate: float, both: float) -> Link:
        """The same both ways; `both`: what each keeps of it while both are in use, in (0, 1]."""
        return cls(rate, rate, rate * both, rate * both)

    @property
    def model(self) -> str:
        """As GPUVIRT_SOFTGPU_MODEL writes it; what both ways lose is one figure there."""
        return f"link={self.back / 1e9:g}:{self.out / 1e9:g}:{self.out_both / self.out * 100:.0f}"

    def best(self, out: int, back: int) -> float:
        """Seconds for so many bytes out and back, both begun at once: nothing can be faster."""
        if not out or not back:
            return out / self.out + back / self.back
        together = min(out / self.out_both, back / self.back_both)
        return together + (out - together * self.out_both) / self.out + (back - together * self.back_both) / self.back
