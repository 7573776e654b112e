# SPDX-License-Identifier: Apache-2.0
"""Tokens to a module: directives and declarations. Bodies of functions are in body.py."""

from __future__ import annotations

import struct

from .body import parse_body
from .lexer import Tokens, parse_integer
from .syntax import TYPE_WIDTHS, Function, Initial, Module, Variable

_LINKAGES = {".visible": "visible", ".extern": "extern", ".weak": "weak", ".common": "common"}
_VARIABLE_SPACES = {".global": "global", ".const": "const", ".shared": "shared"}


def parse_module(text: str) -> Module:
    """The module of one PTX text; raises PtxError."""
    end = text.find("\0")
    tokens = Tokens(text if end < 0 else text[:end])
    module = Module()
    if ".version" not in tokens.items:
        raise tokens.error("this is no PTX: .version is missing")
    while tokens.peek():
        _parse_directive(tokens, module)
    return module


def _parse_directive(tokens: Tokens, module: Module) -> None:
    token = tokens.peek()
    if token == ".version":
        tokens.next()
        tokens.next()
    elif token == ".target":
        tokens.next()
        tokens.next()
        while tokens.accept(","):
            tokens.next()
    elif token == ".address_size":
        tokens.next()
        if tokens.integer() != 64:
            raise tokens.error("only .address_size 64 is supported by the soft GPU")
    elif token == ".section":
        tokens.next()
        tokens.next()
        tokens.skip_block()
    elif token == ".pragma":
        while tokens.next() != ";":
            pass
    elif token == ".alias":
        tokens.next()
        alias = tokens.name()
        tokens.expect(",")
        module.aliases[alias] = tokens.name()
        tokens.expect(";")
    elif token == ";":
        tokens.next()
    else:
        linkage = ""
        while tokens.peek() in _LINKAGES:
            linkage = _LINKAGES[tokens.next()]
        token = tokens.peek()
        if token in (".entry", ".func"):
            _parse_function(tokens, module, linkage)
        elif token in _VARIABLE_SPACES:
            for variable in parse_variables(tokens, _VARIABLE_SPACES[tokens.next()], linkage):
                _add_variable(tokens, module, variable)
        else:
            raise tokens.error(f"'{token}' is not supported by the soft GPU")


def _add_variable(tokens: Tokens, module: Module, variable: Variable) -> None:
    known = module.variables.get(variable.name)
    if known is None or known.linkage == "extern":
        module.variables[variable.name] = variable
    elif variable.linkage not in ("extern", "weak", "common") and known.linkage not in ("weak", "common"):
        raise tokens.error(f"'{variable.name}' is defined twice")


def parse_variables(tokens: Tokens, space: str, linkage: str) -> list[Variable]:
    """Variables after the state space, up to and with `;`."""
    element, align, vector = "", 0, 1
    while tokens.peek().startswith("."):
        token = tokens.next()[1:]
        if token == "align":
            align = _parse_alignment(tokens)
        elif token in TYPE_WIDTHS:
            element = token
        elif token in ("v2", "v4", "v8"):
            vector = int(token[1:])
        elif token == "attribute":
            while tokens.next() != ")":
                pass
        elif token not in ("ptr", "global", "const", "shared", "local", "managed"):
            raise tokens.error(f"'.{token}' is not supported by the soft GPU")
    if not element:
        raise tokens.error("a variable without a type")
    variables = []
    while True:
        variable = Variable(tokens.name(), space, element, tokens.line(tokens.index - 1))
        variable.linkage = linkage
        if vector > 1:
            variable.size *= vector
            variable.align = variable.size
        if align:
            variable.align = align
        _parse_dimensions(tokens, variable)
        if tokens.accept("="):
            variable.init = []
            _parse_initial(tokens, variable, variable.init)
            if variable.unsized:
                variable.unsized = False
                variable.size = len(variable.init) * TYPE_WIDTHS[element] // 8
        variables.append(variable)
        if not tokens.accept(","):
            break
    tokens.expect(";")
    return variables


def _parse_alignment(tokens: Tokens) -> int:
    align = tokens.integer()
    if align <= 0 or align & (align - 1):
        raise tokens.error(f"alignment {align} is no power of two")
    return align


def _parse_dimensions(tokens: Tokens, variable: Variable) -> None:
    while tokens.accept("["):
        if tokens.accept("]"):
            variable.unsized = True
            variable.size = 0
        else:
            length = tokens.integer()
            if length < 0:
                raise tokens.error(f"'{variable.name}' has a negative length")
            variable.size *= length
            tokens.expect("]")


def _parse_initial(tokens: Tokens, variable: Variable, out: list[Initial]) -> None:
    """One initial value or a braced list; nested lists are flattened."""
    if tokens.accept("{"):
        while not tokens.accept("}"):
            _parse_initial(tokens, variable, out)
            tokens.accept(",")
        return
    negative = tokens.accept("-")
    token = tokens.peek()
    if token[:2] in ("0f", "0F", "0d", "0D"):
        tokens.next()
        out.append(Initial(_float_bits(token, variable.element, negative)))
        return
    number = parse_integer(token)
    if number is None and token[:1].isdigit():
        tokens.next()
        value = -float(token) if negative else float(token)
        bits = struct.unpack("<Q", struct.pack("<d", value))[0]
        out.append(Initial(_float_bits(f"0d{bits:016x}", variable.element, False)))
        return
    if number is not None:
        tokens.next()
        if tokens.accept("("):  # mask(address): one byte of an address
            address = _parse_address(tokens)
            tokens.expect(")")
            out.append(Initial(address.value, address.symbol, number))
        else:
            out.append(Initial(-number if negative else number))
        return
    out.append(_parse_address(tokens))


def _parse_address(tokens: Tokens) -> Initial:
    name = tokens.name()
    if name == "generic" and tokens.accept("("):
        name = tokens.name()
        offset = _parse_offset(tokens)
        tokens.expect(")")
        return Initial(offset + _parse_offset(tokens), name)
    return Initial(_parse_offset(tokens), name)


def _parse_offset(tokens: Tokens) -> int:
    if tokens.accept("+"):
        return tokens.integer()
    return tokens.integer() if tokens.peek() == "-" else 0


def _float_bits(token: str, element: str, negative: bool) -> int:
    bits = int(token[2:], 16)
    width = 32 if token[1] in "fF" else 64
    if negative:
        bits ^= 1 << (width - 1)
    if width == 64 and element == "f32":
        value = struct.unpack("<d", struct.pack("<Q", bits))[0]
        bits = struct.unpack("<I", struct.pack("<f", value))[0]
    elif width == 32 and element == "f64":
        value = struct.unpack("<f", struct.pack("<I", bits))[0]
        bits = struct.unpack("<Q", struct.pack("<d", value))[0]
    return bits


def parse_parameters(tokens: Tokens) -> list[Variable]:
    """`( .param ..., ... )`, parentheses included."""
    params: list[Variable] = []
    tokens.expect("(")
    while not tokens.accept(")"):
        space, element, align, vector = "param", "", 0, 1
        while tokens.peek().startswith("."):
            token = tokens.next()[1:]
            if token == "reg":
                space = "reg"
            elif token == "align":
                align = _parse_alignment(tokens)
            elif token in TYPE_WIDTHS:
                element = token
            elif token in ("v2", "v4"):
                vector = int(token[1:])
            elif token not in ("param", "ptr", "global", "const", "shared", "local"):
                raise tokens.error(f"parameter type '.{token}' is not supported by the soft GPU")
        if not element:
            raise tokens.error("a parameter without a type")
        param = Variable(tokens.name(), space, element, tokens.line())
        param.size *= vector
        param.align = max(param.align, align) if TYPE_WIDTHS[element] > 8 else align or 1
        _parse_dimensions(tokens, param)
        params.append(param)
        tokens.accept(",")
    return params


def _parse_function(tokens: Tokens, module: Module, linkage: str) -> None:
    is_entry = tokens.next() == ".entry"
    while tokens.accept(".attribute"):
        while tokens.next() != ")":
            pass
    rets = parse_parameters(tokens) if tokens.peek() == "(" else []
    function = Function(tokens.name(), is_entry, tokens.line(tokens.index - 1))
    function.linkage = linkage
    function.rets = rets
    function.module = module
    if tokens.peek() == "(":
        function.params = parse_parameters(tokens)
    _parse_limits(tokens, function)
    if tokens.accept(";"):
        module.functions.setdefault(function.name, function)
        return
    parse_body(tokens, function)
    function.defined = True
    known = module.functions.get(function.name)
    if known is not None and known.defined:
        if "weak" not in (linkage, known.linkage):
            raise tokens.error(f"function '{function.name}' is defined twice")
        if known.linkage != "weak":
            return
        if linkage == "weak":
            return
    if known is not None and not linkage:
        function.linkage = known.linkage if known.linkage != "extern" else "visible"
    module.functions[function.name] = function


def _parse_limits(tokens: Tokens, function: Function) -> None:
    """Performance directives between parameters and body."""
    while tokens.peek().startswith("."):
        directive = tokens.next()
        if directive in (".noreturn", ".explicitcluster", ".blocksareclusters"):
            continue
        if directive == ".pragma":
            while tokens.next() != ";":
                pass
            continue
        if directive == ".abi_preserve" or directive == ".abi_preserve_control":
            tokens.integer()
            continue
        if directive not in (
            ".maxntid", ".reqntid", ".minnctapersm", ".maxnctapersm", ".maxnreg", ".reqnctapercluster",
            ".maxclusterrank",
        ):  # fmt: skip
            raise tokens.error(f"'{directive}' is not supported by the soft GPU")
        numbers = [tokens.integer()]
        while tokens.accept(","):
            numbers.append(tokens.integer())
        numbers += [1] * (3 - len(numbers))
        product = numbers[0] * numbers[1] * numbers[2]
        if directive == ".maxntid":
            function.max_threads = min(product, 1024)
        elif directive == ".reqntid":
            function.max_threads = min(product, 1024)
            function.required_threads = (numbers[0], numbers[1], numbers[2])
