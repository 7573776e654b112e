# SPDX-License-Identifier: Apache-2.0
"""Bodies of functions: scopes, declarations, instructions and their operands.

Names are resolved here: registers and variables of nested `{ }` scopes (inline assembly makes many) become unique, so
that later passes see one flat function.
"""

from __future__ import annotations

import struct

from .lexer import Tokens, parse_integer
from .special import SPECIAL_VALUES
from .syntax import TYPE_WIDTHS, Function, Instruction, Operand, Prototype, PtxError, label


class _Scope:
    """One `{ }`."""

    __slots__ = ("labels", "names", "outer", "ranges", "suffix")

    def __init__(self, outer: _Scope | None, number: int) -> None:
        self.outer = outer
        self.suffix = f"${number}" if number else ""
        self.names: dict[str, Operand] = {}
        self.ranges: dict[str, tuple[int, str]] = {}  # prefix -> count, type: `%r<9>`
        self.labels: dict[str, str] = {}


def parse_body(tokens: Tokens, function: Function) -> None:
    """Parses `{ ... }` into `function`."""
    _BodyParser(tokens, function).run()


def _c_name(name: str) -> str:
    return ("r_" + name[1:] if name[0] == "%" else "n_" + name).replace(".", "$")


class _BodyParser:
    def __init__(self, tokens: Tokens, function: Function) -> None:
        self.tokens = tokens
        self.function = function
        self.scope = _Scope(None, 0)
        self.scopes = 1
        self.targets: list[tuple[Operand, _Scope, int]] = []  # labels of branches, and their lines
        self.tables: list[tuple[str, _Scope, int]] = []

    def run(self) -> None:
        """Parses the body and resolves labels."""
        for variable in self.function.rets + self.function.params:
            if variable.space == "reg":
                self._declare_register(variable.name, variable.element)
        self.tokens.expect("{")
        depth = 1
        while depth:
            token = self.tokens.peek()
            if token == "{":
                self.tokens.index += 1
                self.scope = _Scope(self.scope, self.scopes)
                self.scopes += 1
                depth += 1
            elif token == "}":
                self.tokens.index += 1
                self.scope = self.scope.outer or self.scope
                depth -= 1
            elif token == ";":
                self.tokens.index += 1
            elif token[:1] == ".":
                self._directive()
            elif self.tokens.items[self.tokens.index + 1] == ":" and token != "@":
                self._label()
            else:
                self._instruction()
        for operand, scope, line in self.targets:
            if operand.name not in self.function.tables:
                operand.name = _find_label(scope, operand.name, line)
        for name, scope, line in self.tables:
            self.function.tables[name] = [_find_label(scope, target, line) for target in self.function.tables[name]]

    # Declarations

    def _directive(self) -> None:
        from .parser import parse_variables

        token = self.tokens.next()
        if token == ".reg":
            self._registers()
        elif token in (".local", ".shared", ".param", ".global", ".const"):
            for variable in parse_variables(self.tokens, token[1:], ""):
                unique = variable.name + self.scope.suffix
                self.scope.names[variable.name] = Operand("sym", unique)
                variable.name = unique
                self.function.locals[unique] = variable
        elif token == ".pragma":
            while self.tokens.next() != ";":
                pass
        else:
            raise self.tokens.error(f"'{token}' is not supported by the soft GPU")

    def _registers(self) -> None:
        kind = self.tokens.next()[1:]
        if kind in ("v2", "v4"):
            raise self.tokens.error("vector registers are not supported by the soft GPU")
        if kind not in TYPE_WIDTHS:
            raise self.tokens.error(f"register type '.{kind}' is not supported by the soft GPU")
        while True:
            name = self.tokens.name()
            if self.tokens.accept("<"):
                self.scope.ranges[name] = (self.tokens.integer(), kind)
                self.tokens.expect(">")
            else:
                self._declare_register(name, kind)
            if not self.tokens.accept(","):
                break
        self.tokens.expect(";")

    def _declare_register(self, name: str, kind: str) -> Operand:
        unique = _c_name(name) + self.scope.suffix
        self.function.registers[unique] = kind
        operand = Operand("reg", unique)
        self.scope.names[name] = operand
        return operand

    def _lookup(self, name: str) -> Operand | None:
        scope: _Scope | None = self.scope
        while scope is not None:
            found = scope.names.get(name)
            if found is not None:
                return found
            if scope.ranges:
                prefix = name.rstrip("0123456789")
                while len(prefix) < len(name):
                    entry = scope.ranges.get(prefix)
                    if entry is not None and int(name[len(prefix) :]) < entry[0]:
                        unique = _c_name(name) + scope.suffix
                        self.function.registers[unique] = entry[1]
                        found = scope.names[name] = Operand("reg", unique)
                        return found
                    prefix = name[: len(prefix) + 1]
            scope = scope.outer
        return None

    def _label(self) -> None:
        from .parser import parse_parameters

        name = self.tokens.name()
        self.tokens.expect(":")
        token = self.tokens.peek()
        if token == ".callprototype":
            self.tokens.next()
            rets = parse_parameters(self.tokens) if self.tokens.peek() == "(" else []
            self.tokens.name()
            params = parse_parameters(self.tokens) if self.tokens.peek() == "(" else []
            while self.tokens.next() != ";":
                pass
            self.function.prototypes[name] = Prototype(rets, params)
        elif token in (".branchtargets", ".calltargets"):
            self.tokens.next()
            targets = [self.tokens.name()]
            while self.tokens.accept(","):
                targets.append(self.tokens.name())
            self.tokens.expect(";")
            self.function.tables[name] = targets
            if token == ".branchtargets":
                self.tables.append((name, self.scope, self.tokens.line(self.tokens.index - 1)))
        else:
            if name in self.scope.labels:
                raise self.tokens.error(f"label '{name}' is defined twice")
            unique = name + self.scope.suffix
            self.scope.labels[name] = unique
            self.function.body.append(label(unique, self.tokens.line(self.tokens.index - 2)))

    # Instructions

    def _instruction(self) -> None:
        tokens = self.tokens
        guard, guard_not = "", False
        if tokens.accept("@"):
            guard_not = tokens.accept("!")
            found = self._lookup(tokens.name())
            if found is None or self.function.registers.get(found.name) != "pred":
                raise tokens.error("the guard is no predicate register")
            guard = found.name
        line = tokens.line()
        instruction = Instruction(tokens.name(), [], line)
        instruction.guard = guard
        instruction.guard_not = guard_not
        operands = instruction.operands
        while not tokens.accept(";"):
            operands.append(self._operand())
            if tokens.peek() not in (",", ";"):
                raise tokens.error(f"expected ',' or ';' in '{instruction.opcode}', found '{tokens.peek()}'")
            tokens.accept(",")
        if instruction.base in ("bra", "brx"):
            if len(operands) < (1 if instruction.base == "bra" else 2) or operands[-1].kind != "sym":
                raise PtxError(line, f"'{instruction.opcode}' needs a label")
            self.targets += [(operand, self.scope, line) for operand in operands if operand.kind == "sym"]
        self.function.body.append(instruction)

    def _operand(self) -> Operand:
        tokens = self.tokens
        token = tokens.peek()
        if token == "[":
            tokens.index += 1
            base = self._simple()
            offset = base.value if base.kind in ("sym", "int") else 0
            while tokens.peek() in ("+", "-"):
                sign = -1 if tokens.next() == "-" else 1
                offset += sign * tokens.integer()
            if not tokens.accept("]"):
                raise tokens.error("this form of address is not supported by the soft GPU")
            return Operand("mem", value=offset, items=[base])
        if token in ("{", "("):
            tokens.index += 1
            close = "}" if token == "{" else ")"
            items = []
            while not tokens.accept(close):
                items.append(self._operand())
                tokens.accept(",")
            return Operand("vec" if token == "{" else "list", items=items)
        operand = self._simple()
        if tokens.peek() == "|":
            tokens.index += 1
            return Operand("pair", items=[operand, self._simple()])
        return operand

    def _simple(self) -> Operand:
        tokens = self.tokens
        token = tokens.peek()
        if token in ("-", "~", "!"):
            tokens.index += 1
            inner = self._simple()
            if token == "!":
                return Operand("reg", inner.name, negated=True) if inner.kind == "reg" else _not(inner)
            if inner.kind == "float":
                return Operand("float", value=inner.value ^ (1 << (inner.width - 1)), width=inner.width)
            if inner.kind != "int":
                raise tokens.error("a sign before something that is no number")
            return Operand("int", value=-inner.value if token == "-" else ~inner.value)
        number = parse_integer(token)
        if number is not None:
            tokens.index += 1
            return Operand("int", value=number)
        if token[:1].isdigit():
            tokens.index += 1
            if token[1:2] in ("f", "F"):
                return Operand("float", value=int(token[2:], 16), width=32)
            if token[1:2] in ("d", "D"):
                return Operand("float", value=int(token[2:], 16), width=64)
            return Operand("float", value=struct.unpack("<Q", struct.pack("<d", float(token)))[0], width=64)
        name = tokens.name()
        found = self._lookup(name)
        if found is not None:
            operand = found
        elif name == "_":
            return Operand("sink")
        elif name == "WARP_SZ":
            return Operand("int", value=32)
        elif name[0] == "%":
            if name not in SPECIAL_VALUES:
                raise PtxError(tokens.line(tokens.index - 1), f"'{name}' is not declared or not supported")
            return Operand("special", name)
        else:
            operand = Operand("sym", name)
        if operand.kind == "sym":
            operand = Operand("sym", operand.name)
            if tokens.peek() == "+" and tokens.items[tokens.index + 1][:1].isdigit():
                tokens.index += 1
                operand.value = tokens.integer()
        return operand


def _not(operand: Operand) -> Operand:
    return Operand("int", value=int(not operand.value))


def _find_label(scope: _Scope | None, name: str, line: int) -> str:
    while scope is not None:
        if name in scope.labels:
            return scope.labels[name]
        scope = scope.outer
    raise PtxError(line, f"label '{name}' is not defined")


__all__ = ["parse_body"]
