# SPDX-License-Identifier: Apache-2.0
"""Work that ends only when the program's own threads get on, which may stand at the gate meanwhile.

    needs_itself.py callbacks|lock|interpreter [--rounds N]

callbacks    host functions on two streams wait for each other, in turn; launches stand between them
lock         a thread launches while it holds a lock that a host function of the same stream needs, and another thread
interpreter  the same with Python's own lock: the launch does not release it, and the host function is in Python

Prints `ready`, `round N` as it goes, `result: OK rounds=N`, and exits 0; 3 when a CUDA call fails, 4 when a word is
wrong.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from cuda.bindings import driver as cu
from device import BLOCK, CudaError, call, launch_mix, load_mix, open_device

HOST_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p)
COUNT, LAUNCHES = 1 << 14, 8
PAUSE_US = 2000  # between launches: the lease may be taken away between any two of them
PATIENCE = 50.0  # seconds; a host function that waits longer says so


class Program:
    """A context, the kernel, and host functions that live as long as the program."""

    def __init__(self) -> None:
        self.context = open_device()
        self._mix = load_mix()
        self._kept: list[Any] = []
        self.late: list[str] = []

    def stream(self) -> tuple[Any, int]:
        """A stream and the words that its launches mix."""
        words = int(call(cu.cuMemAlloc, COUNT * 4))
        call(cu.cuMemsetD32, words, 1, COUNT)
        call(cu.cuCtxSynchronize)  # the stream does not wait for it
        return call(cu.cuStreamCreate, cu.CUstream_flags.CU_STREAM_NON_BLOCKING), words

    def launch(self, stream: Any, words: int) -> None:
        for _ in range(LAUNCHES):
            launch_mix(self._mix, words, COUNT, stream)
            time.sleep(PAUSE_US / 1e6)

    def launch_with_the_interpreter_held(self, stream: Any, words: int) -> None:
        """The driver's function called by ctypes as one of Python's own: nobody else runs meanwhile."""
        library, system = ctypes.PyDLL("libcuda.so.1"), ctypes.PyDLL(None)
        values = (ctypes.c_uint64(words), ctypes.c_uint32(COUNT))
        pointers = (ctypes.c_void_p * 2)(*(ctypes.addressof(value) for value in values))
        shape = [*map(ctypes.c_uint, (COUNT // BLOCK, 1, 1, BLOCK, 1, 1, 0))]
        for _ in range(LAUNCHES):
            code = library.cuLaunchKernel(
                ctypes.c_void_p(int(self._mix)), *shape, ctypes.c_void_p(int(stream)), pointers, None
            )
            if code != 0:
                raise CudaError(str(code), "cuLaunchKernel")
            system.usleep(PAUSE_US)

    def host(self, stream: Any, function: Callable[[], None]) -> None:
        """The function runs when the stream comes to it."""
        made = HOST_FUNCTION(lambda _: function())
        self._kept.append(made)
        call(cu.cuLaunchHostFunc, stream, cu.CUhostFn(ctypes.cast(made, ctypes.c_void_p).value), 0)

    def expect(self, event: threading.Event, what: str) -> None:
        if not event.wait(PATIENCE):
            self.late.append(what)

    def check(self, stream: Any, words: int, launches: int) -> bool:
        """Every word has been mixed as often as it was asked for."""
        call(cu.cuStreamSynchronize, stream)
        found: np.ndarray = np.empty(COUNT, dtype=np.uint32)
        call(cu.cuMemcpyDtoH, found.ctypes.data, words, COUNT * 4)
        expected: np.ndarray = np.ones(COUNT, dtype=np.uint32)
        index: np.ndarray = np.arange(COUNT, dtype=np.uint32)
        for _ in range(launches):
            expected = expected * np.uint32(1664525) + np.uint32(1013904223) + index
        return bool(np.array_equal(found, expected))


def callbacks(program: Program, rounds: int) -> bool:
    streams = [program.stream() for _ in range(2)]
    for number in range(1, rounds + 1):
        met = [threading.Event(), threading.Event()]

        def meet(own: int, met: list[threading.Event] = met, number: int = number) -> None:
            met[own].set()
            program.expect(met[1 - own], f"round {number}, stream {own}")

        for own, (stream, words) in enumerate(streams):
            program.launch(stream, words)
            program.host(stream, lambda own=own, meet=meet: meet(own))  # type: ignore[misc]
            program.launch(stream, words)  # the other one's is not there yet
        for stream, _ in streams:
            call(cu.cuStreamSynchronize, stream)
        print(f"round {number}", flush=True)
    return all(program.check(stream, words, 2 * LAUNCHES * rounds) for stream, words in streams)


def locked(program: Program, rounds: int, held: Any, launch: Callable[[Any, int], None]) -> bool:
    """A host function of the stream takes the lock, and so does another thread, which waits for the stream with it."""
    stream, words = program.stream()
    over = threading.Event()

    def take() -> None:
        with held:
            pass

    def other() -> None:
        call(cu.cuCtxSetCurrent, program.context)
        while not over.is_set():
            take()
            cu.cuStreamQuery(stream)
            time.sleep(0.001)

    thread = threading.Thread(target=other)
    thread.start()
    for number in range(1, rounds + 1):
        with held:
            launch(stream, words)
            program.host(stream, take)
            launch(stream, words)
        call(cu.cuStreamSynchronize, stream)
        print(f"round {number}", flush=True)
    over.set()
    thread.join()
    return program.check(stream, words, 2 * LAUNCHES * rounds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kind", choices=("callbacks", "lock", "interpreter"))
    parser.add_argument("--rounds", type=int, default=6)
    options = parser.parse_args()
    program = Program()
    call(cu.cuCtxSynchronize)
    print("ready", flush=True)
    if options.kind == "callbacks":
        right = callbacks(program, options.rounds)
    elif options.kind == "lock":
        right = locked(program, options.rounds, threading.Lock(), program.launch)
    else:
        right = locked(program, options.rounds, contextlib.nullcontext(), program.launch_with_the_interpreter_held)
    if not right or program.late:
        print(f"result: WRONG {program.late}", flush=True)
        return 4
    print(f"result: OK rounds={options.rounds}", flush=True)
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except CudaError as error:
        print(f"error: {error}", flush=True)
        os._exit(3)
