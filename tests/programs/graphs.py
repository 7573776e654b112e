# SPDX-License-Identifier: Apache-2.0
"""Graphs of every making, launched again and again over memory that is all in use, scene by scene.

Prints `ready`, `digest SCENE xxxxxxxx` after each scene (all bytes of its memory), `result: OK`, and exits 0; 3 when a
CUDA call fails (with its name). The same seed gives the same digests wherever and however often it is interrupted.
"""

from __future__ import annotations

import argparse
import ctypes
import sys
import threading
import time
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from cuda.bindings import driver as cu
from device import CudaError, call, launch_mix, load_mix, open_device

MIB = 1 << 20
PIECE = 8 * MIB
WORDS = PIECE // 4
NON_BLOCKING = cu.CUstream_flags.CU_STREAM_NON_BLOCKING.value
NO_TIMING = cu.CUevent_flags.CU_EVENT_DISABLE_TIMING.value
EXTERNAL = int(cu.CUevent_record_flags.CU_EVENT_RECORD_EXTERNAL)
GLOBAL = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_GLOBAL
THREAD_LOCAL = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_THREAD_LOCAL
RELAXED = cu.CUstreamCaptureMode.CU_STREAM_CAPTURE_MODE_RELAXED
PER_THREAD = cu.CUstream(cu.CU_STREAM_PER_THREAD)
KIND = cu.CUgraphNodeType
Scene = Callable[["Stage"], None]


class Stage:
    """The context, the kernel, and pieces of device memory with known content."""

    def __init__(self, options: argparse.Namespace) -> None:
        self.context = open_device()
        self.mix = load_mix()
        self.rounds: int = options.rounds
        self.pause: float = options.pause
        self.pieces = [int(call(cu.cuMemAlloc, PIECE)) for _ in range(options.memory * MIB // PIECE)]
        self.host = np.arange(WORDS, dtype=np.uint32) * np.uint32(options.seed)
        for number, piece in enumerate(self.pieces):
            call(cu.cuMemsetD32, piece, options.seed + number, WORDS)
        call(cu.cuCtxSynchronize)  # streams that do not block do not wait for it
        self.streams = [call(cu.cuStreamCreate, flags) for flags in (NON_BLOCKING, 0, NON_BLOCKING)]
        self._late: list[Any] = []

    def launch(self, number: int, stream: Any) -> None:
        launch_mix(self.mix, self.pieces[number % len(self.pieces)], WORDS, stream)

    def mix_parameters(self, number: int) -> Any:
        """Of a kernel node that mixes one piece. What they point to lives as long as the stage."""
        values = (ctypes.c_uint64(self.pieces[number % len(self.pieces)]), ctypes.c_uint32(WORDS))
        pointers = (ctypes.c_void_p * 2)(*(ctypes.addressof(value) for value in values))
        self._late += [values, pointers]
        made = cu.CUDA_KERNEL_NODE_PARAMS()
        made.func = self.mix
        made.gridDimX, made.gridDimY, made.gridDimZ = WORDS // 256, 1, 1
        made.blockDimX, made.blockDimY, made.blockDimZ = 256, 1, 1
        made.kernelParams = ctypes.addressof(pointers)
        return made

    def event(self) -> Any:
        return call(cu.cuEventCreate, NO_TIMING)

    def order(self, before: Any, after: Any) -> None:
        """What `after` is given from now on comes after what `before` was given so far."""
        event = self.event()
        call(cu.cuEventRecord, event, before)
        call(cu.cuStreamWaitEvent, after, event, 0)
        self._late.append(event)

    def repeat(self, graph: Any, stream: Any, destroy: bool = True) -> None:
        executable = call(cu.cuGraphInstantiate, graph, 0)
        for _ in range(self.rounds):
            call(cu.cuGraphLaunch, executable, stream)
        call(cu.cuStreamSynchronize, stream)
        call(cu.cuGraphExecDestroy, executable)
        if destroy:
            call(cu.cuGraphDestroy, graph)

    def digest(self) -> int:
        """Of all pieces, each mixed once more."""
        call(cu.cuCtxSynchronize)
        found = 0
        for number, piece in enumerate(self.pieces):
            self.launch(number, 0)
            call(cu.cuMemcpyDtoH, self.host.ctypes.data, piece, PIECE)
            found = zlib.crc32(self.host.tobytes(), found)
        return found


def copy_parameters(to: int, start: int, size: int) -> Any:
    made = cu.CUDA_MEMCPY3D()
    made.srcMemoryType = made.dstMemoryType = cu.CUmemorytype.CU_MEMORYTYPE_DEVICE
    made.srcDevice, made.dstDevice = start, to
    made.WidthInBytes, made.Height, made.Depth = size, 1, 1
    return made


def set_parameters(to: int, value: int, size: int) -> Any:
    made = cu.CUDA_MEMSET_NODE_PARAMS()
    made.dst, made.value, made.elementSize, made.width, made.height = to, value, 1, size, 1
    return made


def record_all_kinds(stage: Stage, stream: Any, other: Any, first: int) -> None:
    """Kernels, copies and memsets on a capturing stream and on one that it forks to."""
    p = [stage.pieces[(first + i) % len(stage.pieces)] for i in range(4)]
    stage.launch(first, stream)
    stage.order(stream, other)
    stage.launch(first + 1, other)
    call(cu.cuMemcpyDtoDAsync, p[2], p[0], PIECE // 2, stream)
    call(cu.cuMemsetD32Async, p[3], first, 1000, stream)
    call(cu.cuMemcpyDtoDAsync, p[3] + 4096, p[1], 4096, other)
    stage.order(other, stream)
    stage.launch(first + 2, stream)
    stage.launch(first + 3, stream)


def captured(stage: Stage) -> None:
    """Captures in all modes, with a fork; an executable graph that is updated from a second capture."""
    stream, blocking, other = stage.streams
    for number, (origin, mode) in enumerate(((stream, GLOBAL), (blocking, THREAD_LOCAL), (stream, RELAXED))):
        call(cu.cuStreamBeginCapture, origin, mode)
        record_all_kinds(stage, origin, other, number)
        time.sleep(stage.pause)  # the job may lose the GPU meanwhile
        record_all_kinds(stage, origin, other, number + 4)
        graph = call(cu.cuStreamEndCapture, origin)
        executable = call(cu.cuGraphInstantiate, graph, 0)
        for turn in range(stage.rounds):
            call(cu.cuGraphLaunch, executable, origin)
            stage.order(origin, other)
            stage.launch(number + turn, other)
            stage.order(other, origin)
        call(cu.cuStreamBeginCapture, origin, mode)
        record_all_kinds(stage, origin, other, number + 2)
        record_all_kinds(stage, origin, other, number + 7)
        second = call(cu.cuStreamEndCapture, origin)
        call(cu.cuGraphExecUpdate, executable, second)
        for _ in range(stage.rounds):
            call(cu.cuGraphLaunch, executable, origin)
        call(cu.cuStreamSynchronize, origin)
        call(cu.cuGraphExecDestroy, executable)
        call(cu.cuGraphDestroy, graph)
        call(cu.cuGraphDestroy, second)


def explicit(stage: Stage) -> None:
    """A graph made node by node: kernels, copies, memsets, events, a child, a host function; parameters changed."""
    stream, _, other = stage.streams
    calls = [0]

    def count(_: Any) -> None:
        calls[0] += 1

    host = ctypes.CFUNCTYPE(None, ctypes.c_void_p)(count)
    child = call(cu.cuGraphCreate, 0)
    inner = call(cu.cuGraphAddKernelNode, child, None, 0, stage.mix_parameters(1))
    copy = copy_parameters(stage.pieces[2], stage.pieces[1], PIECE)
    call(cu.cuGraphAddMemcpyNode, child, [inner], 1, copy, stage.context)
    graph, event = call(cu.cuGraphCreate, 0), stage.event()
    first = call(cu.cuGraphAddKernelNode, graph, None, 0, stage.mix_parameters(0))
    recorded = call(cu.cuGraphAddEventRecordNode, graph, [first], 1, event)
    nested = call(cu.cuGraphAddChildGraphNode, graph, [first], 1, child)
    waited = call(cu.cuGraphAddEventWaitNode, graph, [recorded], 1, event)
    cleared = set_parameters(stage.pieces[3], 7, PIECE // 2)
    cleared_node = call(cu.cuGraphAddMemsetNode, graph, [waited], 1, cleared, stage.context)
    function = cu.CUDA_HOST_NODE_PARAMS()
    function.fn = cu.CUhostFn(ctypes.cast(host, ctypes.c_void_p).value)
    called = call(cu.cuGraphAddHostNode, graph, [nested, cleared_node], 2, function)
    call(cu.cuGraphAddKernelNode, graph, [called], 1, stage.mix_parameters(3))
    executable = call(cu.cuGraphInstantiate, graph, 0)
    call(cu.cuGraphUpload, executable, stream)
    for turn in range(stage.rounds):
        call(cu.cuGraphExecKernelNodeSetParams, executable, first, stage.mix_parameters(4 + turn))
        value = set_parameters(stage.pieces[3], turn, PIECE // 2)
        call(cu.cuGraphExecMemsetNodeSetParams, executable, cleared_node, value, stage.context)
        call(cu.cuGraphLaunch, executable, stream)
        call(cu.cuStreamWaitEvent, other, event, 0)
    call(cu.cuStreamSynchronize, stream)
    assert calls[0] == stage.rounds, calls
    for made in (graph, child):
        call(cu.cuGraphDestroy, made)
    call(cu.cuGraphExecDestroy, executable)


def memory_nodes(stage: Stage) -> None:
    """Memory that a graph allocates: freed in it, or living on until another graph, or the program, frees it."""
    stream = stage.streams[0]
    call(cu.cuStreamBeginCapture, stream, RELAXED)
    kept = call(cu.cuMemAllocAsync, PIECE, stream)
    call(cu.cuMemcpyDtoDAsync, kept, stage.pieces[0], PIECE, stream)
    scratch = call(cu.cuMemAllocAsync, PIECE, stream)
    call(cu.cuMemcpyDtoDAsync, scratch, kept, PIECE, stream)
    launch_mix(stage.mix, scratch, WORDS, stream)
    call(cu.cuMemcpyDtoDAsync, stage.pieces[1], scratch, PIECE, stream)
    call(cu.cuMemFreeAsync, scratch, stream)
    graph = call(cu.cuStreamEndCapture, stream)
    maker = call(cu.cuGraphInstantiate, graph, 0)
    user = call(cu.cuGraphCreate, 0)
    copy = copy_parameters(stage.pieces[2], kept, PIECE)
    call(cu.cuGraphLaunch, maker, stream)
    node = call(cu.cuGraphAddMemcpyNode, user, None, 0, copy, stage.context)
    call(cu.cuGraphAddMemFreeNode, user, [node], 1, kept)
    freer = call(cu.cuGraphInstantiate, user, 0)
    for turn in range(stage.rounds):
        launch_mix(stage.mix, kept, WORDS, stream)
        for number in range(4, len(stage.pieces)):  # long enough to lose the GPU while it lives
            stage.launch(number, stream)
        if turn % 2 == 0:
            call(cu.cuGraphLaunch, freer, stream)
        else:
            call(cu.cuMemcpyDtoDAsync, stage.pieces[3], kept, PIECE, stream)
            call(cu.cuMemFreeAsync, kept, stream)
        call(cu.cuStreamSynchronize, stream)
        if turn % 3 == 0:
            call(cu.cuDeviceGraphMemTrim, 0)
        call(cu.cuGraphLaunch, maker, stream)
    call(cu.cuStreamSynchronize, stream)
    call(cu.cuMemFree, kept)
    for executable in (maker, freer):
        call(cu.cuGraphExecDestroy, executable)
    for made in (graph, user):
        call(cu.cuGraphDestroy, made)
    call(cu.cuDeviceGraphMemTrim, 0)


def conditional(stage: Stage, graph: Any, kind: str, value: int, size: int) -> list[Any]:
    handle = call(cu.cuGraphConditionalHandleCreate, graph, stage.context, value, cu.CU_GRAPH_COND_ASSIGN_DEFAULT)
    params = cu.CUgraphNodeParams()
    params.type = KIND.CU_GRAPH_NODE_TYPE_CONDITIONAL
    params.conditional.handle = handle
    params.conditional.type = getattr(cu.CUgraphConditionalNodeType, f"CU_GRAPH_COND_TYPE_{kind}")
    params.conditional.size = size
    params.conditional.ctx = stage.context
    call(cu.cuGraphAddNode, graph, None, None, 0, params)
    return list(params.conditional.phGraph_out)[:size]


def conditions(stage: Stage) -> None:
    """Bodies that run and bodies that do not."""
    for value in (0, 1, 2):
        graph = call(cu.cuGraphCreate, 0)
        for number, branch in enumerate(conditional(stage, graph, "SWITCH", value, 3)):
            call(cu.cuGraphAddKernelNode, branch, None, 0, stage.mix_parameters(number))
        for number, branch in enumerate(conditional(stage, graph, "IF", value, 2)):
            node = call(cu.cuGraphAddKernelNode, branch, None, 0, stage.mix_parameters(3 + number))
            call(cu.cuGraphAddKernelNode, branch, [node], 1, stage.mix_parameters(5))
        stage.repeat(graph, stage.streams[0])


def into_graph(stage: Stage) -> None:
    """Captures into a graph that has nodes already, twice."""
    stream, _, other = stage.streams
    graph = call(cu.cuGraphCreate, 0)
    root = call(cu.cuGraphAddKernelNode, graph, None, 0, stage.mix_parameters(0))
    for first in (1, 5):
        call(cu.cuStreamBeginCaptureToGraph, stream, graph, [root], None, 1, THREAD_LOCAL)
        record_all_kinds(stage, stream, other, first)
        _, _, _, tail, _, count = call(cu.cuStreamGetCaptureInfo, stream)
        empty = call(cu.cuGraphAddEmptyNode, graph, tail, count)
        call(cu.cuStreamUpdateCaptureDependencies, stream, [empty], None, 1, 1)
        stage.launch(first, stream)
        call(cu.cuStreamEndCapture, stream)
        root = empty
    stage.repeat(graph, stream)


def threads(stage: Stage) -> None:
    """Threads that capture and launch at the same time, on streams of their own and on their default streams."""
    failed: list[BaseException] = []

    def capture_and_launch(first: int, stream: Any) -> None:
        for turn in range(stage.rounds):
            call(cu.cuStreamBeginCapture, stream, THREAD_LOCAL)
            stage.launch(first, stream)
            stage.launch(first + 1, stream)
            stage.launch(first, stream)
            graph = call(cu.cuStreamEndCapture, stream)
            executable = call(cu.cuGraphInstantiate, graph, 0)
            call(cu.cuGraphLaunch, executable, stream)
            stage.launch(first + turn % 2, stream)
            call(cu.cuStreamSynchronize, stream)
            call(cu.cuGraphExecDestroy, executable)
            call(cu.cuGraphDestroy, graph)

    def only_launch(first: int, stream: Any) -> None:
        for turn in range(stage.rounds * 4):
            stage.launch(first + turn % 2, stream)
            if turn % 3 == 0:
                call(cu.cuStreamSynchronize, stream)

    def short_lived(first: int, _: Any) -> None:
        """Streams that are destroyed while they work."""
        for _ in range(stage.rounds):
            stream = call(cu.cuStreamCreate, NON_BLOCKING)
            stage.launch(first, stream)
            stage.launch(first + 1, stream)
            event = stage.event()
            call(cu.cuEventRecord, event, stream)
            call(cu.cuStreamDestroy, stream)
            call(cu.cuEventSynchronize, event)
            call(cu.cuEventDestroy, event)

    def body(function: Callable[[int, Any], None], first: int, stream: Any) -> None:
        try:
            call(cu.cuCtxSetCurrent, stage.context)
            function(first, stream)
            if stream is PER_THREAD:
                call(cu.cuStreamSynchronize, stream)
        except BaseException as error:
            failed.append(error)

    roles: list[tuple[Callable[[int, Any], None], Any]] = [
        (capture_and_launch, stage.streams[0]),
        (capture_and_launch, PER_THREAD),
        (only_launch, PER_THREAD),
        (only_launch, stage.streams[1]),
        (short_lived, None),
    ]
    workers = [threading.Thread(target=body, args=(role, 2 * i, s)) for i, (role, s) in enumerate(roles)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    if failed:
        raise failed[0]


def long_captures(stage: Stage) -> None:
    """Captures that stay open over hand-overs while other streams work; one whose stream is destroyed."""
    stream, blocking, other = stage.streams
    for origin in (stream, blocking):
        for number in range(4):
            stage.launch(number, origin)  # at work when the capture begins
        call(cu.cuStreamBeginCapture, origin, RELAXED)
        for turn in range(stage.rounds):
            stage.launch(turn, origin)
            stage.launch(4 + turn % 2, other)
            stage.launch(6 + turn % 2, PER_THREAD)
            if turn % 2:
                call(cu.cuStreamSynchronize, other)
            fresh = call(cu.cuMemAlloc, MIB)
            call(cu.cuMemsetD32Async, fresh, turn, MIB // 4, other)
            call(cu.cuMemFree, fresh)
        stage.repeat(call(cu.cuStreamEndCapture, origin), origin)
    lost = call(cu.cuStreamCreate, NON_BLOCKING)
    call(cu.cuStreamBeginCapture, lost, RELAXED)
    stage.launch(0, lost)
    call(cu.cuStreamDestroy, lost)
    call(cu.cuCtxSynchronize)


SCENES: dict[str, Scene] = {
    scene.__name__: scene
    for scene in (captured, explicit, memory_nodes, conditions, into_graph, threads, long_captures)
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--memory", type=int, default=128, help="MiB in all")
    parser.add_argument("--rounds", type=int, default=6, help="launches of each graph")
    parser.add_argument("--pause", type=float, default=0.05, help="seconds that a capture stays open")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("scenes", nargs="*", default=list(SCENES), help=", ".join(SCENES))
    options = parser.parse_args()
    try:
        stage = Stage(options)
        print("ready", flush=True)
        for name in options.scenes or SCENES:
            SCENES[name](stage)
            print(f"digest {name} {stage.digest():08x}", flush=True)
    except CudaError as error:
        print(f"error: {error}", flush=True)
        return 3
    print("result: OK", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
