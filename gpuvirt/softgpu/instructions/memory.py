# SPDX-License-Identifier: Apache-2.0
"""Moves, loads, stores and addresses."""

from __future__ import annotations

from ..ctypes_map import C_TYPES, FLOATS, UNSIGNED, width
from .registry import TYPE_CHECKING, opcode

if TYPE_CHECKING:
    from ..emit import FunctionEmitter
    from ..syntax import Instruction, Operand

_SPACES = frozenset(("global", "const", "local", "param", "shared"))


def state_space(i: Instruction) -> str:
    """State space named by an instruction, "" if generic."""
    for mod in i.mods:
        name = mod.split("::")[0]
        if name in _SPACES:
            if mod == "shared::cluster":  # no clusters: the only block is the own
                return "shared"
            return name
    return ""


def _bits_as(e: FunctionEmitter, operand: Operand, kind: str) -> str:
    """Type to move bits with: float if the register is kept so, which saves a conversion."""
    if kind in FLOATS or kind == "pred":
        return kind
    if e.is_float(operand) and e.width(operand) == width(kind):
        return f"f{width(kind)}"
    if kind in ("f16", "bf16", "f16x2", "bf16x2", "tf32"):
        return f"b{width(kind)}"
    return kind


@opcode("mov")
def move(e: FunctionEmitter, i: Instruction) -> None:
    d, a = i.operands
    kind = i.types[0]
    if d.kind == "vec":
        bits = width(kind) // len(d.items)
        t = e.temp()
        e.emit(f"{{ const {C_TYPES[f'b{width(kind)}']} {t} = {e.read(a, f'b{width(kind)}')};")
        for number, item in enumerate(d.items):
            e.assign(item, f"b{bits}", f"({UNSIGNED[bits]})({t} >> {number * bits})")
        e.emit("}")
    elif a.kind == "vec":
        bits = width(kind) // len(a.items)
        c_type = C_TYPES[f"b{width(kind)}"]
        lanes = [f"({c_type}){e.read(item, f'b{bits}')} << {n * bits}" for n, item in enumerate(a.items)]
        e.assign(d, f"b{width(kind)}", f"({c_type})({' | '.join(lanes)})")
    else:
        kind = _bits_as(e, d, kind)
        if kind not in FLOATS and kind != "pred":
            kind = f"b{width(kind)}"
        e.assign(d, kind, e.read_moved(a, i.types[0], kind))


@opcode("cvta")
def convert_address(e: FunctionEmitter, i: Instruction) -> None:
    """Only .shared addresses differ from generic ones: they are offsets in the block's shared memory."""
    d, a = i.operands
    kind = f"b{width(i.types[0])}"
    text = e.read(a, kind)
    if state_space(i) == "shared":
        text = f"({C_TYPES[kind]})({f'{text} - S' if 'to' in i.mods else f'S + {text}'})"
    e.assign(d, kind, text)


@opcode("isspacep")
def is_space(e: FunctionEmitter, i: Instruction) -> None:
    space = state_space(i)
    a = e.read(i.operands[1], "b64")
    size = e.static_shared if e.mode != "device" else "T->static_shared"
    if e.mode == "device":
        e.uses_thread = True
    in_shared = f"{a} - S < (uint64_t){size} + B->dynamic_shared"
    stack = f"{a} - (uint64_t)(uintptr_t)__builtin_frame_address(0) + 0x10000 < 0x20000"
    in_params = f"({a} - (uint64_t)(uintptr_t)B->params < 4096)"
    if space == "shared":
        text = in_shared
    elif space == "param":
        text = in_params
    elif space == "local":
        text = f"({_in_frames(e, a)} || {stack})"
    elif space == "const":
        text = "0"
    else:
        text = f"!({in_shared}) && !{in_params} && !({_in_frames(e, a)} || {stack})"
    e.assign(i.operands[0], "pred", text)


def _in_frames(e: FunctionEmitter, a: str) -> str:
    scratch = "(uint64_t)(uintptr_t)B->scratch"
    frame = f"{e.name}_scratch(B->block.x * B->block.y * B->block.z)" if e.mode != "device" else "0"
    return f"{a} - {scratch} < {frame}"


def _access(i: Instruction) -> str:
    if "volatile" in i.mods or "mmio" in i.mods:
        return "volatile"
    if "acquire" in i.mods:
        return "__ATOMIC_ACQUIRE"
    if "release" in i.mods:
        return "__ATOMIC_RELEASE"
    return "__ATOMIC_RELAXED" if "relaxed" in i.mods else ""


def _load(kind: str, address: str, access: str) -> str:
    """C expression of the C type of `kind`."""
    c_type = C_TYPES[kind]
    if access == "volatile":
        return f"GV_LDV({c_type}, {address})"
    if access and kind not in FLOATS and kind != "b128":
        return f"__atomic_load_n((const {c_type} *)(uintptr_t)({address}), {access})"
    if access:
        return f"GV_LDV({c_type}, {address})"
    return f"GV_LD({c_type}, {address})"


@opcode("ld", "ldu")
def load(e: FunctionEmitter, i: Instruction) -> None:
    d, source = i.operands[0], i.operands[1]
    kind = i.types[-1]
    space = state_space(i)
    access = _access(i)
    if access and kind in FLOATS:
        kind = f"b{width(kind)}"
    address = e.address(source, space)
    if access in ("volatile", "__ATOMIC_ACQUIRE"):
        e.emit("if (B->workspace && gv_spin(B)) return GV_BLOCK_TRAP;")
    if d.kind == "vec":
        t = e.temp()
        e.emit(f"{{ const uint64_t {t} = {address};")
        for number, item in enumerate(d.items):
            exact = kind if access else _bits_as(e, item, kind)
            e.assign(item, exact, _load(exact, f"{t} + {number * width(kind) // 8}", access))
        e.emit("}")
        return
    if not access:
        kind = _bits_as(e, d, kind)
    text = _load(kind, address, access)
    base = source.items[0]
    if space == "param" and e.mode == "simple" and base.kind == "sym" and "V_" not in address:
        text = _hoisted(e, kind, text)
    e.assign(d, kind, text)


def _hoisted(e: FunctionEmitter, kind: str, text: str) -> str:
    """Kernel parameters do not change: load before the loop over the threads."""
    for name, definition in e.hoisted.items():
        if definition.endswith(f"{C_TYPES[kind]} {name} = {text};"):
            return name
    name = f"P{len(e.hoisted)}_{kind}"
    e.hoisted[name] = f"const {C_TYPES[kind]} {name} = {text};"
    return name


@opcode("st")
def store(e: FunctionEmitter, i: Instruction) -> None:
    target, source = i.operands[:2]
    kind = i.types[-1]
    access = _access(i)
    address = e.address(target, state_space(i))
    items = source.items if source.kind == "vec" else [source]
    t = e.temp()
    if len(items) > 1:
        e.emit(f"{{ const uint64_t {t} = {address};")
        address = t
    for number, item in enumerate(items):
        exact = _bits_as(e, item, kind)
        if exact not in FLOATS or (access and access != "volatile"):
            exact = f"b{width(kind)}"
        value = e.read(item, exact)
        at = f"{address} + {number * width(kind) // 8}" if number else address
        if access == "volatile":
            e.emit(f"GV_STV({C_TYPES[exact]}, {at}, {value});")
        elif access and exact != "b128":
            e.emit(f"__atomic_store_n(({C_TYPES[exact]} *)(uintptr_t)({at}), {value}, {access});")
        else:
            e.emit(f"GV_ST({C_TYPES[exact]}, {at}, {value});")
    if len(items) > 1:
        e.emit("}")


@opcode("prefetch", "prefetchu", "discard", "applypriority")
def cache_hint(e: FunctionEmitter, i: Instruction) -> None:
    """Hints about caches: nothing to do."""


@opcode("tensormap")
def tensor_map(e: FunctionEmitter, i: Instruction) -> None:
    """Edits an opaque object which only tensor copies read; those are refused."""


@opcode("membar", "fence")
def fence(e: FunctionEmitter, i: Instruction) -> None:
    """Orders this block's accesses as others, on other workers, see them."""
    if "proxy" in i.mods or "mbarrier_init" in i.mods:
        return
    e.emit("__atomic_thread_fence(__ATOMIC_SEQ_CST);")
