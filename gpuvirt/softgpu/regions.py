# SPDX-License-Identifier: Apache-2.0
"""Which parts of a kernel all lanes of a group pass together, and where they part and meet again between two waits."""

from __future__ import annotations

from .affine import Shapes
from .flow import END, Flow, joins
from .inline import yields
from .instructions.warp import is_plain_barrier
from .syntax import Function, Instruction, Operand

_SPYING = frozenset(("volatile", "acquire", "relaxed", "mmio"))
_TAIL_MOST = 16  # instructions of the way out of lanes that leave early: they are emitted twice


class Apart(Exception):
    """Lanes may come to a wait at different times: the kernel needs the general scheduler."""


class Region:
    """What lanes do between the branch where they part and the block `join`; END when none goes on."""

    __slots__ = ("blocks", "join")

    def __init__(self, blocks: list[int], join: int) -> None:
        self.blocks = blocks
        self.join = join


class Regions:
    """`tops`: blocks that all lanes of a group, as far as they live, pass together.

    `region[n]`: what lanes do apart from each other at the end of block n.
    """

    def __init__(self, function: Function, floats: set[str], refused: set[str]) -> None:
        body = function.body
        _check(body)
        self.warps = any(yields(i) and not is_plain_barrier(i) for i in body)
        self.flow = Flow(function)
        self._joins = joins(dict(enumerate(self.flow.next)))
        inner: set[int] = set()
        while True:
            self.shapes = Shapes(function, floats, inner, self.warps, refused)
            self._divide()
            found = inner | {index for region in self.region.values() for index in self._indexes(region)}
            if found == inner:
                break
            inner = found

    def _indexes(self, region: Region) -> list[int]:
        return [n for block in region.blocks for n in range(self.flow.start[block], self.flow.end[block])]

    def together(self, number: int) -> bool:
        """Whether all lanes leave a block by the same way."""
        last = self.flow.last(number)
        if len(set(self.flow.next[number])) == 1 and not (last.guard and last.base in ("trap", "brkpt")):
            return True
        if last.guard and not self.shapes.uniform(Operand("reg", last.guard)):
            return False
        return last.base != "brx" or self.shapes.uniform(last.operands[0])

    def _divide(self) -> None:
        flow = self.flow
        self.region: dict[int, Region] = {}
        self.tops: set[int] = set()
        self._waiting_joins: dict[int, int] | None = None
        todo = [0]
        while todo:
            number = todo.pop()
            if number in self.tops or number == END:
                continue
            self.tops.add(number)
            if self.together(number):
                todo += flow.next[number]
                continue
            region = self.region[number] = self._part(number)
            todo.append(region.join)

    def _part(self, number: int) -> Region:
        flow = self.flow
        targets = list(dict.fromkeys(flow.next[number]))
        waiting = [n for n in targets if n != END and flow.may_wait[n]]
        if not waiting:
            join = self._joins[number]
        elif len(waiting) == 1:
            join = waiting[0]
        else:
            join = self._join_of_waiting(number)
        blocks = sorted(flow.reach(targets, join))
        if any(flow.waits[n] for n in blocks) or self._spins(blocks):
            raise Apart
        if waiting and sum(flow.end[n] - flow.start[n] for n in blocks if not flow.may_wait[n]) > _TAIL_MOST:
            raise Apart
        return Region(blocks, join)

    def _spins(self, blocks: list[int]) -> bool:
        """Whether a lane may wait in a loop for another one, as for a lock, which must then be free to go on."""
        flow = self.flow
        if not any(target in blocks and target <= n for n in blocks for target in flow.next[n]):
            return False
        return any(
            (i.base == "atom" and ("cas" in i.mods or "exch" in i.mods))
            or (i.base == "ld" and not _SPYING.isdisjoint(i.mods))
            for n in blocks
            for i in flow.body[flow.start[n] : flow.end[n]]
        )

    def _join_of_waiting(self, number: int) -> int:
        """Where lanes meet again that have not left for good."""
        flow = self.flow
        if self._waiting_joins is None:
            graph: dict[int, list[int]] = {}
            for block, following in enumerate(flow.next):
                if not flow.may_wait[block]:
                    continue
                inside = [n for n in following if n != END and flow.may_wait[n]]
                leaves = len(inside) < len(following) and (not inside or self.together(block))
                graph[block] = [*inside, END] if leaves else inside
            self._waiting_joins = joins(graph)
        join = self._waiting_joins[number]
        if join == END:
            raise Apart
        return join


def _check(body: list[Instruction]) -> None:
    """Refuses what lanes cannot do side by side."""
    for i in body:
        if yields(i) and (i.guard or not _simple(i)):
            raise Apart
        if "cc" in i.mods or i.base in ("addc", "subc", "madc"):
            raise Apart


def _simple(i: Instruction) -> bool:
    if i.base in ("bar", "barrier"):
        return "warp" in i.mods or is_plain_barrier(i)
    return i.base not in ("mbarrier", "nanosleep")
