# SPDX-License-Identifier: Apache-2.0
"""mbarrier objects and asynchronous copies, which here are done at once (kernel_mbarrier.h)."""

from __future__ import annotations

from .memory import state_space
from .registry import TYPE_CHECKING, opcode

if TYPE_CHECKING:
    from ..emit import FunctionEmitter
    from ..syntax import Instruction, Operand


def _address(e: FunctionEmitter, operand: Operand, i: Instruction) -> str:
    return e.address(operand, state_space(i))


@opcode("mbarrier")
def mbarrier(e: FunctionEmitter, i: Instruction) -> None:
    operation = i.mods[0]
    operands = list(i.operands)
    if operation == "init":
        e.emit(f"gv_mbarrier_init({_address(e, operands[0], i)}, {e.read(operands[1], 'u32')});")
    elif operation == "inval":
        e.emit(f"*(uint64_t *)(uintptr_t)({_address(e, operands[0], i)}) = 0;")
    elif operation in ("arrive", "arrive_drop"):
        _arrive(e, i, operation == "arrive_drop")
    elif operation in ("expect_tx", "complete_tx"):
        sign = "" if operation == "expect_tx" else "-"
        count = f"{sign}(int64_t){e.read(operands[1], 'u32')}"
        e.emit(f"gv_mbarrier_update({_address(e, operands[0], i)}, 0, 0, {count});")
    elif operation in ("test_wait", "try_wait"):
        e.wait("GV_YIELD", [])
        token = e.read(operands[2], "u32") if "parity" in i.mods else f"({e.read(operands[2], 'b64')} >> 63)"
        e.assign(operands[0], "pred", f"gv_mbarrier_over({_address(e, operands[1], i)}, {token})")
    elif operation == "pending_count":
        e.assign(operands[0], "u32", f"(uint32_t)({e.read(operands[1], 'b64')} & GV_MBARRIER_MASK)")
    else:
        raise e.error(f"opcode '{i.opcode}' is not supported by the soft GPU")


def _arrive(e: FunctionEmitter, i: Instruction, drop: bool) -> None:
    operands = list(i.operands)
    token = operands.pop(0) if operands[0].kind != "mem" else None
    address = _address(e, operands[0], i)
    count, transactions = "1", "0"
    if len(operands) > 1:
        value = e.read(operands[1], "u32")
        if "expect_tx" in i.mods:
            transactions = f"(int64_t){value}"
        else:
            count = value
    text = f"gv_mbarrier_update({address}, {count}, {count if drop else '0'}, {transactions})"
    if token is None:
        e.emit(f"{text};")
    else:
        e.assign(token, "b64", text)


@opcode("cp")
def copy(e: FunctionEmitter, i: Instruction) -> None:
    """cp.async, and cp.async.bulk between global and shared memory."""
    mods = [mod.split("::")[0] for mod in i.mods]
    if "tensor" in mods or "reduce" in mods or "async" not in mods:
        raise e.error(f"opcode '{i.opcode}' is not supported by the soft GPU")
    if "mbarrier" in mods and "arrive" in mods:
        # All copies are complete. Without .noinc the arrival was not among those that are counted.
        if "noinc" in mods:
            e.emit(f"gv_mbarrier_update({_address(e, i.operands[0], i)}, 1, 0, 0);")
    elif "bulk" in mods:
        _bulk(e, i, mods)
    elif not {"commit_group", "wait_group", "wait_all"} & set(mods):
        to, source = e.address(i.operands[0], "shared"), e.address(i.operands[1], "global")
        size = have = str(i.operands[2].value)
        if len(i.operands) > 3:
            extra = i.operands[3]
            if extra.kind == "reg" and e.width(extra) == 8:  # ignore-src
                have = f"({e.read(extra, 'pred')} ? 0 : {size})"
            elif extra.kind != "reg" or e.width(extra) == 32:
                have = e.read(extra, "u32")
        e.emit(f"gv_copy({to}, {source}, {size}, {have});")


def _bulk(e: FunctionEmitter, i: Instruction, mods: list[str]) -> None:
    if "prefetch" in mods or "commit_group" in mods or "wait_group" in mods:
        return
    spaces = [mod for mod in mods if mod in ("shared", "global")]
    if len(spaces) != 2:
        raise e.error(f"opcode '{i.opcode}' is not supported by the soft GPU")
    to, source = e.address(i.operands[0], spaces[0]), e.address(i.operands[1], spaces[1])
    size = e.read(i.operands[2], "u32")
    e.emit(f"gv_copy({to}, {source}, {size}, {size});")
    if "mbarrier" in mods:
        e.emit(f"gv_mbarrier_update({e.address(i.operands[3], 'shared')}, 0, 0, -(int64_t){size});")
