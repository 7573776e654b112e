/* SPDX-License-Identifier: Apache-2.0
 *
 * Device memory. Addresses are ordinary addresses of the process; memory is one memfd per handle (physical.c), so aliasing,
 * export and release at process death come from the kernel, and a touch of what is not mapped is a fault.
 *
 *     physical.c   memfd + charge on the board         heap.c      many allocations in few physical pieces
 *     region.c     which address belongs to what       vmm.c       reserve / create / map / set access
 *     parking.c    handles' memory between two uses    stale.c     what it held is cleared before it can be seen
 *     memory.c     cuMemAlloc and friends              pool.c      stream-ordered pools
 *     host_memory.c  pinned and managed memory         pointer.c   questions about pointers
 *
 * One lock, gv_memory_lock, for all tables. It is never held across a wait for work, a copy or a fault.
 */
#ifndef GPUVIRT_SOFTGPU_MEMORY_H
#define GPUVIRT_SOFTGPU_MEMORY_H

#include "context.h"
#include "views.h"

extern pthread_mutex_t gv_memory_lock;

/* ---- physical memory ---- */
struct gv_physical {
    int fd; /* -1 when nobody can export it */
    int device;
    uint64_t bytes;
    uint64_t inode;      /* known once it was exported or imported, else 0 */
    uint32_t references; /* handles and mappings; under gv_memory_lock */
    struct gv_physical *next_shared;
    struct gv_view *views;            /* under gv_memory_lock */
    void *saved;                      /* its content while the process is checkpointed */
    bool keeps_fd;                    /* while it is checkpointed: had a descriptor */
    uint8_t *stale;                   /* by piece: holds what it held for somebody before (stale.h); NULL: none does */
    uint8_t *parked;                  /* where all of it is mapped while no address of the program is; NULL: nowhere */
    struct gv_physical *next, **link; /* all of the process; under the lock of physical.c */
};
/* Calls `visit` for each of a device until it answers false; none may be made or released meanwhile. */
bool gv_physical_each(bool (*visit)(struct gv_physical *physical, void *data), void *data);
/* A memfd for the memory of a device; -1 with errno. */
int gv_physical_descriptor(int device, uint64_t bytes);
enum { GV_HOST = -1 }; /* instead of a device: host memory, charged to none */
/* Charged to the device. References = 1. `again`: what a handle of this process had before will do, cleared and parked. */
CUresult gv_physical_create(int device, uint64_t bytes, bool again, struct gv_physical **physical);
/* Under gv_memory_lock. */
void gv_physical_release(struct gv_physical *physical);
/* A new descriptor for another process; and the way back. Under gv_memory_lock. */
/* Other processes may hold it from now on; it keeps its own descriptor. Under gv_memory_lock. */
CUresult gv_physical_share(struct gv_physical *physical);
CUresult gv_physical_export(struct gv_physical *physical, int *fd);
CUresult gv_physical_import(int fd, struct gv_physical **physical);

/* ---- heaps: allocations inside physical pieces; all under gv_memory_lock ---- */
struct gv_heap_block;
struct gv_segment {
    CUdeviceptr base;
    uint64_t bytes;
    enum gv_segment_state { GV_FREE, GV_PENDING, GV_USED } state;
    struct gv_gauge *busy_gauge; /* GV_PENDING: free when this gauge has reached busy_until */
    uint64_t busy_until;
    struct gv_heap_block *block;
    struct gv_segment *previous, *next;           /* neighbours in the block */
    struct gv_segment *previous_free, *next_free; /* of the heap, when not used */
};
struct gv_heap {
    int device;
    unsigned unit;  /* bytes that sizes are rounded to; 0: 512 */
    bool patient;   /* freed memory that work has passed is used again only when the program has seen that */
    bool shareable; /* pieces keep their descriptors */
    bool keep;      /* empty blocks stay until gv_heap_trim */
    struct gv_heap_block *blocks;
    struct gv_segment *free;
    uint64_t reserved, reserved_high, used, used_high, limit; /* bytes; limit 0: none */
};
/* Who will use the memory: pending segments of its own work may be used at once, and those that its work comes after. */
struct gv_heap_user {
    const struct gv_gauge *gauge;
    bool (*is_after)(const struct gv_heap_user *user, const struct gv_gauge *gauge, uint64_t value); /* may be NULL */
    const void *data;
};
CUresult gv_heap_allocate(struct gv_heap *heap, uint64_t bytes, const struct gv_heap_user *user,
                          struct gv_segment **segment);
/* A pending segment of enough bytes, to be used after `busy_until`; NULL: none. */
struct gv_segment *gv_heap_take_pending(struct gv_heap *heap, uint64_t bytes);
/* `gauge` NULL: free now. */
void gv_heap_free(struct gv_heap *heap, struct gv_segment *segment, struct gv_gauge *gauge, uint64_t busy_until);
/* Gives empty blocks back until `keep_bytes` are left. */
void gv_heap_trim(struct gv_heap *heap, uint64_t keep_bytes);
/* The piece that a segment lies in, and where. */
struct gv_physical *gv_heap_backing(const struct gv_segment *segment, uint64_t *offset);
/* A gauge that a pending segment waits for, or false. */
bool gv_heap_pending(struct gv_heap *heap, struct gv_gauge **gauge, uint64_t *until);

/* ---- regions: every address range that the driver knows ---- */
enum gv_region_kind {
    GV_REGION_RESERVED,   /* cuMemAddressReserve; mappings inside are in a table of their own */
    GV_REGION_DEVICE,     /* cuMemAlloc */
    GV_REGION_POOL,       /* cuMemAllocAsync */
    GV_REGION_GLOBAL,     /* variables of modules */
    GV_REGION_HOST,       /* cuMemHostAlloc */
    GV_REGION_REGISTERED, /* cuMemHostRegister */
    GV_REGION_MANAGED,
    GV_REGION_POOL_HOST,     /* of a pool of host memory */
    GV_REGION_POOL_MANAGED,  /* of a pool of managed memory */
    GV_REGION_POOL_IMPORTED, /* of another process's pool */
    GV_REGION_IMPORTED,      /* of another process (ipc_memory.c) */
    GV_REGION_EXTERNAL,      /* of a descriptor (external.c) */
    GV_REGION_KERNEL,        /* malloc of a kernel: no address of the driver's calls */
    GV_REGION_ARRAY,         /* not an address of programs: pointer queries do not find it */
};
struct gv_region {
    uint64_t base, bytes; /* first: region.c compares them */
    enum gv_region_kind kind;
    int device;
    unsigned flags;             /* of the call that made it */
    uint64_t id;                /* CU_POINTER_ATTRIBUTE_BUFFER_ID */
    struct gv_context *context; /* NULL: of no context (reservations, pools) */
    struct gv_segment *segment; /* DEVICE, GLOBAL, POOL */
    struct gv_heap *heap;
    void *pool;
    void *owner; /* ARRAY: the array or mipmap; IMPORTED, EXTERNAL: what ipc_memory.c knows */
    struct gv_graph_allocation *allocation; /* of a graph; NULL: of a pool */
    bool sync_memops;
};
/* All under gv_memory_lock. */
struct gv_region *gv_region_find(uint64_t address);
struct gv_region *gv_region_add(uint64_t base, uint64_t bytes, enum gv_region_kind kind, int device,
                                struct gv_context *context); /* NULL: out of memory or overlap */
void gv_region_remove(struct gv_region *region);
/* Calls `visit` for each region; it may remove the region that it is given. */
void gv_region_each(bool (*visit)(struct gv_region *region, void *data), void *data);

/* Takes the lock itself. True when all of [address, address + bytes) is in one region. */
bool gv_range_known(uint64_t address, uint64_t bytes, enum gv_region_kind *kind);
bool gv_is_host_kind(enum gv_region_kind kind);
bool gv_is_managed_kind(enum gv_region_kind kind);
bool gv_is_pool_kind(enum gv_region_kind kind); /* gv_pool_free() frees it */

/* ---- device allocations ---- */
/* For cuMemAlloc and for variables of modules. Takes the lock. */
CUresult gv_device_allocate(struct gv_context *context, uint64_t bytes, enum gv_region_kind kind, CUdeviceptr *address);
CUresult gv_device_allocate_for(struct gv_context *context, uint64_t bytes, enum gv_region_kind kind, void *owner,
                                CUdeviceptr *address);
void gv_device_free(CUdeviceptr address);
/* All that belongs to a context that ends. */
void gv_memory_close(struct gv_context *context);
struct gv_ipc_handle;
CUresult gv_imported_map(const struct gv_ipc_handle *handle, int fd, struct gv_context *context,
                         enum gv_region_kind kind, struct gv_region **mapped); /* under the lock */
struct gv_stream;
/* POOL_IMPORTED: now, under the lock; or when the stream is there. */
void gv_pool_imported_free(struct gv_region *region);
CUresult gv_pool_free_imported(CUdeviceptr address, struct gv_stream *stream);
void gv_imported_free(struct gv_region *region); /* the same for memory of another process */
void gv_managed_free(struct gv_region *region);
void gv_external_close(struct gv_context *context); /* under the lock */
/* Managed memory that is charged to the device goes to the host; false: there is none. Takes no lock of memory.c. */
bool gv_managed_make_room(int device, uint64_t bytes);
void gv_host_memory_free(struct gv_region *region); /* under the lock; frees memory and region */
/* A pool allocation given to cuMemFree or cuMemFreeAsync; under the lock. */
unsigned gv_pool_handle_types(const void *pool); /* under the lock */
void gv_pool_free(struct gv_region *region, struct gv_gauge *gauge, uint64_t busy_until);
/* Memory of graphs (graph_memory.c), under the lock: does a launch's allocation wait to be freed? Frees it. */
bool gv_graph_memory_freeable(const struct gv_graph_allocation *allocation);
static inline bool gv_region_freeable(const struct gv_region *region)
{
    return region->allocation == NULL || gv_graph_memory_freeable(region->allocation);
}
void gv_graph_memory_free(struct gv_graph_allocation *allocation, struct gv_gauge *gauge, uint64_t busy_until);
/* Takes the lock. Two addresses on the same device, in the same kind of memory. */
bool gv_same_memory(uint64_t one, uint64_t other);
/* Gives back what pools hold beyond their thresholds. Cheap when there is nothing. */
void gv_pools_trim(void);

/* Under the lock, when nothing of it is used any more: the heap of the context's kernels. */
void gv_kernel_heap_close(struct gv_context *context);
/* Synchronous calls on this address wait in every case (CU_POINTER_ATTRIBUTE_SYNC_MEMOPS, CU_CTX_SYNC_MEMOPS). */
bool gv_always_waits(const struct gv_context *context, uint64_t address);
/* An address that the driver's calls know. */
bool gv_is_public_kind(enum gv_region_kind kind);

/* ---- mappings of handles (vmm.c), for pointer.c; under the lock ---- */
struct gv_mapping;
bool gv_mapping_at(uint64_t address, uint64_t *base, uint64_t *bytes, int *device, unsigned *access,
                   unsigned *handle_types);

/* Bytes from the first to the last of rows and slices; false when a number cannot say it. None of the counts is 0. */
static inline bool gv_span(uint64_t width, uint64_t height, uint64_t pitch, uint64_t depth, uint64_t slice,
                           uint64_t *bytes)
{
    uint64_t rows, slices;
    return !__builtin_mul_overflow(height - 1, pitch, &rows) && !__builtin_mul_overflow(depth - 1, slice, &slices) &&
           !__builtin_add_overflow(rows, slices, bytes) && !__builtin_add_overflow(*bytes, width, bytes);
}
static inline uint64_t gv_round_up(uint64_t value, uint64_t unit) { return (value + unit - 1) / unit * unit; }

#endif
