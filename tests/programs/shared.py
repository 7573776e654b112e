# SPDX-License-Identifier: Apache-2.0
"""Two processes pass device memory on to each other by legacy IPC, as torch.multiprocessing does with CUDA tensors.

The producer allocates and fills; the consumer (a child of its own) opens what it is handed, works on it in place,
closes it, and says so; then the producer checks every word and frees it. Both hold memory of their own that they check
at the end. Prints `ready`, `round N`, `result: OK`, and exits 0; 3 when a CUDA call fails (with its name), 4 when a
word is wrong. `--hold`: prints `all freed` and sleeps before the end. `--offer` only prints `handle: HEX` and sleeps;
`--open HEX` opens such a handle and prints what came of it.
"""

from __future__ import annotations

import argparse
import ctypes
import os
import subprocess
import sys
import time

import numpy as np
from cuda.bindings import driver as cu
from device import CudaError, call, launch_mix, load_mix, open_device
from mixer import expected

MIB = 1 << 20
CAPABLE = cu.CUpointer_attribute.CU_POINTER_ATTRIBUTE_IS_LEGACY_CUDA_IPC_CAPABLE
LAZY = cu.CUipcMem_flags.CU_IPC_MEM_LAZY_ENABLE_PEER_ACCESS.value


def to_text(handle: cu.CUipcMemHandle) -> str:
    return ctypes.string_at(handle.getPtr(), 64).hex()


def from_text(text: str) -> cu.CUipcMemHandle:
    handle = cu.CUipcMemHandle()
    ctypes.memmove(handle.getPtr(), bytes.fromhex(text), 64)
    return handle


def words_at(address: int, count: int) -> np.ndarray:
    words = np.empty(count, dtype=np.uint32)
    call(cu.cuMemcpyDtoH, words.ctypes.data, address, 4 * count)
    return words


class Own:
    """Memory that only this process uses."""

    def __init__(self, size: int, seed: int) -> None:
        self.count, self.seed, self.steps = size // 4, seed, 0
        self.address = int(call(cu.cuMemAlloc, size))
        call(cu.cuMemsetD32, self.address, seed, self.count)

    def step(self, mix: object) -> None:
        launch_mix(mix, self.address, self.count)
        self.steps += 1

    def right(self) -> bool:
        return np.array_equal(words_at(self.address, self.count), expected(self.seed, self.count, self.steps))


def consume(options: argparse.Namespace) -> int:
    open_device()
    mix = load_mix()
    own = Own(options.own * MIB, 77)
    print("open", flush=True)
    for line in sys.stdin:
        text, offset, count = line.split()
        handle = from_text(text)
        address = int(call(cu.cuIpcOpenMemHandle, handle, LAZY))
        again = int(call(cu.cuIpcOpenMemHandle, handle, LAZY))
        assert again == address
        launch_mix(mix, address + int(offset), int(count))
        own.step(mix)
        call(cu.cuCtxSynchronize)
        call(cu.cuIpcCloseMemHandle, address)
        call(cu.cuIpcCloseMemHandle, address)
        print("done", flush=True)
    return 0 if own.right() else 4


def produce(options: argparse.Namespace) -> int:
    open_device()
    mix = load_mix()
    own = Own(options.own * MIB, 33)
    child = subprocess.Popen(
        [sys.executable, __file__, "--consume", "--own", str(options.own)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdin is not None and child.stdout is not None
    assert child.stdout.readline() == "open\n"
    print("ready", flush=True)
    size = options.memory * MIB
    rounds = 0
    deadline = time.monotonic() + options.seconds
    while rounds < options.rounds or time.monotonic() < deadline:
        offset = 4096 * (rounds % 5)  # a tensor is a part of what the allocator has
        count = (size - offset) // 4
        shared = int(call(cu.cuMemAlloc, size))
        assert call(cu.cuPointerGetAttribute, CAPABLE, shared)
        call(cu.cuMemsetD32, shared, rounds, size // 4)
        launch_mix(mix, shared + offset, count)
        call(cu.cuCtxSynchronize)
        child.stdin.write(f"{to_text(call(cu.cuIpcGetMemHandle, shared))} {offset} {count}\n")
        child.stdin.flush()
        own.step(mix)
        said = child.stdout.readline()
        if said != "done\n":
            print(f"result: WRONG the consumer said {said!r}", flush=True)
            return 4
        if not np.array_equal(words_at(shared + offset, count), expected(rounds, count, 2)):
            print(f"result: WRONG in round {rounds}", flush=True)
            return 4
        call(cu.cuMemFree, shared)
        rounds += 1
        print(f"round {rounds}", flush=True)
    if options.hold:
        print("all freed", flush=True)
        time.sleep(60)
    child.stdin.close()
    if child.wait() != 0 or not own.right():
        print("result: WRONG in what was not shared", flush=True)
        return 4
    print(f"result: OK rounds={rounds}", flush=True)
    return 0


def offer() -> int:
    open_device()
    address = int(call(cu.cuMemAlloc, 4 * MIB))
    print(f"handle: {to_text(call(cu.cuIpcGetMemHandle, address))}", flush=True)
    time.sleep(60)
    return 0


def leave() -> int:
    """Ends while its child has memory of it open."""
    open_device()
    mix = load_mix()
    address = int(call(cu.cuMemAlloc, 4 * MIB))
    call(cu.cuMemsetD32, address, 5, MIB)
    launch_mix(mix, address, MIB)
    call(cu.cuCtxSynchronize)
    reading, writing = os.pipe()
    handle = to_text(call(cu.cuIpcGetMemHandle, address))
    subprocess.Popen([sys.executable, __file__, "--inherit", handle, str(writing)], pass_fds=(writing,))
    assert os.read(reading, 1) == b"x"
    os._exit(0)


def inherit(text: str, descriptor: str) -> int:
    open_device()
    mix = load_mix()
    address = int(call(cu.cuIpcOpenMemHandle, from_text(text), LAZY))
    parent = os.getppid()
    os.write(int(descriptor), b"x")
    while os.getppid() == parent:
        time.sleep(0.01)
    launch_mix(mix, address, MIB)
    right = np.array_equal(words_at(address, MIB), expected(5, MIB, 2))
    print(f"inherited: {'OK' if right else 'WRONG'}", flush=True)
    time.sleep(2)
    call(cu.cuIpcCloseMemHandle, address)
    print("closed", flush=True)
    time.sleep(60)
    return 0


def try_to_open(text: str) -> int:
    open_device()
    error, _ = cu.cuIpcOpenMemHandle(from_text(text), LAZY)
    print(f"opened: {error.name}", flush=True)
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", type=int, default=8, help="MiB that are passed on at a time")
    parser.add_argument("--own", type=int, default=16, help="MiB that each process has besides")
    parser.add_argument("--rounds", type=int, default=4)
    parser.add_argument("--seconds", type=float, default=0.0, help="go on at least this long")
    parser.add_argument("--hold", action="store_true")
    parser.add_argument("--consume", action="store_true")
    parser.add_argument("--offer", action="store_true")
    parser.add_argument("--open", metavar="HEX")
    parser.add_argument("--leave", action="store_true", help="a child opens memory of this process, which then ends")
    parser.add_argument("--inherit", nargs=2, metavar=("HEX", "DESCRIPTOR"))
    options = parser.parse_args()
    try:
        if options.offer:
            return offer()
        if options.leave:
            return leave()
        if options.inherit:
            return inherit(*options.inherit)
        if options.open:
            return try_to_open(options.open)
        return consume(options) if options.consume else produce(options)
    except CudaError as error:
        print(f"error: {error}", flush=True)
        return 3


if __name__ == "__main__":
    sys.exit(main())
