# SPDX-License-Identifier: Apache-2.0
"""fit-first: in the order of arrival, each that fits; smaller ones pass larger ones, which may wait for long."""

from __future__ import annotations

from gpuvirt.scheduler.order.base import Plan
from gpuvirt.scheduler.order.fifo import Arrival
from gpuvirt.scheduler.order.queue import Queue, fill


class FitFirst(Arrival):
    """The first that fits."""

    name = "fit-first"
    summary = "in the order of arrival, smaller ones may pass"

    def plan(self, queue: Queue, now: float) -> Plan:
        return fill(queue, now)
