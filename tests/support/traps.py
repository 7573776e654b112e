# SPDX-License-Identifier: Apache-2.0
"""A trap: a mistake that other projects made in the same place, as a test that would find it here.

    @trap("cuInit calls back into the wrapper: pthread_once deadlocks", Edit("native/shim/real_driver.c", "old", "new"))
    def test_init_that_comes_back(...): ...

The edit puts the mistake into our source; with it the test must fail. `make traps` does that for each trap in a copy
of the tree (tests/traps/run.py). A test of the suite checks that each `old` is found exactly once, so that the edits do
not go stale.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import pytest

F = TypeVar("F", bound=Callable[..., object])


@dataclass(frozen=True)
class Edit:
    """One mistake: in `path` (from the root of the repository) the only occurrence of `old` becomes `new`."""

    path: str
    old: str
    new: str

    def apply(self, text: str) -> str:
        """The text of the file with the mistake. Raises ValueError when `old` is not there exactly once."""
        count = text.count(self.old)
        if count != 1:
            raise ValueError(f"{self.path} has {count} times, not once: {self.old.strip().splitlines()[0]}")
        return text.replace(self.old, self.new)


def trap(mistake: str, *edits: Edit) -> Callable[[F], F]:
    """Marks a test as the proof that `mistake` (one sentence) is not made here. With all `edits` it must fail."""
    return pytest.mark.trap(mistake=mistake, edits=edits)


# What the traps must cover, by file of tests/traps. There may be more.
EXPECTED: dict[str, tuple[str, ...]] = {
    "test_resolution.py": (
        "init_that_comes_back",
        "look_up_while_loading",
        "many_threads_at_the_first_call",
        "next_symbol",
        "calls_through_the_plt",
        "both_versions_of_dlsym",
        "base_name_is_not_an_abi",
        "four_or_five_arguments",
        "newest_abi_of_a_name",
        "names_with_typos",
        "flags_ignored",
        "status_is_null_or_unset",
        "exports_for_direct_linkers",
        "profiler_and_egl_symbols",
    ),
    "test_memory.py": (
        "free_of_what_is_not_ours",
        "bookkeeping_fails_after_the_allocation",
        "result_overwritten",
        "memory_info_null",
        "attributes_that_lie",
        "linear_lists",
        "external_memory",
        "quota_by_every_way",
    ),
    "test_capture.py": (
        "synchronise_in_the_launch_hook",
        "pool_memory_freed_the_other_way",
        "reserved_is_not_used",
        "from_pool_not_counted",
        "graph_memory_nodes",
        "registered_graph_buffers",
    ),
    "test_vmm.py": (
        "ipc_memory_charged_and_freed",
        "legacy_ipc_of_mapped_memory",
        "expandable_segments_shared",
        "no_current_context",
    ),
    "test_time.py": (
        "launch_between_check_and_call",
        "copies_overtake",
        "one_stream_suspended",
        "one_rank_gated",
        "launch_kernel_ex_forgotten",
        "cost_by_grid_size",
        "gate_held_across_implicit_waits",
        "event_done_early",
        "polling_helper",
    ),
    "test_process.py": (
        "fork_with_locks_sockets_threads",
        "killed_with_a_lock_held",
        "driver_call_under_a_mutex",
        "umask_signals_atexit_environment",
        "exit_on_daemon_loss",
        "work_in_constructors",
        "exec_keeps_the_preload",
        "limits_in_the_environment",
        "copy_in_another_namespace",
    ),
}
