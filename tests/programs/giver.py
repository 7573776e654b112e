# SPDX-License-Identifier: Apache-2.0
"""Holds memory, gives all of it back at SIGUSR1 and lives on without.

    giver.py --memory MEBIBYTES

Prints `ready` and `given`; exits 3 when a CUDA call fails (with its name).
"""

from __future__ import annotations

import argparse
import signal
import sys

from cuda.bindings import driver as cu
from device import CudaError, call, open_device

MIB = 1 << 20


def run(options: argparse.Namespace) -> int:
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR1])
    open_device()
    memory = call(cu.cuMemAlloc, options.memory * MIB)
    call(cu.cuMemsetD8, memory, 7, options.memory * MIB)
    call(cu.cuCtxSynchronize)
    print("ready", flush=True)
    signal.sigwait([signal.SIGUSR1])
    call(cu.cuMemFree, memory)
    print("given", flush=True)
    signal.sigwait([signal.SIGUSR1])
    return 0


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", type=int, default=12)
    try:
        sys.exit(run(parser.parse_args()))
    except CudaError as error:
        print(f"error: {error}")
        sys.exit(3)
