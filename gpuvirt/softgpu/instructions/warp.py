# SPDX-License-Identifier: Apache-2.0
"""Operations across threads: barriers, shuffles, votes. Each saves the thread and lets the others run."""

from __future__ import annotations

from .registry import TYPE_CHECKING, opcode

if TYPE_CHECKING:
    from ..emit import FunctionEmitter
    from ..syntax import Instruction, Operand


def _warp_wait(e: FunctionEmitter, kind: str, members: Operand | None, value: str = "") -> None:
    """Waits for the lanes of the warp; the thread then finds its result in VALUE and FLAG."""
    key = f"GV_KEY({e.read(members, 'u32')}, {kind})" if members else f"GV_KEY_AT({e.waits + 1}, {kind})"
    e.wait("GV_WARP", [*([f"W->value[lane] = {value};"] if value else []), f"W->key[lane] = {key};"])


VALUE = "(uint32_t)W->value[lane]"
FLAG = "W->flags >> lane & 1"


@opcode("shfl")
def shuffle(e: FunctionEmitter, i: Instruction) -> None:
    d, a, b, c = i.operands[:4]
    kind = next(f"GV_SHFL_{mod.upper()}" for mod in i.mods if mod in ("up", "down", "bfly", "idx"))
    members = i.operands[4] if "sync" in i.mods else None
    e.emit(f"W->argument[lane] = ({e.read(b, 'u32')} & 31) | {e.read(c, 'u32')} << 8;")
    _warp_wait(e, kind, members, e.read(a, "b32"))
    _results(e, d)


def _results(e: FunctionEmitter, d: Operand) -> None:
    if d.kind == "pair":
        e.assign(d.items[0], "b32", VALUE)
        e.assign(d.items[1], "pred", FLAG)
    else:
        e.assign(d, "b32", VALUE)


@opcode("vote")
def vote(e: FunctionEmitter, i: Instruction) -> None:
    d, a = i.operands[:2]
    kind = next(mod for mod in i.mods if mod in ("all", "any", "uni", "ballot"))
    members = i.operands[2] if "sync" in i.mods else None
    _warp_wait(e, f"GV_VOTE_{kind.upper()}", members, e.read(a, "pred"))
    if kind == "ballot":
        e.assign(d, "b32", VALUE)
    else:
        e.assign(d, "pred", FLAG)


@opcode("match")
def match(e: FunctionEmitter, i: Instruction) -> None:
    d, a, members = i.operands
    kind = "GV_MATCH_ANY" if "any" in i.mods else "GV_MATCH_ALL"
    _warp_wait(e, kind, members, e.read(a, i.types[0]))
    _results(e, d)


@opcode("activemask")
def active_mask(e: FunctionEmitter, i: Instruction) -> None:
    _warp_wait(e, "GV_ACTIVE", None)
    e.assign(i.operands[0], "b32", VALUE)


@opcode("elect")
def elect(e: FunctionEmitter, i: Instruction) -> None:
    d, members = i.operands
    _warp_wait(e, "GV_ELECT", members)
    _results(e, d)


@opcode("redux")
def reduce(e: FunctionEmitter, i: Instruction) -> None:
    d, a, members = i.operands
    kind = i.types[0]
    operation = next(mod for mod in i.mods if mod in ("add", "min", "max", "and", "or", "xor"))
    if kind == "f32":
        raise e.error(f"opcode '{i.opcode}' is not supported by the soft GPU")
    suffix = f"_{kind[0].upper()}" if operation in ("min", "max") else ""
    _warp_wait(e, f"GV_REDUX_{operation.upper()}{suffix}", members, e.read(a, "u32"))
    e.assign(d, "b32", VALUE)


def is_plain_barrier(i: Instruction) -> bool:
    """Whether it is `bar.sync 0` or `barrier.sync 0` of all threads."""
    return (
        i.base in ("bar", "barrier")
        and "sync" in i.mods
        and "warp" not in i.mods
        and len(i.operands) == 1
        and i.operands[0].kind == "int"
        and i.operands[0].value == 0
    )


@opcode("bar", "barrier")
def barrier(e: FunctionEmitter, i: Instruction) -> None:
    if "cluster" in i.mods:
        raise e.error(f"opcode '{i.opcode}' is not supported by the soft GPU")
    if "warp" in i.mods:
        _warp_wait(e, "GV_WARP_SYNC", i.operands[0])
        return
    operands = list(i.operands)
    if "red" in i.mods:
        d = operands.pop(0)
        predicate = operands.pop()
        operation = next(mod for mod in i.mods if mod in ("popc", "and", "or"))
        setup = [f"C->f.kind = GV_BAR_{operation.upper()}; C->f.value = {e.read(predicate, 'pred')};"]
    else:
        setup = ["C->f.kind = GV_BAR_SYNC; C->f.value = 0;"]
    if is_plain_barrier(i) and e.mode == "phases":
        e.wait("GV_BARRIER", [])
        return
    count = e.read(operands[1], "u32") if len(operands) > 1 else "0"
    setup.append(f"C->f.barrier = {e.read(operands[0], 'u32') if operands else '0'}; C->f.expected = {count};")
    e.wait("GV_ARRIVE" if "arrive" in i.mods else "GV_BARRIER", setup)
    if "red" in i.mods:
        if operation == "popc":
            e.assign(d, "b32", "C->f.value")
        else:
            e.assign(d, "pred", "C->f.flag")
