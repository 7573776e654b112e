# SPDX-License-Identifier: Apache-2.0
"""Takes memory as it is told on standard input, and says what came of it.

`take N`: N MiB, written to; `free`: the last one; `info`: what cuMemGetInfo says; `work`: one kernel over each piece,
checked; `quit`. With --processes several of one job: each takes pieces of --memory MiB, all at the same time, until it
is refused, then works for a moment; each prints `I has N` and, if all its memory is as it should be, `I done`.
"""

from __future__ import annotations

import argparse
import ctypes
import subprocess
import sys
import time

from cuda.bindings import driver as cu
from device import CudaError, call, launch_mix, load_mix, open_device

MIB = 1 << 20


class Memory:
    """What this process has: each piece with the word that all of it holds."""

    def __init__(self) -> None:
        open_device()
        self.mix = load_mix()
        self.pieces: list[tuple[int, int]] = []  # address, MiB
        self.steps = 0

    def take(self, size: int) -> str:
        try:
            address = int(call(cu.cuMemAlloc, size * MIB))
        except CudaError as error:
            return error.code
        call(cu.cuMemsetD32, address, len(self.pieces) + 1, size * MIB // 4)
        self.pieces.append((address, size))
        return "OK"

    def free(self) -> str:
        address, _ = self.pieces.pop()
        call(cu.cuMemFree, address)
        return "OK"

    def work(self) -> str:
        """Every piece's first words go through the kernel; the rest is as it was written."""
        for number, (address, size) in enumerate(self.pieces):
            call(cu.cuMemsetD32, address, number + 1, 256)
            launch_mix(self.mix, address, 256)
            first, last = (ctypes.c_uint32 * 1)(), (ctypes.c_uint32 * 1)()
            call(cu.cuMemcpyDtoH, ctypes.addressof(first), address, 4)
            call(cu.cuMemcpyDtoH, ctypes.addressof(last), address + size * MIB - 4, 4)
            if (first[0], last[0]) != (((number + 1) * 1664525 + 1013904223) % (1 << 32), number + 1):
                return f"wrong: piece {number} has {first[0]} and {last[0]}"
        self.steps += 1
        return "OK"

    def info(self) -> str:
        free, total = call(cu.cuMemGetInfo)
        return f"{free // MIB} of {total // MIB}"


def obey(memory: Memory) -> None:
    for line in sys.stdin:
        word, *arguments = line.split()
        if word == "quit":
            return
        print(f"{line.strip()}: {getattr(memory, word)(*map(int, arguments))}", flush=True)


def greedy(name: int, size: int, seconds: float) -> int:
    memory = Memory()
    print(f"{name} ready", flush=True)
    sys.stdin.readline()
    while memory.take(size) == "OK":
        pass
    print(f"{name} has {size * len(memory.pieces)}", flush=True)
    end = time.monotonic() + seconds
    while time.monotonic() < end or memory.steps < 2:
        said = memory.work()
        if said != "OK":
            print(name, said, flush=True)
            return 1
    print(f"{name} done", flush=True)
    return 0


def together(count: int, size: int, seconds: float) -> int:
    """Starts the processes; they begin at the same moment."""
    children = [
        subprocess.Popen(
            [sys.executable, __file__, "--name", str(n), "--memory", str(size), "--seconds", str(seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for n in range(count)
    ]
    for child in children:
        assert child.stdout is not None
        child.stdout.readline()
    for child in children:
        assert child.stdin is not None
        child.stdin.write("\n")
        child.stdin.flush()
    outputs = [child.communicate()[0] for child in children]
    print("".join(outputs), end="", flush=True)
    return max(child.returncode for child in children)


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("--processes", type=int, default=0)
    parser.add_argument("--name", type=int)
    parser.add_argument("--memory", type=int, default=16, help="MiB of each piece")
    parser.add_argument("--seconds", type=float, default=1.0)
    options = parser.parse_args()
    if options.processes:
        return together(options.processes, options.memory, options.seconds)
    if options.name is not None:
        return greedy(options.name, options.memory, options.seconds)
    obey(Memory())
    return 0


if __name__ == "__main__":
    sys.exit(main())
