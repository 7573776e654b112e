#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""The same small computation through one of several libraries, by name, with a digest of what came out.

    numba, cupy, jax, triton

All compute x <- 1.5 * x + index over N words, STEPS times, through their own allocators and launches.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import sys
from collections.abc import Callable
from typing import Any

import console
import numpy as np

N, STEPS, BLOCK = 1 << 20, 30, 256


def digest(values: Any) -> str:
    """SHA-256 of an array in host memory."""
    return hashlib.sha256(np.ascontiguousarray(values).tobytes()).hexdigest()


def numba(report: console.Report) -> str:
    """A kernel of numba-cuda; it also counts what it gives to the GPU: one copy in, one out, one launch a step."""
    cuda: Any = importlib.import_module("numba.cuda")

    @cuda.jit
    def step(values: Any) -> None:
        index = cuda.grid(1)
        if index < values.size:
            values[index] = np.float32(1.5) * values[index] + np.float32(index % 7)

    values = cuda.to_device(np.ones(N, dtype=np.float32))
    for _ in range(STEPS):
        step[N // BLOCK, BLOCK](values)
    result = values.copy_to_host()
    report.keep(given_to_the_gpu=STEPS + 2)
    return digest(result)


def cupy(report: console.Report) -> str:
    """Elementwise expressions and a reduction of CuPy, with its own memory pool."""
    xp: Any = importlib.import_module("cupy")
    values, index = xp.ones(N, dtype=xp.float32), xp.arange(N, dtype=xp.float32) % 7
    for _ in range(STEPS):
        values = xp.float32(1.5) * values + index
    report.keep(pool_bytes=int(xp.get_default_memory_pool().total_bytes()))
    return digest(xp.asnumpy(values))


def jax(report: console.Report) -> str:
    """A jitted loop of JAX: XLA preallocates most of what it believes to be there."""
    library: Any = importlib.import_module("jax")
    jnp: Any = importlib.import_module("jax.numpy")
    if library.default_backend() not in ("gpu", "cuda"):
        raise console.CudaFailure("no GPU", f"jax uses {library.default_backend()}")
    index = jnp.arange(N, dtype=jnp.float32) % 7
    step = library.jit(lambda values: jnp.float32(1.5) * values + index)
    values = jnp.ones(N, dtype=jnp.float32)
    for _ in range(STEPS):
        values = step(values)
    report.keep(memory=library.devices()[0].memory_stats())
    return digest(np.asarray(values))


def triton(report: console.Report) -> str:
    """A kernel of Triton: its launcher links libcuda and looks up cuLaunchKernelEx by dlsym."""
    torch: Any = importlib.import_module("torch")
    framework_kernels: Any = importlib.import_module("framework_triton_kernel")
    values = torch.ones(N, dtype=torch.float32, device="cuda")
    for _ in range(STEPS):
        framework_kernels.step[(N // 1024,)](values, N, BLOCK=1024)
    torch.cuda.synchronize()
    return digest(values.cpu().numpy())


LIBRARIES: dict[str, Callable[[console.Report], str]] = {"numba": numba, "cupy": cupy, "jax": jax, "triton": triton}


def main() -> int:
    """Exit code 0, or 3 when CUDA failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library", choices=LIBRARIES)
    parser.add_argument("--json", type=console.Path, metavar="FILE", help="write the result to FILE")
    options = parser.parse_args()
    report = console.Report("framework_others", options.json)
    body = LIBRARIES[options.library]
    return console.run("framework_others", lambda: report.finish(result=body(report)))


if __name__ == "__main__":
    sys.exit(main())
