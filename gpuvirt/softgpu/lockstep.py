# SPDX-License-Identifier: Apache-2.0
"""A kernel whose lanes come to each wait together, as loops over the lanes of a group between the waits.

    for each group of 32 threads in a row:
        what is the same for all lanes, once
        for each lane: the rest, up to the next wait         <- the C compiler makes vector instructions of this loop
        exchange what the lanes show to each other, or let the other groups come to the barrier
        ...

How a loop looks is in lane_loops.py, which code lanes pass together in regions.py, which registers differ in affine.py.
"""

from __future__ import annotations

from .affine import Shape
from .emit import unsupported
from .flow import END
from .inline import yields
from .instructions import HANDLERS
from .instructions.warp import is_plain_barrier
from .lane_loops import LaneLoops, Refused
from .liveness import definitions, uses
from .syntax import TYPE_WIDTHS, Instruction

TYPE_CHECKING = False  # importing typing costs milliseconds
if TYPE_CHECKING:
    from collections.abc import Callable


class LockstepEmitter(LaneLoops):
    """Emits the function of a group. Raises Apart when the kernel is not of this kind, Refused to be tried again."""

    # Instructions

    def _instruction(self, index: int, inside: bool) -> None:
        """Emits one instruction that is no branch; `inside`: the lanes have parted."""
        i = self.instruction = self.function.body[index]
        self._current = index
        if i.base == "label":
            return
        if yields(i):
            self._wait(index, i)
            return
        written = definitions(i)
        shapes = [self.shape.get(name) for name in written]
        if not written or any(shape is None for shape in shapes):
            self._open(self._before[index])
            self._touched.update(written, uses(i))
            self._written.update(written)
            self._enter("lane")
            self._handle(i)
        elif shapes[0] is not None and shapes[0].widened:
            self._open(self._before[index])
            self._widened(i, written[0], shapes[0])
        else:
            if self._read & set(written):  # the open loop still needs the old value
                if inside:
                    raise Refused(set(written))
                self._flush(self._before[index])
            self._enter("top")
            if shapes[0] is not None and shapes[0].mask:
                self._mask(i, shapes[0].mask)
            else:
                self._handle(i)
        self._enter("top")

    def _mask(self, i: Instruction, operator: str) -> None:
        """A bit for each lane: how an aligned value compares with one that is the same for all."""
        a, b = i.operands[1:]
        shape = self.regions.shapes.known(a)
        if shape is None or not shape.aligned:
            a, b = b, a
        c_type = "int32_t" if i.types[-1] == "s32" else "uint32_t"
        first, limit = self.read(a, "u32"), self.read(b, "u32")
        self.emit(f"{i.operands[0].name} = gv_lanes_{operator}({first}, ({c_type}){limit});")

    def _handle(self, i: Instruction) -> None:
        handler = HANDLERS.get(i.base)
        if handler is None:
            raise unsupported(i)
        try:
            if i.guard:
                self.emit(f"if ({self._guard(i)}) {{")
            handler(self, i)
            if i.guard:
                self.emit("}")
        except (IndexError, KeyError, ValueError, StopIteration):
            raise self.error(f"'{i.opcode}' has wrong operands or types") from None

    def _guard(self, i: Instruction) -> str:
        return ("!" if i.guard_not else "") + self.register_text(i.guard)

    def _widened(self, i: Instruction, name: str, shape: Shape) -> None:
        """A base for the lanes from `lo` on, up to where the narrow value wraps."""
        c_type = self.c_type(name)
        self._place = "part"
        self.lines = self._parts
        self.emit(f"{c_type} {name};")
        for operand in i.operands[1:]:
            narrow = self.shape.get(operand.name) if operand.kind == "reg" else None
            if narrow is None or not narrow.step or narrow.bound or self.width(operand) != 32:
                continue
            sign = "s" if "s32" in i.types else "u"
            step = narrow.step
            self.emit(f"gv_until_wrap_{sign}(&hi, lo, {self.register_text(operand.name)}, {step});")
        self._handle(i)
        self.emit(f"{name} -= ({c_type})lo * {shape.step & (1 << TYPE_WIDTHS[self.function.registers[name]]) - 1}ull;")
        self._ready.add(name)

    # Waits

    def wait(self, result: str, setup: list[str]) -> None:
        """Called by handlers of warp operations: ends the loop, exchanges, and goes on in another."""
        self.waits += 1
        self.lines += setup
        left = self._behind[self._current] & ~self._live.bits(definitions(self.instruction))
        self._flush(left)
        self.out.append("if (!gv_meet(W, alive)) return GV_BLOCK_DEADLOCK;")
        self._open(left)

    def _wait(self, index: int, i: Instruction) -> None:
        after = self._behind[index]
        same = self.regions.shapes.uniform
        if is_plain_barrier(i):
            self._flush(after)
            self.resumes += 1
            kept = [n for n in self._live.expand(after) if n in self.shape]
            for name in kept:
                if self.shape[name].widened:
                    raise Refused({name})
                self.saved[name] = self.scalar_type(name)
            changed = [n for n in kept if n in self._changed[index]]
            self.out.append(f"C->pc = {self.resumes};" + "".join(f" C->{n} = {n};" for n in changed))
            self.out.append(f"return GV_BARRIER; W{self.resumes}:;" + "".join(f" {n} = C->{n};" for n in kept))
        elif i.base in ("bar", "barrier") and same(i.operands[0]):
            self._flush(after)
        elif i.base == "shfl" and "sync" in i.mods and all(same(operand) for operand in i.operands[2:]):
            self._shuffle(index, i)
        else:
            self._touched.update(definitions(i), uses(i))
            self._written.update(definitions(i))
            self._open(self._before[index])
            self._enter("lane")
            self._handle(i)
            self._touched.update(definitions(i))
            self._written.update(definitions(i))
            self._enter("top")

    def _shuffle(self, index: int, i: Instruction) -> None:
        """A shuffle of which only the value differs between lanes."""
        d, a, b, c = i.operands[:4]
        kind = next(mod.upper() for mod in i.mods if mod in ("up", "down", "bfly", "idx"))
        written = definitions(i)
        left = self._behind[index] & ~self._live.bits(written)
        self._open(self._before[index])
        self._touched.update(a.registers())
        self._enter("lane")
        self._shows = True
        self.emit(f"shown = {self.read(a, 'b32')};")
        self._flush(left)
        self._enter("top")
        how = f"GV_SHFL_{kind}, {self.read(b, 'u32')}, {self.read(c, 'u32')}"
        self.emit(f"inside = gv_shuffle_together(C->shown, {how}, alive);")
        self._open(left)
        self._touched.update(written)
        self._written.update(written)
        self._enter("lane")
        self._shows = True
        if d.kind == "pair":
            self.assign(d.items[0], "b32", "shown")
            self.assign(d.items[1], "pred", "inside >> l & 1")
        else:
            self.assign(d, "b32", "shown")
        self._enter("top")

    def leave(self, result: str) -> None:
        """A lane ends, or all do."""
        if self._place == "top":
            self.emit(f"return {result or 'GV_EXIT'};")
        elif result in ("", "GV_EXIT"):
            self._deaths = True
            self.emit(f"{{ dead |= 1u << l; goto E{self._loops}; }}")
        else:
            self.emit(f"return {result};")

    # Blocks

    def run(self) -> None:
        """Translates the body into `out`."""
        tops = self.regions.tops
        entries = dict.fromkeys(tops, 0)
        for number in tops:
            for target in self._ways(number):
                if target != END:
                    entries[target] += 1
        self._entries = entries
        self._done: set[int] = set()
        for number in sorted(tops):
            if number not in self._done:
                self._chain(number)

    def _ways(self, number: int) -> list[int]:
        region = self.regions.region.get(number)
        return list(dict.fromkeys(self.flow.next[number])) if region is None else [region.join]

    def _chain(self, number: int) -> None:
        """Blocks that follow each other without another way in between."""
        flow = self.flow
        self.out.append(f"T{number}:;")
        while True:
            self._done.add(number)
            last = self._straight(number, False)
            region = self.regions.region.get(number)
            if region is not None:
                self._apart(number, region.blocks, region.join)
            elif last is not None and self._chooses(number, last):
                self._flush(self._before[flow.end[number] - 1])
                self._enter("top")
                self._turn(number, last, self._go)
                return
            elif last is not None and last.base in ("trap", "brkpt"):
                self._flush(0)
                self.out.append("return GV_BLOCK_TRAP;")
                return
            following = self._ways(number)[0]
            if following == END:
                self._flush(0)
                self.out.append("return GV_EXIT;")
                return
            if self._entries[following] > 1 or following in self._done:
                self._flush(self._before[flow.start[following]])
                self._go(following)
                return
            number = following

    def _chooses(self, number: int, last: Instruction) -> bool:
        if last.guard and last.base in ("trap", "brkpt"):
            return True
        return last.base == "brx" or (bool(last.guard) and len(set(self.flow.next[number])) > 1)

    def _go(self, target: int) -> None:
        self.out.append("return GV_EXIT;" if target == END else f"goto T{target};")

    def _straight(self, number: int, inside: bool) -> Instruction | None:
        """Emits a block up to its branch, which is returned."""
        for index in range(self.flow.start[number], self.flow.end[number]):
            i = self.function.body[index]
            if i.base in ("bra", "brx", "ret", "exit", "trap", "brkpt"):
                return i
            self._instruction(index, inside)
        return None

    def _apart(self, number: int, blocks: list[int], join: int) -> None:
        """Lanes part at the end of block `number` and meet again at `join`, all in the open loop."""

        def go(target: int) -> None:
            if target == END:
                self.leave("")
            else:
                self.emit(f"goto {f'J{number}' if target == join else f'I{number}_{target}'};")

        last = self.flow.last(number)
        end = self.flow.end[number] - 1
        shape = self.shape.get(last.guard)
        alone = shape is not None and shape.mask and last.base == "bra" and self.flow.next[number].count(join) == 1
        if alone and shape is not None:
            self._flush(self._before[end])
            taken = (self.flow.next[number][0] != join) != last.guard_not
            self._only = f" & {'' if taken else '~'}{last.guard}"
            self._single = shape.mask == ("eq" if taken else "ne")
            self._read.add(last.guard)
        self._open(self._before[end])
        if alone:
            self._enter("lane")
            go(next(target for target in self.flow.next[number] if target != join))
            self._enter("top")
        else:
            self._branch(number, last, go)
        for block in blocks:
            self.lanes.append(f"I{number}_{block}:;")
            inner = self._straight(block, True)
            self._branch(block, inner, go)
        self.lanes.append(f"J{number}:;")
        if alone:
            self._flush(self._before[self.flow.start[join]] if join != END else 0)

    def _branch(self, number: int, last: Instruction | None, go: Callable[[int], None]) -> None:
        self._enter("lane")
        if last is not None:
            self._touched.update(uses(last))
            self._turn(number, last, go)
        else:
            go(self.flow.next[number][0])
        self._enter("top")

    def _turn(self, number: int, last: Instruction, go: Callable[[int], None]) -> None:
        """The branch at the end of a block; `go` emits the jump to another."""
        self.instruction = last
        targets = self.flow.next[number]
        if last.guard:
            self.emit(f"if ({self._guard(last)}) {{")
        if last.base == "brx":
            self.emit(f"switch ({self.read(last.operands[0], 'u32')}) {{")
            for case, target in enumerate(targets[: len(self.function.tables[last.operands[1].name])]):
                self.emit(f"case {case}:")
                go(target)
            self.emit("default: return GV_BLOCK_TRAP; }")
        elif last.base in ("trap", "brkpt"):
            self.emit("return GV_BLOCK_TRAP;")
        elif last.base in ("ret", "exit"):
            go(END)
        else:
            go(targets[0])
        if last.guard:
            self.emit("}")
            go(targets[-1])
