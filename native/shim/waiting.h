/* SPDX-License-Identifier: Apache-2.0
 *
 * Ranges that the program freed in the order of a stream: each waits until the stream has passed that place.
 */
#ifndef GPUVIRT_SHIM_WAITING_H
#define GPUVIRT_SHIM_WAITING_H

#include "cuda_api.h"
#include "follow.h"
#include "ranges.h"

/*
 * Gives the range back when what was submitted to the stream so far has finished. `context`: current on this thread. The
 * driver's error when the stream takes no event now (the range stays with the caller). `patient`: not before the program has
 * waited for something itself, or memory is short.
 */
CUresult gv_pool_free_later(struct gv_range *range, CUstream stream, CUcontext context, int patient);

/*
 * A range of this size that was freed on this very stream, where stream order makes it safe at once, or with `follow` on one
 * that this stream has waited for since, by an event; else NULL.
 */
struct gv_range *gv_pool_reuse(uint64_t bytes, CUstream stream, CUcontext context, int follow);

/* One of about this size that another stream still uses, after making this stream wait for that; NULL when there is none. */
struct gv_range *gv_pool_reuse_later(uint64_t bytes, CUstream stream);

/* The program has waited for something: it may know what has been passed. */
void gv_pool_program_waited(void);

/* Gives back what streams have finished with; with `wait`, waits for all of it. Returns how many ranges were given back. */
int gv_pool_reclaim(int wait);

/* Before the driver destroys a stream: its handle may come again, while what it was given is not finished. */
void gv_pool_stream_ends(CUstream stream);

/*
 * Around the end of a context: takes out what waits for it, so that nobody asks its events any more; afterwards gives that
 * back, or with `gone` 0 (the context lives on) lets it wait again.
 */
struct waiting;
struct waiting *gv_pool_context_ends(CUcontext context);
void gv_pool_context_ended(struct waiting *its, int gone);

/*
 * Gives the range back when no stream captures any more and its context has finished; its pool counts it as given. -1: no
 * host memory to remember it, and nothing was done.
 */
int gv_pool_free_after_captures(struct gv_range *range);

/*
 * Events, as follow.h needs them. An event is forgotten (NULL: all are) before the driver records it anew or a graph may, and
 * noted after the driver has. A wait counts when the record was noted before (the ticket) and not forgotten since.
 */
int gv_pool_anything_waits(void);
void gv_pool_event_ends(CUevent event);
void gv_pool_event_recorded(CUevent event, CUstream stream);
uint64_t gv_pool_ticket(void); /* 0: nothing to note */
void gv_pool_event_waited(CUevent event, CUstream stream, uint64_t ticket);
void gv_pool_follows_no_event(void);

void gv_waiting_forget(void);

#endif
