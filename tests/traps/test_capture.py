# SPDX-License-Identifier: Apache-2.0
"""Traps of stream capture, graphs and pools."""

from __future__ import annotations

from support.host import Program, host
from support.traps import Edit, trap

TURNS = '[time]\nquantum = "10ms"\nswap_share = 0.8'


def passes(program: Program) -> None:
    assert program.wait(60) == 0, program.text
    assert "result: OK" in program.text


def alone(situation: str, memory: str = "64M") -> None:
    """A program on a GPU of its own."""
    with host() as machine:
        passes(machine.job("captures.py", situation, options=("--memory", memory)))


def beside_a_rival(situation: str) -> None:
    """A program whose memory leaves the GPU whenever it does not hold it, and a rival that always wants it."""
    with host(settings=TURNS) as machine:
        rival = machine.job("mixer.py", "--memory", "160", "--seconds", "60", name="rival")
        rival.wait_for("ready")
        program = machine.job("captures.py", situation, name="captures")
        passes(program)
        assert machine.job_named("captures")["out_bytes"] > 0, machine.job_named("captures")
        assert rival.running, rival.text


@trap(
    "The launch hook synchronises the context, which spoils a capture.",
    Edit(
        "native/shim/gate.c",
        "|| gv_stream_captures(used))",
        "|| (REAL(cuCtxSynchronize)() != CUDA_SUCCESS && gv_stream_captures(used)))",
    ),
)
def test_synchronise_in_the_launch_hook() -> None:
    alone("launches")


@trap(
    "Beside a capture only what does not capture is waited for: what a capturing stream was given before is forgotten.",
    Edit("native/shim/marks.c", "    gv_marks_put(stream);\n    /* The legacy stream", "    /* The legacy stream"),
)
def test_work_given_before_the_capture() -> None:
    beside_a_rival("work_before")


@trap(
    "Beside a capture only known streams are waited for: the default streams of other threads are forgotten.",
    Edit("native/shim/gate.c", "        gv_marks_put(CU_STREAM_PER_THREAD);", "        return;"),
)
def test_work_on_a_threads_own_stream_beside_a_capture() -> None:
    beside_a_rival("work_of_a_thread")


@trap(
    "Beside a capture only known streams are waited for: those that were destroyed at work are forgotten.",
    Edit("native/shim/streams.c", "    gv_marks_stream_ends(stream);\n", ""),
)
def test_work_of_a_destroyed_stream_beside_a_capture() -> None:
    beside_a_rival("work_of_a_destroyed_stream")


@trap(
    "Captures are counted from begin to end: one whose stream is destroyed is believed to go on for ever.",
    Edit("native/shim/streams.c", "        gv_capture_stream_ended(stream);", "        (void)0;"),
)
def test_captures_that_nobody_ends() -> None:
    alone("abandoned")


@trap(
    "Memory of a pool that is freed with cuMemFree stays counted; memory of cuMemAlloc is refused by cuMemFreeAsync.",
    Edit("native/shim/allocation.c", "    gv_pool_given(range);\n", ""),
    Edit("native/shim/pool.c", "if (range == NULL)", "if (range == NULL || range->pool == NULL)"),
)
def test_pool_memory_freed_the_other_way() -> None:
    alone("other_way")


@trap(
    "What a pool has reserved is told as used.",
    Edit("native/shim/pool.c", "(cuuint64_t *)value = usage->used;", "(cuuint64_t *)value = usage->reserved;"),
)
def test_reserved_is_not_used() -> None:
    alone("reserved")


@trap(
    "cuMemAllocFromPoolAsync goes to the driver and is not counted.",
    Edit(
        "native/shim/pool.c",
        "return pool == NULL ? CUDA_ERROR_INVALID_VALUE : allocate(dptr, bytesize, pool, stream);",
        "return REAL(cuMemAllocFromPoolAsync##suffix)(dptr, bytesize, pool, hStream);",
    ),
)
def test_from_pool_not_counted() -> None:
    alone("from_pool")


@trap(
    "Memory nodes of graphs are not counted.",
    Edit("native/shim/graph_memory.c", "uint64_t taken = needed(executable, 0);", "uint64_t taken = 0;"),
)
def test_graph_memory_nodes() -> None:
    with host() as machine:
        passes(machine.job("graph_quota.py", options=("--memory", "64M")))


@trap(
    "Memory comes back at another address than it left, where the graphs that know it do not find it.",
    Edit(
        "native/shim/swap_in.c",
        "(struct gv_place){address, page->slot}",
        "(struct gv_place){in.pages[0].address, page->slot}",
    ),
)
def test_registered_graph_buffers() -> None:
    beside_a_rival("buffers")
