# SPDX-License-Identifier: Apache-2.0
"""Manages its memory itself, as PyTorch's expandable segments do, and checks every word at the end against the CPU.

It reserves far more addresses than it uses, maps memory in small and large steps, works on it as one piece, gives
memory back from the end, and maps the same handles somewhere else. Prints `ready` when it holds its memory, `step N` as
it goes, `result: OK digest=...`, and exits 0; 3 when a CUDA call fails (with its name), 4 when a word is wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from dataclasses import dataclass, field

import numpy as np
from cuda.bindings import driver as cu
from device import CudaError, call, launch_mix, load_mix, open_device
from mixer import expected

MIB = 1 << 20
STEPS = (2 * MIB, 20 * MIB, 2 * MIB, 6 * MIB)


def properties() -> cu.CUmemAllocationProp:
    prop = cu.CUmemAllocationProp()
    prop.type = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
    prop.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    prop.location.id = 0
    prop.requestedHandleTypes = cu.CUmemAllocationHandleType.CU_MEM_HANDLE_TYPE_POSIX_FILE_DESCRIPTOR
    return prop


def access(flags: str = "READWRITE") -> cu.CUmemAccessDesc:
    desc = cu.CUmemAccessDesc()
    desc.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
    desc.location.id = 0
    desc.flags = getattr(cu.CUmemAccess_flags, f"CU_MEM_ACCESS_FLAGS_PROT_{flags}")
    return desc


@dataclass
class Segment:
    """A reservation that grows and shrinks at its end."""

    room: int
    base: int = 0
    used: int = 0
    handles: list[tuple[object, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.base = int(call(cu.cuMemAddressReserve, self.room, 0, 0, 0))

    def attach(self, handle: object, size: int) -> None:
        """Maps a handle at the end. Access is given later, for all new ones at once."""
        call(cu.cuMemMap, self.base + self.used, size, 0, handle, 0)
        self.handles.append((handle, size))
        self.used += size

    def grow(self, size: int) -> None:
        self.attach(call(cu.cuMemCreate, size, properties(), 0), size)

    def open(self, start: int = 0, flags: str = "READWRITE") -> None:
        call(cu.cuMemSetAccess, self.base + start, self.used - start, [access(flags)], 1)

    def detach(self) -> tuple[object, int]:
        """Unmaps the last handle and returns it; its content stays."""
        handle, size = self.handles.pop()
        self.used -= size
        call(cu.cuMemUnmap, self.base + self.used, size)
        return handle, size

    def close(self) -> None:
        while self.handles:
            call(cu.cuMemRelease, self.detach()[0])
        call(cu.cuMemAddressFree, self.base, self.room)


def run(options: argparse.Namespace) -> int:
    context = open_device()
    mix = load_mix()
    stream = call(cu.cuStreamCreate, 0)
    wanted = options.memory * MIB
    segment = Segment(16 * wanted)
    while segment.used < wanted:
        start = segment.used
        for size in STEPS:
            if segment.used < wanted:
                segment.grow(min(size, wanted - segment.used))
        segment.open(start)
    count = wanted // 4
    call(cu.cuMemsetD32, segment.base, options.seed, count)
    twin = int(call(cu.cuMemAddressReserve, 2 * MIB, 0, 0, 0))  # the first handle once more, only for reading
    call(cu.cuMemMap, twin, 2 * MIB, 0, segment.handles[0][0], 0)
    call(cu.cuMemSetAccess, twin, 2 * MIB, [access("READ")], 1)
    print("ready", flush=True)
    steps = 0
    deadline = time.monotonic() + options.seconds
    while steps < options.steps or time.monotonic() < deadline:
        launch_mix(mix, segment.base, count, stream)
        call(cu.cuStreamSynchronize, stream)
        steps += 1
        print(f"step {steps}", flush=True)
        # The last handles go, wait a moment without an address, and come to the end again in the same order.
        spare = [segment.detach() for _ in range(min(3, len(segment.handles) - 1))]
        extra = Segment(64 * MIB)
        extra.grow(4 * MIB)
        extra.open()
        call(cu.cuMemsetD32, extra.base, 7, MIB)
        if options.pause:
            time.sleep(options.pause)
        call(cu.cuStreamSynchronize, 0)
        extra.close()
        start = segment.used
        for handle, size in reversed(spare):
            segment.attach(handle, size)
        if spare:
            segment.open(start)
        if steps % 3 == 0:  # everything moves to other addresses
            other = Segment(16 * wanted)
            for handle, size in segment.handles:
                call(cu.cuMemMap, other.base + other.used, size, 0, handle, 0)
                other.used += size
            other.handles, segment.handles = segment.handles, []
            at = segment.base
            for _, size in other.handles:
                call(cu.cuMemUnmap, at, size)
                at += size
            call(cu.cuMemAddressFree, segment.base, segment.room)
            other.open()
            segment = other
    words = np.empty(count, dtype=np.uint32)
    call(cu.cuMemcpyDtoH, words.ctypes.data, segment.base, wanted)
    right = expected(options.seed, count, steps)
    if not np.array_equal(words, right):
        print(f"result: WRONG word {int((words != right).argmax())}", flush=True)
        return 4
    first = np.empty(2 * MIB // 4, dtype=np.uint32)
    call(cu.cuMemcpyDtoH, first.ctypes.data, twin, 2 * MIB)
    if not np.array_equal(first, right[: len(first)]):
        print("result: WRONG at the second address", flush=True)
        return 4
    call(cu.cuMemUnmap, twin, 2 * MIB)
    call(cu.cuMemAddressFree, twin, 2 * MIB)
    segment.close()
    del context
    print(f"result: OK steps={steps} digest={zlib.crc32(words.tobytes()):08x}", flush=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", type=int, default=64, help="MiB in all")
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--seconds", type=float, default=0.0, help="go on at least this long")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds of idleness in each step")
    parser.add_argument("--seed", type=int, default=1)
    try:
        return run(parser.parse_args())
    except CudaError as error:
        print(f"error: {error}", flush=True)
        return 3


if __name__ == "__main__":
    sys.exit(main())
