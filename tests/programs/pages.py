# SPDX-License-Identifier: Apache-2.0
"""Holds memory whose pages are of one kind, lets others have the GPU between its turns, and checks every word.

    pages.py KIND --memory MIB --turns N [--seed S]

    weights    random, written once, read in every turn
    zeros      allocated and cleared, never written
    replicas   two halves that are equal, written again in every turn
    words      random; in every turn one word of each page changes, by a copy of 4 bytes
    dirty      written again in every turn

Prints `ready`, `turn N` after each, `result: OK` and exits 0; 4 when a word is wrong, 3 when a CUDA call fails.
"""

from __future__ import annotations

import argparse
import sys
import time

import numpy as np
from cuda.bindings import driver as cu
from device import CudaError, call, launch_mix, load_mix, open_device

PAGE = 2 << 20
WORDS = PAGE // 4


class Wrong(Exception):
    """A word is not what it must be."""


class Memory:
    """One allocation on the device, and what must be in it."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.kind = options.kind
        self.random = np.random.default_rng(options.seed)
        self.count = (options.memory << 20) // 4
        self.address = int(call(cu.cuMemAlloc, self.count * 4))
        self.mix = load_mix()
        self.content = np.zeros(self.count, dtype=np.uint32)
        call(cu.cuMemsetD32, self.address, 0, self.count)
        if self.kind in ("weights", "words"):
            self.content = self.random.integers(1, 1 << 32, self.count, dtype=np.uint32)
            call(cu.cuMemcpyHtoD, self.address, self.content.ctypes.data, self.count * 4)

    def turn(self) -> None:
        if self.kind == "words":
            for page in range(self.count // WORDS):
                at = page * WORDS + int(self.random.integers(WORDS))
                self.content[at] ^= np.uint32(1 << int(self.random.integers(32)))
                call(cu.cuMemcpyHtoD, self.address + at * 4, self.content[at : at + 1].ctypes.data, 4)
        elif self.kind in ("replicas", "dirty"):
            halves = 2 if self.kind == "replicas" else 1
            part = self.count // halves
            for half in range(halves):
                launch_mix(self.mix, self.address + half * part * 4, part)
            index = np.tile(np.arange(part, dtype=np.uint32), halves)
            self.content = self.content * np.uint32(1664525) + np.uint32(1013904223) + index
        call(cu.cuCtxSynchronize)

    def check(self) -> None:
        words = np.empty(self.count, dtype=np.uint32)
        call(cu.cuMemcpyDtoH, words.ctypes.data, self.address, self.count * 4)
        if not np.array_equal(words, self.content):
            raise Wrong(f"word {int((words != self.content).argmax())}")


def run(options: argparse.Namespace) -> None:
    open_device()
    memory = Memory(options)
    memory.turn()
    print("ready", flush=True)
    for turn in range(options.turns):
        time.sleep(options.pause)  # idle: who waits gets the GPU
        memory.check()
        memory.turn()
        print(f"turn {turn}", flush=True)
    memory.check()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("kind", choices=("weights", "zeros", "replicas", "words", "dirty"))
    parser.add_argument("--memory", type=int, default=64, help="MiB")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--pause", type=float, default=0.3, help="seconds of idleness before a turn")
    parser.add_argument("--seed", type=int, default=1)
    try:
        run(parser.parse_args())
    except CudaError as error:
        print(f"error: {error}", flush=True)
        return 3
    except Wrong as error:
        print(f"result: WRONG {error}", flush=True)
        return 4
    print("result: OK", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
