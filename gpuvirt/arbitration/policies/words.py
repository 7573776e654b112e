# SPDX-License-Identifier: Apache-2.0
"""Words of the policies."""

from __future__ import annotations

PRIORITIES = {"low": -1, "normal": 0, "high": 1}


def priority_name(priority: int) -> str:
    """The word for a priority."""
    return next((name for name, value in PRIORITIES.items() if value == priority), str(priority))


def counted(number: int) -> str:
    """ "1 job", "3 jobs"."""
    return f"{number} {'job' if number == 1 else 'jobs'}"
