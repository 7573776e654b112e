# SPDX-License-Identifier: Apache-2.0
"""Writes the C source of gpuvirt.control._control_block from the two shared headers (cffi API mode). Run by CMake.

    cffi_module.py --include native/include --output FILE.c

The C compiler checks Python's view of every struct against the headers when it compiles the result.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import cffi

HEADERS = ("gpuvirt/control_block.h", "gpuvirt/messages.h", "gpuvirt/store.h")
OPERATIONS = """
static inline uint32_t gv_lease_epoch(uint32_t word);
static inline uint32_t gv_lease_state(uint32_t word);
static inline uint32_t gv_lease_word(uint32_t epoch, uint32_t state);
static inline uint32_t gv_load32(const uint32_t *field);
static inline void gv_store32(uint32_t *field, uint32_t value);
static inline uint64_t gv_load64(const uint64_t *field);
static inline void gv_store64(uint64_t *field, uint64_t value);
static inline int gv_futex_wait(const uint32_t *word, uint32_t expected, uint64_t timeout_ns);
static inline int gv_futex_wake_all(uint32_t *word);
static inline uint64_t gv_now_ns(void);
static inline int gv_timer_create(void);
static inline int gv_timer_set(int descriptor, uint64_t in_ns);
static inline int gv_handover_start(struct gv_handover *handover);
static inline void gv_handover_drains(struct gv_handover *handover, uint32_t epoch, uint32_t clients);
static inline void gv_handover_client(struct gv_handover *handover, uint32_t index, const uint32_t *drained);
static inline void gv_handover_arm(struct gv_handover *handover);
static inline uint64_t gv_handover_take(struct gv_handover *handover);
static inline void gv_handover_leave(struct gv_handover *handover, const uint32_t *word);
static inline void gv_handover_stop(struct gv_handover *handover);
static inline int gv_store_layout(uint64_t file_bytes, uint32_t segment_slots, struct gv_store_layout *layout);
static inline int gv_store_first(uint64_t file_bytes, uint32_t segment_slots, uint32_t flags, const uint8_t *key,
                                 struct gv_store *header);
"""

HANDOVER = """
#define GV_HANDOVER_CLIENTS ...
struct gv_handover {
    int descriptor;
    struct gv_lease *giver, *taker;
    uint32_t giver_word, taker_word, flags, window_us;
    uint64_t length_ns;
    ...;
};
"""


def definitions(include: Path) -> str:
    """The headers without preprocessor lines: what cffi's parser accepts."""
    text = "\n".join((include / header).read_text() for header in HEADERS)
    return "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--include", type=Path, required=True)
    parser.add_argument("--output", type=Path, required=True)
    options = parser.parse_args()
    builder = cffi.FFI()
    builder.cdef(definitions(options.include))
    builder.cdef(HANDOVER)
    builder.cdef(OPERATIONS.replace("static inline ", ""))
    builder.cdef("#define GV_HEADER_VERSION ...")  # CUDA_VERSION of the headers that the shim was built from
    ops = ("control_block", "handover", "store", "timer")
    names = (*(f"gpuvirt/{name}_ops.h" for name in ops), "header_version.h")
    headers = "".join(f'#include "{name}"\n' for name in names)
    builder.set_source("gpuvirt.control._control_block", headers)
    builder.emit_c_code(str(options.output))


if __name__ == "__main__":
    main()
