/* SPDX-License-Identifier: Apache-2.0
 *
 * What a kind of GPU is: sizes, speeds, limits. A soft device gets a profile when its board is made; driver, NVML and tools all
 * answer from the copy on the board. The table is in profiles.c.
 *
 * A profile sets what programs are told and where their launches are refused, not how fast kernels run. The device's name
 * never claims to be the card.
 */
#ifndef GPUVIRT_SOFTGPU_PROFILE_H
#define GPUVIRT_SOFTGPU_PROFILE_H

#include <stdint.h>

/* What one call of cuMemCreate, cuMemMap, cuMemSetAccess or cuMemUnmap costs: fixed + size. */
struct gv_vmm_cost {
    uint32_t fixed_ns;
    uint32_t per_mib_ns;
};
enum gv_vmm_call { GV_VMM_CREATE, GV_VMM_MAP, GV_VMM_ACCESS, GV_VMM_UNMAP, GV_VMM_CALLS };

struct gv_profile {
    char name[16];
    char kind[24]; /* architecture, for people */
    uint64_t memory_bytes;
    uint64_t reserved_bytes;  /* of it, by the driver; only with the model `reserved` */
    uint64_t context_bytes;   /* of each context; only with the model `context` */
    uint32_t major, minor;    /* compute capability */
    uint32_t multiprocessors; /* 0: as many as there are workers */
    uint32_t threads_per_multiprocessor, blocks_per_multiprocessor;
    uint32_t shared_per_block_most, shared_per_multiprocessor, shared_reserved; /* bytes; without asking it is 48 KiB */
    uint32_t registers_per_multiprocessor;
    uint32_t clock_khz, memory_clock_khz, bus_bits;
    uint32_t l2_bytes, l2_persisting_bytes;
    uint32_t copy_engines;
    uint32_t double_ratio; /* single : double precision */
    uint32_t ecc;          /* it has it, and it is on */
    uint32_t fans;
    uint32_t pcie_generation, pcie_width;
    uint32_t pci_device; /* device and vendor id as in NVML */
    uint32_t idle_mw, limit_mw, limit_least_mw;
    uint32_t idle_c, busy_c, slowdown_c, shutdown_c;
    /* Models; see board_model.h. */
    uint32_t link_mb_s[2]; /* pinned memory to and from the device, 10^6 bytes a second */
    uint32_t link_both_percent, link_pageable_percent;
    uint32_t pin_register_us_per_gib, pin_allocate_us_per_gib;
    uint32_t init_us, context_us, launch_ns;
    uint32_t reserved;
    struct gv_vmm_cost vmm[GV_VMM_CALLS];
};

extern const struct gv_profile gv_profiles[]; /* the first is the default; ends with an empty name */
/* NULL: there is none of that name. */
const struct gv_profile *gv_profile_find(const char *name, uint64_t length);

#endif
