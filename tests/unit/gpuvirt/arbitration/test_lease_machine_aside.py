# SPDX-License-Identifier: Apache-2.0
"""The lease machine under every order of events, where work of one job may be on the GPU beside another's lease."""

from __future__ import annotations

from hypothesis import settings
from test_lease_machine import EXAMPLES, Leases


class Overlapping(Leases):
    """The next one comes before the drain of the last one has ended, if all memory fits."""

    overlap = "always"


class Stopping(Leases):
    """And jobs that do not drain are stopped."""

    overlap = "always"
    on_overrun = "stop"


TestOverlapping, TestStopping = Overlapping.TestCase, Stopping.TestCase
TestOverlapping.settings = TestStopping.settings = settings(
    max_examples=EXAMPLES or 60, stateful_step_count=50, deadline=None, derandomize=EXAMPLES == 0
)
