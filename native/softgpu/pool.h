/* SPDX-License-Identifier: Apache-2.0
 *
 * Pools of stream-ordered memory.
 *
 *     pool.c             making and ending pools; allocation and free
 *     pool_places.c      the default and the current pool of a place
 *     pool_attributes.c  attributes and access
 *     pool_share.c       pools and allocations of another process
 */
#ifndef GPUVIRT_SOFTGPU_POOL_H
#define GPUVIRT_SOFTGPU_POOL_H

#include "memory.h"
#include "stream.h"

/* Behind CUmemoryPool. All under gv_memory_lock. */
struct gv_pool {
    struct gv_object object;
    struct gv_heap heap; /* device GV_HOST: of host or managed memory */
    CUmemAllocationType type;
    CUmemLocation location; /* managed: the preferred one */
    uint64_t threshold;
    int reuse[3]; /* follow event dependencies, opportunistic, internal dependencies */
    bool is_default, destroyed;
    bool imported;        /* nothing is allocated from it here */
    uint32_t allocations; /* a destroyed pool lives until they are gone */
    CUmemAllocationHandleType handle_types;
    uint8_t access[GV_BOARD_DEVICES]; /* CUmemAccess_flags */
    int fd;                           /* that names it to other processes; -1 until exported */
    uint64_t id;                      /* in the process that made it */
    uint32_t exporter;                /* of an imported one: pid of that process */
    uint64_t exporter_start;
    struct gv_pool *next;
};

/* NULL when it is none, or was destroyed. */
struct gv_pool *gv_pool_of(CUmemoryPool handle);
/* Properties as documented for cuMemPoolCreate. On success `location` is normalised. */
CUresult gv_pool_check(const CUmemPoolProps *properties, CUmemLocation *location);
struct gv_pool *gv_pool_new(CUmemAllocationType type, CUmemLocation location);
/* A pool that is going: its places get their default pool again. */
void gv_pool_leave_places(const struct gv_pool *pool);
/* The next wait of the program looks for what can be given back. */
void gv_pools_want_trim(void);
/* 0 and up: device; GV_HOST: host memory of any kind. */
int gv_location_device(const CUmemLocation *location);
/* Whether the machine has this NUMA node. */
bool gv_has_numa_node(int node);

#endif
