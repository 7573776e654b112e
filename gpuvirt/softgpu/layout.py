# SPDX-License-Identifier: Apache-2.0
"""Where the names of a linked program live: numbers of globals and functions, offsets in shared memory."""

from __future__ import annotations

from .indirect import resolve_pointers
from .inline import callee, inline_calls, yielding_functions
from .special import RESERVED
from .syntax import Function, Instruction, Module, Operand, PtxError, Variable


def align_up(value: int, alignment: int) -> int:
    """`value` rounded up to a multiple of `alignment`."""
    return (value + alignment - 1) // alignment * alignment


def symbols_of(operands: list[Operand]) -> list[str]:
    """Names of all symbols in operands."""
    names = []
    for operand in operands:
        if operand.kind == "sym":
            names.append(operand.name)
        elif operand.items:
            names += symbols_of(operand.items)
    return names


def uses_reserved(functions: list[Function]) -> bool:
    """Whether any of them asks for the system's part of shared memory."""
    return any(
        operand.kind == "special" and operand.name.startswith("%reserved_smem")
        for function in functions
        for instruction in function.body
        for operand in instruction.operands
    )


class Layout:
    """Tables of one linked program (see link.py)."""

    def __init__(self, modules: list[Module]) -> None:
        self.globals: list[Variable] = []
        self.global_index: dict[int, int] = {}  # id(variable) -> number
        self.kernels: list[Function] = []
        self.functions: list[Function] = []  # those that become C functions
        self.function_index: dict[int, int] = {}
        self.pointed: set[int] = set()  # ids of functions whose address is taken
        self.inlined: set[int] = set()  # ids of those in `functions` that are copied into all callers
        self.signatures: dict[tuple[tuple[int, ...], tuple[int, ...]], int] = {}
        self._prefix: dict[int, int] = {}  # id(shared variable) -> offset, for those that C functions use
        self._prefix_bytes = 0
        self._collect(modules)

    def _collect(self, modules: list[Module]) -> None:
        functions: list[Function] = []
        seen: set[int] = set()
        for module in modules:
            for symbol in module.symbols.values():
                if id(symbol) in seen:
                    continue
                seen.add(id(symbol))
                if isinstance(symbol, Function):
                    functions.append(symbol)
                elif symbol.space in ("global", "const"):
                    self._add_global(symbol)
        defined = [function for function in functions if function.defined]
        self._take_addresses(defined, modules)
        waiting = resolve_pointers(defined, self.pointed)
        yielding = yielding_functions(defined)
        self.kernels = [inline_calls(f, yielding) for f in defined if f.is_entry]
        reached: dict[int, Function] = {}
        for kernel in self.kernels:
            self._reach(kernel, reached)
        for function in defined:
            if id(function) in self.pointed:
                reached[id(function)] = function
                self._reach(function, reached)
        for function in reached.values():
            if function.name in waiting:
                self.inlined.add(id(function))  # has an address, but no C function
            self.function_index[id(function)] = len(self.functions)
            self.functions.append(function)
        for function in self.functions + self.kernels:
            for variable in function.locals.values():
                if variable.space in ("global", "const"):
                    self._add_global(variable)
        for function in self.functions:
            for variable in self._shared_of(function):
                if not variable.unsized and id(variable) not in self._prefix:
                    offset = align_up(self._prefix_bytes, variable.align)
                    self._prefix[id(variable)] = offset
                    self._prefix_bytes = offset + variable.size

    def _add_global(self, variable: Variable) -> None:
        if variable.linkage == "extern" and not variable.unsized:
            return  # declared, but no module defines it: an error where it is used
        if id(variable) not in self.global_index:
            self.global_index[id(variable)] = len(self.globals)
            self.globals.append(variable)

    def _take_addresses(self, functions: list[Function], modules: list[Module]) -> None:
        for function in functions:
            assert function.module is not None
            symbols = function.module.symbols
            for instruction in function.body:
                if instruction.base in ("call", "bra", "label"):
                    continue
                for name in symbols_of(instruction.operands):
                    target = symbols.get(name)
                    if isinstance(target, Function) and name not in function.locals:
                        self.pointed.add(id(target))
        for module in modules:
            for variable in module.variables.values():
                for initial in variable.init or []:
                    target = module.symbols.get(initial.symbol) if initial.symbol else None
                    if isinstance(target, Function):
                        self.pointed.add(id(target))

    def _reach(self, function: Function, reached: dict[int, Function]) -> None:
        """Adds all C functions that `function` calls directly, and what they call."""
        for instruction in function.body:
            target = callee(instruction, function) if instruction.base == "call" else None
            if target is not None and id(target) not in reached:
                reached[id(target)] = target
                self._reach(target, reached)

    def _shared_of(self, function: Function) -> list[Variable]:
        found: dict[int, Variable] = {}
        assert function.module is not None
        for instruction in function.body:
            for name in symbols_of(instruction.operands):
                symbol = function.locals.get(name) or function.module.symbols.get(name)
                if isinstance(symbol, Variable) and symbol.space == "shared":
                    found[id(symbol)] = symbol
        return list(found.values())

    def shared_layout(self, kernel: Function) -> tuple[dict[int, int], int, int]:
        """Offsets of shared variables by id, total bytes, and how many at the end are reserved for the system."""
        variables = self._shared_of(kernel)
        reached: dict[int, Function] = {}
        self._reach(kernel, reached)
        called = [self._shared_of(f) for f in reached.values()]
        if any(i.base == "call" and callee(i, kernel) is None for i in kernel.body):
            called += [self._shared_of(f) for f in self.functions if id(f) in self.pointed]
        offsets: dict[int, int] = {}
        size = 0
        if any(called) or any(id(variable) in self._prefix for variable in variables):
            offsets.update(self._prefix)
            size = self._prefix_bytes
        dynamic_align = 0
        for variable in variables + [v for vs in called for v in vs]:
            if variable.unsized:
                dynamic_align = max(dynamic_align, variable.align, 16)
            elif id(variable) not in offsets:
                offsets[id(variable)] = align_up(size, variable.align)
                size = offsets[id(variable)] + variable.size
        if dynamic_align:
            size = align_up(size, dynamic_align)
        reserved = RESERVED if uses_reserved([kernel, *reached.values()]) else 0
        if reserved:
            size = align_up(size, max(dynamic_align, 64)) + reserved
        return offsets, size, reserved

    def shared_offset(self, variable: Variable) -> int:
        """Offset of a shared variable that a C function uses; the same in every kernel."""
        return self._prefix[id(variable)]

    def signature(self, key: tuple[tuple[int, ...], tuple[int, ...]]) -> int:
        """Number of a list of result and parameter sizes."""
        return self.signatures.setdefault(key, len(self.signatures))


def call_operands(call: Instruction) -> tuple[Operand, list[Operand], list[Operand], str]:
    """Target, results, arguments and prototype name of a call."""
    operands = list(call.operands)
    rets = operands.pop(0).items if operands and operands[0].kind == "list" else []
    if not operands:
        raise PtxError(call.line, "a call without a function")
    target = operands.pop(0)
    args = operands.pop(0).items if operands and operands[0].kind == "list" else []
    prototype = operands.pop(0).name if operands else ""
    return target, rets, args, prototype
