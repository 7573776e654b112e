# SPDX-License-Identifier: Apache-2.0
"""Who need not wait for whom."""

from __future__ import annotations

from gpuvirt.arbitration.facts import Contender


def outranks(one: Contender, other: Contender) -> bool:
    """True if `one` is to have the GPU before `other` whenever it wants it."""
    return one.priority > other.priority
