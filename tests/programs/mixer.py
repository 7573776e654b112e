# SPDX-License-Identifier: Apache-2.0
"""Allocates memory in pieces, mixes all of it again and again, and checks every word at the end against the CPU.

Prints `ready` when it holds its memory, `step N` as it goes, `result: OK digest=...`, and exits 0; 3 when a CUDA call
fails (with its name), 4 when a word is wrong.
"""

from __future__ import annotations

import argparse
import sys
import time
import zlib
from pathlib import Path

import numpy as np
from cuda.bindings import driver as cu
from device import CudaError, call, launch_mix, load_mix, open_device

PIECE = 1 << 20


def expected(seed: int, count: int, steps: int) -> np.ndarray:
    """What the words of one piece are after `steps` passes."""
    words = np.full(count, seed, dtype=np.uint32)
    index = np.arange(count, dtype=np.uint32)
    for _ in range(steps):
        words = words * np.uint32(1664525) + np.uint32(1013904223) + index
    return words


def run(options: argparse.Namespace) -> int:
    context = open_device()
    mix = load_mix()
    stream = call(cu.cuStreamCreate, 0)
    piece = options.piece << 20
    pieces = [call(cu.cuMemAlloc, piece) for _ in range((options.memory << 20) // piece)]
    count = piece // 4
    for number, address in enumerate(pieces):
        call(cu.cuMemsetD32, address, options.seed + number, count)
    print("ready", flush=True)
    steps = 0
    deadline = time.monotonic() + options.seconds
    while steps < options.steps or time.monotonic() < deadline or not (options.until is None or options.until.exists()):
        for address in pieces:
            launch_mix(mix, address, count, stream)
        call(cu.cuStreamSynchronize, stream)
        steps += 1
        print(f"step {steps}", flush=True)
        if options.pause:
            time.sleep(options.pause)
    digest = 0
    words = np.empty(count, dtype=np.uint32)
    for number, address in enumerate(pieces):
        call(cu.cuMemcpyDtoH, words.ctypes.data, address, piece)
        if not np.array_equal(words, expected(options.seed + number, count, steps)):
            wrong = int((words != expected(options.seed + number, count, steps)).argmax())
            print(f"result: WRONG piece {number} word {wrong}", flush=True)
            return 4
        digest = zlib.crc32(words.tobytes(), digest)
    for address in pieces:
        call(cu.cuMemFree, address)
    call(cu.cuStreamDestroy, stream)
    call(cu.cuDevicePrimaryCtxRelease, call(cu.cuDeviceGet, 0))
    del context
    print(f"result: OK steps={steps} digest={digest:08x}", flush=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", type=int, default=64, help="MiB in all")
    parser.add_argument("--piece", type=int, default=16, help="MiB of one allocation")
    parser.add_argument("--steps", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.0, help="go on at least this long")
    parser.add_argument("--pause", type=float, default=0.0, help="seconds of idleness after each step")
    parser.add_argument("--until", type=Path, help="go on until this file exists")
    parser.add_argument("--seed", type=int, default=1)
    try:
        return run(parser.parse_args())
    except CudaError as error:
        print(f"error: {error}", flush=True)
        return 3


if __name__ == "__main__":
    sys.exit(main())
