#!/usr/bin/env python3
# SPDX-License-Identifier: Apache-2.0
"""One way that PyTorch uses a GPU, by name; small, deterministic, with a digest of what came out.

    eager, compile (torch.compile), graphs (a training step as a CUDA graph), sharing (CUDA tensors between processes),
    nccl (all-reduce on one rank), quota (allocates until it may not)

Needs a torch built for CUDA. `nccl` and `sharing` are the ways that cuMem export, import and legacy IPC are used.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import os
import socket
import sys
from collections.abc import Callable
from typing import Any

import console

os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")

STEPS, BATCH, WIDTH, PIECE = 40, 256, 1024, 64 << 20


def digest(torch: Any, tensors: Any) -> str:
    """SHA-256 of the bytes of tensors, in their order."""
    found = hashlib.sha256()
    for tensor in tensors:
        found.update(tensor.detach().contiguous().cpu().view(torch.uint8).numpy().tobytes())
    return found.hexdigest()


def network(torch: Any) -> Any:
    """A perceptron with a layer norm: matrix products, reductions and elementwise work."""
    nn = torch.nn
    layers = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH)
    return nn.Sequential(*layers).cuda()


def data(torch: Any) -> tuple[Any, Any]:
    """One batch and what it should become."""
    generator = torch.Generator(device="cuda").manual_seed(7)
    inputs = torch.randn(BATCH, WIDTH, generator=generator, device="cuda")
    return inputs, inputs.roll(1, dims=1).tanh()


def train(torch: Any, report: console.Report, wrap: Callable[[Any], Any]) -> str:
    """STEPS steps of the network as `wrap` makes it."""
    model = network(torch)
    run = wrap(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    inputs, wanted = data(torch)
    for _ in range(STEPS):
        optimizer.zero_grad(set_to_none=True)
        loss = (run(inputs) - wanted).square().mean()
        loss.backward()
        optimizer.step()
    report.keep(loss=float(loss))
    return digest(torch, model.state_dict().values())


def eager(torch: Any, report: console.Report) -> str:
    """As it comes."""
    return train(torch, report, lambda model: model)


def compiled(torch: Any, report: console.Report) -> str:
    """torch.compile: Triton kernels, generated and loaded while the program runs."""
    return train(torch, report, torch.compile)


def graphs(torch: Any, report: console.Report) -> str:
    """A whole training step captured once and replayed."""
    model = network(torch)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    inputs, wanted = data(torch)

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        (model(inputs) - wanted).square().mean().backward()
        optimizer.step()

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            step()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        step()
    for _ in range(STEPS):
        graph.replay()
    torch.cuda.synchronize()
    return digest(torch, model.state_dict().values())


def _double(tensors: Any, done: Any) -> None:
    """The other process of `sharing`: changes what it was given, in place."""
    torch: Any = importlib.import_module("torch")
    tensor = tensors.get()
    tensor.mul_(2).add_(1)
    torch.cuda.synchronize()
    del tensor
    done.put(True)


def sharing(torch: Any, report: console.Report) -> str:
    """torch.multiprocessing: a CUDA tensor goes to another process by a handle, which changes it."""
    context = importlib.import_module("torch.multiprocessing").get_context("spawn")
    tensors, done = context.Queue(), context.Queue()
    process = context.Process(target=_double, args=(tensors, done))
    process.start()
    tensor = torch.arange(1 << 20, dtype=torch.float32, device="cuda")
    torch.cuda.synchronize()
    tensors.put(tensor)
    if not done.get(timeout=120):
        raise console.CudaFailure("no answer", "the other process")
    process.join(60)
    if not torch.equal(tensor, torch.arange(1 << 20, dtype=torch.float32, device="cuda") * 2 + 1):
        raise console.CudaFailure("wrong values", "what the other process wrote is not here")
    return digest(torch, [tensor])


def nccl(torch: Any, report: console.Report) -> str:
    """All-reduce, all-gather and broadcast in a group of one rank."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    group: Any = importlib.import_module("torch.distributed")
    group.init_process_group("nccl", init_method=f"tcp://127.0.0.1:{port}", rank=0, world_size=1)
    inputs, _ = data(torch)
    for _ in range(8):
        group.all_reduce(inputs)
        group.broadcast(inputs, 0)
    gathered = [torch.empty_like(inputs)]
    group.all_gather(gathered, inputs)
    torch.cuda.synchronize()
    result = digest(torch, gathered)
    group.destroy_process_group()
    return result


def quota(torch: Any, report: console.Report) -> str:
    """Allocates pieces until it may not, and says how many there were and what memory it was told of."""
    free, total = torch.cuda.mem_get_info()
    held = []
    try:
        while True:
            held.append(torch.empty(PIECE, dtype=torch.uint8, device="cuda"))
    except torch.cuda.OutOfMemoryError:
        pass
    report.keep(allocated_bytes=len(held) * PIECE, total_bytes=total, free_bytes=free)
    return "out of memory"


CASES: dict[str, Callable[[Any, console.Report], str]] = {
    "eager": eager, "compile": compiled, "graphs": graphs, "sharing": sharing, "nccl": nccl, "quota": quota,
}  # fmt: skip


def body(case: str, report: console.Report) -> None:
    """The whole program."""
    torch: Any = importlib.import_module("torch")
    if not torch.cuda.is_available():
        raise console.CudaFailure("no GPU", "torch finds no CUDA device")
    torch.use_deterministic_algorithms(True)
    torch.manual_seed(1)
    result = CASES[case](torch, report)
    report.keep(reserved_bytes=torch.cuda.max_memory_reserved(), torch=str(torch.__version__))
    report.finish(result=result)


def main() -> int:
    """Exit code 0, or 3 when CUDA failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("case", choices=CASES)
    parser.add_argument("--json", type=console.Path, metavar="FILE", help="write the result to FILE")
    options = parser.parse_args()
    report = console.Report("framework_torch", options.json)
    return console.run("framework_torch", lambda: body(options.case, report))


if __name__ == "__main__":
    sys.exit(main())
