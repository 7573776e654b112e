# SPDX-License-Identifier: Apache-2.0
"""PTX texts to one C text."""

from __future__ import annotations

from . import device_runtime
from .link import link
from .parser import parse_module
from .program import emit_program


def translate(texts: list[str], general: bool = False) -> str:
    """C source for kernel_runtime.h of one or several PTX modules, linked; raises PtxError.

    `general`: threads that wait run one by one even where lanes could run side by side; slower, for comparison.
    """
    return emit_program(link([parse_module(device_runtime.resolve(text)) for text in texts]), general)
