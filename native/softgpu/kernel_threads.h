/* SPDX-License-Identifier: Apache-2.0
 *
 * Threads that wait for each other. A thread is a continuation: its step function runs it until it waits or ends, and
 * saves what it needs in its frame. Here the frames of one block are run in turn and barriers and warps are resolved.
 * Included by kernel_runtime.h.
 *
 *     for each warp: run each lane to its next wait -> resolve warp operations -> again, until no lane can go on
 *     then release the barriers which all expected threads have reached -> again, until every thread has ended
 */
#ifndef GPUVIRT_SOFTGPU_KERNEL_THREADS_H
#define GPUVIRT_SOFTGPU_KERNEL_THREADS_H

enum gv_warp_kind {
    GV_SHFL_UP,
    GV_SHFL_DOWN,
    GV_SHFL_BFLY,
    GV_SHFL_IDX,
    GV_VOTE_ALL,
    GV_VOTE_ANY,
    GV_VOTE_UNI,
    GV_VOTE_BALLOT,
    GV_MATCH_ANY,
    GV_MATCH_ALL,
    GV_WARP_SYNC,
    GV_ACTIVE,
    GV_ELECT,
    GV_REDUX_ADD,
    GV_REDUX_AND,
    GV_REDUX_OR,
    GV_REDUX_XOR,
    GV_REDUX_MIN_U,
    GV_REDUX_MAX_U,
    GV_REDUX_MIN_S,
    GV_REDUX_MAX_S,
};

enum gv_barrier_kind { GV_BAR_SYNC, GV_BAR_POPC, GV_BAR_AND, GV_BAR_OR };

/* Start of each thread's frame; the saved registers and .local arrays of the kernel follow. */
struct gv_frame {
    struct gv_thread t;
    uint32_t pc;       /* where to resume; 0: the start; written by the thread */
    uint32_t ended;    /* kernels that run in phases only; written by the thread */
    uint32_t kind;     /* enum gv_barrier_kind; this and the next four are written as the thread comes to a barrier */
    uint32_t barrier;  /* its number */
    uint32_t expected; /* threads it waits for; 0 = all */
    uint32_t value;    /* predicate of a reduction; on resumption the number of threads where it was true */
    uint32_t flag;     /* on resumption: result of and, or */
};

/* What the lanes of a warp show to each other, and where they are. A lane is ready, waiting, or at a barrier. */
struct gv_warp {
    uint64_t value[32];    /* written by a lane as it waits; then its result */
    uint64_t key[32];      /* GV_KEY: lanes with the same key do the same operation */
    uint32_t argument[32]; /* shfl: lane or distance, clamp << 8 */
    uint32_t flags;        /* result predicates, a bit a lane */
    uint32_t live, ready, waiting;
    uint32_t yielded; /* have let others run, and go on after them */
};

/* Members named by a mask meet wherever they are; without a mask those meet that wait at the same place. */
#define GV_KEY(mask, kind) ((uint64_t)(mask) << 32 | (kind) << 1 | 1)
#define GV_KEY_AT(pc, kind) ((uint64_t)(pc) << 32 | (kind) << 1)

typedef int (*gv_step)(const struct gv_block *block, struct gv_frame *frame, struct gv_warp *warp, uint32_t lane);

GV_FN uint32_t gv_threads(const struct gv_block *block) { return block->block.x * block->block.y * block->block.z; }

/* Scratch memory: the frames, then the warps. */
GV_FN uint64_t gv_scratch(uint32_t threads, size_t stride)
{
    return (threads * stride + 63) / 64 * 64 + (threads + 31) / 32 * sizeof(struct gv_warp);
}

GV_FN struct gv_frame *gv_frame_at(const struct gv_block *block, size_t stride, uint32_t i)
{
    return (struct gv_frame *)(void *)(block->scratch + i * stride);
}

GV_FN struct gv_warp *gv_warp_at(const struct gv_block *block, size_t stride, uint32_t threads, uint32_t i)
{
    return (struct gv_warp *)(void *)(block->scratch + (threads * stride + 63) / 64 * 64) + i;
}

GV_FN uint32_t gv_start_frames(const struct gv_block *block, size_t stride, uint32_t dynamic, uint32_t fixed)
{
    uint32_t i = 0;
    for (uint32_t z = 0; z < block->block.z; z++)
        for (uint32_t y = 0; y < block->block.y; y++)
            for (uint32_t x = 0; x < block->block.x; x++, i++) {
                struct gv_frame *frame = gv_frame_at(block, stride, i);
                frame->t = (struct gv_thread){block, x, y, z, i, dynamic, fixed};
                frame->pc = 0;
                frame->ended = 0;
            }
    return i;
}

struct gv_schedule {
    const struct gv_block *block;
    size_t stride;
    uint32_t count, ended;
    uint32_t yields; /* rounds in which a thread let others run */
    struct {
        uint32_t waiting, arrived, expected, population; /* threads; expected 0: all that live */
    } barriers[16];
};

GV_FN uint32_t gv_reduce(uint32_t kind, uint32_t a, uint32_t b)
{
    switch (kind) {
    case GV_REDUX_ADD:
        return a + b;
    case GV_REDUX_AND:
        return a & b;
    case GV_REDUX_OR:
        return a | b;
    case GV_REDUX_XOR:
        return a ^ b;
    case GV_REDUX_MIN_U:
        return a < b ? a : b;
    case GV_REDUX_MAX_U:
        return a > b ? a : b;
    case GV_REDUX_MIN_S:
        return (int32_t)a < (int32_t)b ? a : b;
    default:
        return (int32_t)a > (int32_t)b ? a : b;
    }
}

#define GV_EACH(lane, mask)                                                                                            \
    for (uint32_t gv_m = (mask), lane; gv_m && (lane = (uint32_t)__builtin_ctz(gv_m), 1); gv_m &= gv_m - 1)

/* All lanes are computed, which the compiler does side by side; only members change. A source that takes no part, which PTX
 * leaves undefined, gives the own value. */
GV_INLINE void gv_shuffle(struct gv_warp *warp, uint32_t members, uint32_t kind)
{
    uint64_t results[32];
    uint32_t sources[32], inside[32], flags = 0;
    for (uint32_t lane = 0; lane < 32; lane++) {
        uint32_t argument = warp->argument[lane], distance = argument & 31, clamp = argument >> 8 & 31;
        uint32_t segment = argument >> 16 & 31;
        int32_t last = (int32_t)((lane & segment) | (clamp & ~segment)), source = (int32_t)(lane ^ distance);
        if (kind == GV_SHFL_UP)
            source = (int32_t)(lane - distance);
        if (kind == GV_SHFL_DOWN)
            source = (int32_t)(lane + distance);
        if (kind == GV_SHFL_IDX)
            source = (int32_t)((lane & segment) | (distance & ~segment));
        inside[lane] = kind == GV_SHFL_UP ? source >= last : source <= last;
        sources[lane] = inside[lane] & members >> (source & 31) ? (uint32_t)source & 31 : lane;
    }
    for (uint32_t lane = 0; lane < 32; lane++)
        flags |= inside[lane] << lane;
    for (uint32_t lane = 0; lane < 32; lane++)
        results[lane] = warp->value[sources[lane]];
    for (uint32_t lane = 0; lane < 32; lane++)
        warp->value[lane] = members >> lane & 1 ? results[lane] : warp->value[lane];
    warp->flags = (warp->flags & ~members) | (flags & members);
}

GV_COLD void gv_shuffle_kind(struct gv_warp *warp, uint32_t members, uint32_t kind)
{
    switch (kind) {
    case GV_SHFL_UP:
        gv_shuffle(warp, members, GV_SHFL_UP);
        break;
    case GV_SHFL_DOWN:
        gv_shuffle(warp, members, GV_SHFL_DOWN);
        break;
    case GV_SHFL_BFLY:
        gv_shuffle(warp, members, GV_SHFL_BFLY);
        break;
    default:
        gv_shuffle(warp, members, GV_SHFL_IDX);
    }
}

GV_FN void gv_match(struct gv_warp *warp, uint32_t members, uint32_t kind)
{
    uint64_t results[32];
    uint32_t flags = 0;
    GV_EACH(lane, members)
    {
        uint32_t same = 0;
        GV_EACH(other, members) same |= warp->value[other] == warp->value[lane] ? 1u << other : 0;
        results[lane] = kind == GV_MATCH_ANY || same == members ? same : 0;
        flags |= same == members ? 1u << lane : 0;
    }
    GV_EACH(lane, members) warp->value[lane] = results[lane];
    warp->flags = (warp->flags & ~members) | flags;
}

/* All `members` wait at the same operation: exchanges their values. */
GV_FN void gv_resolve(struct gv_warp *warp, uint32_t members)
{
    uint32_t first = (uint32_t)__builtin_ctz(members), kind = (uint32_t)warp->key[first] >> 1, result = 0, flags = 0;
    if (kind <= GV_SHFL_IDX) {
        gv_shuffle_kind(warp, members, kind);
        return;
    }
    if (kind == GV_MATCH_ANY || kind == GV_MATCH_ALL) {
        gv_match(warp, members, kind);
        return;
    }
    if (kind >= GV_VOTE_ALL && kind <= GV_VOTE_BALLOT) {
        GV_EACH(lane, members) result |= (uint32_t)(warp->value[lane] & 1) << lane;
        flags = (kind == GV_VOTE_ALL && result == members) || (kind == GV_VOTE_ANY && result) ||
                        (kind == GV_VOTE_UNI && (result == members || !result))
                    ? members
                    : 0;
    } else if (kind == GV_ACTIVE) {
        result = members;
    } else if (kind == GV_ELECT) {
        result = first;
        flags = 1u << first;
    } else if (kind >= GV_REDUX_ADD) {
        result = (uint32_t)warp->value[first];
        GV_EACH(lane, members & (members - 1)) result = gv_reduce(kind, result, (uint32_t)warp->value[lane]);
    }
    GV_EACH(lane, members) warp->value[lane] = result;
    warp->flags = (warp->flags & ~members) | flags;
}

GV_FN uint32_t gv_same_key(const struct gv_warp *warp, uint32_t lanes, uint64_t key)
{
    uint32_t same = 0;
    for (uint32_t lane = 0; lane < 32; lane++)
        same |= (uint32_t)(warp->key[lane] == key) << lane;
    return same & lanes;
}

/* Resolves what the waiting lanes of a warp allow; returns the lanes that can run on. */
GV_FN uint32_t gv_resolve_warp(struct gv_warp *warp)
{
    uint32_t ready = 0;
    for (uint32_t rest = warp->waiting; rest;) {
        uint64_t key = warp->key[__builtin_ctz(rest)];
        uint32_t group = gv_same_key(warp, rest, key);
        rest &= ~group;
        /* Lanes that have ended do not hold up the others. */
        if (key & 1 && !((uint32_t)(key >> 32) & warp->live & ~group)) {
            gv_resolve(warp, group);
            ready |= group;
        }
    }
    if (ready)
        return ready;
    /* Nobody else can move, so those that wait at one place without naming members are what a GPU calls converged. */
    GV_EACH(lane, warp->waiting)
    {
        if (warp->key[lane] & 1)
            continue;
        ready = gv_same_key(warp, warp->waiting, warp->key[lane]);
        gv_resolve(warp, ready);
        break;
    }
    return ready;
}

GV_INLINE int gv_run_warp(struct gv_schedule *schedule, uint32_t number, gv_step step)
{
    const struct gv_block *block = schedule->block;
    const size_t stride = schedule->stride;
    struct gv_warp *warp = gv_warp_at(block, stride, schedule->count, number);
    /* Lanes may also become ready because another one has ended, so waiting lanes are looked at even if none ran. */
    do {
        uint32_t waiting = warp->waiting;
        GV_EACH(lane, warp->ready)
        {
            struct gv_frame *frame = gv_frame_at(block, stride, number * 32 + lane);
            int result;
            while ((result = step(block, frame, warp, lane)) == GV_ARRIVE) {
                schedule->barriers[frame->barrier & 15].arrived++;
                schedule->barriers[frame->barrier & 15].expected = frame->expected;
            }
            if (result == GV_YIELD) {
                warp->yielded |= 1u << lane;
            } else if (result == GV_WARP) {
                waiting |= 1u << lane;
            } else if (result == GV_BARRIER) {
                schedule->barriers[frame->barrier & 15].waiting++;
                schedule->barriers[frame->barrier & 15].expected = frame->expected;
                schedule->barriers[frame->barrier & 15].population += frame->value;
            } else if (result == GV_EXIT) {
                schedule->ended++;
                warp->live &= ~(1u << lane);
            } else {
                return result;
            }
        }
        warp->waiting = waiting;
        warp->ready = waiting ? gv_resolve_warp(warp) : 0;
        warp->waiting &= ~warp->ready;
    } while (warp->ready);
    return GV_BLOCK_DONE;
}

/* Releases every complete barrier; 0 if there is none. */
GV_FN int gv_release_barriers(struct gv_schedule *schedule)
{
    int released = 0;
    for (uint32_t id = 0; id < 16; id++) {
        uint32_t waiting = schedule->barriers[id].waiting, population = schedule->barriers[id].population;
        uint32_t expected = schedule->barriers[id].expected;
        if (!expected)
            expected = schedule->count - schedule->ended;
        if (!waiting || waiting + schedule->barriers[id].arrived < expected)
            continue;
        schedule->barriers[id].waiting = schedule->barriers[id].arrived = schedule->barriers[id].population = 0;
        released = 1;
        for (uint32_t number = 0; number * 32 < schedule->count; number++) {
            struct gv_warp *warp = gv_warp_at(schedule->block, schedule->stride, schedule->count, number);
            GV_EACH(lane, warp->live & ~warp->waiting & ~warp->ready & ~warp->yielded)
            {
                struct gv_frame *frame = gv_frame_at(schedule->block, schedule->stride, number * 32 + lane);
                if ((frame->barrier & 15) != id)
                    continue;
                warp->ready |= 1u << lane;
                frame->value = population;
                frame->flag = frame->kind == GV_BAR_AND ? population == waiting : population != 0;
            }
        }
    }
    return released;
}

/* Those that let the others run go on; 0 if there is none. */
GV_FN int gv_resume_yielded(struct gv_schedule *schedule)
{
    uint32_t any = 0;
    for (uint32_t number = 0; number * 32 < schedule->count; number++) {
        struct gv_warp *warp = gv_warp_at(schedule->block, schedule->stride, schedule->count, number);
        any |= warp->yielded;
        warp->ready |= warp->yielded;
        warp->yielded = 0;
    }
    if (any && ++schedule->yields % 64 == 0)
        sched_yield(); /* it may be another block that they wait for */
    return any != 0;
}

/* Any kernel: barriers of all kinds and warp operations. */
GV_INLINE int gv_run_schedule(const struct gv_block *block, size_t stride, gv_step step, uint32_t fixed)
{
    struct gv_schedule schedule = {.block = block, .stride = stride};
    uint32_t count = schedule.count = gv_start_frames(block, stride, fixed, fixed);
    for (uint32_t number = 0; number * 32 < count; number++) {
        struct gv_warp *warp = gv_warp_at(block, stride, count, number);
        uint32_t lanes = count - number * 32;
        warp->live = warp->ready = lanes < 32 ? (1u << lanes) - 1 : 0xffffffffu;
        warp->waiting = warp->flags = warp->yielded = 0;
    }
    for (;;) {
        for (uint32_t number = 0; number * 32 < count; number++) {
            int result = gv_run_warp(&schedule, number, step);
            if (result != GV_BLOCK_DONE)
                return result;
        }
        if (schedule.ended == count)
            return GV_BLOCK_DONE;
        const int released = gv_release_barriers(&schedule);
        if (!(gv_resume_yielded(&schedule) | released))
            return GV_BLOCK_DEADLOCK;
        if (schedule.yields && block->workspace && __atomic_load_n(&block->workspace->stopped, __ATOMIC_RELAXED))
            return GV_BLOCK_TRAP;
    }
}

#endif
