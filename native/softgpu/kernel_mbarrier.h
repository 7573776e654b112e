/* SPDX-License-Identifier: Apache-2.0
 *
 * mbarrier objects, and the copies that are asynchronous on a GPU: here they are done at once. Included by kernel_runtime.h.
 *
 * The object is opaque to programs; ours, in its 64 bits:
 *     0-19 arrivals pending | 20-39 arrivals of each phase | 40-62 bytes still expected, signed | 63 parity of the phase
 * Only the block's own threads see it, and they take turns, so plain loads and stores do.
 */
#ifndef GPUVIRT_SOFTGPU_KERNEL_MBARRIER_H
#define GPUVIRT_SOFTGPU_KERNEL_MBARRIER_H

enum { GV_MBARRIER_FIELD = 20, GV_MBARRIER_MASK = (1 << GV_MBARRIER_FIELD) - 1 };

GV_FN uint64_t gv_mbarrier_pack(uint64_t pending, uint64_t arrivals, int64_t bytes, uint64_t parity)
{
    return (pending & GV_MBARRIER_MASK) | (arrivals & GV_MBARRIER_MASK) << 20 | ((uint64_t)bytes & 0x7fffffu) << 40 |
           parity << 63;
}

/* Arrivals and bytes change by so much; the phase ends when both are at 0. Returns the state before, which is the token.
 * volatile: lanes side by side (GV_LANES) may not do this side by side. */
GV_FN uint64_t gv_mbarrier_update(uint64_t address, uint32_t arrive, uint32_t leave, int64_t more_bytes)
{
    volatile uint64_t *at = (volatile uint64_t *)(uintptr_t)address;
    const uint64_t old = *at;
    uint64_t pending = (old & GV_MBARRIER_MASK) - arrive, arrivals = (old >> 20 & GV_MBARRIER_MASK) - leave;
    int64_t bytes = ((int64_t)(old << 1) >> 41) + more_bytes;
    uint64_t parity = old >> 63;
    if (!(pending & GV_MBARRIER_MASK) && bytes == 0) {
        pending = arrivals;
        parity ^= 1;
    }
    *at = gv_mbarrier_pack(pending, arrivals, bytes, parity);
    return old;
}

GV_FN void gv_mbarrier_init(uint64_t address, uint32_t count)
{
    *(uint64_t *)(uintptr_t)address = gv_mbarrier_pack(count, count, 0, 0);
}

/* Whether the phase with this parity is over. */
GV_FN _Bool gv_mbarrier_over(uint64_t address, uint64_t parity)
{
    return *(const uint64_t *)(uintptr_t)address >> 63 != (parity & 1);
}

/* cp.async: `have` bytes, zeros up to `bytes`. */
GV_FN void gv_copy(uint64_t to, uint64_t from, uint32_t bytes, uint32_t have)
{
    uint8_t *out = (uint8_t *)(uintptr_t)to;
    const uint8_t *in = (const uint8_t *)(uintptr_t)from;
    for (uint32_t i = 0; i < bytes; i++)
        out[i] = i < have ? in[i] : 0;
}

#endif
