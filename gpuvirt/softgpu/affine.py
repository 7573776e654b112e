# SPDX-License-Identifier: Apache-2.0
"""How registers differ between the lanes of a group: not at all, by a constant step, or in any way.

A group is 32 threads with consecutive %tid.x from a multiple of 32 on, and the same %tid.y and %tid.z. A register
whose value is `base + lane * step` needs one C variable for all lanes. Sums and constant multiples of such registers
are again such registers, exactly, in the arithmetic of their width; only widening may differ, where the narrow value
wraps.
"""

from __future__ import annotations

from .liveness import definitions
from .syntax import TYPE_WIDTHS, Function, Instruction, Operand, Variable


class Shape:
    """What is known of a register: value = base + lane * step.

    widened   it comes from widening a value that may wrap: the base holds for a part of the lanes at a time
    bound     no lane's value, as an unsigned number, is greater; 0 if unknown
    aligned   step is 1 and the base is a multiple of 32
    mask      for predicates: the comparison that an aligned value makes them; kept as a bit for each lane
    """

    __slots__ = ("aligned", "bound", "mask", "step", "widened")

    def __init__(self, step: int, bound: int = 0, aligned: bool = False, widened: bool = False, mask: str = "") -> None:
        self.mask = mask
        self.step = step
        self.bound = bound if bound < 1 << 31 else 0
        self.aligned = aligned
        self.widened = widened

    def meet(self, other: Shape) -> Shape | None:
        """What holds for both; None if they have nothing in common."""
        if self.step != other.step or self.widened or other.widened or self.mask or other.mask:
            return None
        bound = max(self.bound, other.bound) if self.bound and other.bound else 0
        return Shape(self.step, bound, self.aligned and other.aligned)

    def same(self, other: Shape) -> bool:
        """Whether nothing differs."""
        mine = (self.step, self.bound, self.aligned, self.widened, self.mask)
        return mine == (other.step, other.bound, other.aligned, other.widened, other.mask)

    @property
    def uniform(self) -> bool:
        """Whether all lanes see the same."""
        return self.step == 0 and not self.widened and not self.mask


UNIFORM = Shape(0)

_PURE = frozenset(
    (
        "mov", "add", "sub", "mul", "mad", "mul24", "mad24", "div", "rem", "min", "max", "neg", "abs", "and", "or",
        "xor", "not", "cnot", "shl", "shr", "setp", "set", "selp", "slct", "cvt", "cvta", "bfe", "bfi", "popc", "clz",
        "prmt", "lop3", "shf", "sad", "fma", "ld",
    )
)  # fmt: skip
_INTEGERS = frozenset(("u32", "s32", "b32", "u64", "s64", "b64"))
_NARROW = frozenset(("u32", "s32", "b32"))
_OPERATORS = {
    "lo": "lt",
    "ls": "le",
    "hi": "gt",
    "hs": "ge",
    **{name: name for name in ("eq", "ne", "lt", "le", "gt", "ge")},
}
_SWAPPED = {"eq": "eq", "ne": "ne", "lt": "gt", "gt": "lt", "le": "ge", "ge": "le"}
_EDGES = {"lt": 0, "ge": 0, "le": 31, "gt": 31}  # constants modulo 32 for which all lanes of a group agree
_STEP_MOST = 1 << 16
_UNIFORM_SPECIALS = ("%ntid.", "%ctaid.", "%nctaid.", "%tid.y", "%tid.z", "%nwarpid")


class Shapes:
    """Shapes of the registers of one kernel. `shape[name]`; a name that is missing differs in any way."""

    def __init__(self, function: Function, floats: set[str], inner: set[int], warps: bool, refused: set[str]) -> None:
        self._function = function
        self._floats = floats
        self._warps = warps
        self.shape: dict[str, Shape] = {}
        self._constants: dict[str, int] = {}
        writers: dict[str, list[int]] = {}
        for index, instruction in enumerate(function.body):
            for name in definitions(instruction):
                writers.setdefault(name, []).append(index)
        self._written = set(writers)
        for name in function.registers:
            if name not in writers and name not in refused:
                self.shape[name] = UNIFORM  # nobody writes it: it is 0
        self._find_constants(writers)
        varying = set(refused)
        for name, indexes in writers.items():
            if len(indexes) > 1 and any(index in inner for index in indexes):
                varying.add(name)
        self._solve(writers, varying)
        self._varying = varying | {name for name in writers if name not in self.shape}

    def _find_constants(self, writers: dict[str, list[int]]) -> None:
        for name, indexes in writers.items():
            i = self._function.body[indexes[0]]
            if len(indexes) == 1 and i.base == "mov" and not i.guard and i.operands[1].kind == "int":
                self._constants[name] = i.operands[1].value

    def _solve(self, writers: dict[str, list[int]], varying: set[str]) -> None:
        """Starts with "all are the same" and gives up what does not hold."""
        body = self._function.body
        readers: dict[str, set[int]] = {}
        for index, instruction in enumerate(body):
            for name in _names(instruction):
                readers.setdefault(name, set()).add(index)
        todo = set(range(len(body)))
        while todo:
            changed: set[str] = set()
            for index in sorted(todo):
                instruction = body[index]
                made: Shape | None = None
                if not self._pending(instruction, varying):
                    made = self._result(instruction, varying)
                elif instruction.base != "label":
                    continue
                for name in definitions(instruction):
                    if name not in varying and self._join(name, made, len(writers[name]) > 1, varying):
                        changed.add(name)
            todo = set().union(*(readers.get(name, set()) for name in changed)) if changed else set()

    def _pending(self, i: Instruction, varying: set[str]) -> bool:
        """Whether nothing is known yet of a register that it reads."""
        return any(name not in varying and name not in self.shape and name in self._written for name in _names(i))

    def _join(self, name: str, made: Shape | None, many: bool, varying: set[str]) -> bool:
        known = self.shape.get(name)
        if made is not None and made.step and (name in self._floats or self._width(name) < 32):
            made = None
        if made is not None and (made.widened or made.mask) and many:
            made = None
        if made is not None and known is not None and many:
            made = known.meet(made)
        if made is None:
            varying.add(name)
            self.shape.pop(name, None)
            return True
        if many:
            made = Shape(made.step, 0, False, made.widened)  # counters grow: no bound
        if known is not None and known.same(made):
            return False
        self.shape[name] = made
        return True

    def _width(self, name: str) -> int:
        return TYPE_WIDTHS[self._function.registers[name]]

    def of(self, operand: Operand, varying: set[str]) -> Shape | None:
        """Shape of an operand's value."""
        if operand.kind == "reg":
            if operand.name in self._constants and operand.name not in varying:
                return Shape(0, max(self._constants[operand.name], 0))
            if operand.name in varying:
                return None
            return self.shape.get(operand.name, UNIFORM)
        if operand.kind == "int":
            return Shape(0, max(operand.value, 0))
        if operand.kind == "float":
            return UNIFORM
        if operand.kind == "special":
            if operand.name == "%tid.x":
                return Shape(1, 1023, True)
            if operand.name == "%laneid" and self._warps:
                return Shape(1, 31, True)
            if operand.name == "%warpid" and self._warps:
                return UNIFORM
            return UNIFORM if operand.name.startswith(_UNIFORM_SPECIALS) else None
        if operand.kind == "sym":
            return UNIFORM if self._everywhere(operand.name) else None
        if operand.kind == "mem":
            return self.of(operand.items[0], varying)
        if operand.kind == "vec" and all(self._same(item, varying) for item in operand.items):
            return UNIFORM
        return None

    def known(self, operand: Operand) -> Shape | None:
        """Shape of an operand, None if lanes differ in any way."""
        return self.of(operand, self._varying)

    def uniform(self, operand: Operand) -> bool:
        """Whether all lanes see the same."""
        return self._same(operand, self._varying)

    def _same(self, operand: Operand, varying: set[str]) -> bool:
        shape = self.of(operand, varying)
        return shape is not None and shape.uniform

    def _everywhere(self, name: str) -> bool:
        """Whether a symbol means the same address for all lanes."""
        function = self._function
        symbol = function.locals.get(name)
        if symbol is not None:
            return symbol.space not in ("local", "param")
        if any(parameter.name == name for parameter in function.params):
            return True
        found = function.module.symbols.get(name) if function.module is not None else None
        return isinstance(found, Variable) and found.space in ("global", "const", "shared")

    def _constant(self, operand: Operand) -> int | None:
        if operand.kind == "int":
            return operand.value
        return self._constants.get(operand.name) if operand.kind == "reg" else None

    def _result(self, i: Instruction, varying: set[str]) -> Shape | None:
        """Shape of what an instruction writes."""
        if i.base not in _PURE or "cc" in i.mods or (i.guard and not self._guarded(i, varying)):
            return None
        if i.base == "ld" and not ("param" in i.mods or "const" in i.mods):
            return None
        sources = [self.of(operand, varying) for operand in i.operands[1:]]
        if all(s is not None and s.uniform for s in sources):
            return self._same_for_all(i, [s for s in sources if s is not None])
        if i.base == "ld" or any(s is None or s.mask for s in sources) or not i.types:
            return None
        known = [s for s in sources if s is not None]
        if i.base == "mov" and i.types[0] in _INTEGERS and i.operands[0].kind == "reg":
            return known[0]
        if i.base == "cvta":
            return Shape(known[0].step, 0, False, known[0].widened)
        if i.base == "setp":
            return self._comparison(i, known)
        if i.types[-1] in _INTEGERS and "sat" not in i.mods:
            return self._arithmetic(i, known)
        return None

    def _guarded(self, i: Instruction, varying: set[str]) -> bool:
        return self._same(Operand("reg", i.guard), varying)

    def _same_for_all(self, i: Instruction, sources: list[Shape]) -> Shape:
        if i.base == "mov" and len(sources) == 1:
            return Shape(0, sources[0].bound)
        return UNIFORM

    def _comparison(self, i: Instruction, known: list[Shape]) -> Shape | None:
        """`%tid.x < 32` is the same for a whole group, `%tid.x < n` holds for the first lanes."""
        operator = _OPERATORS.get(i.mods[0])
        if operator is None or len(known) > 2 or i.operands[0].kind != "reg" or i.types[-1] not in _NARROW:
            return None
        value, limit = known
        if not value.aligned:
            value, limit, operator = limit, value, _SWAPPED[operator]
        if not value.aligned or not limit.uniform or i.guard:
            return None
        constant = self._constant(i.operands[2])
        if constant is not None and 0 <= constant < 1 << 31 and constant % 32 == _EDGES.get(operator, -1):
            return UNIFORM
        return Shape(0, mask=operator)

    def _arithmetic(self, i: Instruction, known: list[Shape]) -> Shape | None:
        base = i.base
        a = known[0]
        widened = any(s.widened for s in known)
        if base in ("add", "sub") and "wide" not in i.mods:
            return self._sum(a, known[1], -1 if base == "sub" else 1, i.operands[2])
        if base in ("mul", "mad"):
            return self._product(i, known)
        value = self._constant(i.operands[2]) if len(i.operands) > 2 else None
        if base == "shl" and value is not None and 0 <= value < 16:
            return _stepped(a.step << value, a.bound << value, widened=widened)
        if base == "shr" and value is not None and 5 <= value < 32 and a.aligned:
            return Shape(0, a.bound >> value)
        if base == "and" and value is not None and a.aligned and value >= 0:
            if value == 31:
                return Shape(1, 31, True)
            return Shape(0, a.bound) if value % 32 == 0 else None
        if base == "cvt" and len(i.types) == 2 and i.types[0] in _INTEGERS:
            to, source = TYPE_WIDTHS[i.types[0]], TYPE_WIDTHS[i.types[1]]
            if to > source:
                return self._wide(a, 1, a.aligned)
            return Shape(a.step, a.bound, a.aligned, a.widened)
        return None

    def _sum(self, a: Shape, b: Shape, sign: int, operand: Operand) -> Shape | None:
        value = self._constant(operand)
        bound = a.bound + b.bound if sign > 0 and a.bound and (b.bound or value == 0) else 0
        aligned = bool(bound) and a.aligned and value is not None and value % 32 == 0
        return _stepped(a.step + sign * b.step, bound, aligned, a.widened or b.widened)

    def _product(self, i: Instruction, known: list[Shape]) -> Shape | None:
        wide = "wide" in i.mods
        if not wide and "lo" not in i.mods:
            return None
        a, b = known[0], known[1]
        factor = self._constant(i.operands[2])
        if a.step == 0 and b.step != 0:
            a, b, factor = b, a, self._constant(i.operands[1])
        if a.uniform and b.uniform:
            product: Shape | None = UNIFORM
        elif factor is None or factor < 0 or factor >= _STEP_MOST or b.step:
            return None
        elif wide:
            product = self._wide(a, factor, False)
        else:
            product = _stepped(a.step * factor, a.bound * factor, widened=a.widened)
        if i.base == "mul" or product is None:
            return product
        return _stepped(product.step + known[2].step, 0, False, product.widened or known[2].widened)

    def _wide(self, a: Shape, factor: int, aligned: bool) -> Shape | None:
        if a.widened:
            return None
        if a.bound:
            return _stepped(a.step * factor, a.bound * factor, aligned)
        return _stepped(a.step * factor, 0, False, True)


def _stepped(step: int, bound: int, aligned: bool = False, widened: bool = False) -> Shape | None:
    return Shape(step, bound, aligned, widened) if -_STEP_MOST < step < _STEP_MOST else None


def _names(i: Instruction) -> list[str]:
    """Registers that decide about the shape of what the instruction writes."""
    names = [i.guard] if i.guard else []
    for operand in i.operands[1:]:
        names += operand.registers()
    return names
