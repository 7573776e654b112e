#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""Trains a small network with PyTorch on a data set that fills --memory of the GPU and stays there.

Deterministic algorithms only: the same command gives the same bits every time on the same device. With --count it also
counts the kernels, copies and memsets that PyTorch's profiler (CUPTI) saw. Needs a torch built for CUDA.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import sys
import time
from typing import Any

import console

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # asked for by torch's deterministic mode

CLASSES, PIXELS = 10, 32


def build(torch: Any, kind: str) -> Any:
    """A convolutional network for 3 x 32 x 32 pictures, or a perceptron for the same."""
    nn = torch.nn
    if kind == "mlp":
        return nn.Sequential(nn.Flatten(), nn.Linear(3 * PIXELS**2, 1024), nn.ReLU(), nn.Linear(1024, CLASSES))
    return nn.Sequential(
        nn.Conv2d(3, 32, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Conv2d(32, 64, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(64 * (PIXELS // 4) ** 2, CLASSES),
    )


def data_set(torch: Any, size: int, seed: int) -> tuple[Any, Any]:
    """Pictures of about `size` bytes and their labels, made on the device piece by piece."""
    count = size // (4 * 3 * PIXELS**2)
    generator = torch.Generator(device="cuda").manual_seed(seed)
    labels = torch.randint(CLASSES, (count,), generator=generator, device="cuda")
    pictures = torch.empty(count, 3, PIXELS, PIXELS, device="cuda")
    for begin in range(0, count, 1 << 15):
        part = pictures[begin : begin + (1 << 15)]
        part.normal_(generator=generator)
        part += (labels[begin : begin + (1 << 15)].float() / CLASSES).view(-1, 1, 1, 1)
    return pictures, labels


def train(options: argparse.Namespace, report: console.Report) -> None:
    """The whole program."""
    torch: Any = importlib.import_module("torch")

    if not torch.cuda.is_available():
        raise console.CudaFailure("no GPU", "torch finds no CUDA device")
    torch.use_deterministic_algorithms(True)
    torch.backends.cudnn.benchmark = False
    torch.manual_seed(options.seed)
    torch.cuda.set_device(options.device)
    total = torch.cuda.get_device_properties(options.device).total_memory
    memory = options.memory if options.memory_fraction is None else int(total * options.memory_fraction)
    model = build(torch, options.model).cuda()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.001)
    pictures, labels = data_set(torch, memory, options.seed)
    batches = max(1, len(pictures) // options.batch)
    torch.cuda.synchronize()
    report.say(f"device: {torch.cuda.get_device_name()}; allocated: {torch.cuda.memory_reserved() >> 20} MiB")
    report.mark("setup_s")
    counting = profiler(torch) if options.count_kernels else None
    if counting is not None:
        time.sleep(options.linger)  # as at the end: an observer takes down what it has seen so far
        report.say("counting")
        counting.start()
    began = time.perf_counter()
    loss = torch.zeros(())
    for step in range(1, options.steps + 1):
        # A stride through the data set, so that all of it is used also by a short run.
        begin = step * 7919 % batches * options.batch
        batch = slice(begin, begin + options.batch)
        loss = torch.nn.functional.cross_entropy(model(pictures[batch]), labels[batch])
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if step % max(1, options.steps // 20) == 0:
            report.say(f"step {step}/{options.steps} loss {loss.item():.4f}")
    torch.cuda.synchronize()
    report.keep(run_s=round(time.perf_counter() - began, 6), steps=options.steps)
    if counting is not None:
        counting.stop()
        report.keep(profiled=totals(counting))
    digest = hashlib.sha256()
    for value in model.state_dict().values():
        digest.update(value.cpu().numpy().tobytes())
    reserved, allocated = torch.cuda.memory_reserved(), torch.cuda.memory_allocated()
    report.keep(memory_bytes=memory, torch_reserved_bytes=reserved, torch_allocated_bytes=allocated)
    if options.linger:
        time.sleep(options.linger)  # so that an observer reads accounts that agree with ours
    report.finish(loss=f"{loss.item():.6f}", result=digest.hexdigest())


def profiler(torch: Any) -> Any:
    """Of device activity only."""
    return torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CUDA])


def totals(profile: Any) -> dict[str, int]:
    """How many kernels, copies and memsets CUPTI recorded.

    Its records of the host's side (cudaLaunchKernel, overhead) and of annotations are no work of the GPU.
    """
    counts = {"kernels": 0, "copies": 0, "memsets": 0}
    for event in profile.events():
        if not str(event.device_type).endswith("CUDA") or getattr(event, "is_user_annotation", False):
            continue
        name = str(event.name)
        kind = "copies" if name.startswith("Memcpy") else "memsets" if name.startswith("Memset") else "kernels"
        counts[kind] += 1
    return counts


def main() -> int:
    """Exit code 0, or 3 when CUDA failed."""
    parser = console.parser(__doc__ or "", memory="358M")
    parser.add_argument("--model", choices=("conv", "mlp"), default="conv", help="network (default conv)")
    parser.add_argument("--steps", type=console.count, default=300, metavar="N", help="batches (default 300)")
    parser.add_argument("--batch", type=console.count, default=256, metavar="N", help="pictures (default 256)")
    parser.add_argument("--count", dest="count_kernels", action="store_true", help="count kernels with the profiler")
    parser.add_argument("--linger", type=float, default=0.0, metavar="S", help="seconds to stay before the end")
    options = parser.parse_args()
    report = console.Report("train_torch", options.json)
    return console.run("train_torch", lambda: train(options, report))


if __name__ == "__main__":
    sys.exit(main())
