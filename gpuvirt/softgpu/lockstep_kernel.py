# SPDX-License-Identifier: Apache-2.0
"""The C around the function of a group: its frame, and the loop over the groups of a block."""

from __future__ import annotations

from .lane_loops import Refused
from .layout import Layout, align_up
from .lockstep import LockstepEmitter
from .regions import Apart
from .syntax import Function

_LOCAL_MOST = 1024  # bytes of .local and .param variables of a thread: 32 of them are in a frame


def lockstep(layout: Layout, kernel: Function, name: str) -> LockstepEmitter | None:
    """The translated body, or None if the kernel needs the general scheduler."""
    refused: set[str] = set()
    if sum(v.size for v in kernel.locals.values() if v.space in ("local", "param")) > _LOCAL_MOST:
        return None
    while True:
        try:
            e = LockstepEmitter(layout, kernel, name, refused)
            e.run()
            return e
        except Apart:
            return None
        except (IndexError, KeyError, ValueError, StopIteration):
            return None  # wrong operands: the general way says so
        except Refused as more:
            refused = refused | more.names


def lockstep_kernel(e: LockstepEmitter, bases: str, reserved: list[str], constants: list[str]) -> list[str]:
    """C lines of a kernel whose body is `e.out`."""
    name, frame = e.name, f"struct {e.name}_frame"
    general = f"{name}_any" if e.regions.warps else ""
    lines = [*_frame(e), f"static uint64_t {name}_scratch(uint32_t threads) {{"]
    if general:
        lines.append(f"uint64_t bytes = (threads + 31) / 32 * (uint64_t)sizeof({frame});")
        lines.append(f"return bytes > {general}_scratch(threads) ? bytes : {general}_scratch(threads); }}")
    else:
        lines.append(f"return threads * (uint64_t)sizeof({frame}); }}")  # a row may be as short as one thread
    lines += [f"static int {name}_group(const struct gv_block *B, {frame} *C) {{", bases, *constants]
    lines.append("const uint32_t x0 = C->x0, linear0 = C->linear; uint32_t alive = C->alive, dead, inside;")
    lines.append("GV_KNOW(x0 < 1024); (void)linear0; (void)dead; (void)inside;")
    if e.waits:
        lines.append("struct gv_warp *const W = &C->warp;")
    undefined = e.registers_at_entry()
    by_type: dict[str, list[str]] = {}
    for register, shape in e.shape.items():
        if not shape.widened:
            by_type.setdefault(e.scalar_type(register), []).append(register + " = 0" * (register in undefined))
    lines += [f"{c_type} {', '.join(names)};" for c_type, names in by_type.items()]
    if e.resumes:
        cases = " ".join(f"case {n}: goto W{n};" for n in range(1, e.resumes + 1))
        lines.append(f"switch (C->pc) {{ {cases} }}")
    lines += [f"__builtin_memset(C->{n}, 0, sizeof C->{n});" for n in sorted(e.arrays & undefined)]
    lines += [*e.out, "}", f"static int {name}_run(const struct gv_block *B) {{"]
    if general:
        lines.append(f"if (!gv_whole_warps(B)) return {general}_run(B);")
    run = "GV_RUN_PHASES" if e.resumes else "GV_RUN_ALONE"
    return [*lines, *reserved, f"{run}({frame}, {name}_group);", "}"]


def _frame(e: LockstepEmitter) -> list[str]:
    """The frame of a group: `struct gv_group` with what the kernel needs behind it."""
    lines = [f"struct {e.name}_frame {{ GV_GROUP;"]
    if e.waits:
        lines.append("struct gv_warp warp;")
    lines += [f"_Alignas(64) {e.c_type(register)} {register}[32];" for register in sorted(e.arrays)]
    lines += [f"{c_type} {register};" for register, c_type in sorted(e.saved.items())]
    for variable in e.function.locals.values():
        if variable.space in ("local", "param"):
            name = "V_" + variable.name.replace(".", "$").replace("%", "")
            size = align_up(max(variable.size, 1), max(variable.align, 1))
            lines.append(f"_Alignas({max(variable.align, 1)}) uint8_t {name}[32][{size}];")
    return [*lines, "};"]
