# SPDX-License-Identifier: Apache-2.0
"""The configured values that the host needs."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from gpuvirt.arbitration import facts
from gpuvirtd.memory.backing import Budget
from gpuvirtd.memory.folder import Folder


@dataclass(frozen=True, slots=True)
class Policy:
    """Configured values that the host needs, in bytes and ns."""

    rules: facts.Rules
    reserve: Callable[[int], int]  # of a device with so many bytes
    host_budget: int
    default_memory: int  # 0: the device
    pinned_per_process: int  # host memory; 0: any
    refuse_over_device: bool
    recovery_grace: int
    poll: int
    jobs_per_user: int
    arena_folder: Folder
    host_budget_per_user: int  # of host_budget
    verify: bool
    time_policy: str  # of gpuvirt.arbitration.policies
    time_policies: Mapping[str, str]  # the same of single GPUs, by index or UUID

    @property
    def budget(self) -> Budget:
        """What all jobs together, and those of one user, may have swapped."""
        return Budget(self.host_budget, self.host_budget_per_user)
