#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains a multi-layer perceptron on a GPU, in CUDA C++ compiled by NVRTC and called through the driver API.

The data set (a mixture of classes, made on the device from a seed) fills most of --memory and stays on the device;
every step takes the next batch of it, so one epoch reads all of it. Activations, gradients and Adam's state are on the
device too. The same command gives the same bits every time on the same device. Needs cuda-python, nvidia-cuda-nvrtc and
numpy.
"""

from __future__ import annotations

import argparse
import ctypes
import hashlib
import itertools
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import console
import numpy as np
from cuda.bindings import driver, nvrtc

SOURCE = Path(__file__).with_suffix(".cu")
CLASSES = 16
NOISE = 6.0  # of a feature, against class centres in [-1, 1): single features say little, a thousand say enough
TILE = 64  # of the matmul kernels
THREADS = 256


def check(answer: tuple, doing: str):  # type: ignore[no-untyped-def,type-arg]
    """The result of a cuda.bindings call without its status. Raises console.CudaFailure naming status and `doing`."""
    if int(answer[0]) != 0:
        raise console.CudaFailure(answer[0].name, doing)
    return answer[1] if len(answer) == 2 else answer[1:]


def compile_ptx(device: driver.CUdevice) -> bytes:
    """PTX of SOURCE for `device`, or for the newest architecture below it that this NVRTC knows."""
    attribute = driver.CUdevice_attribute
    major, minor = (
        check(driver.cuDeviceGetAttribute(a, device), "cuDeviceGetAttribute")
        for a in (
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR,
            attribute.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR,
        )
    )
    supported = check(nvrtc.nvrtcGetSupportedArchs(), "nvrtcGetSupportedArchs")
    known = [arch for arch in supported if arch <= major * 10 + minor]
    if not known:
        raise console.CudaFailure("NVRTC_ERROR_INVALID_OPTION", f"NVRTC knows nothing below compute {major}.{minor}")
    created = nvrtc.nvrtcCreateProgram(SOURCE.read_bytes(), SOURCE.name.encode(), 0, [], [])
    program = check(created, "nvrtcCreateProgram")
    options = [f"--gpu-architecture=compute_{max(known)}".encode(), b"--std=c++17"]
    (status,) = nvrtc.nvrtcCompileProgram(program, len(options), options)
    if int(status) != 0:
        log = b" " * check(nvrtc.nvrtcGetProgramLogSize(program), "nvrtcGetProgramLogSize")
        nvrtc.nvrtcGetProgramLog(program, log)
        raise console.CudaFailure(status.name, f"{SOURCE.name}: {log.decode(errors='replace').strip()}")
    ptx: bytes = b" " * check(nvrtc.nvrtcGetPTXSize(program), "nvrtcGetPTXSize")
    check(nvrtc.nvrtcGetPTX(program, ptx), "nvrtcGetPTX")
    return ptx


class Gpu:
    """A device with its context, one stream and the kernels of SOURCE. Addresses are plain numbers."""

    def __init__(self, ordinal: int) -> None:
        check(driver.cuInit(0), "cuInit")
        self.device = check(driver.cuDeviceGet(ordinal), f"cuDeviceGet({ordinal})")
        self.name = check(driver.cuDeviceGetName(100, self.device), "cuDeviceGetName").split(b"\0")[0].decode()
        self.total: int = check(driver.cuDeviceTotalMem(self.device), "cuDeviceTotalMem")
        context = check(driver.cuDevicePrimaryCtxRetain(self.device), "cuDevicePrimaryCtxRetain")
        check(driver.cuCtxSetCurrent(context), "cuCtxSetCurrent")
        module = check(driver.cuModuleLoadData(compile_ptx(self.device)), "cuModuleLoadData")
        self._module = module
        self._kernels: dict[str, driver.CUfunction] = {}
        flags = driver.CUstream_flags.CU_STREAM_NON_BLOCKING
        self.stream = check(driver.cuStreamCreate(flags), "cuStreamCreate")
        self.used = 0

    def allocate(self, size: int, what: str) -> int:
        """Address of `size` new bytes."""
        address = check(driver.cuMemAlloc(size), f"cannot allocate {size >> 20} MiB for {what} (cuMemAlloc)")
        self.used += size
        return int(address)

    def fill_zero(self, address: int, size: int) -> None:
        """Clears `size` bytes, in stream order."""
        check(driver.cuMemsetD8Async(address, 0, size, self.stream), "cuMemsetD8Async")

    def write(self, address: int, values: np.ndarray) -> None:
        """Copies `values` to the device; returns when they are there."""
        values = np.ascontiguousarray(values)
        check(driver.cuMemcpyHtoDAsync(address, values.ctypes.data, values.nbytes, self.stream), "cuMemcpyHtoDAsync")
        self.wait()

    def read(self, values: np.ndarray, address: int) -> np.ndarray:
        """Fills `values` from the device, after all work given so far."""
        check(driver.cuMemcpyDtoHAsync(values.ctypes.data, address, values.nbytes, self.stream), "cuMemcpyDtoHAsync")
        self.wait()
        return values

    def launch(self, kernel: str, grid: tuple[int, int], *arguments: tuple[object, type]) -> None:
        """Launches a kernel of SOURCE with blocks of 256 threads."""
        if kernel not in self._kernels:
            function = check(
                driver.cuModuleGetFunction(self._module, kernel.encode()), f"cuModuleGetFunction({kernel})"
            )
            self._kernels[kernel] = function
        values = (tuple(value for value, _ in arguments), tuple(kind for _, kind in arguments))
        check(
            driver.cuLaunchKernel(self._kernels[kernel], *grid, 1, THREADS, 1, 1, 0, self.stream, values, 0),
            f"cuLaunchKernel({kernel})",
        )

    def wait(self) -> None:
        """Returns when the stream is empty."""
        check(driver.cuStreamSynchronize(self.stream), "cuStreamSynchronize")


def pointer(address: int) -> tuple[object, type]:
    """A kernel argument."""
    return address, ctypes.c_void_p


def integer(value: int) -> tuple[object, type]:
    """A kernel argument."""
    return value, ctypes.c_int


def real(value: float) -> tuple[object, type]:
    """A kernel argument."""
    return value, ctypes.c_float


def wide(value: int) -> tuple[object, type]:
    """A kernel argument."""
    return value, ctypes.c_uint64


def ceil_div(a: int, b: int) -> int:
    """a / b, rounded up."""
    return -(-a // b)


@dataclass(frozen=True)
class Layer:
    """A dense layer: where its weights begin in the flat parameter vector (floats), followed by its biases."""

    inputs: int
    outputs: int
    offset: int

    @property
    def bias(self) -> int:
        """First float of the biases."""
        return self.offset + self.inputs * self.outputs


class Network:
    """Layers with ReLU between them; all parameters are one vector, trained by Adam."""

    def __init__(self, gpu: Gpu, sizes: list[int], batch: int, seed: int) -> None:
        self.gpu, self.batch = gpu, batch
        self.layers: list[Layer] = []
        self.count = 0
        for inputs, outputs in itertools.pairwise(sizes):
            self.layers.append(Layer(inputs, outputs, self.count))
            self.count += inputs * outputs + outputs
        names = ("weights", "gradient", "mean", "square")
        self.weights, self.gradient, self.mean, self.square = (gpu.allocate(4 * self.count, name) for name in names)
        self.activations = [gpu.allocate(4 * batch * layer.outputs, "activations") for layer in self.layers]
        self.deltas = [gpu.allocate(4 * batch * layer.outputs, "gradients of activations") for layer in self.layers]
        self.row_loss = gpu.allocate(8 * batch, "losses")  # then one hit a row: the two columns are summed in turn
        self.row_hit = self.row_loss + 4 * batch
        self.figures = gpu.allocate(8, "loss and accuracy")
        gpu.fill_zero(self.mean, 4 * self.count)
        gpu.fill_zero(self.square, 4 * self.count)
        gpu.write(self.weights, self._initial(seed))

    def _initial(self, seed: int) -> np.ndarray:
        generator = np.random.default_rng(seed)
        values: np.ndarray = np.zeros(self.count, dtype=np.float32)
        for layer in self.layers:
            scale = np.sqrt(2.0 / layer.inputs)
            drawn = generator.standard_normal(layer.inputs * layer.outputs, dtype=np.float32)
            values[layer.offset : layer.bias] = drawn * np.float32(scale)
        return values

    def _matmul(self, kind: str, a: int, b: int, c: int, m: int, n: int, k: int) -> None:
        grid = (ceil_div(n, TILE), ceil_div(m, TILE))
        self.gpu.launch(f"matmul_{kind}", grid, pointer(a), pointer(b), pointer(c), integer(m), integer(n), integer(k))

    def _column_sum(self, values: int, result: int, columns: int, scale: float) -> None:
        arguments = (pointer(values), pointer(result), integer(self.batch), integer(columns), real(scale))
        self.gpu.launch("column_sum", (columns, 1), *arguments)

    def forward(self, samples: int) -> None:
        """Activations of all layers for the batch at `samples`."""
        below = samples
        for index, layer in enumerate(self.layers):
            above, count = self.activations[index], self.batch * layer.outputs
            self._matmul("nn", below, self.weights + 4 * layer.offset, above, self.batch, layer.outputs, layer.inputs)
            arguments = (integer(self.batch), integer(layer.outputs), integer(index + 1 < len(self.layers)))
            bias = pointer(self.weights + 4 * layer.bias)
            self.gpu.launch("add_bias", (ceil_div(count, THREADS), 1), pointer(above), bias, *arguments)
            below = above

    def backward(self, samples: int, labels: int) -> None:
        """Gradient of the mean loss of the batch; loss and accuracy go to `figures`."""
        gpu = self.gpu
        outputs = (pointer(self.deltas[-1]), pointer(self.row_loss), pointer(self.row_hit))
        sizes = (integer(self.batch), integer(CLASSES))
        grid = (ceil_div(self.batch, THREADS), 1)
        gpu.launch("softmax_loss", grid, pointer(self.activations[-1]), pointer(labels), *outputs, *sizes)
        self._column_sum(self.row_loss, self.figures, 1, 1.0 / self.batch)
        self._column_sum(self.row_hit, self.figures + 4, 1, 1.0 / self.batch)
        for index in range(len(self.layers) - 1, -1, -1):
            layer, delta = self.layers[index], self.deltas[index]
            below = self.activations[index - 1] if index else samples
            gradient = self.gradient + 4 * layer.offset
            self._matmul("tn", below, delta, gradient, layer.inputs, layer.outputs, self.batch)
            self._column_sum(delta, self.gradient + 4 * layer.bias, layer.outputs, 1.0)
            if index:
                weights, beneath = self.weights + 4 * layer.offset, self.deltas[index - 1]
                self._matmul("nt", delta, weights, beneath, self.batch, layer.inputs, layer.outputs)
                count = self.batch * layer.inputs
                mask = (pointer(beneath), pointer(below), integer(count))
                gpu.launch("relu_backward", (ceil_div(count, THREADS), 1), *mask)

    def update(self, step: int, rate: float) -> None:
        """One step of Adam; `step` counts from 1."""
        vectors = (pointer(p) for p in (self.weights, self.gradient, self.mean, self.square))
        factors = (real(rate), real(1.0 / (1.0 - 0.9**step)), real(1.0 / (1.0 - 0.999**step)))
        self.gpu.launch("adam", (ceil_div(self.count, THREADS), 1), *vectors, integer(self.count), *factors)


def train(options: argparse.Namespace, report: console.Report) -> None:
    """The whole program. Raises console.CudaFailure."""
    gpu = Gpu(options.device)
    memory = options.memory if options.memory_fraction is None else int(gpu.total * options.memory_fraction)
    features, batch = options.features, options.batch
    network = Network(gpu, [features, options.hidden, options.hidden, CLASSES], batch, options.seed)
    batches = (memory - gpu.used) // (batch * 4 * (features + 1))
    if batches < 1:
        raise console.CudaFailure("not enough memory", f"{memory >> 20} MiB do not hold the network and one batch")
    count = batches * batch
    samples = gpu.allocate(4 * count * features, "the data set")
    labels = gpu.allocate(4 * count, "labels")
    report.say(f"device: {gpu.name}, {gpu.total >> 20} MiB; allocated: {gpu.used >> 20} MiB")
    work = ceil_div(count * features // 4, THREADS)
    arguments = (wide(count), integer(features), integer(CLASSES), real(NOISE), wide(options.seed))
    gpu.launch("make_samples", (work, 1), pointer(samples), pointer(labels), *arguments)
    gpu.wait()
    steps = options.steps or batches
    report.say(f"data set: {count} samples of {features} features; {network.count} weights; {steps} steps of {batch}")
    report.mark("setup_s")
    report.keep(memory_bytes=gpu.used, steps=steps)

    every = options.every or max(1, steps // 20)
    figures: np.ndarray = np.zeros(2, dtype=np.float32)
    if options.wait_for is not None:
        console.wait_for(options.wait_for, report)
    report.keep(began_ns=time.monotonic_ns())
    began = time.perf_counter()
    for step in range(1, steps + 1):
        place = (step - 1) % batches * batch
        network.forward(samples + 4 * place * features)
        network.backward(samples + 4 * place * features, labels + 4 * place)
        network.update(step, options.rate)
        if step % every == 0 or step == steps:
            gpu.read(figures, network.figures)
            pace = (time.perf_counter() - began) / step
            report.say(f"step {step}/{steps} loss {figures[0]:.4f} accuracy {figures[1]:.3f} {pace:.3f} s/step")
    report.keep(run_s=round(time.perf_counter() - began, 6), ended_ns=time.monotonic_ns())
    weights = gpu.read(np.zeros(network.count, dtype=np.float32), network.weights)
    digest = hashlib.sha256(weights.tobytes()).hexdigest()
    report.finish(loss=f"{figures[0]:.6f}", accuracy=f"{figures[1]:.4f}", result=digest)


def main() -> int:
    """Exit code 0, or 3 when CUDA failed."""
    parser = console.parser(__doc__ or "", memory="358M")
    add = parser.add_argument
    add("--steps", type=console.count, metavar="N", help="batches to train on (default: one epoch)")
    add("--batch", type=console.count, default=512, metavar="N", help="samples in a batch (default 512)")
    add("--features", type=console.count, default=1024, metavar="N", help="of a sample (default 1024)")
    add("--hidden", type=console.count, default=192, metavar="N", help="width of the hidden layers (default 192)")
    add("--rate", type=float, default=0.001, help="learning rate (default 0.001)")
    add("--wait-for", type=Path, metavar="FILE", help="say 'ready' and begin to train when FILE exists")
    add("--every", type=console.count, metavar="N", help="steps between lines (default: 20 lines in all)")
    options = parser.parse_args()
    if options.features % 4:
        parser.error("--features must be a multiple of 4")
    report = console.Report("train_mlp", options.json)
    return console.run("train_mlp", lambda: train(options, report))


if __name__ == "__main__":
    sys.exit(main())
