# SPDX-License-Identifier: Apache-2.0
"""How much memory a job may have, should have, and always gets: what makes sense, in words that say what to do.

Bytes, of each GPU that the job uses.
"""

from __future__ import annotations

from dataclasses import dataclass

from gpuvirt.errors import RefusedError
from gpuvirt.units import format_size


@dataclass(frozen=True, slots=True)
class Limits:
    """What a job was started with, or was given later."""

    memory: int | None = None  # hard: above it CUDA_ERROR_OUT_OF_MEMORY; None: the device
    soft: int | None = None  # what it has on the device beyond this is the first to be swapped; None: no such limit
    reserve: int = 0  # set aside from the start, so that it can always allocate so much


def check(limits: Limits, device: int, over_device: bool, host_budget: int) -> None:
    """Raises RefusedError for limits that can never hold.

    device: bytes of the largest GPU that the job may use; over_device: a hard limit above it is only pointless.
    """
    memory, soft, reserve = limits.memory, limits.soft, limits.reserve
    if memory is not None and memory > device and not over_device:
        raise RefusedError(
            f"--memory {format_size(memory)} is more than the largest GPU has ({format_size(device)})",
            "ask for less, or leave --memory out",
        )
    if soft is not None and memory is not None and soft > memory:
        raise RefusedError(
            f"the soft limit {format_size(soft)} is above the limit {format_size(memory)}: nothing would ever reach it",
            "give a smaller one, or leave it out",
        )
    if reserve > device:
        raise RefusedError(
            f"a reservation of {format_size(reserve)} is more than the largest GPU has ({format_size(device)})",
            "reserve less",
        )
    if memory is not None and reserve > memory:
        raise RefusedError(
            f"the reservation {format_size(reserve)} is above the limit {format_size(memory)}", "raise --memory with it"
        )
    if reserve > host_budget:
        raise RefusedError(
            f"a reservation of {format_size(reserve)} is more than the host memory budget ({format_size(host_budget)})",
            "reserve less, or raise memory.host_budget",
        )


def meaning(limits: Limits, charged: int) -> list[str]:
    """What new limits mean for a job that has `charged` bytes now, where that is not obvious."""
    lines = []
    if limits.memory is not None and limits.memory < charged:
        lines.append(
            f"{format_size(charged)} are allocated already: they stay, and nothing new is allocated until "
            f"{format_size(charged - limits.memory)} are freed"
        )
    if limits.soft is not None and limits.soft < charged:
        lines.append(f"{format_size(charged - limits.soft)} of it are the first to be swapped from now on")
    return lines
