# SPDX-License-Identifier: Apache-2.0
"""Traps of swapping: memory that comes back as something else than it was."""

from __future__ import annotations

import os
import signal

from support.host import MIB, Host, Program, host
from support.swapping import arena_fds, flags_of_mappings
from support.traps import Edit, trap

SHORT = '[time]\nquantum = "10ms"\nswap_share = 1.0'


def swapped(scene: str, *options: str) -> None:
    """A scene of tests/programs/switch_traps.py, swapped out as often as it says that it is ready."""
    with host(32 * MIB, settings=SHORT) as machine:
        program = machine.job("switch_traps.py", scene, name=scene, options=options)
        program.wait_for("ready 0", 30)
        for number in range(8):
            swap_out(machine, scene)
            os.kill(machine.job_named(scene)["pids"][0], signal.SIGUSR1)
            if not goes_on(machine, program, f"ready {number + 1}"):
                break
        assert program.wait(20) == 0, program.text
        assert "result: OK" in program.text


def swap_out(machine: Host, name: str) -> None:
    rival = machine.job("mixer.py", "--memory", "30", "--piece", "2", "--steps", "2")
    assert rival.wait(30) == 0, machine.report()
    assert machine.job_named(name)["resident"] == 0 < machine.job_named(name)["swapped"], machine.report()


def goes_on(machine: Host, program: Program, line: str) -> bool:
    """True when it says the line, False when it ends without."""
    machine.until(lambda: line in program.text or not program.running, f"'{line}' or the end", 20)
    return line in program.text


@trap(
    "Everything is accessible in the same way when it is back: a mapping that was only for reading can be written.",
    Edit(
        "native/shim/block_memory.c",
        "access[count++].flags = (CUmemAccess_flags)mapping->access[device];",
        "access[count++].flags = CU_MEM_ACCESS_FLAGS_PROT_READWRITE;",
    ),
)
def test_access_lists() -> None:
    swapped("access_lists")


@trap(
    "A handle that is mapped twice comes back at one of its addresses.",
    Edit(
        "native/shim/block_memory.c",
        "        mapping = mapping->next;\n    if (result == CUDA_SUCCESS)\n        return CUDA_SUCCESS;",
        "        mapping = NULL;\n    if (result == CUDA_SUCCESS)\n        return CUDA_SUCCESS;",
    ),
)
def test_mapped_twice() -> None:
    swapped("mapped_twice")


@trap(
    "A part of a mapping is unmapped: of the whole, as far as the table knows.",
    Edit(
        "native/shim/mappings.c",
        "mapping->base != at || mapping->bytes > base + bytes - at)",
        "mapping->base > at)",
    ),
)
def test_part_of_a_mapping() -> None:
    swapped("part_of_a_mapping")


@trap(
    "Sizes near the largest number wrap: when they are rounded up, and when what is charged is added.",
    Edit("native/shim/ranges.c", "if (bytes == 0 || bytes > ranges->bytes)", "if (bytes == 0)"),
    Edit(
        "native/shim/blocks.c",
        "return charged <= quota && bytes <= quota - charged;",
        "return charged + bytes <= quota;",
    ),
)
def test_quota_arithmetic() -> None:
    swapped("quota_arithmetic", "--memory", "16M")


def beside_a_rival(verify: bool = True, **environ: str) -> None:
    """Two jobs that take turns on a device for one; every word depends on every step, and is checked at the end."""
    with host(32 * MIB, settings=f"{SHORT}\n[memory]\nverify = {str(verify).lower()}") as machine:
        amount = ("--memory", "24", "--piece", "2", "--seconds", "2")
        one = machine.job("mixer.py", *amount, name="one", **environ)
        two = machine.job("mixer.py", *amount, "--seed", "9", name="two")
        assert (one.wait(40), two.wait(40)) == (0, 0), machine.report()
        assert machine.job_named("one")["out_bytes"] > 0


@trap(
    "A part of what should come back does not, and the whole is reported as done.",
    Edit(
        "native/shim/swap_in.c",
        "result = REAL(cuMemcpyHtoDAsync_v2)(",
        "REAL(cuMemcpyHtoDAsync_v2)(",
    ),
)
def test_half_done_wake() -> None:
    beside_a_rival(verify=False, GPUVIRT_SOFTGPU_FAULTS="cuMemcpyHtoDAsync*:7:UNKNOWN")


@trap(
    "A page is believed to be what it was when it left for the last time.",
    Edit("native/shim/elide.c", "page->hashed && equal(page->hash, item->hash)", "page->hashed"),
)
def test_clean_is_believed() -> None:
    beside_a_rival()


@trap(
    "Hashes that collide: pages of one hash of a few bits are taken for the same.",
    Edit(
        "native/shim/elide.c",
        "    memcpy(item->hash, hash->hash, sizeof item->hash);\n",
        "    item->hash[0] = hash->hash[0] & 7;\n    item->hash[1] = 1;\n",
    ),
)
def test_hashes_collide() -> None:
    beside_a_rival(verify=False)


@trap(
    "Memory is unmapped before the copy of its content has ended.",
    Edit(
        "native/shim/swap_out.c",
        ": REAL(cuEventSynchronize)(out.events[window % COPY_AHEAD]);",
        ": CUDA_SUCCESS;",
    ),
)
def test_unmapped_before_it_is_copied() -> None:
    beside_a_rival(GPUVIRT_SOFTGPU_FAULTS="copy.from_device:*:rate=200M")


@trap(
    "An arena that core files show, and the children of the process.",
    Edit("native/shim/arena.c", "    madvise(address, bytes, MADV_DONTDUMP);", "    (void)0;"),
)
def test_arena_in_core_files() -> None:
    with host(32 * MIB, settings=SHORT) as machine:
        program = machine.job("guest.py", "hold", "8", name="one")
        program.wait_for("holds", 20)
        (pid,) = machine.job_named("one")["pids"]
        arenas = {entry.stat().st_ino for entry in arena_fds(pid)}
        flags = flags_of_mappings(pid, arenas)
        assert flags and all("dd" in words for words in flags), flags


@trap(
    "The window lies where it would like to lie, whatever the program has there.",
    Edit("native/shim/window.c", "    m->extents = mmap(NULL,", "    base = hint;\n    m->extents = mmap(NULL,"),
)
def test_window_is_taken() -> None:
    swapped("window_is_taken")
