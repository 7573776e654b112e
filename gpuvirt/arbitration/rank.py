# SPDX-License-Identifier: Apache-2.0
"""Who need not wait for whom."""

from __future__ import annotations

from gpuvirt.arbitration.facts import Contender, Gpu
from gpuvirt.arbitration.policies import revoke_at


def outranks(gpu: Gpu, one: Contender, other: Contender, now: int) -> bool:
    """True if `one`, by the GPU's policy, may have it now, although the quantum of `other` is not over."""
    at = revoke_at(gpu, other, one, now)
    return at is not None and at <= now
