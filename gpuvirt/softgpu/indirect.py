# SPDX-License-Identifier: Apache-2.0
"""Calls by pointer of functions that wait for other threads.

Such a function cannot be a C function (see inline.py). So before each call by pointer that may mean one, by its list of
sizes, the pointer is compared with it, and the call becomes a direct one, which is inlined:

    mov.u64 t, f;  setp.ne.u64 p, target, t;  @p bra next;  call (r), f, (a);  bra done;
    next: ...  call (r), target, (a), prototype;  done:
"""

from __future__ import annotations

from .inline import waits, yielding_functions
from .syntax import Function, Instruction, Operand, Prototype, label


def resolve_pointers(functions: list[Function], pointed: set[int]) -> set[str]:
    """Rewrites the bodies; returns the names of all functions that wait, directly or through any call."""
    targets = [f for f in functions if id(f) in pointed]
    waiting = yielding_functions(functions, waits)
    if not any(f.name in waiting for f in targets):
        return waiting
    while True:
        meant = {id(i): _meant(i, f, targets, waiting) for f in functions for i in f.body if _by_pointer(i)}
        more = {f.name for f in functions for i in f.body if meant.get(id(i))} - waiting
        if not more:
            break
        waiting = yielding_functions(functions, lambda i: waits(i) or bool(meant.get(id(i))))  # noqa: B023
    for function in functions:
        if any(meant.get(id(i)) for i in function.body):
            _rewrite(function, meant)
    return waiting


def _by_pointer(instruction: Instruction) -> bool:
    return instruction.base == "call" and any(operand.kind == "reg" for operand in instruction.operands)


def _prototype(call: Instruction, function: Function, targets: list[Function]) -> Prototype | None:
    last = call.operands[-1]
    found = function.prototypes.get(last.name)
    if found is not None:
        return found
    names = function.tables.get(last.name, [])  # .calltargets
    return next((target.prototype() for target in targets if target.name in names), None)


def _meant(call: Instruction, function: Function, targets: list[Function], waiting: set[str]) -> list[Function]:
    prototype = _prototype(call, function, targets)
    if prototype is None:
        return []
    sizes = prototype.signature()
    return [f for f in targets if f.name in waiting and f is not function and f.prototype().signature() == sizes]


def _rewrite(function: Function, meant: dict[int, list[Function]]) -> None:
    assert function.module is not None
    body: list[Instruction] = []
    function.registers["n_pointer$"] = "b64"
    function.registers["n_other$"] = "pred"
    for number, call in enumerate(function.body):
        choices = meant.get(id(call), [])
        if not choices:
            body.append(call)
            continue

        def add(opcode: str, *operands: Operand, guard: str = "", guard_not: bool = False) -> None:
            made = Instruction(opcode, list(operands), call.line)  # noqa: B023
            made.guard, made.guard_not = guard, guard_not
            body.append(made)

        done = Operand("sym", f"$called{number}")
        if call.guard:
            add("bra", done, guard=call.guard, guard_not=not call.guard_not)
        target = next(operand for operand in call.operands if operand.kind == "reg")
        for choice, chosen in enumerate(choices):
            name, other = f"{chosen.name}$p{choice}", Operand("sym", f"$next{number}.{choice}")
            function.module.symbols[name] = chosen
            add("mov.u64", Operand("reg", "n_pointer$"), Operand("sym", name))
            add("setp.ne.u64", Operand("reg", "n_other$"), target, Operand("reg", "n_pointer$"))
            add("bra", other, guard="n_other$")
            operands = [Operand("sym", name) if o is target else o for o in call.operands[:-1]]
            add(call.opcode, *operands)
            add("bra", done)
            body.append(label(other.name, call.line))
        add(call.opcode, *call.operands)
        body.append(label(done.name, call.line))
    function.body = body
