# SPDX-License-Identifier: Apache-2.0
"""Allocations of many sizes, for tests of the address space.

`same N`: a fixed sequence of allocations and frees in each of N processes; prints each address.
`sizes`: one allocation of each region.
`loop N MODE`: takes and frees 24 MiB N times, with a launch on it each time (`used`), without (`unused`), or with two
alive at any time (`two`).
`idle MIB`: allocates, uses and frees so much, then does nothing more.
"""

from __future__ import annotations

import subprocess
import sys
import time

from cuda.bindings import driver as cu
from device import call, launch_mix, load_mix, open_device

MIB = 1 << 20
LOOP_BYTES = 24 * MIB
SAME_BYTES = 180 * MIB  # of each process: two of them fit into the limit


def same(processes: int) -> None:
    """Small, middle and large ones; every third call frees one of the earlier ones."""
    others = [subprocess.Popen([sys.executable, __file__, "same", "1"]) for _ in range(processes - 1)]
    open_device()
    live: list[tuple[int, int]] = []
    state, found = 7, []
    for step in range(150):
        state = (state * 1103515245 + 12345) % (1 << 31)
        size = (500, 70_000, MIB + 3, 5 * MIB, 20 * MIB, 130 * MIB)[(state >> 8) % 6]
        while live and (step % 3 == 2 or sum(known for _, known in live) + size > SAME_BYTES):
            call(cu.cuMemFree, live.pop((state >> 12) % len(live))[0])
            step = 0
        live.append((int(call(cu.cuMemAlloc, size)), size))
        found.append(f"at {live[-1][0]:x}")
    for address, _ in live:
        call(cu.cuMemFree, address)
    for other in others:
        other.wait()
    print("\n".join([*found, "same done"]), flush=True)


def sizes() -> None:
    """One of each region, one that fits into the limit only in fine extents, and what the large one was charged."""
    open_device()
    small, middle = int(call(cu.cuMemAlloc, 1000)), int(call(cu.cuMemAlloc, 3 * MIB))
    before = call(cu.cuMemGetInfo)[0]
    large = int(call(cu.cuMemAlloc, 128 * MIB))
    after = call(cu.cuMemGetInfo)[0]
    fits = int(call(cu.cuMemAlloc, after - 7 * MIB))
    found = {"small": small, "middle": middle, "large": large, "fits": fits, "charged_large": before - after}
    for name, value in found.items():
        print(f"{name} {value:x}")


def loop(count: int, mode: str) -> None:
    """See above."""
    open_device()
    mix = load_mix()
    call(cu.cuMemFree, use(mix, LOOP_BYTES))
    before = use(mix, LOOP_BYTES) if mode == "two" else 0
    print("loop begins", flush=True)
    time.sleep(0.5)
    for _ in range(count):
        if mode == "unused":
            call(cu.cuMemFree, call(cu.cuMemAlloc, LOOP_BYTES))
            continue
        address = use(mix, LOOP_BYTES)
        if mode == "two":
            before, address = address, before
        call(cu.cuMemFree, address)
    print("loop done", flush=True)


def idle(size: int) -> None:
    """See above."""
    open_device()
    mix = load_mix()
    address = use(mix, size)
    call(cu.cuMemFree, address)
    print("idle freed", flush=True)
    time.sleep(120)


def use(mix: object, size: int) -> int:
    """A new allocation that a kernel has run on."""
    address = int(call(cu.cuMemAlloc, size))
    launch_mix(mix, address, 1024)
    call(cu.cuCtxSynchronize)
    return address


def main() -> int:
    what, *rest = sys.argv[1:]
    if what == "same":
        same(int(rest[0]))
    elif what == "sizes":
        sizes()
    elif what == "loop":
        loop(int(rest[0]), rest[1])
    else:
        idle(int(rest[0]) * MIB)
    return 0


if __name__ == "__main__":
    sys.exit(main())
