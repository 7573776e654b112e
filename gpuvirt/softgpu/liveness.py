# SPDX-License-Identifier: Apache-2.0
"""Which registers are live where: backward dataflow over basic blocks, with integers as bit sets."""

from __future__ import annotations

from .syntax import Function, Instruction

TYPE_CHECKING = False  # importing typing costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Iterable

_NO_DESTINATION = frozenset(
    [
        "st",
        "red",
        "bra",
        "brx",
        "ret",
        "exit",
        "membar",
        "fence",
        "prefetch",
        "prefetchu",
        "trap",
        "brkpt",
        "nanosleep",
        "pmevent",
        "discard",
        "applypriority",
        "label",
        "cp",
        "tensormap",
        "griddepcontrol",
        "setmaxnreg",
    ]
)
_BARRIERS = frozenset(("bar", "barrier"))
_MBARRIER_WRITES = frozenset(("arrive", "arrive_drop", "test_wait", "try_wait", "pending_count"))


def definitions(instruction: Instruction) -> list[str]:
    """Registers that the instruction writes."""
    base = instruction.base
    operands = instruction.operands
    if base in _NO_DESTINATION or not operands:
        return []
    if base in _BARRIERS and "red" not in instruction.mods:
        return []
    if base == "mbarrier" and instruction.mods[0] not in _MBARRIER_WRITES:
        return []
    if base == "call" and (operands[0].kind != "list" or len(operands) == 1):
        return []
    return operands[0].registers()


def uses(instruction: Instruction) -> list[str]:
    """Registers that the instruction reads, the guard included."""
    operands = instruction.operands
    names = [instruction.guard] if instruction.guard else []
    for operand in operands[1:] if definitions(instruction) else operands:
        names += operand.registers()
    return names


class Liveness:
    """Result for one function. Bit i of a set stands for `names[i]`."""

    def __init__(self, function: Function) -> None:
        self._bit: dict[str, int] = {}
        self.names: list[str] = []
        self._body = function.body
        self._use = [self._set(uses(i)) for i in function.body]
        self._def = [self._set(definitions(i)) for i in function.body]
        self._blocks(function)
        self._solve()

    def _set(self, names: list[str]) -> int:
        bits = 0
        for name in names:
            bit = self._bit.get(name)
            if bit is None:
                bit = self._bit[name] = 1 << len(self.names)
                self.names.append(name)
            bits |= bit
        return bits

    def _blocks(self, function: Function) -> None:
        body = self._body
        starts = {0}
        for index, instruction in enumerate(body):
            if instruction.base == "label":
                starts.add(index)
            elif instruction.base in ("bra", "brx", "ret", "exit", "trap"):
                starts.add(index + 1)
        self._starts = sorted(start for start in starts if start < len(body))
        block_of = {}
        for number, start in enumerate(self._starts):
            if body[start].base == "label":
                block_of[body[start].opcode] = number
        self._ends = [*self._starts[1:], len(body)]
        self._next: list[list[int]] = []
        for number, end in enumerate(self._ends):
            last = body[end - 1]
            following = [number + 1] if number + 1 < len(self._ends) else []
            if last.base in ("ret", "exit", "trap") and not last.guard:
                following = []
            elif last.base == "bra":
                target = block_of.get(last.operands[0].name)
                following = (following if last.guard else []) + ([] if target is None else [target])
            elif last.base == "brx":
                targets = function.tables.get(last.operands[1].name, [])
                following = (following if last.guard else []) + [block_of[t] for t in targets if t in block_of]
            self._next.append(following)

    def _transfer(self, index: int, live: int) -> int:
        """Live before instruction `index`, given what is live after it. A guarded write may not happen: no kill."""
        if not self._body[index].guard:
            live &= ~self._def[index]
        return live | self._use[index]

    def _solve(self) -> None:
        count = len(self._starts)
        gen, kill = [0] * count, [0] * count
        for number in range(count):
            generated = killed = 0
            for index in range(self._ends[number] - 1, self._starts[number] - 1, -1):
                if not self._body[index].guard:
                    generated &= ~self._def[index]
                    killed |= self._def[index]
                generated |= self._use[index]
            gen[number], kill[number] = generated, killed
        self._in = [0] * count
        changed = True
        while changed:
            changed = False
            for number in range(count - 1, -1, -1):
                live = gen[number] | (self._out(number) & ~kill[number])
                if live != self._in[number]:
                    self._in[number] = live
                    changed = True

    def _out(self, number: int) -> int:
        live = 0
        for following in self._next[number]:
            live |= self._in[following]
        return live

    def expand(self, bits: int) -> list[str]:
        """Names in a set."""
        return [name for index, name in enumerate(self.names) if bits >> index & 1]

    def at_entry(self) -> list[str]:
        """Registers that may be read before they are written."""
        return self.expand(self._in[0]) if self._in else []

    def after(self, wanted: set[int]) -> dict[int, list[str]]:
        """For each wanted instruction: registers live after it which it does not write itself."""
        result = {}
        for number, start in enumerate(self._starts):
            end = self._ends[number]
            if not any(start <= index < end for index in wanted):
                continue
            live = self._out(number)
            for index in range(end - 1, start - 1, -1):
                if index in wanted:
                    result[index] = self.expand(live & ~self._def[index])
                live = self._transfer(index, live)
        return result

    def around(self) -> tuple[list[int], list[int]]:
        """For each instruction the sets of registers that are live before and after it."""
        before, after = [0] * len(self._body), [0] * len(self._body)
        for number, start in enumerate(self._starts):
            live = self._out(number)
            for index in range(self._ends[number] - 1, start - 1, -1):
                after[index] = live
                live = before[index] = self._transfer(index, live)
        return before, after

    def bits(self, names: Iterable[str]) -> int:
        """The set of these registers; those that no instruction mentions are left out."""
        result = 0
        for name in names:
            result |= self._bit.get(name, 0)
        return result

    def unsaved(self, waits: dict[int, list[str]]) -> dict[int, list[str]]:
        """For each wait: those of its live registers whose saved copy may differ from the register.

        Forward dataflow. A wait leaves copy and register equal for all registers live after it; writing a register
        makes them differ. A register that stays as it is from one wait to the next is stored once and, where nothing
        reads it in between, not even loaded: this is most of the cost of a barrier.
        """
        live = {index: self._set(names) for index, names in waits.items()}
        everything = (1 << len(self.names)) - 1
        count = len(self._starts)
        before: list[list[int]] = [[] for _ in range(count)]
        for number, following in enumerate(self._next):
            for target in following:
                before[target].append(number)
        out = [everything] * count
        changed = True
        while changed:
            changed = False
            for number in range(count):
                same = self._same_at_end(number, self._same_at_start(number, before, out), live, None)
                if same != out[number]:
                    out[number] = same
                    changed = True
        result: dict[int, list[str]] = {}
        for number in range(count):
            self._same_at_end(number, self._same_at_start(number, before, out), live, result)
        return result

    def _same_at_start(self, number: int, before: list[list[int]], out: list[int]) -> int:
        if number == 0 or not before[number]:
            return 0
        same = out[before[number][0]]
        for previous in before[number][1:]:
            same &= out[previous]
        return same

    def _same_at_end(self, number: int, same: int, live: dict[int, int], result: dict[int, list[str]] | None) -> int:
        """Registers equal to their saved copies at the end of a block; fills `result` for the waits in it."""
        for index in range(self._starts[number], self._ends[number]):
            if index in live:
                if result is not None:
                    result[index] = self.expand(live[index] & ~same)
                same = same & live[index] if self._body[index].guard else live[index]
            same &= ~self._def[index]
        return same

    def peak(self) -> int:
        """Largest number of registers live at the start of a block."""
        return max((bin(live).count("1") for live in self._in), default=0)
