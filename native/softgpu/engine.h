/* SPDX-License-Identifier: Apache-2.0
 *
 * The compute engine of a device: one context at a time, in time slices. Threads of the context that has it run blocks of
 * its kernels together.
 *
 *     engine.c        the contexts of this process among themselves
 *     engine_turn.c   this process among others: the words on the board
 *
 * As on a card, the slices are round robin and a context that has nothing to run gives the rest of its slice away, so one
 * that waits after each short kernel gets far less than one with work queued. Blocks cannot be stopped in the middle: what a
 * slice was overrun by is taken off the next ones, so that contexts with work queued get equal shares whatever their blocks'
 * length.
 */
#ifndef GPUVIRT_SOFTGPU_ENGINE_H
#define GPUVIRT_SOFTGPU_ENGINE_H

#include "driver.h"

/* `context` only tells contexts apart; NULL is one too. */

/* Before running blocks: waits for the context's turn. */
void gv_engine_enter(int device, const void *context);
/* One thread more beside one that is inside. */
void gv_engine_join(int device, const void *context);
/* Waits until other threads have brought the context its turn, and joins; false when `over(data)` says not to (asked again
 * at each gv_engine_poke). */
bool gv_engine_help(int device, const void *context, bool (*over)(void *data), void *data);
void gv_engine_poke(int device);
/* `more`: the calling thread is about to enter again, so the turn goes on. */
void gv_engine_leave(int device, const void *context, bool more);
/* After gv_engine_leave(more): it will not enter again after all. Cheap when there is nothing to do. */
void gv_engine_abandon(int device, const void *context);
/* Between two blocks: true when another context waits and our slice is over; then call gv_engine_yield. */
bool gv_engine_slice_over(int device);
/* Hands the engine over when all threads of this context have stopped, and waits for the next turn. */
void gv_engine_yield(int device, const void *context);

/* ---- engine_turn.c ---- */
/* That this process wants the engine: visible to the owner. `debt_ns`: by how much the least indebted of its contexts has
 * overrun its slices; `contexts`: how many share the turn. */
void gv_turn_want(int device, uint64_t debt_ns, uint32_t contexts);
void gv_turn_want_not(int device);
/* Blocks until the board's word is ours. Returns the nanoseconds of debt that were paid off meanwhile by being passed over.
 * `alone`: nobody else wants it. */
uint64_t gv_turn_take(int device, uint64_t debt_ns, uint32_t contexts, bool *alone);
/* Who comes next of those that wait, and of us if `own`: a record, or -1. Passes over who has overrun. */
int gv_turn_next(int device, bool own);
/* Gives the engine to a record, or to nobody (-1). No effect when it was taken from us. */
void gv_turn_give(int device, int record);
/* Adds the time since the last call to the books. */
void gv_turn_account(int device, uint64_t now_ns);
bool gv_turn_is_ours(int device);

#endif
