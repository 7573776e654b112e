# SPDX-License-Identifier: Apache-2.0
"""A linked program to one C file: globals and their initial values, functions, kernels, the exported table."""

from __future__ import annotations

from .emit import DEVICE, PHASES, SCHEDULE, SIMPLE, FunctionEmitter
from .inline import yields
from .instructions.warp import is_plain_barrier
from .layout import Layout, align_up
from .lockstep_kernel import lockstep, lockstep_kernel
from .syntax import TYPE_WIDTHS, Function, Initial, Module, PtxError, Variable


def emit_program(modules: list[Module], general: bool = False) -> str:
    """C source of linked modules; raises PtxError. `general`: as in translate.py."""
    layout = Layout(modules)
    bodies: list[str] = []
    for number, function in enumerate(layout.functions):
        if id(function) not in layout.inlined:
            bodies += _function(layout, function, number)
    kernels: list[str] = []
    for number, kernel in enumerate(layout.kernels):
        lines, entry = _kernel(layout, kernel, number, general)
        bodies += lines
        kernels.append(entry)
    return "\n".join(
        ['#include "kernel_runtime.h"', *_function_table(layout), *bodies, *_module(layout, kernels, modules), ""]
    )


def _c_string(text: str) -> str:
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'


def _declaration(layout: Layout, number: int) -> str:
    function = layout.functions[number]
    params = ["const struct gv_thread *T"]
    params += [f"uint8_t *Q{n}" for n in range(len(function.rets))]
    params += [f"uint8_t *A{n}" for n in range(len(function.params))]
    return f"static int gv_f{number}({', '.join(params)})"


def _function_table(layout: Layout) -> list[str]:
    """Prototypes, and the table that device pointers to functions point into."""
    lines = [_declaration(layout, n) + ";" for n in range(len(layout.functions))]
    count = len(layout.functions)
    lines.append(f"enum {{ GV_FUNCTIONS = {count} }};")
    if count:
        entries = []
        for number, function in enumerate(layout.functions):
            pointed = id(function) in layout.pointed and id(function) not in layout.inlined
            code = f"(void (*)(void))gv_f{number}" if pointed else "NULL"
            entries.append(f"{{{code}, {layout.signature(function.prototype().signature())}}}")
        lines.append(f"static const struct gv_function gv_functions[{count}] = {{{', '.join(entries)}}};")
    else:
        lines.append("static const struct gv_function gv_functions[1];")
    return lines


def _registers(e: FunctionEmitter) -> list[str]:
    """Declarations of registers that the body mentions. Those that may be read unwritten start as 0."""
    undefined = e.registers_at_entry()
    by_type: dict[str, list[str]] = {}
    for name in e.function.registers:
        by_type.setdefault(e.c_type(name), []).append(f"{name} = 0" if name in undefined else name)
    lines = [f"{c_type} {', '.join(names)};" for c_type, names in by_type.items()]
    if e.uses_carry:
        lines.append("_Bool CC = 0;")
    return lines


def _variables(e: FunctionEmitter) -> list[str]:
    """.local and .param variables of the body as C arrays."""
    lines = []
    for variable in e.function.locals.values():
        if variable.space in ("local", "param"):
            name = "V_" + variable.name.replace(".", "$").replace("%", "")
            lines.append(f"_Alignas({max(variable.align, 1)}) uint8_t {name}[{max(variable.size, 1)}];")
    return lines


def _constants(e: FunctionEmitter) -> list[str]:
    lines = [f"const uint32_t {name} = {value};" for name, value in e.specials.items()]
    return [*lines, *e.hoisted.values()]


_BASES = "const uint8_t *const P = B->params; const uint64_t S = (uint64_t)(uintptr_t)B->shared; (void)P; (void)S;"


def _function(layout: Layout, function: Function, number: int) -> list[str]:
    e = FunctionEmitter(layout, function, DEVICE, f"gv_f{number}")
    e.run()
    lines = [f"/* {function.name.replace('*/', '')} */", _declaration(layout, number) + " {"]
    lines.append(
        "const struct gv_block *const B = T->block; (void)B; const uint64_t S = (uint64_t)(uintptr_t)B->shared;"
    )
    lines.append("(void)S;")
    lines += _constants(e) + _registers(e) + _variables(e)
    for index, param in enumerate(function.params):
        if param.space == "reg":
            register = e.register_of(param)
            lines.append(f"{register} = *({e.c_type(register)} *)(void *)A{index};")
    return [*lines, *e.lines, "}"]


def _mode(kernel: Function) -> str:
    waits = [i for i in kernel.body if yields(i)]
    if not waits:
        return SIMPLE
    return PHASES if all(is_plain_barrier(i) for i in waits) else SCHEDULE


def _kernel(layout: Layout, kernel: Function, number: int, general: bool) -> tuple[list[str], str]:
    """C lines of a kernel, and its entry in the table of kernels."""
    mode, name = _mode(kernel), f"gv_k{number}"
    lines = [f"/* {kernel.name.replace('*/', '')} */"]
    together = None if general or mode == SIMPLE else lockstep(layout, kernel, name)
    if together is None or together.regions.warps:  # a group is a warp only in blocks of some shapes
        e = FunctionEmitter(layout, kernel, mode, name + "_any" if together else name)
        e.run()
        lines += {SIMPLE: _simple_kernel, PHASES: _phases_kernel, SCHEDULE: _schedule_kernel}[mode](e)
    if together is not None:
        e = together
        lines += lockstep_kernel(together, _BASES, _zero_reserved(e), _constants(e))
    offsets = e.parameter_offsets()
    if kernel.params:
        pairs = ", ".join(f"{{{offsets[n]}, {param.size}}}" for n, param in enumerate(kernel.params))
        lines.append(f"static const struct gv_parameter {e.name}_params[] = {{{pairs}}};")
    total = offsets[-1] + kernel.params[-1].size if offsets else 0
    required = ", ".join(str(n) for n in kernel.required_threads)
    params = f"{e.name}_params" if kernel.params else "NULL"
    entry = (
        f"{{{_c_string(kernel.name)}, {name}_run, {name}_scratch, {params}, "
        f"{len(kernel.params)}, {total}, {e.static_shared}, {e.local_bytes()}, {e.register_estimate()}, "
        f"{kernel.max_threads}, {{{required}}}}},"
    )
    return lines, entry


def _simple_kernel(e: FunctionEmitter) -> list[str]:
    """A kernel without waits: a loop over the threads."""
    constants = []
    per_thread = []
    for line in _constants(e):
        if "T->" in line:
            per_thread.append(line.replace("T->x", "x").replace("T->y", "y").replace("T->z", "z").replace("T->", ""))
        else:
            constants.append(line)
    scratch, variables = 0, _variables(e)
    if e.big_locals():
        variables = []
        for variable in e.function.locals.values():
            name = "V_" + variable.name.replace(".", "$").replace("%", "")
            if variable.space in ("local", "param"):
                scratch = align_up(scratch, variable.align)
                variables.append(f"uint8_t *const {name} = B->scratch + {scratch};")
                scratch += variable.size
    lines = [f"static uint64_t {e.name}_scratch(uint32_t threads) {{ (void)threads; return {scratch}; }}"]
    lines += [f"static int {e.name}_run(const struct gv_block *B) {{", _BASES, *_zero_reserved(e), *constants]
    lines.append("uint32_t linear = 0;")
    lines.append("for (uint32_t z = 0; z < B->block.z; z++) for (uint32_t y = 0; y < B->block.y; y++)")
    lines.append("for (uint32_t x = 0, width = B->block.x; x < width; x++, linear++) {")
    if e.uses_thread:
        fields = f"{{B, x, y, z, linear, {e.static_shared}, {e.static_shared}}}"
        lines.append(f"const struct gv_thread thread = {fields}, *const T = &thread; (void)T;")
    lines += per_thread + _registers(e) + variables + e.lines
    return [*lines, "done:;", "}", "return GV_BLOCK_DONE;", "}"]


def _zero_reserved(e: FunctionEmitter) -> list[str]:
    """The system's part of shared memory starts as zeros."""
    if not e.reserved:
        return []
    return [f"__builtin_memset(B->shared + {e.static_shared - e.reserved}, 0, {e.reserved});"]


def _frame(e: FunctionEmitter) -> list[str]:
    """The frame of a thread: saved registers, and variables of the body."""
    lines = [f"struct {e.name}_frame {{ struct gv_frame f;"]
    lines += [f"{c_type} {register};" for register, c_type in sorted(e.saved.items(), key=_by_size)]
    return [*lines, *_variables(e), "};"]


def _resumes(e: FunctionEmitter) -> str:
    cases = " ".join(f"case {n}: goto W{n};" for n in range(1, e.waits + 1))
    return f"switch (C->f.pc) {{ {cases} }}"


def _phases_kernel(e: FunctionEmitter) -> list[str]:
    """A kernel whose only waits are bar.sync 0: each round of the outer loop is one phase of all threads.

    A thread that has ended counts as arrived, so when a round is over the barrier is complete.
    """
    constants = [line for line in _constants(e) if "T->" not in line]
    per_thread = [line for line in _constants(e) if "T->" in line]
    name = e.name
    lines = _frame(e)
    lines.append(f"static uint64_t {name}_scratch(uint32_t n) {{ return (uint64_t)n * sizeof(struct {name}_frame); }}")
    lines += [f"static int {name}_run(const struct gv_block *B) {{", _BASES, *_zero_reserved(e), *constants]
    lines.append(f"struct {name}_frame *const frames = (struct {name}_frame *)(void *)B->scratch;")
    lines.append(f"const uint32_t count = gv_start_frames(B, sizeof *frames, {e.static_shared}, {e.static_shared});")
    lines += ["uint32_t waiting;", "do {", "waiting = 0;", "for (uint32_t i = 0; i < count; i++) {"]
    lines.append(f"struct {name}_frame *const C = &frames[i]; const struct gv_thread *const T = &C->f.t; (void)T;")
    lines += ["if (C->f.ended) continue;", *per_thread, *_registers(e), _resumes(e), *e.lines]
    return [*lines, "done: C->f.ended = 1;", "next:;", "}", "} while (waiting);", "return GV_BLOCK_DONE;", "}"]


def _schedule_kernel(e: FunctionEmitter) -> list[str]:
    """A kernel with other waits: a step function for kernel_threads.h."""
    name = e.name
    size = f"sizeof(struct {name}_frame)"
    seldom = "GV_SELDOM " if name.endswith("_any") else ""
    step = "const struct gv_block *B, struct gv_frame *F, struct gv_warp *W, uint32_t lane"
    lines = _frame(e)
    lines.append(f"static uint64_t {name}_scratch(uint32_t threads) {{ return gv_scratch(threads, {size}); }}")
    lines.append(f"static {seldom}int {name}_step({step}) {{")
    lines.append(f"struct {name}_frame *const C = (struct {name}_frame *)(void *)F; (void)W; (void)lane;")
    lines.append("const struct gv_thread *const T = &C->f.t; (void)T;")
    lines += [_BASES, *_constants(e), *_registers(e), _resumes(e), *e.lines, "}"]
    lines.append(f"static int {name}_run(const struct gv_block *B) {{")
    lines += _zero_reserved(e)
    return [*lines, f"return gv_run_schedule(B, {size}, {name}_step, {e.static_shared}); }}"]


def _by_size(item: tuple[str, str]) -> int:
    return -{"double": 8, "uint64_t": 8, "float": 4, "uint32_t": 4, "uint16_t": 2}.get(item[1], 1)


def _module(layout: Layout, kernels: list[str], modules: list[Module]) -> list[str]:
    lines = _initialise(layout, modules)
    kernel_table = globals_table = "NULL"
    if kernels:
        lines += ["static const struct gv_kernel gv_kernels[] = {", *kernels, "};"]
        kernel_table = "gv_kernels"
    if layout.globals:
        lines.append("static const struct gv_global gv_globals[] = {")
        for variable in layout.globals:
            constant = int(variable.space == "const")
            lines.append(f"{{{_c_string(variable.name)}, {variable.size}, {variable.align}, {constant}}},")
        lines.append("};")
        globals_table = "gv_globals"
    lines.append('__attribute__((visibility("default"))) const struct gv_module gv_module = {')
    lines.append(
        f"GV_KERNEL_ABI, {len(kernels)}, {len(layout.globals)}, {kernel_table}, {globals_table}, gv_initialise}};"
    )
    return lines


def _initialise(layout: Layout, modules: list[Module]) -> list[str]:
    owners = {id(v): module for module in modules for v in module.variables.values()}
    for function in layout.functions + layout.kernels:
        for local in function.locals.values():
            if function.module is not None:
                owners.setdefault(id(local), function.module)
    data, lines = [], []
    for number, variable in enumerate(layout.globals):
        if not variable.init:
            continue
        values, addresses = _image(variable)
        if any(values):
            literal = ",".join(str(value) for value in values)
            data.append(f"static const uint8_t gv_data{number}[] = {{{literal}}};")
            lines.append(f"__builtin_memcpy(G[{number}], gv_data{number}, sizeof gv_data{number});")
        for offset, width, initial in addresses:
            text = _address(layout, owners[id(variable)], initial, variable)
            lines.append(f"*({width} *)((uint8_t *)G[{number}] + {offset}) = ({width})({text});")
    return [*data, "static void gv_initialise(void *const *G) {", "(void)G;", *lines, "}"]


def _image(variable: Variable) -> tuple[bytearray, list[tuple[int, str, Initial]]]:
    """Bytes of a variable, and the addresses to store into it."""
    step = TYPE_WIDTHS[variable.element] // 8
    values = bytearray(variable.size)
    addresses: list[tuple[int, str, Initial]] = []
    for index, initial in enumerate(variable.init or []):
        offset = index * step
        if offset + step > variable.size:
            raise PtxError(variable.line, f"too many initial values for '{variable.name}'")
        if initial.symbol:
            addresses.append((offset, f"uint{step * 8}_t", initial))
        else:
            values[offset : offset + step] = (initial.value & ((1 << 8 * step) - 1)).to_bytes(step, "little")
    return values, addresses


def _address(layout: Layout, module: Module, initial: Initial, variable: Variable) -> str:
    symbol = module.symbols.get(initial.symbol)
    if isinstance(symbol, Function) and id(symbol) in layout.function_index:
        text = f"(uint64_t)(uintptr_t)&gv_functions[{layout.function_index[id(symbol)]}]"
    elif isinstance(symbol, Variable) and id(symbol) in layout.global_index:
        text = f"(uint64_t)(uintptr_t)G[{layout.global_index[id(symbol)]}]"
    else:
        raise PtxError(variable.line, f"initial value '{initial.symbol}' of '{variable.name}' is not defined")
    if initial.value:
        text = f"{text} + {initial.value}"
    if initial.mask:
        shift = (initial.mask & -initial.mask).bit_length() - 1
        text = f"({text} & {initial.mask:#x}ull) >> {shift}"
    return text
