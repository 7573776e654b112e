# SPDX-License-Identifier: Apache-2.0
"""Device memory as the daemon accounts for it: allowances against capacity.

An allowance is a promise to a client; the sum of all promises must never be raised above the capacity, so that no
client finds the device full. capacity = what NVML says the device has - reserve - residue, where the residue is
everything in use that our clients do not report: contexts, modules, other people's processes. Fixed memory (what the
shim cannot move) is reported, lies within the allowance of its client, and is never evicted.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field

from gpuvirt.arbitration.facts import Client, Gpu

RESIDUE_SAMPLES = 3


def promised(clients: Iterable[Client]) -> int:
    """Bytes that clients may have resident."""
    return sum(client.allowance for client in clients)


def free(gpu: Gpu) -> int:
    """Bytes that may still be promised; negative after the capacity shrank (a context grew, a stranger came)."""
    return gpu.capacity - gpu.penalty - promised(gpu.clients())


def fits(gpu: Gpu) -> bool:
    """True if everything charged by everybody fits into the device at once."""
    return sum(client.charged for client in gpu.clients()) <= gpu.capacity


@dataclass(slots=True)
class Residue:
    """Smoothed residue of one GPU, bytes.

    NVML and the clients' reports are not taken at the same instant: while bytes move, `used - resident` is wrong by
    up to a window. It errs upwards only for a moment, so the smallest of the last samples is believed, and none before
    there are RESIDUE_SAMPLES of them: a quota that is too small for a moment is an out-of-memory that no program should
    see, one that is too large is corrected when memory does not come.
    """

    samples: deque[int] = field(default_factory=lambda: deque(maxlen=RESIDUE_SAMPLES))

    def sample(self, used: int, resident: int) -> int:
        """Add what NVML says is used and the clients' resident sum; returns the residue."""
        self.samples.append(max(0, used - resident))
        return self.value

    def sample_alone(self, used: int) -> int:
        """What is used while we have no client: all of it is residue, and no moment is a wrong one."""
        self.samples.extend([used] * RESIDUE_SAMPLES)
        return self.value

    @property
    def value(self) -> int:
        return min(self.samples) if len(self.samples) == RESIDUE_SAMPLES else 0


def capacity(total: int, reserve: int, residue: int) -> int:
    """Bytes that allowances may reach in all (never negative)."""
    return max(0, total - reserve - residue)


def published_quota(
    wanted: int | None, device: int, charged: int, others_charged: int, host_budget: int, native: int = 0
) -> int:
    """Bytes that a job may charge in all, as its lease page says.

    wanted: what --memory said (None: all of the device); device: the capacity. With others on the host the sum of
    what may have to be swapped stays within the host budget: others_charged is without the fixed memory of the others,
    and of the job's own bytes `native` are never swapped either. Never below what is charged already: nothing is taken
    back.
    """
    quota = device if wanted is None else min(wanted, device)
    if others_charged > 0:
        quota = min(quota, max(0, host_budget - others_charged) + native)
    return max(quota, charged)
