# SPDX-License-Identifier: Apache-2.0
"""What each policy says of a job to people: what of it counts, and what that means for its wait."""

from __future__ import annotations

from typing import Any

import pytest

from gpuvirt.arbitration.facts import MILLISECOND, SECOND, Client, Contender, Gpu
from gpuvirt.arbitration.policies import policy_of

NOW = 100 * SECOND


def gpu_with(policy: str, **jobs: dict[str, Any]) -> Gpu:
    """All of them wait, each since a second."""
    gpu = Gpu("gpu", 100, policy=policy)
    for number, (key, given) in enumerate(jobs.items()):
        gpu.contenders[key] = Contender(key, waiting_since=NOW - SECOND, last_run_ns=NOW - SECOND, **given)
        gpu.contenders[key].clients[number] = Client(number, waiting=True)
    return gpu


def due(milliseconds: int) -> dict[str, Any]:
    return {"due_in": SECOND + milliseconds * MILLISECOND, "ready_since": NOW - SECOND}


HIGH, PREMIUM, STANDARD = {"priority": 1}, {"tier": "premium"}, {"tier": "standard"}
SAID = [
    ("fair", {"it": {"weight": 2}, "a": {}}, "weight 2: 67% of the time that others want too"),
    ("fair", {"it": {"tenant": "A"}, "a": {"tenant": "A"}, "b": {"tenant": "B"}}, "weight 1: 25% of the time"),
    ("priority", {"it": {}}, "priority normal: nobody else wants the GPU"),
    ("priority", {"it": HIGH, "a": {}}, "priority high: nobody is before it"),
    ("priority", {"it": {}, "a": HIGH}, "priority normal: 1 job of a higher priority before it; its own have 10%"),
    ("priority", {"it": {}, "a": HIGH, "b": {}}, "its own have 10%, shares by weight with 1 job of its own priority"),
    ("deadline", {"it": due(20), "a": {}}, "deadline: its burst is due in 20 ms; nobody is due earlier"),
    ("deadline", {"it": due(20), "a": due(10)}, "due in 20 ms; 1 job before it, due earlier"),
    ("deadline", {"it": due(-1), "a": due(10)}, "cannot be in time any more: 1 job with one before it; at least 10%"),
    ("deadline", {"it": {}, "a": due(10)}, "no deadline: 1 job with one before it; at least 10% of the time"),
    ("deadline", {"it": {}, "a": {}}, "no deadline: shares by weight"),
    ("tiers", {"it": PREMIUM, "a": {}}, "tier premium: 95% of the time is guaranteed; it lacks 950 ms of it"),
    ("tiers", {"it": STANDARD, "a": PREMIUM}, "tier standard: 42% of the time is guaranteed; it lacks 424 ms of it"),
    (
        "tiers",
        {"it": {}, "a": PREMIUM},
        "no tier: what the guarantees leave, 1% at least; 1 job before it by guarantee",
    ),
    ("exclusive", {"it": {}, "a": {}}, "nobody has the GPU for itself: the first is next"),
]


@pytest.mark.parametrize(("policy", "jobs", "words"), SAID)
def test_what_it_says(policy: str, jobs: dict[str, dict[str, Any]], words: str) -> None:
    gpu = gpu_with(policy, **jobs)
    assert words in policy_of(gpu).says(gpu, gpu.contenders["it"], NOW)


def test_who_has_it_for_itself() -> None:
    gpu = gpu_with("exclusive", it={}, a={})
    gpu.owner = "it"
    said = {key: policy_of(gpu).says(gpu, one, NOW) for key, one in gpu.contenders.items()}
    assert said == {
        "it": "it has the GPU for itself until it ends",
        "a": "job it has the GPU for itself until it ends",
    }
