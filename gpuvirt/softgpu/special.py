# SPDX-License-Identifier: Apache-2.0
"""Special registers.

Each entry is (name of a C constant, its value); the name is empty for values that must be read anew each time.
`@STATIC` is the kernel's static shared memory; where %reserved_smem_offset_* is used its last RESERVED bytes are the
system's, as cooperative groups expect, and start as zeros.
"""

from __future__ import annotations

RESERVED = 1024

SPECIAL_VALUES: dict[str, tuple[str, str]] = {
    "%tid.x": ("TX", "T->x"),
    "%tid.y": ("TY", "T->y"),
    "%tid.z": ("TZ", "T->z"),
    "%ntid.x": ("NX", "B->block.x"),
    "%ntid.y": ("NY", "B->block.y"),
    "%ntid.z": ("NZ", "B->block.z"),
    "%ctaid.x": ("CX", "B->index.x"),
    "%ctaid.y": ("CY", "B->index.y"),
    "%ctaid.z": ("CZ", "B->index.z"),
    "%nctaid.x": ("GX", "B->grid.x"),
    "%nctaid.y": ("GY", "B->grid.y"),
    "%nctaid.z": ("GZ", "B->grid.z"),
    "%laneid": ("LANE", "T->linear & 31"),
    "%warpid": ("WARP", "T->linear >> 5"),
    "%nwarpid": ("NWARP", "32"),
    "%lanemask_eq": ("LANE_EQ", "1u << (T->linear & 31)"),
    "%lanemask_lt": ("LANE_LT", "(1u << (T->linear & 31)) - 1"),
    "%lanemask_le": ("LANE_LE", "(2u << (T->linear & 31)) - 1"),
    "%lanemask_gt": ("LANE_GT", "~((2u << (T->linear & 31)) - 1)"),
    "%lanemask_ge": ("LANE_GE", "~((1u << (T->linear & 31)) - 1)"),
    "%smid": ("SM", "B->smid"),
    "%nsmid": ("", "(B->smid < 128 ? 128 : B->smid + 1)"),
    "%gridid": ("", "0"),
    "%clock": ("", "gv_clock(CLOCK_MONOTONIC)"),
    "%clock_hi": ("", "(gv_clock(CLOCK_MONOTONIC) >> 32)"),
    "%clock64": ("", "gv_clock(CLOCK_MONOTONIC)"),
    "%globaltimer": ("", "gv_clock(CLOCK_REALTIME)"),
    "%globaltimer_lo": ("", "(uint32_t)gv_clock(CLOCK_REALTIME)"),
    "%globaltimer_hi": ("", "(gv_clock(CLOCK_REALTIME) >> 32)"),
    "%dynamic_smem_size": ("", "B->dynamic_shared"),
    "%total_smem_size": ("", "(@STATIC + B->dynamic_shared)"),
    "%aggr_smem_size": ("", "(@STATIC + B->dynamic_shared)"),
    "%reserved_smem_offset_begin": ("", "(@STATIC - 1024)"),
    "%reserved_smem_offset_cap": ("", "@STATIC"),
    "%reserved_smem_offset_end": ("", "@STATIC"),
    "%reserved_smem_offset_0": ("", "(@STATIC - 1024)"),
    "%reserved_smem_offset_1": ("", "(@STATIC - 1024)"),
    "%envreg0": ("", "0"),
    "%envreg1": ("", "((uint64_t)(uintptr_t)B->workspace >> 32)"),
    "%envreg2": ("", "(uint64_t)(uintptr_t)B->workspace"),
    "%current_graph_exec": ("", "0"),
    "%is_explicit_cluster": ("", "0"),
    "%cluster_ctarank": ("", "0"),
    "%cluster_nctarank": ("", "1"),
}

# No clusters: every block is a cluster of its own.
for _axis, _index, _grid in (("x", "CX", "GX"), ("y", "CY", "GY"), ("z", "CZ", "GZ")):
    SPECIAL_VALUES[f"%clusterid.{_axis}"] = ("", f"B->index.{_axis}")
    SPECIAL_VALUES[f"%nclusterid.{_axis}"] = ("", f"B->grid.{_axis}")
    SPECIAL_VALUES[f"%cluster_ctaid.{_axis}"] = ("", "0")
    SPECIAL_VALUES[f"%cluster_nctaid.{_axis}"] = ("", "1")
