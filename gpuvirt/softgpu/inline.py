# SPDX-License-Identifier: Apache-2.0
"""Copies functions that contain barriers or warp operations into their callers.

A thread that waits returns from its C function with its live registers saved; that works only if everything it needs is
in one function. Functions without such operations stay C functions.
"""

from __future__ import annotations

from .syntax import Function, Instruction, Operand, PtxError, Variable, label

TYPE_CHECKING = False  # importing typing costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable

_WAITING = frozenset(("bar", "barrier", "shfl", "vote", "match", "activemask", "redux", "elect"))


def waits(instruction: Instruction) -> bool:
    """Whether a thread may have to wait there for others."""
    if instruction.base == "mbarrier":
        return "test_wait" in instruction.mods or "try_wait" in instruction.mods
    return instruction.base in _WAITING


def yields(instruction: Instruction) -> bool:
    """Whether other threads run there: a thread that waits, or one that sleeps, which others use to wait for it."""
    return waits(instruction) or instruction.base == "nanosleep"


def callee(instruction: Instruction, function: Function) -> Function | None:
    """The function of a direct call, if it is defined in PTX."""
    for operand in instruction.operands:
        if operand.kind == "list":
            continue
        if operand.kind != "sym" or function.module is None:
            return None
        found = function.module.symbols.get(operand.name)
        return found if isinstance(found, Function) and found.defined else None
    return None


def yielding_functions(functions: list[Function], which: Callable[[Instruction], bool] = yields) -> set[str]:
    """Names of all functions in which other threads may run, directly or through a call."""
    result = {f.name for f in functions if any(which(i) for i in f.body)}
    calls = [
        (f.name, {c.name for i in f.body if i.base == "call" for c in [callee(i, f)] if c is not None})
        for f in functions
    ]
    changed = True
    while changed:
        changed = False
        for name, called in calls:
            if name not in result and called & result:
                result.add(name)
                changed = True
    return result


def inline_calls(function: Function, wanted: set[str]) -> Function:
    """`function` with every call of a `wanted` function replaced by its body, again and again."""
    if not any(_wanted(i, function, wanted) for i in function.body):
        return function
    result = Function(function.name, function.is_entry, function.line)
    for slot in ("linkage", "rets", "params", "max_threads", "required_threads", "defined", "module"):
        setattr(result, slot, getattr(function, slot))
    result.registers = dict(function.registers)
    result.locals = dict(function.locals)
    result.prototypes = dict(function.prototypes)
    result.tables = dict(function.tables)
    _Inliner(result, wanted).copy(function, "", {}, [function.name])
    return result


def _wanted(instruction: Instruction, function: Function, wanted: set[str]) -> Function | None:
    if instruction.base != "call":
        return None
    found = callee(instruction, function)
    return found if found is not None and found.name in wanted else None


class _Inliner:
    def __init__(self, into: Function, wanted: set[str]) -> None:
        self.into = into
        self.wanted = wanted
        self.copies = 0

    def copy(self, source: Function, suffix: str, symbols: dict[str, Operand], stack: list[str]) -> None:
        """Appends the body of `source`; its names get `suffix`, its parameters become `symbols`."""
        end = f"$end{suffix}"
        for instruction in source.body:
            target = _wanted(instruction, source, self.wanted)
            if target is not None:
                self._call(instruction, target, suffix, symbols, stack)
            elif instruction.base == "label":
                self.into.body.append(label(instruction.opcode + suffix, instruction.line))
            else:
                operands = [self._adopted(_renamed(o, source, suffix, symbols), source) for o in instruction.operands]
                opcode = instruction.opcode
                if suffix and instruction.base == "ret":
                    opcode, operands = "bra", [Operand("sym", end)]
                self._append(instruction, opcode, operands, suffix)
        if suffix:
            self.into.body.append(label(end, source.line))

    def _adopted(self, operand: Operand, source: Function) -> Operand:
        """Names mean what they mean in the module of `source`, also where another one's symbol has the same name."""
        ours, theirs = self.into.module, source.module
        if ours is theirs or ours is None or theirs is None:
            return operand
        if operand.items:
            operand.items = [self._adopted(item, source) for item in operand.items]
        elif operand.kind == "sym" and operand.name not in self.into.locals:
            meant = theirs.symbols.get(operand.name)
            if meant is not None and ours.symbols.get(operand.name) is not meant:
                operand.name = f"{operand.name}$m{id(meant)}"
                ours.symbols[operand.name] = meant
        return operand

    def _append(self, like: Instruction, opcode: str, operands: list[Operand], suffix: str) -> None:
        copied = Instruction(opcode, operands, like.line)
        copied.guard = like.guard + suffix if like.guard else ""
        copied.guard_not = like.guard_not
        self.into.body.append(copied)

    def _call(
        self, call: Instruction, target: Function, suffix: str, symbols: dict[str, Operand], stack: list[str]
    ) -> None:
        if target.name in stack:
            raise PtxError(
                call.line,
                f"recursion of '{target.name}', which waits for other threads, is not supported by the soft GPU",
            )
        self.copies += 1
        inner = f"$i{self.copies}"
        assert call.operands
        lists = [o for o in call.operands if o.kind == "list"]
        if call.operands[0].kind == "list" and len(lists) == 1 and not target.params:
            lists.append(Operand("list"))
        rets = lists[0].items if call.operands[0].kind == "list" else []
        args = lists[-1].items if call.operands[-1].kind == "list" and (len(lists) > 1 or not rets) else []
        if not target.rets:
            rets = []  # see instructions/control.py
        if len(rets) != len(target.rets) or len(args) != len(target.params):
            raise PtxError(call.line, f"call of '{target.name}' with a wrong number of operands")
        bound: dict[str, Operand] = {}
        skip = f"$skip{inner}"
        if call.guard:
            branch = Instruction("bra", [Operand("sym", skip)], call.line)
            branch.guard, branch.guard_not = call.guard + suffix, not call.guard_not
            self.into.body.append(branch)
        for name, kind in target.registers.items():
            self.into.registers[name + inner] = kind
        for variable in target.locals.values():
            self.into.locals[variable.name + inner] = _copied(variable, variable.name + inner)
        self.into.prototypes.update({name + inner: p for name, p in target.prototypes.items()})
        self.into.tables.update({n + inner: [t + inner for t in targets] for n, targets in target.tables.items()})
        results = []
        for declared, operand in zip(target.params + target.rets, args + rets):  # noqa: B905 (Python 3.9)
            outer = _renamed(operand, None, suffix, symbols)
            if declared.space == "reg":
                own = Operand("reg", _register_of(declared, target) + inner)
                move = "mov." + ("b" + declared.element[1:] if declared.element != "pred" else "pred")
                if declared in target.rets:
                    results.append(Instruction(move, [outer, own], call.line))
                else:
                    self.into.body.append(Instruction(move, [own, outer], call.line))
            else:
                bound[declared.name] = outer
        self.copy(target, inner, bound, [*stack, target.name])
        self.into.body += results
        if call.guard:
            self.into.body.append(label(skip, call.line))


def _register_of(declared: Variable, function: Function) -> str:
    name = declared.name
    unique = ("r_" + name[1:] if name[0] == "%" else "n_" + name).replace(".", "$")
    return unique if unique in function.registers else name


def _copied(variable: Variable, name: str) -> Variable:
    result = Variable(name, variable.space, variable.element, variable.line)
    for slot in ("size", "align", "unsized", "linkage", "init"):
        setattr(result, slot, getattr(variable, slot))
    return result


def _renamed(operand: Operand, source: Function | None, suffix: str, symbols: dict[str, Operand]) -> Operand:
    kind = operand.kind
    if kind == "reg":
        return Operand("reg", operand.name + suffix, negated=operand.negated)
    if kind == "sym":
        bound = symbols.get(operand.name)
        if bound is not None:
            return Operand("sym", bound.name, bound.value + operand.value)
        if source is None or not suffix or _is_global(operand.name, source):
            local = source is None and suffix
            return Operand("sym", operand.name + suffix if local else operand.name, operand.value)
        return Operand("sym", operand.name + suffix, operand.value)
    if not operand.items:
        return operand
    items = [_renamed(item, source, suffix, symbols) for item in operand.items]
    value = operand.value
    if kind == "mem" and operand.items[0].kind == "sym":
        value += items[0].value - operand.items[0].value
    return Operand(kind, operand.name, value, operand.width, items, operand.negated)


def _is_global(name: str, source: Function) -> bool:
    """Whether a symbol of `source` is neither its own variable, table nor label."""
    if name in source.locals or name in source.prototypes or name in source.tables:
        return False
    return source.module is not None and name in source.module.symbols
