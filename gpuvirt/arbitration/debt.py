# SPDX-License-Identifier: Apache-2.0
"""Overrun is a debt: who gave the GPU back too late has shorter quanta until that is made up for.

Its share of the time is set right by what it is charged, as ever (the overrun is charged like all time held). The debt
is about the others' waits: who makes them long gets short turns, under every policy.
"""

from __future__ import annotations

from gpuvirt.arbitration.facts import Contender, Rules

LIMIT = 3  # quanta: nobody pays for ever
PART = 0.75  # of a quantum at most goes to a debt


def owe(contender: Contender, overrun_ns: int) -> None:
    """It kept the GPU for so long after it had to be back."""
    contender.debt_ns = min(contender.debt_ns + max(0, overrun_ns), LIMIT * contender.quantum)


def repay(contender: Contender, quantum: int, rules: Rules) -> int:
    """The next quantum of a contender (ns), less what it pays back with it."""
    paid = max(0, min(contender.debt_ns, int(quantum * PART), quantum - rules.minimum_run))
    contender.debt_ns -= paid
    return quantum - paid
