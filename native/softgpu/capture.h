/* SPDX-License-Identifier: Apache-2.0
 *
 * Stream capture: work given to a stream becomes nodes of a graph. A capture sequence begins in one stream and spreads to
 * others over events; each of its streams has a tail, the nodes that the next one depends on.
 *
 * The rules are those of "Stream Capture" in NVIDIA's programming guide. A call that breaks one fails and invalidates the
 * sequences that it touches; they still have to be ended.
 */
#ifndef GPUVIRT_SOFTGPU_CAPTURE_H
#define GPUVIRT_SOFTGPU_CAPTURE_H

#include "graph.h"

struct gv_event;

struct gv_tail {
    CUgraphNode *nodes;
    CUgraphEdgeData *data;
    size_t count, room;
};

/* A capture sequence. All under the lock of capture.c. */
struct gv_capture {
    struct gv_capture *next;
    uint64_t id;
    CUstreamCaptureMode mode;
    pthread_t thread;         /* that began it */
    struct gv_stream *origin; /* NULL once destroyed */
    struct gv_graph *graph;
    bool owns_graph; /* made by the capture: nobody else has it until the end */
    bool invalid;
    struct gv_member *members;
};
struct gv_member { /* behind stream->capture */
    struct gv_member *next;
    struct gv_capture *sequence;
    struct gv_stream *stream; /* NULL: destroyed, but not joined */
    struct gv_tail tail;
};
/* Behind event->captured: recorded last while its stream captured. */
struct gv_captured_record {
    uint64_t sequence;
    struct gv_tail tail;
};

extern pthread_mutex_t gv_capture_lock;
extern _Atomic uint32_t gv_capture_count; /* sequences not yet ended */

static inline bool gv_anything_captures(void)
{
    return atomic_load_explicit(&gv_capture_count, memory_order_relaxed) != 0;
}
/* Valid or not. */
static inline bool gv_stream_captures(const struct gv_stream *stream)
{
    return __builtin_expect(gv_anything_captures(), 0) && __atomic_load_n(&stream->capture, __ATOMIC_ACQUIRE) != NULL;
}

/* ---- what the calls that submit, wait and ask must do first; SUCCESS at once while nothing captures ---- */
/* Takes the operation over when `*recorded` or when it fails. */
CUresult gv_capture_record(struct gv_stream *stream, struct gv_operation *operation, bool *recorded);
/* Events: `*done` when the call was about a capture and is over. */
CUresult gv_capture_record_event(struct gv_stream *stream, struct gv_event *event, unsigned flags, bool *done);
CUresult gv_capture_wait_event(struct gv_stream *stream, struct gv_event *event, unsigned flags, bool *done);
/* Before waiting for a stream, a context, an event, or asking for its state. */
CUresult gv_capture_check_stream(struct gv_stream *stream);
CUresult gv_capture_check_context(struct gv_context *context);
CUresult gv_capture_check_event(struct gv_event *event);
/* Before a call that a capture would not see, such as cuMemAlloc: forbidden by the modes of thread and sequences. */
CUresult gv_capture_check_unsafe(void);
/* Before use of the legacy stream: it would depend on a stream that captures. */
CUresult gv_capture_check_legacy(struct gv_context *context);
/* The same question, which invalidates nothing. */
CUresult gv_capture_legacy_blocked(struct gv_context *context);
/* What ends while a capture is under way. */
void gv_capture_forget_stream(struct gv_stream *stream);
void gv_capture_forget_event(struct gv_event *event);
/* Stream-ordered memory while the stream captures. */
CUresult gv_capture_allocate(struct gv_stream *stream, CUmemoryPool pool, size_t bytes, CUdeviceptr *address);
CUresult gv_capture_free(struct gv_stream *stream, CUdeviceptr address);

/* ---- between capture.c, capture_rules.c and capture_api.c; under the lock ---- */
extern struct gv_capture *gv_captures; /* not yet ended */
struct gv_capture *gv_capture_find(uint64_t id);
/* IMPLICIT when the legacy stream would depend on captures; they become invalid unless it is `harmless`. */
CUresult gv_capture_use_legacy(const struct gv_context *context, bool harmless);
CUresult gv_capture_begin(struct gv_stream *stream, CUstreamCaptureMode mode, struct gv_graph *graph, bool owns,
                          struct gv_member **member);
CUresult gv_capture_end(struct gv_stream *stream, struct gv_capture **ended);
bool gv_tail_add(struct gv_tail *tail, CUgraphNode node, CUgraphEdgeData data);
bool gv_tail_join(struct gv_tail *tail, const struct gv_tail *other);
void gv_tail_free(struct gv_tail *tail);
CUstreamCaptureMode gv_capture_exchange_mode(CUstreamCaptureMode mode);

#endif
