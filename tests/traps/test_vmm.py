# SPDX-License-Identifier: Apache-2.0
"""Traps of memory that programs map and share themselves."""

from __future__ import annotations

from support.host import host
from support.traps import Edit, trap

MIB = 1 << 20
SHORT = '[time]\nquantum = "30ms"\nswap_share = 0.6'


@trap(
    "Memory opened by an IPC handle is not charged right, or never given back when it is closed.",
    Edit(
        "native/shim/ipc_import.c",
        "    unmap(import, import->ticket.count);\n    gv_capture_restore(mode);\n",
        "    gv_capture_restore(mode);\n",
    ),
)
def test_ipc_memory_charged_and_freed() -> None:
    with host() as machine:
        arguments = ("--memory", "12", "--own", "4", "--rounds", "4", "--hold")
        pair = machine.job("shared.py", *arguments, name="pair")
        pair.wait_for("all freed")
        own = 2 * 4 * MIB
        machine.until(lambda: machine.device_used() <= own, "what was shared to be given back", 3)
        machine.until(lambda: machine.job_named("pair")["charged"] <= own, "only what is held to be charged", 3)


@trap(
    "cuMemAlloc memory is made of mapped handles, and those cannot be opened by other processes.",
    Edit("native/shim/extents.c", ".requestedHandleTypes = gv_memory.shareable", ".requestedHandleTypes = 0"),
)
def test_legacy_ipc_of_mapped_memory() -> None:
    with host() as machine:
        pair = machine.job("shared.py", "--memory", "4", "--own", "2", "--rounds", "2", name="pair")
        assert pair.wait(30) == 0, machine.report()


@trap(
    "A segment that another process has opened by descriptor is swapped out: then each works on memory of its own.",
    Edit("native/shim/blocks.c", "    if (!block->piece.kept) {", "    if (0) {"),
)
def test_expandable_segments_shared() -> None:
    """Both do not fit: the rival must wait as long as the memory is shared."""
    with host(64 * MIB, settings=SHORT) as machine:
        rival = machine.job("mixer.py", "--memory", "56", "--piece", "4", "--seconds", "60", name="rival")
        rival.wait_for("step 1")
        pair = machine.job("exported.py", "--memory", "12", "--rounds", "3", "--pause", "0.1", name="pair")
        assert pair.wait(30) == 0, machine.report()
        rival.stop()


@trap(
    "cuMemCreate takes the device from the current context: a thread of NCCL has none.",
    Edit(
        "native/shim/virtual.c",
        "attached && device == gv_session.device ? CUDA_SUCCESS : gv_session_attach(device);",
        "attached && device == gv_session.device ? CUDA_SUCCESS : gv_session_attach_current();",
    ),
)
def test_no_current_context() -> None:
    with host() as machine:
        program = machine.job("no_context.py", name="nccl")
        assert program.wait(30) == 0, machine.report()
