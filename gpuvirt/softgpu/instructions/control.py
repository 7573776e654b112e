# SPDX-License-Identifier: Apache-2.0
"""Branches, calls and the end of a thread."""

from __future__ import annotations

from ..ctypes_map import UNSIGNED
from ..layout import call_operands
from ..link import BUILTINS
from ..syntax import TYPE_WIDTHS, Function, Prototype, Variable
from .registry import TYPE_CHECKING, opcode

if TYPE_CHECKING:
    from ..emit import FunctionEmitter
    from ..syntax import Instruction, Operand


def _label(name: str) -> str:
    return "L_" + name.replace(".", "$").replace("%", "$")


@opcode("bra")
def branch(e: FunctionEmitter, i: Instruction) -> None:
    e.emit(f"goto {_label(i.operands[0].name)};")


@opcode("brx")
def branch_indexed(e: FunctionEmitter, i: Instruction) -> None:
    targets = e.function.tables[i.operands[1].name]
    e.emit(f"switch ({e.read(i.operands[0], 'u32')}) {{")
    for number, target in enumerate(targets):
        e.emit(f"case {number}: goto {_label(target)};")
    e.emit("default: return GV_BLOCK_TRAP; }")


@opcode("ret")
def ret(e: FunctionEmitter, i: Instruction) -> None:
    e.leave("")


@opcode("exit")
def exit_thread(e: FunctionEmitter, i: Instruction) -> None:
    e.leave("GV_EXIT")


@opcode("trap", "brkpt")
def trap(e: FunctionEmitter, i: Instruction) -> None:
    e.leave("GV_BLOCK_TRAP")


@opcode("pmevent", "griddepcontrol", "setmaxnreg")
def nothing(e: FunctionEmitter, i: Instruction) -> None:
    """Hints: nobody to wait for."""


@opcode("nanosleep")
def sleep(e: FunctionEmitter, i: Instruction) -> None:
    """Others run meanwhile: who sleeps in a loop waits for one of them. By pointer there is nobody to change to."""
    if e.mode != "device":
        e.wait("GV_YIELD", [])


@opcode("call")
def call(e: FunctionEmitter, i: Instruction) -> None:
    target, rets, args, prototype_name = call_operands(i)
    e.uses_thread = True
    e.emit("{")
    if target.kind == "reg":
        prototype = _prototype(e, prototype_name)
        pointers, after = _arguments(e, prototype, rets, args)
        _call_pointer(e, target, prototype, pointers)
    else:
        function = e.find(target.name)
        if not isinstance(function, Function):
            raise e.error(f"call of '{target.name}', which is no function")
        if function.defined and not function.rets:
            rets = []  # declared elsewhere with a result that it does not have: undefined, as after a linker
        pointers, after = _arguments(e, function.prototype(), rets, args)
        if function.defined:
            index = e.layout.function_index[id(function)]
            _checked(e, f"gv_f{index}({', '.join(['T', *pointers])})")
        elif function.name in BUILTINS:
            _builtin(e, function.name, pointers)
        else:
            raise e.error(f"external function '{function.name}' is not defined")
    for line in after:
        e.emit(line)
    e.emit("}")


def _prototype(e: FunctionEmitter, name: str) -> Prototype:
    found = e.function.prototypes.get(name)
    if found is not None:
        return found
    for target in e.function.tables.get(name, []):  # .calltargets
        function = e.find(target)
        if isinstance(function, Function):
            return function.prototype()
    raise e.error("an indirect call without a prototype")


def _arguments(
    e: FunctionEmitter, prototype: Prototype, rets: list[Operand], args: list[Operand]
) -> tuple[list[str], list[str]]:
    """C pointers to results and arguments, and lines that fetch results passed in registers."""
    if len(rets) != len(prototype.rets) or len(args) != len(prototype.params):
        raise e.error("a call with a wrong number of operands")
    pointers, after = [], []
    declarations = prototype.rets + prototype.params
    for position, operand in enumerate(rets + args):
        declared, is_result = declarations[position], position < len(rets)
        variable = e.find(operand.name) if operand.kind == "sym" else None
        if isinstance(variable, Variable) and variable.space == "param":
            pointers.append(f"(uint8_t *)({e.storage(variable)})")
            continue
        t = e.temp()
        kind = f"b{TYPE_WIDTHS[declared.element]}" if declared.element != "pred" else "pred"
        c_type = UNSIGNED[TYPE_WIDTHS[declared.element]] if kind != "pred" else "_Bool"
        if is_result:
            e.emit(f"{c_type} {t};")
            mark = len(e.lines)
            e.assign(operand, kind, t)
            after += e.lines[mark:]
            del e.lines[mark:]
        else:
            e.emit(f"{c_type} {t} = {e.read(operand, kind)};")
        pointers.append(f"(uint8_t *)&{t}")
    return pointers, after


def _checked(e: FunctionEmitter, text: str) -> None:
    """A call that may end the thread or the block."""
    e.emit(f"const int status = {text};")
    if e.mode in ("simple", "phases"):
        e.emit("if (status) { if (status == GV_EXIT) goto done; return status; }")
    elif e.mode == "lockstep":
        e.emit("if (status == GV_EXIT) {")
        e.leave("GV_EXIT")
        e.emit("}")
        e.emit("if (status) return status;")
    else:
        e.emit("if (status) return status;")


def _call_pointer(e: FunctionEmitter, target: Operand, prototype: Prototype, pointers: list[str]) -> None:
    number = e.layout.signature(prototype.signature())
    types = ", ".join(["const struct gv_thread *"] + ["uint8_t *"] * len(pointers))
    e.emit(
        f"void (*const code)(void) = gv_find_function(gv_functions, GV_FUNCTIONS, {e.read(target, 'b64')}, {number});"
    )
    e.emit("if (!code) return GV_BLOCK_BAD_CALL;")
    _checked(e, f"((int (*)({types}))code)({', '.join(['T', *pointers])})")


def _builtin(e: FunctionEmitter, name: str, pointers: list[str]) -> None:
    def value(index: int, c_type: str) -> str:
        return f"*({c_type} *)(void *){pointers[index]}"

    if name == "vprintf":
        arguments = f"(const void *)(uintptr_t){value(2, 'uint64_t')}"
        text = f"(const char *)(uintptr_t){value(1, 'uint64_t')}"
        e.emit(f"{value(0, 'uint32_t')} = (uint32_t)B->vprintf(B->sink, {text}, {arguments});")
    elif name == "__assertfail":
        texts = [f"(const char *)(uintptr_t){value(n, 'uint64_t')}" for n in (0, 1, 3)]
        e.emit(f"B->assert_fail(B->sink, {texts[0]}, {texts[1]}, {value(2, 'uint32_t')}, {texts[2]});")
        e.leave("GV_BLOCK_ASSERT")
    elif name == "malloc":
        e.emit(f"{value(0, 'uint64_t')} = (uint64_t)(uintptr_t)B->allocate(B->heap, {value(1, 'uint64_t')});")
    elif name == "cudaGraphSetConditional":  # the handle is the address of the value (native/softgpu/conditional.c)
        condition = f"(uint32_t *)(uintptr_t){value(0, 'uint64_t')}"
        e.emit(f"__atomic_store_n({condition}, {value(1, 'uint32_t')}, __ATOMIC_RELEASE);")
    else:
        e.emit(f"B->release(B->heap, (void *)(uintptr_t){value(0, 'uint64_t')});")
