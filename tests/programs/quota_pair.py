# SPDX-License-Identifier: Apache-2.0
"""Two processes of one job near its quota: one holds memory, the other takes and gives back all that is left.

`--kind plain|block|managed`: memory of cuMemAlloc, cuMemCreate, cuMemAllocManaged. Prints `rounds N` and exits 0; 3
when a call fails (with its name): whatever is free must be there to take. `--late`: the first has taken `--memory`
before the second begins; prints what that gets for as much (`second: CUDA_...`), and what it sees free.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

from cuda.bindings import driver as cu
from device import CudaError, call, open_device

MIB = 1 << 20
HELD = 16 * MIB


def round_trip(kind: str, size: int) -> None:
    if kind == "block":
        prop = cu.CUmemAllocationProp()
        prop.type = cu.CUmemAllocationType.CU_MEM_ALLOCATION_TYPE_PINNED
        prop.location.type = cu.CUmemLocationType.CU_MEM_LOCATION_TYPE_DEVICE
        call(cu.cuMemRelease, call(cu.cuMemCreate, size, prop, 0))
    elif kind == "managed":
        attach = cu.CUmemAttach_flags.CU_MEM_ATTACH_GLOBAL.value
        call(cu.cuMemFree, call(cu.cuMemAllocManaged, size, attach))
    else:
        call(cu.cuMemFree, call(cu.cuMemAlloc, size))


def take_all(size: int) -> None:
    print(f"second: {cu.cuMemAlloc(size)[0].name}", flush=True)
    print(f"second free: {call(cu.cuMemGetInfo)[0] // MIB}", flush=True)


def late(size: int) -> int:
    """Takes the memory while it is alone, some time after it last spoke to the daemon."""
    open_device()
    call(cu.cuMemAlloc, 2 * MIB)
    time.sleep(0.3)
    call(cu.cuMemAlloc, size)
    done = subprocess.run([sys.executable, __file__, "--second", "--memory", str(size // MIB)], check=False)
    call(cu.cuMemAlloc, 4 * MIB)
    return done.returncode


def hold() -> int:
    open_device()
    call(cu.cuMemAlloc, HELD)
    print("held", flush=True)
    sys.stdin.readline()
    return 0


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--hold", action="store_true")
    parser.add_argument("--late", action="store_true")
    parser.add_argument("--second", action="store_true")
    parser.add_argument("--kind", default="plain")
    parser.add_argument("--memory", type=int, default=40, help="MiB taken in each round")
    parser.add_argument("--seconds", type=float, default=2.0)
    options = parser.parse_args()
    if options.hold:
        return hold()
    if options.late:
        return late(options.memory * MIB)
    if options.second:
        open_device()
        take_all(options.memory * MIB)
        return 0
    holder = subprocess.Popen([sys.executable, __file__, "--hold"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin is not None and holder.stdout is not None
    holder.stdout.readline()
    try:
        open_device()
        rounds = 0
        end = time.monotonic() + options.seconds
        while time.monotonic() < end:
            round_trip(options.kind, options.memory * MIB)
            rounds += 1
            time.sleep(0.001 * (rounds % 3))  # so that each report arrives alone, or not
        print(f"rounds {rounds}", flush=True)
        return 0
    except CudaError as failed:
        print(failed, flush=True)
        return 3
    finally:
        holder.stdin.close()
        holder.wait()


if __name__ == "__main__":
    sys.exit(main())
