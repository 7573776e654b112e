# SPDX-License-Identifier: Apache-2.0
"""The kernel of framework_others.py triton, in a file of its own: Triton reads the source of what it compiles."""

from __future__ import annotations

from typing import Any

import triton
import triton.language as tl


@triton.jit
def step(pointer: Any, count: Any, BLOCK: tl.constexpr) -> None:
    """values <- 1.5 * values + index % 7."""
    index = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = index < count
    values = tl.load(pointer + index, mask=inside)
    tl.store(pointer + index, 1.5 * values + (index % 7).to(tl.float32), mask=inside)
