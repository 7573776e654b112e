# SPDX-License-Identifier: Apache-2.0
"""What the parser produces: modules, variables, functions, instructions.

Plain classes with slots instead of dataclasses: this package is started once per module by the driver, and importing
`dataclasses` alone would double its start time.
"""

from __future__ import annotations


class PtxError(Exception):
    """PTX that cannot be translated. `line` is 1-based; 0 when there is no single place."""

    def __init__(self, line: int, message: str) -> None:
        super().__init__(f"line {line}: {message}" if line else message)


class Operand:
    """One operand of an instruction.

    kind      fields used
    reg       name (C name of the register), negated (predicates)
    special   name (`%tid.x`)
    int       value
    float     value (bit pattern), width (32 or 64)
    sym       name, value (byte offset)
    mem       items = [base operand], value (byte offset)
    vec, list items
    pair      items (`d|p`)
    sink      `_`
    """

    __slots__ = ("items", "kind", "name", "negated", "value", "width")

    def __init__(
        self,
        kind: str,
        name: str = "",
        value: int = 0,
        width: int = 0,
        items: list[Operand] | None = None,
        negated: bool = False,
    ) -> None:
        self.kind = kind
        self.name = name
        self.value = value
        self.width = width
        self.items = items if items is not None else []
        self.negated = negated

    def registers(self) -> list[str]:
        """C names of all registers in the operand."""
        if self.kind == "reg":
            return [self.name]
        names: list[str] = []
        for item in self.items:
            names += item.registers()
        return names


class Instruction:
    """One instruction, or a label (`base == "label"`, its name in `opcode`)."""

    __slots__ = ("base", "guard", "guard_not", "line", "mods", "opcode", "operands", "types")

    def __init__(self, opcode: str, operands: list[Operand], line: int) -> None:
        parts = opcode.split(".")
        self.opcode = opcode
        self.base = parts[0]
        self.mods = parts[1:]
        self.types = [part for part in self.mods if part in TYPE_WIDTHS]
        self.operands = operands
        self.guard = ""
        self.guard_not = False
        self.line = line


def label(name: str, line: int) -> Instruction:
    """A label as an entry of a function's body."""
    entry = Instruction("label", [], line)
    entry.opcode = name
    return entry


class Prototype:
    """Sizes that an indirect call must agree on."""

    __slots__ = ("params", "rets")

    def __init__(self, rets: list[Variable], params: list[Variable]) -> None:
        self.rets = rets
        self.params = params

    def signature(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Byte sizes of results and parameters."""
        return tuple(v.size for v in self.rets), tuple(v.size for v in self.params)


class Variable:
    """A .global, .const, .shared, .local, .param or (as a function's parameter) .reg variable."""

    __slots__ = ("align", "element", "init", "line", "linkage", "name", "size", "space", "unsized")

    def __init__(self, name: str, space: str, element: str, line: int) -> None:
        self.name = name
        self.space = space
        self.element = element
        self.size = TYPE_WIDTHS[element] // 8  # bytes, of the whole array
        self.align = max(self.size, 1)
        self.unsized = False  # `name[]`
        self.linkage = ""  # "", visible, extern, weak, common
        self.init: list[Initial] | None = None
        self.line = line


class Initial:
    """One initial element: a number, or an address (`symbol` + `value`), of which `mask` selects bytes."""

    __slots__ = ("mask", "symbol", "value")

    def __init__(self, value: int, symbol: str = "", mask: int = 0) -> None:
        self.value = value
        self.symbol = symbol
        self.mask = mask


class Function:
    """An .entry or .func."""

    __slots__ = (
        "body", "defined", "is_entry", "line", "linkage", "locals", "max_threads", "module", "name", "params",
        "prototypes", "registers", "required_threads", "rets", "tables",
    )  # fmt: skip

    def __init__(self, name: str, is_entry: bool, line: int) -> None:
        self.name = name
        self.is_entry = is_entry
        self.line = line
        self.linkage = ""
        self.rets: list[Variable] = []
        self.params: list[Variable] = []
        self.registers: dict[str, str] = {}  # C name -> PTX type
        self.locals: dict[str, Variable] = {}  # unique name -> .local, .shared, .param variable of the body
        self.body: list[Instruction] = []
        self.prototypes: dict[str, Prototype] = {}
        self.tables: dict[str, list[str]] = {}  # .branchtargets, .calltargets
        self.max_threads = 1024
        self.required_threads = (0, 0, 0)
        self.defined = False
        self.module: Module | None = None  # whose symbols the names in the body mean

    def prototype(self) -> Prototype:
        """The function's own sizes."""
        return Prototype(self.rets, self.params)


class Module:
    """One PTX text."""

    __slots__ = ("aliases", "functions", "symbols", "variables")

    def __init__(self) -> None:
        self.functions: dict[str, Function] = {}
        self.variables: dict[str, Variable] = {}
        self.aliases: dict[str, str] = {}
        self.symbols: dict[str, Function | Variable] = {}  # filled by the linker


TYPE_WIDTHS = {
    "pred": 8,
    "b8": 8, "u8": 8, "s8": 8,
    "b16": 16, "u16": 16, "s16": 16, "f16": 16, "bf16": 16,
    "b32": 32, "u32": 32, "s32": 32, "f32": 32, "f16x2": 32, "bf16x2": 32, "u16x2": 32, "s16x2": 32, "tf32": 32,
    "e4m3x2": 16, "e5m2x2": 16,
    "b64": 64, "u64": 64, "s64": 64, "f64": 64,
    "b128": 128,
}  # fmt: skip
"""Width of each PTX type in bits (predicates occupy a byte)."""
