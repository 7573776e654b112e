# SPDX-License-Identifier: Apache-2.0
"""Device memory as the daemon accounts for it: allowances against capacity.

An allowance is a promise to a client; the sum of all promises must never be raised above the capacity, so that no
client finds the device full. capacity = what NVML says the device has - reserve - residue, where the residue is
everything in use that our clients do not report: contexts, modules, other people's processes. Fixed memory (what the
shim cannot move) is reported, lies within the allowance of its client, and is never evicted.
"""

from __future__ import annotations

import enum
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


class Bound(enum.Enum):
    """What a quota is bound by."""

    LIMIT = "limit"  # --memory
    DEVICE = "device"  # nobody can have more than the device
    BUDGET = "budget"  # what the host has room for, if all of it had to be swapped


@dataclass(frozen=True, slots=True)
class Quota:
    """Bytes that a job may charge in all on one GPU, and why not more."""

    bytes: int
    bound: Bound


def quota(
    wanted: int | None,
    device: int,
    charged: int,
    host_room: int | None = None,
    here: int = 0,
    native: int = 0,
    reserve: int = 0,
) -> Quota:
    """What a job may charge on one GPU, as its lease page says.

    wanted: its limit (None: all of the device); device: the capacity; charged: by the job, of that `native` bytes
    cannot move and need no host memory; host_room: what the budgets leave for it beside what others have and have
    reserved (None: it is alone, nothing is ever swapped); here: charged by the others on this GPU; reserve: set aside
    for it.

    What is charged must either fit into the host memory or, with all others of this GPU, on the device. A limit holds
    as it is, also below what is charged: then nothing new is allocated. The other bounds take nothing back.
    """
    if wanted is not None and wanted <= device:
        found = Quota(wanted, Bound.LIMIT)
    else:
        found = Quota(max(device, charged), Bound.DEVICE)
    if host_room is None:
        return found
    allowed = max(max(0, host_room) + native, device - here, reserve)
    return found if found.bytes <= max(allowed, charged) else Quota(max(allowed, charged), Bound.BUDGET)
