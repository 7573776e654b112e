#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Heat conduction in a block of layered material: a three-dimensional stencil on a GPU through cuda.core.

Three fields (heat now, heat next, conductivity) fill --memory; every step reads and writes all of them, slab by slab.
The same command gives the same bits every time on the same device. Needs cuda-core, cuda-python, nvidia-cuda-nvrtc and
numpy.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import console
import numpy as np
from cuda.bindings import driver
from cuda.core import Buffer, Device, LaunchConfig, LegacyPinnedMemoryResource, Program, ProgramOptions, Stream, launch

SOURCE = Path(__file__).with_suffix(".cu")
BLOCK = (32, 8, 1)
DEPTH = 8  # planes that one thread goes through
BALLS = 6
CHUNK = 16 << 20  # bytes of the final field that are copied and hashed at a time


@dataclass(frozen=True)
class Grid:
    """Cells in each direction; x and y are equal."""

    nx: int
    nz: int

    @classmethod
    def that_fills(cls, memory: int) -> Grid:
        """The nearly cubic grid of which three float fields take at most `memory` bytes. Raises console.CudaFailure."""
        nx = int((memory / 12) ** (1 / 3)) // 32 * 32
        if nx < 32:
            raise console.CudaFailure("not enough memory", f"--memory {memory} holds no grid of 32^3 cells")
        return cls(nx, memory // (12 * nx * nx))

    @property
    def plane(self) -> int:
        """Cells of one plane."""
        return self.nx * self.nx

    @property
    def field(self) -> int:
        """Bytes of one field."""
        return 4 * self.plane * self.nz


class Solver:
    """The fields on the device and the kernels that advance them."""

    def __init__(self, device: Device, grid: Grid, slab: int, seed: int) -> None:
        self.grid, self.slab, self.seed = grid, slab, np.uint32(seed)
        self.stream: Stream = device.create_stream()
        arch = "".join(map(str, device.compute_capability))
        options = ProgramOptions(std="c++17", arch=f"compute_{arch}", name=SOURCE.name)
        module = Program(SOURCE.read_text(), "c++", options).compile("ptx")
        self._prepare, self._step, self._sum = (module.get_kernel(name) for name in ("prepare", "step", "plane_sum"))
        self.now, self.next, self.conductivity = (device.allocate(grid.field, stream=self.stream) for _ in range(3))
        self._sums = device.allocate(4 * grid.nz, stream=self.stream)
        self._pinned = LegacyPinnedMemoryResource()
        self._host_sums = self._pinned.allocate(4 * grid.nz, stream=self.stream)
        self.stream.sync()
        self.used = 3 * grid.field + 4 * grid.nz

    def _blocks(self) -> tuple[int, int]:
        return -(-self.grid.nx // BLOCK[0]), -(-self.grid.nx // BLOCK[1])

    def _size(self) -> tuple[np.int32, np.int32, np.int32]:
        return np.int32(self.grid.nx), np.int32(self.grid.nx), np.int32(self.grid.nz)

    def prepare(self) -> None:
        """The state at time zero."""
        for z0 in range(0, self.grid.nz, self.slab):
            planes = min(self.slab, self.grid.nz - z0)
            config = LaunchConfig(grid=(*self._blocks(), planes), block=BLOCK)
            fields = (self.now, self.conductivity, *self._size(), np.int32(z0), np.int32(BALLS), self.seed)
            launch(self.stream, config, self._prepare, *fields)

    def step(self) -> None:
        """One time step. A launch takes one slab: short kernels, between which somebody else may have the GPU."""
        for z0 in range(0, self.grid.nz, self.slab):
            z1 = min(z0 + self.slab, self.grid.nz)
            config = LaunchConfig(grid=(*self._blocks(), -(-(z1 - z0) // DEPTH)), block=BLOCK)
            planes = (np.int32(z0), np.int32(z1), np.int32(DEPTH))
            launch(self.stream, config, self._step, self.now, self.conductivity, self.next, *self._size(), *planes)
        self.now, self.next = self.next, self.now

    def total(self) -> float:
        """Heat in the whole block, after all work given so far: sums of planes from the device, added up here."""
        config = LaunchConfig(grid=self.grid.nz, block=256)
        launch(self.stream, config, self._sum, self.now, self._sums, np.int32(self.grid.plane))
        self._sums.copy_to(self._host_sums, stream=self.stream)
        self.stream.sync()
        return float(array(self._host_sums, np.float32).sum(dtype=np.float64))

    def digest(self) -> str:
        """SHA-256 of the field, copied piece by piece through pinned memory."""
        digest = hashlib.sha256()
        host = self._pinned.allocate(min(CHUNK, self.grid.field), stream=self.stream)
        for offset in range(0, self.grid.field, CHUNK):
            size = min(CHUNK, self.grid.field - offset)
            source = Buffer.from_handle(int(self.now.handle) + offset, size, owner=self.now)
            target = Buffer.from_handle(int(host.handle), size, owner=host)
            target.copy_from(source, stream=self.stream)
            self.stream.sync()
            digest.update(array(host, np.uint8)[:size].data)
        host.close(self.stream)
        return digest.hexdigest()


def array(buffer: Buffer, kind: type) -> np.ndarray:
    """A host buffer as numpy sees it, without a copy."""
    raw = (ctypes.c_ubyte * buffer.size).from_address(int(buffer.handle))
    values: np.ndarray = np.frombuffer(raw, dtype=kind)
    return values


def total_memory(device: Device) -> int:
    """Bytes of the device."""
    status, total = driver.cuDeviceTotalMem(device.device_id)
    if int(status) != 0:
        raise console.CudaFailure(status.name, "cuDeviceTotalMem")
    return int(total)


def solve(options: argparse.Namespace, report: console.Report) -> None:
    """The whole program. Raises console.CudaFailure, or what cuda.core raises."""
    device = Device(options.device)
    device.set_current()
    total = total_memory(device)
    grid = Grid.that_fills(options.memory if options.memory_fraction is None else int(total * options.memory_fraction))
    solver = Solver(device, grid, options.slab, options.seed)
    report.say(f"device: {device.name}, {total >> 20} MiB; allocated: {solver.used >> 20} MiB")
    solver.prepare()
    began_with = solver.total()
    report.say(f"block: {grid.nx} x {grid.nx} x {grid.nz} cells; {options.steps} steps; heat {began_with:.6e}")
    report.mark("setup_s")
    report.keep(memory_bytes=solver.used, steps=options.steps, heat_at_start=began_with)

    began = time.perf_counter()
    heat = began_with
    every = options.every or max(1, options.steps // 20)
    for step in range(1, options.steps + 1):
        solver.step()
        if step % every == 0 or step == options.steps:
            heat = solver.total()
            pace = (time.perf_counter() - began) / step
            report.say(f"step {step}/{options.steps} heat {heat:.6e} {pace:.3f} s/step")
    report.keep(run_s=round(time.perf_counter() - began, 6))
    report.finish(heat=f"{heat:.9e}", result=solver.digest())


def main() -> int:
    """Exit code 0, or 3 when CUDA failed."""
    parser = console.parser(__doc__ or "", memory="358M")
    parser.add_argument("--steps", type=console.count, default=60, metavar="N", help="time steps (default 60)")
    parser.add_argument("--slab", type=console.count, default=32, metavar="N", help="planes of a launch (default 32)")
    parser.add_argument(
        "--every", type=console.count, metavar="N", help="steps between lines (default: 20 lines in all)"
    )
    options = parser.parse_args()
    report = console.Report("heat", options.json)
    return console.run("heat", lambda: solve(options, report))


if __name__ == "__main__":
    sys.exit(main())
