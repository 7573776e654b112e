/* SPDX-License-Identifier: Apache-2.0
 *
 * What every file of the soft driver includes: NVIDIA's header with all versions declared, state of the process, objects.
 */
#ifndef GPUVIRT_SOFTGPU_DRIVER_H
#define GPUVIRT_SOFTGPU_DRIVER_H

#ifndef __CUDA_API_VERSION_INTERNAL
#define __CUDA_API_VERSION_INTERNAL
#endif
#include <cuda.h>

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "board.h"
#include "call.h"
#include "log.h"

#define GV_EXPORT __attribute__((visibility("default")))
/* initial-exec: also read by the fault handler, where a first access must not allocate. Keep the sum below 512 bytes. */
#define GV_THREAD_LOCAL static __thread __attribute__((tls_model("initial-exec")))

#define GV_SMALLEST_PAGE 4096u
#define GV_GRANULARITY (2ull << 20) /* of device memory handles */

struct gv_context;
struct gv_stream;

/* Set by cuInit, constant afterwards; `ready` falls back to false in a forked child. */
struct gv_driver {
    atomic_bool ready;
    struct gv_board *board;
    int record; /* of this process on the board */
    int device_count;
    int workers; /* threads that run blocks: the multiprocessors */
    /* Where each device of this process is on the board: itself, until a restore has moved it. Changes only while no call
     * is in progress. */
    uint8_t place[GV_BOARD_DEVICES];
};
extern struct gv_driver gv_driver;

static inline uint32_t gv_place(int device) { return gv_driver.place[device]; }
/* The way back; -1 when it is none of this process. */
int gv_device_at(uint32_t place);
static inline struct gv_board_device *gv_board_device(int device)
{
    return &gv_driver.board->devices[gv_place(device)];
}
/* This process's account of a device. */
static inline struct gv_board_account *gv_board_account(int device)
{
    return &gv_driver.board->processes[gv_driver.record].accounts[gv_place(device)];
}

#define GV_READY()                                                                                                     \
    do {                                                                                                               \
        if (!atomic_load_explicit(&gv_driver.ready, memory_order_acquire))                                             \
            return CUDA_ERROR_NOT_INITIALIZED;                                                                         \
    } while (0)

/* Declares `context`, the calling thread's; returns from the function when there is none or it has failed. */
#define GV_NEED_CONTEXT(context)                                                                                       \
    struct gv_context *context;                                                                                        \
    do {                                                                                                               \
        const CUresult gv_refused = gv_current_context(&context);                                                      \
        if (gv_refused != CUDA_SUCCESS)                                                                                \
            return gv_refused;                                                                                         \
    } while (0)

/* First in every exported function: see call.h. */
#define GV_ENTER()                                                                                                     \
    GV_ENTER_ANY();                                                                                                    \
    GV_READY()
#define GV_ENTER_CONTEXT(context)                                                                                      \
    GV_ENTER_ANY();                                                                                                    \
    GV_NEED_CONTEXT(context)

#define GV_TRY(call)                                                                                                   \
    do {                                                                                                               \
        const CUresult gv_tried = (call);                                                                              \
        if (gv_tried != CUDA_SUCCESS)                                                                                  \
            return gv_tried;                                                                                           \
    } while (0)

CUresult gv_current_context(struct gv_context **context);

/* Objects behind handles. Their memory is never given back and only used again for the same kind, so a stale handle is
 * recognised by its cleared `kind`, and the ever growing counters in them stay valid for whoever still waits on one. */
enum gv_kind {
    GV_CONTEXT = 0x67766331,
    GV_STREAM,
    GV_EVENT,
    GV_MODULE,
    GV_FUNCTION,
    GV_LIBRARY,
    GV_KERNEL,
    GV_HANDLE,
    GV_POOL,
    GV_LINK,
    GV_ARRAY,
    GV_MIPMAP,
    GV_EXTERNAL,
    GV_GRAPH,
    GV_GRAPH_NODE,
    GV_GRAPH_EXEC,
    GV_USER_OBJECT,
    GV_KIND_END, /* none */
};

struct gv_object {
    _Atomic uint32_t kind; /* 0 while unused */
    struct gv_object *next_free;
};

/* Zeroed at first use only: the caller sets every field. NULL when out of memory. `size` is the same for all of a kind. */
void *gv_object_new(enum gv_kind kind, size_t size);
void gv_object_free(void *object, enum gv_kind kind);
static inline bool gv_is(const void *handle, enum gv_kind kind)
{
    return handle != NULL &&
           atomic_load_explicit(&((const struct gv_object *)handle)->kind, memory_order_relaxed) == kind;
}

/* A number that only grows, and threads waiting for it to reach a value. */
struct gv_gauge {
    _Atomic uint64_t value; /* its low half is the futex */
    _Atomic uint32_t waiters;
    _Atomic uint64_t seen; /* the program knows that this value was reached: it waited or asked */
};
void gv_gauge_advance(struct gv_gauge *gauge, uint64_t value);
void gv_gauge_wait(struct gv_gauge *gauge, uint64_t value);
/* Sleeps until then or for about `ns`; may be back early. */
void gv_gauge_wait_for(struct gv_gauge *gauge, uint64_t value, uint64_t ns);
static inline void gv_gauge_see(struct gv_gauge *gauge, uint64_t value)
{
    uint64_t old = atomic_load_explicit(&gauge->seen, memory_order_relaxed);
    while (old < value && !atomic_compare_exchange_weak(&gauge->seen, &old, value)) {
    }
}
static inline bool gv_gauge_reached(const struct gv_gauge *gauge, uint64_t value)
{
    return atomic_load_explicit(&gauge->value, memory_order_acquire) >= value;
}

/* A thread of the driver: detached, signals of the program blocked. */
bool gv_start_thread(void *(*run)(void *), void *argument, const char *name);

CUresult gv_check_device(CUdevice device);
/* 1 while a _ptds/_ptsz twin runs: the NULL stream is the thread's own. */
bool gv_per_thread_default(void);

#endif
