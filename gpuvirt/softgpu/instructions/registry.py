# SPDX-License-Identifier: Apache-2.0
"""The table of opcodes. A new opcode is one function with @opcode("name") in a file of this folder."""

from __future__ import annotations

from collections.abc import Callable

TYPE_CHECKING = False  # importing typing costs milliseconds
if TYPE_CHECKING:
    from ..emit import FunctionEmitter
    from ..syntax import Instruction

    Handler = Callable[[FunctionEmitter, Instruction], None]

HANDLERS: dict[str, Handler] = {}
"""Base opcode -> function that emits C for it."""


def opcode(*names: str) -> Callable[[Handler], Handler]:
    """Registers a handler for base opcodes."""

    def register(handler: Handler) -> Handler:
        for name in names:
            HANDLERS[name] = handler
        return handler

    return register
