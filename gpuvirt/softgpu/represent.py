# SPDX-License-Identifier: Apache-2.0
"""Which registers are kept as float or double in C.

Registers are bits; but moving bits between integer and vector registers around each float operation costs more than
the operation. A register that only float instructions compute with, and others at most copy, is kept as float. Any
other use converts the bits, so this is never wrong, only faster.
"""

from __future__ import annotations

from .syntax import TYPE_WIDTHS, Function, Operand

_COPIES = frozenset(["ld", "ldu", "st", "mov", "selp", "label", "bra", "ret", "exit", "bar"])
_FLOATS = {"f32": "float", "f64": "double"}


def float_registers(function: Function) -> dict[str, str]:
    """C name -> "float" or "double"."""
    votes: dict[str, str] = {}
    refused: set[str] = set()
    widths = {name: TYPE_WIDTHS[kind] for name, kind in function.registers.items()}

    def vote(operand: Operand, kind: str) -> None:
        if operand.kind == "reg":
            if kind in _FLOATS and widths[operand.name] == TYPE_WIDTHS[kind]:
                if votes.setdefault(operand.name, kind) != kind:
                    refused.add(operand.name)
            else:
                refused.add(operand.name)
        else:
            refuse(operand)

    def refuse(operand: Operand) -> None:
        refused.update(operand.registers())

    for instruction in function.body:
        operands = instruction.operands
        if instruction.base in _COPIES:
            for operand in operands:
                if operand.kind == "mem" or (operand.kind == "vec" and instruction.base == "mov"):
                    refuse(operand)
        elif instruction.base in ("setp", "testp", "shfl", "call", "vote"):
            for operand in operands:
                if instruction.types and instruction.types[-1] in _FLOATS and operand.kind == "reg":
                    if widths[operand.name] != 8:
                        vote(operand, instruction.types[-1])
                else:
                    refuse(operand)
        elif instruction.types:
            for position, operand in enumerate(operands):
                vote(operand, instruction.types[0] if position == 0 else instruction.types[-1])
        else:
            for operand in operands:
                refuse(operand)
    return {name: _FLOATS[kind] for name, kind in votes.items() if name not in refused}
