# SPDX-License-Identifier: Apache-2.0
"""Opcodes, by family. Importing this package fills HANDLERS."""

from __future__ import annotations

from . import arithmetic, asynchronous, atomics, bits, compare, control, convert, floating, memory, video, warp  # noqa: F401
from .registry import HANDLERS

__all__ = ["HANDLERS"]
