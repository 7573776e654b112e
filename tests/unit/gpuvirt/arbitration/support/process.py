# SPDX-License-Identifier: Apache-2.0
"""The truth about a client of the lease machine's test."""

from __future__ import annotations

from dataclasses import dataclass, field

from gpuvirt.arbitration.facts import Send


@dataclass
class Process:
    """A model of a client: what is really true of it."""

    number: int
    job: str
    charged: int = 0
    resident: int = 0
    native: int = 0  # of it, what cannot be moved
    allowance: int = 0  # what it may have resident, as it was last told, or has told
    before: int = 0  # the same before the RESTORE that is under way
    asked: Send | None = None
    cancelled: bool = False
    on_gpu: bool = False
    connected: bool = True
    zero_sent: bool = True
    order: list[str] = field(default_factory=list)
