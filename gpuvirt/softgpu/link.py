# SPDX-License-Identifier: Apache-2.0
"""Joins modules: what one declares .extern another defines; weak duplicates are dropped."""

from __future__ import annotations

from .syntax import Function, Module, PtxError, Variable

BUILTINS = frozenset(("vprintf", "__assertfail", "malloc", "free", "cudaGraphSetConditional"))
"""External functions that the soft GPU brings along."""

_RANK = {"extern": 0, "common": 1, "weak": 2, "visible": 3}


def link(modules: list[Module]) -> list[Module]:
    """Fills `symbols` of each module. Names without linkage stay private to their module."""
    shared: dict[str, Function | Variable] = {}
    for module in modules:
        for symbol in _symbols(module):
            if symbol.linkage or (isinstance(symbol, Function) and (symbol.is_entry or not symbol.defined)):
                _offer(shared, symbol)
    for module in modules:
        for symbol in _symbols(module):
            public = shared.get(symbol.name)
            private = not symbol.linkage and not (isinstance(symbol, Function) and not symbol.defined)
            module.symbols[symbol.name] = symbol if private or public is None else public
    for module in modules:
        for alias, target in module.aliases.items():
            found = module.symbols.get(target)
            if found is None:
                raise PtxError(0, f"alias '{alias}' of '{target}', which is not defined")
            module.symbols[alias] = found
            for other in modules:
                known = other.symbols.get(alias)
                if isinstance(known, Function) and not known.defined:
                    other.symbols[alias] = found
    return modules


def _symbols(module: Module) -> list[Function | Variable]:
    symbols: list[Function | Variable] = []
    symbols += module.functions.values()
    symbols += module.variables.values()
    return symbols


def _rank(symbol: Function | Variable) -> int:
    if isinstance(symbol, Function) and not symbol.defined:
        return 0
    if isinstance(symbol, Variable) and symbol.linkage == "extern":
        return 0
    return _RANK.get(symbol.linkage, 3)


def _offer(shared: dict[str, Function | Variable], symbol: Function | Variable) -> None:
    known = shared.get(symbol.name)
    if known is None:
        shared[symbol.name] = symbol
        return
    if isinstance(known, Function) != isinstance(symbol, Function):
        raise PtxError(symbol.line, f"'{symbol.name}' is both a function and a variable")
    old, new = _rank(known), _rank(symbol)
    if old == new == 3:
        raise PtxError(symbol.line, f"'{symbol.name}' is defined in two modules")
    if new > old:
        shared[symbol.name] = symbol
    elif isinstance(symbol, Variable) and isinstance(known, Variable) and old == new == 1:
        known.size = max(known.size, symbol.size)
