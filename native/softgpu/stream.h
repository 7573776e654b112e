/* SPDX-License-Identifier: Apache-2.0
 *
 * Streams: a queue of operations and a thread that runs them, started with the first one.
 *
 * Order between streams is kept by numbers: every operation of a stream gets the next number, `completed` is the last one that
 * has ended, and an operation names the (stream, number) pairs that it must wait for. The legacy default stream waits for all
 * blocking streams, and they for it; that is all there is to its magic.
 */
#ifndef GPUVIRT_SOFTGPU_STREAM_H
#define GPUVIRT_SOFTGPU_STREAM_H

#include <pthread.h>

#include "context.h"

#define GV_STREAM_LEGACY 0x80000000u
#define GV_STREAM_OF_THREAD 0x40000000u

struct gv_dependency {
    struct gv_gauge *gauge;
    uint64_t value;
};

/* The first member of every kind of operation. Allocated with malloc, freed by the stream after `run`. */
struct gv_operation {
    struct gv_operation *next;
    /* Skipped when the context has failed, unless `always`. An error other than SUCCESS makes the context fail. */
    CUresult (*run)(struct gv_operation *operation, struct gv_stream *stream);
    bool always;
    uint32_t dependency_count;
    struct gv_dependency first;         /* when dependency_count == 1 */
    struct gv_dependency *dependencies; /* when more; malloc */
};

enum { GV_STREAM_AFTER = 8 };

struct gv_stream {
    struct gv_object object;
    struct gv_context *context;
    struct gv_stream *next; /* context->streams */
    unsigned flags;         /* CU_STREAM_NON_BLOCKING, GV_STREAM_* */
    int priority;
    uint64_t id;
    pthread_mutex_t lock; /* queue and `submitted` */
    struct gv_operation *head, **tail;
    bool running;                                /* has a thread; under `lock` */
    struct gv_gauge submitted;                   /* number of the last operation given; never reset */
    struct gv_gauge completed;                   /* number of the last operation ended; never reset */
    struct gv_dependency after[GV_STREAM_AFTER]; /* work of other streams that ours comes after; under `lock` */
    unsigned after_next;
};

/* stream_order.c: further work of `stream` comes after that; whether it is known to. */
void gv_stream_order(struct gv_stream *stream, struct gv_gauge *gauge, uint64_t value);
bool gv_stream_comes_after(struct gv_stream *stream, const struct gv_gauge *gauge, uint64_t value);

struct gv_stream *gv_stream_create(struct gv_context *context, unsigned flags, int priority);
/* The stream meant by a handle: NULL and the two special values depend on context and thread. Checks the sticky error. */
CUresult gv_stream_of(CUstream handle, struct gv_stream **stream);
/* Takes the operation over. */
CUresult gv_stream_submit(struct gv_stream *stream, struct gv_operation *operation);
/* Waits for what has been submitted so far (for the legacy stream also in all blocking streams). */
void gv_stream_wait(struct gv_stream *stream);
bool gv_stream_idle(struct gv_stream *stream);
void gv_streams_wait(struct gv_context *context);
void gv_streams_close(struct gv_context *context);
/* Destroyed streams that still have work to do. */
int gv_streams_ending(void);
/* What is due after any wait of the program: device printf, trimming of pools. */
void gv_after_wait(void);

#endif
