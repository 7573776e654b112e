# SPDX-License-Identifier: Apache-2.0
"""On which node and which GPUs of it a demand goes: one policy a file, one engine for all but random. PURE."""

from __future__ import annotations

from typing import Final

from gpuvirt.scheduler.placement.base import Policy
from gpuvirt.scheduler.placement.best_fit import BestFit
from gpuvirt.scheduler.placement.clustering import Clustering
from gpuvirt.scheduler.placement.dot_product import DotProduct
from gpuvirt.scheduler.placement.fgd import Fgd
from gpuvirt.scheduler.placement.frugal import Frugal
from gpuvirt.scheduler.placement.packing import Packing

DEFAULT: Final = "Frugal"
POLICIES: Final[dict[str, Policy]] = {
    policy.name: policy for policy in (DotProduct(), Clustering(), Packing(), BestFit(), Fgd(), Frugal())
}
