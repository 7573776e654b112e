# SPDX-License-Identifier: Apache-2.0
"""The lease machine under every order of events, under all policies; and once more from its tape."""

from __future__ import annotations

from typing import Any, ClassVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import rule
from test_lease_machine import EXAMPLES, MS, Leases

from gpuvirt.arbitration import events
from gpuvirt.arbitration.policies import POLICIES


class LeasesOfAllPolicies(Leases):
    """The same invariants hold under every policy, and while it is changed."""

    STANDING: ClassVar[dict[str, dict[str, Any]]] = {
        "a": {"priority": 1, "tier": "premium", "due_in": 30 * MS},
        "b": {"tenant": "other", "due_in": 100 * MS},
        "c": {"tier": "standard", "priority": -1},
    }

    @rule(policy=st.sampled_from(sorted(POLICIES)))
    def change(self, policy: str) -> None:
        events.set_policy(self.gpu, policy, self.now)
        self.act()

    def teardown(self) -> None:
        if hasattr(self, "gpu") and self.gpu.policy == "exclusive":
            self.change("fair")  # else nobody gets it but one
        super().teardown()


class TapedLeases(LeasesOfAllPolicies):
    """Whatever happens, its tape leads to the same decisions."""

    taped = True


TestLeasesOfAllPolicies, TestTapes = LeasesOfAllPolicies.TestCase, TapedLeases.TestCase
TestLeasesOfAllPolicies.settings = settings(Leases.TestCase.settings, max_examples=EXAMPLES or 50)
TestTapes.settings = settings(Leases.TestCase.settings, max_examples=EXAMPLES or 12)
