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

struct gv_launch_attributes;
struct gv_member;
struct gv_operation;

/* What a piece of work is. The same piece is put into a stream, recorded as a node while the stream captures, and run by a
 * graph: each API function makes it in one way only. */
struct gv_operation_kind {
    CUgraphNodeType node; /* what it is in a graph; GV_NO_NODE: it cannot be captured */
    bool always;          /* runs even when the context has failed */
    bool work;            /* the device does something for it, beyond keeping order */
    size_t bytes;         /* with `arm`: of the operation, so that a graph can copy it */
    /* An error other than SUCCESS makes the context fail. Of `stream` it may use the context and the device only. */
    CUresult (*run)(struct gv_operation *operation, struct gv_stream *stream);
    /* Optional. When it is given to a stream to run (not when it is recorded), in submission order; a graph arms a copy of
     * its own for each launch. */
    void (*arm)(struct gv_operation *operation);
    /* Optional. After `run`, when the stream counts it as completed (in a graph: at once): who is let go by it may ask the
     * stream. */
    void (*ended)(struct gv_operation *operation);
    /* Optional: gives up what it owns, before its memory is freed. */
    void (*drop)(struct gv_operation *operation);
    /* As parameters of a node. Pointers in them live as long as the operation. */
    void (*describe)(struct gv_operation *operation, CUgraphNodeParams *params);
};
#define GV_NO_NODE ((CUgraphNodeType)(-1))

/* The first member of every kind of operation. Allocated with malloc, `kind` set by who makes it. Constant once it has been
 * given away, but for the members that the queue uses. */
struct gv_operation {
    const struct gv_operation_kind *kind;
    _Atomic uint32_t references; /* of nodes, executable graphs and launches; 1 after gv_operation_made */
    struct gv_context *context;  /* where it runs */
    uint64_t context_id;         /* a reset context is another one: work of before never runs in it */
    struct gv_operation *next;
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
    struct gv_launch_attributes *attributes;     /* stream_attributes.c; NULL: none set */
    struct gv_member *capture;                   /* under gv_capture_lock; NULL: does not capture */
    bool running;                                /* has a thread; under `lock` */
    struct gv_gauge submitted;                   /* number of the last operation given; never reset */
    struct gv_gauge completed;                   /* number of the last operation ended; never reset */
    struct gv_dependency after[GV_STREAM_AFTER]; /* work of other streams that ours comes after; under `lock` */
    unsigned after_next;
};

/* stream_order.c: further work of `stream` comes after that; whether it is known to. */
void gv_stream_order(struct gv_stream *stream, struct gv_gauge *gauge, uint64_t value);
bool gv_stream_comes_after(struct gv_stream *stream, const struct gv_gauge *gauge, uint64_t value);
/* Gives the stream a number that comes after what it implicitly waits for, if there is such work: afterwards its `submitted`
 * stands for that too. */
CUresult gv_stream_number_order(struct gv_stream *stream);

struct gv_stream *gv_stream_create(struct gv_context *context, unsigned flags, int priority);
/* The stream meant by a handle: NULL and the two special values depend on context and thread. Checks the sticky error. */
CUresult gv_stream_of(CUstream handle, struct gv_stream **stream);
/* A host function as work, for a stream or a graph. */
CUresult gv_host_make(CUhostFn function, void *data, struct gv_operation **operation);
/* A fill (memset.c); the context in `fill` is not looked at. */
CUresult gv_fill_make(const CUDA_MEMSET_NODE_PARAMS_v2 *fill, struct gv_operation **operation);
/* For work that is not submitted but kept by a graph. */
void gv_operation_made(struct gv_operation *operation, struct gv_context *context);
void gv_operation_retain(struct gv_operation *operation);
void gv_operation_release(struct gv_operation *operation);
/* Takes the operation over: the stream runs it after what came before, or records it while it captures. */
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
