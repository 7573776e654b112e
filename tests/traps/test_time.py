# SPDX-License-Identifier: Apache-2.0
"""Traps of time: who may give work to the GPU when, and what waiting does to others."""

from __future__ import annotations

import pytest

from support import gate_programs
from support.host import host
from support.traps import Edit, trap

TURNS = '[time]\nquantum = "20ms"\nswap_share = 0.6'


@trap(
    "The lease is looked at before the thread says that it launches: a launch slips out after a revocation.",
    Edit(
        "native/shim/gate.h",
        "    __atomic_store_n(&thread->in_launch, 1, __ATOMIC_RELAXED);\n    /* Compiler",
        "    /* Compiler",
    ),
)
def test_launch_between_check_and_call() -> None:
    assert "0 given, 0 run without the lease" in gate_programs.run("revocations", "3000")


@trap(
    "Launches are gated and copies are not: a copy runs while others have the GPU, ahead of work that waits.",
    Edit("native/generate/classes.tsv", "cuMemcpyDtoDAsync\tgate", "cuMemcpyDtoDAsync\tpass-through"),
)
def test_copies_overtake() -> None:
    assert "0 given, 0 run without the lease" in gate_programs.run("revocations", "1000")


@trap(
    "Only cuLaunchKernel is gated; what goes through cuLaunchKernelEx (matrix products on an H100) is not.",
    Edit("native/generate/classes.tsv", "cuLaunchKernelEx\tgate", "cuLaunchKernelEx\tpass-through"),
)
def test_launch_kernel_ex_forgotten() -> None:
    assert "gated entry points waited for the lease" in gate_programs.run("gated")


@trap(
    "One stream of a program is stopped while another waits for it on the GPU, and nothing resolves that.",
    Edit("native/shim/drain.c", "if (!current.stuck_said && gv_now_ns()", "if (0 && gv_now_ns()"),
)
def test_one_stream_suspended() -> None:
    gate_programs.run("stuck")


@pytest.mark.timeout(60)
@trap(
    "Each rank of a job is looked at alone: one cannot drain, the other one, which it waits for, is kept out.",
    Edit(
        "gpuvirt/arbitration/drain.py",
        "return client.stuck and not client.drained",
        "return client.stuck and client.waiting and not client.drained",
    ),
)
def test_one_rank_gated() -> None:
    with host(settings=TURNS) as machine:
        other = machine.job("mixer.py", "--memory", "16", "--seconds", "60", name="other")
        other.wait_for("ready")
        job = machine.job("ranks.py", "--rounds", "300", name="ranks")
        assert job.wait(20) == 0, machine.report()
        assert "result: OK rounds=300" in job.text
        assert machine.job_named("ranks")["switches"] >= 2, machine.report()


@pytest.mark.timeout(60)
@trap(
    "A turn costs the same whatever it held: who launches long kernels gets the GPU, who launches short ones waits.",
    Edit(
        "gpuvirt/arbitration/fairshare.py",
        "holder.vtime += charged_vtime(duration, holder.weight)",
        "holder.vtime += charged_vtime(1_000_000, holder.weight)",
    ),
)
def test_cost_by_grid_size() -> None:
    with host(settings=TURNS) as machine:
        long = machine.job("spinner.py", "--seconds", "5", "--milliseconds", "120", name="long")
        long.wait_for("ready")
        short = machine.job("spinner.py", "--seconds", "4", "--milliseconds", "0.2", "--blocks", "4", name="short")
        assert short.wait(30) == 0, machine.report()
        held = {name: float(machine.job_named(name)["held_s"]) for name in ("long", "short")}
        share = held["short"] / sum(held.values())
        assert share > 0.3, held  # equal weights: half of the time they shared, and the start was the long one's alone
        assert long.wait(30) == 0


@trap(
    "The gate is held across a call that waits for all work: nobody can take the lease away from a thread in it.",
    Edit(
        "native/shim/activity.c",
        "GV_EXPORT CUresult cuCtxSynchronize(void) { SYNCHRONISE(",
        "GV_EXPORT CUresult cuCtxSynchronize(void) { gv_gate_enter(NULL, 0); SYNCHRONISE(",
    ),
)
def test_gate_held_across_implicit_waits() -> None:
    gate_programs.run("gated")


@trap(
    "An event is called done because its job does not hold the lease.",
    Edit(
        "native/shim/activity.c",
        "cuEventQuery(CUevent hEvent) { ASK(REAL(cuEventQuery)(hEvent), NO_STREAM); }",
        "cuEventQuery(CUevent hEvent) { ASK(gv_may_launch(gv_load32(&gv_gate.lease->word)) ? "
        "REAL(cuEventQuery)(hEvent) : CUDA_SUCCESS, NO_STREAM); }",
    ),
)
def test_event_done_early() -> None:
    gate_programs.run("stuck")


@trap(
    "The helper thread asks again and again whether the work has finished.",
    Edit(
        "native/shim/drain.c",
        "    if (current.stuck_said || has_ended())\n        return longest;",
        "    if (has_ended())\n        return longest;\n    if (current.stuck_said)\n        return 0;",
    ),
)
def test_polling_helper() -> None:
    gate_programs.run("stuck")
