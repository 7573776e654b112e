# SPDX-License-Identifier: Apache-2.0
"""Traps of memory: what is charged, what is told, what is freed. The scenes are in tests/programs/memory_traps.py."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.host import Host, host
from support.traps import Edit, trap

MIB = 1 << 20


@pytest.fixture
def machine() -> Iterator[Host]:
    with host(256 * MIB) as ready:
        yield ready


def scene(machine: Host, name: str, *options: str, **extra: str) -> str:
    """Runs one to its end; what it said. It must have found everything right."""
    program = machine.job("memory_traps.py", name, name=name, options=options, **extra)
    assert program.wait(50) == 0, program.text
    assert "ok" in program.lines, program.text
    return program.text


@trap(
    "cuMemFree of a pointer that the table does not know returns -1.",
    Edit(
        "native/shim/allocation.c",
        "return GV_FIXED_DESTROY(GV_FIXED_MANAGED, dptr, REAL(cuMemFree_v2)(dptr));",
        "return gv_fixed_freed(GV_FIXED_MANAGED, dptr) != 0 ? REAL(cuMemFree_v2)(dptr) : (CUresult)-1;",
    ),
)
def test_free_of_what_is_not_ours(machine: Host) -> None:
    scene(machine, "free_of_what_is_not_ours")


@trap(
    "The driver is asked first and the account afterwards: what it refuses stays allocated.",
    Edit(
        "native/shim/fixed.h",
        "CUresult gv_created = gv_fixed_charge(kind, gv_bytes);",
        "CUresult gv_created = (call) == CUDA_SUCCESS ? gv_fixed_charge(kind, gv_bytes) : CUDA_ERROR_INVALID_VALUE;",
    ),
)
def test_bookkeeping_fails_after_the_allocation(machine: Host) -> None:
    program = machine.job("memory_traps.py", "bookkeeping_fails_after_the_allocation", options=("--memory", "64M"))
    program.wait_for("refused", 20)
    assert machine.device_used() < 64 * MIB


@trap(
    "The result of the allocation is replaced by that of a later call: an error looks like success.",
    Edit("native/shim/fixed.h", "gv_created = GV_FIXED_CALL(gv_bytes, call); ", "GV_FIXED_CALL(gv_bytes, call); "),
)
def test_result_overwritten(machine: Host) -> None:
    rules = "cuMemAllocManaged:*:NOT_SUPPORTED; cuArray*Create*:*:NOT_SUPPORTED"
    scene(machine, "result_overwritten", GPUVIRT_SOFTGPU_FAULTS=rules)


@trap(
    "cuMemGetInfo writes through NULL.",
    Edit("native/shim/queries.c", "result == CUDA_SUCCESS && total != NULL)", "result == CUDA_SUCCESS)"),
)
def test_memory_info_null(machine: Host) -> None:
    scene(machine, "memory_info_null")


@trap(
    "Truth values are written as bytes: what the program had in the other three is taken for yes.",
    Edit("native/shim/queries.c", "*(int *)data = 0;", "*(unsigned char *)data = 0;"),
)
def test_attributes_that_lie(machine: Host) -> None:
    scene(machine, "attributes_that_lie")


@trap(
    "Allocations are in a list that every call walks.",
    Edit(
        "native/shim/ranges.c",
        "return starting_at(ranges, unit_of(ranges, address));",
        "struct gv_range *r = ranges->first;\n    while (r != NULL && r->address != address)\n        r = r->upper;\n"
        "    return r != NULL && r->shown ? r : NULL;",
    ),
)
def test_linear_lists(machine: Host) -> None:
    scene(machine, "linear_lists")


@trap(
    "Arrays and managed memory are not charged: a job gets all of the device by them.",
    Edit("native/shim/room.c", "if (charged > quota || bytes > quota - charged)", "if (quota == UINT64_MAX)"),
)
def test_quota_by_every_way(machine: Host) -> None:
    scene(machine, "quota_by_every_way", "--memory", "64M")


@trap(
    "Imported and external memory is not charged, or stays charged when it has gone.",
    Edit(
        "native/shim/foreign.c",
        "return GV_FIXED_DESTROY(GV_FIXED_EXTERNAL, extMem, REAL(cuDestroyExternalMemory)(extMem));",
        "return REAL(cuDestroyExternalMemory)(extMem);",
    ),
)
def test_external_memory(machine: Host) -> None:
    scene(machine, "external_memory")
