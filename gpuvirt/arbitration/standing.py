# SPDX-License-Identifier: Apache-2.0
"""What a job asks of the policies: weight, priority, tier and deadline, and which of it makes a difference where."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gpuvirt.arbitration.facts import Rules
from gpuvirt.arbitration.policies import POLICIES
from gpuvirt.errors import RefusedError


@dataclass(frozen=True, slots=True)
class Standing:
    """As `gpuvirt run` has it. Every policy heeds some of it."""

    weight: int = 1
    priority: int = 0
    tier: str = ""  # empty: none
    due_in: int = 0  # ns in which its bursts of work are to be done; 0: no deadline

    def asked(self) -> list[str]:
        """What of it is not as it is for everybody."""
        plain = Standing()
        names = {"weight": "weight", "priority": "priority", "tier": "tier", "due_in": "deadline"}
        return [word for name, word in names.items() if getattr(self, name) != getattr(plain, name)]


def check(standing: Standing, rules: Rules) -> None:
    """Raises RefusedError for a tier that there is not."""
    known = [name for name, _ in rules.tiers]
    if standing.tier and standing.tier not in known:
        raise RefusedError(
            f"there is no tier '{standing.tier}'",
            f"known: {', '.join(known)}" if known else "the configuration of gpuvirtd (time.tiers) names none",
        )


def unheeded(standing: Standing, policies: Iterable[str]) -> list[str]:
    """What of a standing makes no difference under any of these policies, in words."""
    names = sorted(set(policies))
    heeded = set[str]().union(*(POLICIES[name].heeds for name in names))
    helps = {
        word: sorted(name for name, policy in POLICIES.items() if word in policy.heeds) for word in standing.asked()
    }
    return [
        f"a {word} makes no difference under policy '{', '.join(names)}', but under "
        f"'{', '.join(helps[word])}' (see: gpuvirt policy)"
        for word in standing.asked()
        if word not in heeded
    ]
