# SPDX-License-Identifier: Apache-2.0
"""The loop over the lanes of a group that the lockstep emitter is collecting, and what registers mean in it.

Registers that are the same for all lanes, or differ by a constant step, are one C variable; others that are needed in
more than one loop are arrays in the frame of the group. Lanes that have ended are missing in `alive`.
"""

from __future__ import annotations

from .affine import Shape
from .emit import LOCKSTEP, FunctionEmitter
from .instructions.warp import is_plain_barrier
from .layout import Layout
from .regions import Regions
from .special import SPECIAL_VALUES
from .syntax import Function, Operand, Variable


class Refused(Exception):
    """Registers that must differ in any way, after all."""

    def __init__(self, names: set[str]) -> None:
        super().__init__(*sorted(names))
        self.names = names


class LaneLoops(FunctionEmitter):
    """Writes one loop after the other to `out`, the body of a group's function."""

    def __init__(self, layout: Layout, function: Function, name: str, refused: set[str]) -> None:
        super().__init__(layout, function, LOCKSTEP, name)
        self.regions = Regions(function, set(self._floats), refused)
        self.flow = self.regions.flow
        self.shape = self.regions.shapes.shape
        self.resumes = 0  # barriers
        self.arrays: set[str] = set()  # registers with an array in the frame
        self.out = self.lines  # of the group; `lines` is where handlers write
        self._before, self._behind = self._live.around()
        barriers = self._live.after({n for n, i in enumerate(function.body) if is_plain_barrier(i)})
        self._changed = self._live.unsaved(barriers)
        self._place = "top"  # top, lane or part: what reading a register means
        self._ready: set[str] = set()  # widened registers of the open loop
        self._loops = 0
        self._start_loop()

    # Registers

    def register_text(self, name: str) -> str:
        """As for all: the variable, for a lane with the lane's distance from the base."""
        shape = self.shape.get(name)
        if shape is None:
            return name
        if self._place != "top":
            self._read.add(name)
        if shape.widened and name not in self._ready:
            raise Refused({name})
        if shape.mask:
            return f"(_Bool)({name} >> l & 1)"
        if not shape.step or self._place == "top":
            return name
        return self._at(name, shape, "l" if self._place == "lane" else "lo")

    def scalar_type(self, name: str) -> str:
        """C type of the one variable of a register that has a shape."""
        return "uint32_t" if self.shape[name].mask else self.c_type(name)

    def _at(self, name: str, shape: Shape, lane: str) -> str:
        if self.c_type(name) == "uint64_t":
            return f"({name} + {lane} * {shape.step & (1 << 64) - 1}ull)"
        return f"(uint32_t)({name} + (uint32_t){lane} * {shape.step & (1 << 32) - 1}u)"

    def address(self, operand: Operand, space: str) -> str:
        """As for all; a narrow register that cannot wrap is widened before the lane is added, which vectorises."""
        base = operand.items[0] if operand.kind == "mem" else operand
        shape = self.shape.get(base.name) if base.kind == "reg" else None
        if shape is None or not shape.bound or not shape.step or self.width(base) == 64 or self._place != "lane":
            return super().address(operand, space)
        self._read.add(base.name)
        offset = f" {'+' if operand.value > 0 else '-'} {abs(operand.value)}" if operand.value else ""
        text = f"(uint64_t){base.name} + l * {shape.step}ull{offset}"
        return f"S + ({text})" if space == "shared" else f"({text})"

    def special(self, name: str) -> str:
        """As for all; the group is a row of threads."""
        lane = {"top": "", "lane": " + (uint32_t)l", "part": " + (uint32_t)lo"}[self._place]
        if name == "%tid.x":
            return f"(x0{lane})"
        if name in ("%tid.y", "%tid.z"):
            return "C->" + name[-1]
        if name == "%laneid" and self.regions.warps:
            return f"(0u{lane})"
        text = SPECIAL_VALUES[name][1]
        if "T->linear" in text:
            return f"({text.replace('T->linear', f'(linear0{lane})')})"
        return super().special(name)

    def storage(self, variable: Variable) -> str:
        """As for all; variables of the body are in the group's frame."""
        text = super().storage(variable)
        return f"C->{text}[l]" if text.startswith("V_") else text

    # The loop over the lanes that is being collected

    def _start_loop(self) -> None:
        self.lanes: list[str] = []
        self._parts: list[str] = []  # bases that hold for a part of the lanes
        self._touched: set[str] = set()
        self._written: set[str] = set()
        self._read: set[str] = set()
        self._ready = set()
        self._start: int | None = None  # registers live before it
        self._deaths = False
        self._only = ""  # a condition on the lanes of the loop
        self._shows = False  # it takes part in a shuffle
        self._single = False  # it is no loop: one lane at most

    def _open(self, live: int) -> None:
        if self._start is None:
            self._start = live

    def _flush(self, live: int) -> None:
        """Writes the loop; `live` are the registers needed after it."""
        lines, out = self.lanes, self.out
        if lines:
            private = sorted(name for name in self._touched if name not in self.shape)
            loaded = set(self._live.expand((self._start or 0) & self._live.bits(private)))
            stored = self._live.expand(live & self._live.bits(n for n in self._written if n not in self.shape))
            self.arrays.update(loaded, stored)
            mask = "alive" + self._only
            if self._deaths:
                out.append("dead = 0;")
            if self._single:
                out.append(f"if ({mask}) {{ const uint64_t l = __builtin_ctz({mask}), lo = l; uint64_t hi = 32; {{")
                out += [*self._parts, "{"]
            else:
                if self._only:
                    out.append(f"if ({mask}) {{")
                if self._parts:
                    out += ["for (uint64_t lo = 0, hi; lo < 32; lo = hi) { hi = 32;", *self._parts]
                    mask = f"gv_part({mask}, lo, hi)"
                out.append("GV_LANES {")
            for (
                n
            ) in private:  # without a value, one from the lane before would seem to be meant, which does not vectorise
                value = f" = C->{n}[l]" if n in loaded else " = 0" if n in stored else ""
                out.append(f"{self.c_type(n)} {n}{value};")
            out += ["uint32_t shown = C->shown[l];"] * self._shows
            if not self._single:
                out.append(f"if (({mask}) >> l & 1) {{")
            if self.uses_thread:
                fields = f"{{B, x0 + (uint32_t)l, C->y, C->z, linear0 + (uint32_t)l, {self.static_shared}, "
                out.append(f"const struct gv_thread thread = {fields}{self.static_shared}}}, *const T = &thread;")
            if any("lane]" in line or ">> lane" in line for line in lines):
                out.append("const uint32_t lane = (uint32_t)l;")
            out += [*lines, f"E{self._loops}:;" if self._deaths else ""]
            # Of lanes that do not take part, what is stored is what was there, or is needed no more; stores without a
            # mask are faster. Only where the loop is for a part of the lanes at a time it would be the other part's.
            inside = "" if self._parts or self._single else "}"
            stores = [*(f"C->{n}[l] = {n};" for n in stored), *(["C->shown[l] = shown;"] * self._shows)]
            out += [inside, *stores, "" if inside else "}", "}", "}" if self._parts or self._single else ""]
            out += ["}" if self._only and not self._single else ""]
            if self._single:
                out.append("")
            if self._deaths:
                out.append("if (!(C->alive = alive &= ~dead)) return GV_EXIT;")
            self._loops += 1
        self._start_loop()
        if self._place == "lane":
            self.lines = self.lanes

    def _enter(self, place: str) -> None:
        self._place = place
        self.lines = {"top": self.out, "lane": self.lanes, "part": self._parts}[place]
