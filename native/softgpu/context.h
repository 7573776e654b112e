/* SPDX-License-Identifier: Apache-2.0
 *
 * Contexts. `error` is sticky: once a kernel or copy has failed, every call in the context answers with it until the context
 * is destroyed or reset.
 */
#ifndef GPUVIRT_SOFTGPU_CONTEXT_H
#define GPUVIRT_SOFTGPU_CONTEXT_H

#include <pthread.h>

#include "driver.h"

struct gv_instance;
struct gv_region;

enum { GV_PEERS_MOST = 16 };

struct gv_peer {
    const struct gv_context *context;
    uint64_t id; /* a reset context is another one */
};

struct gv_context {
    struct gv_object object;
    struct gv_context *next_made; /* the list of all, never shortened */
    int device;
    bool primary;
    atomic_bool alive;
    _Atomic int error; /* CUresult; the first one wins */
    uint64_t id;
    unsigned flags, api_version;
    int attached;        /* cuCtxAttach/Detach */
    uint32_t losses;     /* of the device when it was made: one more and it is dead */
    uint64_t kept_bytes; /* of the device, by the model of contexts */
    size_t limits[CU_LIMIT_MAX];
    struct gv_heap *kernel_heap; /* of malloc in kernels; NULL until one asked; under gv_memory_lock */
    CUfunc_cache cache_preference;
    pthread_mutex_t lock;      /* the lists below */
    struct gv_stream *streams; /* all but the legacy one */
    struct gv_stream *legacy;
    struct gv_instance *instances; /* modules loaded into it */
    struct gv_peer peers[GV_PEERS_MOST];
    int peer_count;
};

static inline CUcontext gv_context_handle(struct gv_context *context) { return (CUcontext)context; }
bool gv_context_flags_valid(unsigned flags);
/* NULL when it is no live context. */
struct gv_context *gv_context_of(CUcontext handle);
/* SUCCESS, the sticky error, or that it is destroyed. */
CUresult gv_context_state(struct gv_context *context);
void gv_context_fail(struct gv_context *context, CUresult error);
/* Waits for all its work; answers with its state. */
CUresult gv_context_synchronise(struct gv_context *context);
/* The thread's context without a look at its error; NULL when none. */
struct gv_context *gv_thread_context(void);
/* Calls `visit` for each live context until it answers false; whether none did. */
bool gv_contexts_each(bool (*visit)(struct gv_context *context, void *data), void *data);
/* The primary context of a device if it is active. */
struct gv_context *gv_primary_context(int device);

#endif
