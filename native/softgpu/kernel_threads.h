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

enum gv_state { GV_READY = 0, GV_AT_BARRIER, GV_AT_WARP, GV_ENDED };

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
    uint32_t pc;    /* where to resume; 0: the start */
    uint8_t state;  /* enum gv_state, written by the scheduler */
    uint8_t kind;   /* enum gv_warp_kind or gv_barrier_kind, written by the thread as it waits */
    uint8_t masked; /* the warp operation names its members; else: those that wait at the same place */
    uint8_t flag;   /* result predicate */
    uint32_t mask;  /* members of the warp operation; for a barrier: expected threads, 0 = all */
    uint32_t a, b;  /* shfl: lane and clamp; barrier: number, predicate */
    uint64_t value; /* what the thread shows to others; then the result */
};

typedef int (*gv_step)(struct gv_frame *frame);

GV_FN struct gv_frame *gv_frame_at(const struct gv_block *block, size_t stride, uint32_t i)
{
    return (struct gv_frame *)(void *)(block->scratch + (size_t)i * stride);
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
                frame->state = GV_READY;
            }
    return i;
}

/* Kernels whose only waits are `bar.sync 0`: one round is one phase. Threads that ended count as arrived. */
GV_FN int gv_run_phases(const struct gv_block *block, size_t stride, gv_step step, uint32_t dynamic, uint32_t fixed)
{
    uint32_t count = gv_start_frames(block, stride, dynamic, fixed), waiting;
    do {
        waiting = 0;
        for (uint32_t i = 0; i < count; i++) {
            struct gv_frame *frame = gv_frame_at(block, stride, i);
            if (frame->state == GV_ENDED)
                continue;
            int result = step(frame);
            if (result == GV_BARRIER)
                waiting++;
            else if (result == GV_EXIT)
                frame->state = GV_ENDED;
            else
                return result;
        }
    } while (waiting);
    return GV_BLOCK_DONE;
}

struct gv_schedule {
    const struct gv_block *block;
    size_t stride;
    gv_step step;
    uint32_t count, ended;
    struct {
        uint32_t waiting, arrived, expected, population; /* threads; expected 0: all that live */
    } barriers[16];
};

GV_FN uint64_t gv_shuffle(struct gv_frame *const *lanes, uint32_t members, uint32_t lane, uint8_t *flag)
{
    const struct gv_frame *me = lanes[lane];
    int segment = me->b >> 8 & 31, clamp = me->b & 31, distance = me->a & 31, own = (int)lane;
    int last = (own & segment) | (clamp & ~segment & 31), first = own & segment, source;
    switch (me->kind) {
    case GV_SHFL_UP:
        source = own - distance;
        *flag = source >= last;
        break;
    case GV_SHFL_DOWN:
        source = own + distance;
        *flag = source <= last;
        break;
    case GV_SHFL_BFLY:
        source = own ^ distance;
        *flag = source <= last;
        break;
    default:
        source = first | (distance & ~segment & 31);
        *flag = source <= last;
    }
    if (!*flag || !(members >> source & 1)) /* a lane that does not take part: the own value */
        source = own;
    return lanes[source]->value;
}

GV_FN uint32_t gv_reduce(uint8_t kind, uint32_t a, uint32_t b)
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

#define GV_EACH(lane, mask) for (uint32_t gv_m = (mask), lane; gv_m && (lane = (uint32_t)__builtin_ctz(gv_m), 1); gv_m &= gv_m - 1)

/* All `members` wait at the same operation: exchanges their values and makes them ready. */
GV_FN void gv_resolve(struct gv_frame *const *lanes, uint32_t members)
{
    uint32_t first = (uint32_t)__builtin_ctz(members), set = 0, same = 1, sum = 0;
    uint64_t results[32];
    uint8_t flags[32];
    uint8_t kind = lanes[first]->kind;
    GV_EACH(lane, members) {
        uint64_t value = lanes[lane]->value;
        set |= (value & 1) ? 1u << lane : 0;
        same &= value == lanes[first]->value;
        if (kind >= GV_REDUX_ADD)
            sum = lane == first ? (uint32_t)value : gv_reduce(kind, sum, (uint32_t)value);
    }
    GV_EACH(lane, members) {
        uint64_t result = 0;
        uint8_t flag = 0;
        switch (kind) {
        case GV_SHFL_UP:
        case GV_SHFL_DOWN:
        case GV_SHFL_BFLY:
        case GV_SHFL_IDX:
            result = gv_shuffle(lanes, members, lane, &flag);
            break;
        case GV_VOTE_ALL:
            flag = set == members;
            break;
        case GV_VOTE_ANY:
            flag = set != 0;
            break;
        case GV_VOTE_UNI:
            flag = set == members || !set;
            break;
        case GV_VOTE_BALLOT:
            result = set;
            break;
        case GV_MATCH_ANY:
            GV_EACH(other, members) result |= lanes[other]->value == lanes[lane]->value ? 1u << other : 0;
            break;
        case GV_MATCH_ALL:
            result = same ? members : 0;
            flag = (uint8_t)same;
            break;
        case GV_ACTIVE:
            result = members;
            break;
        case GV_ELECT:
            result = first;
            flag = lane == first;
            break;
        case GV_WARP_SYNC:
            break;
        default:
            result = sum;
        }
        results[lane] = result;
        flags[lane] = flag;
    }
    GV_EACH(lane, members) {
        lanes[lane]->value = results[lane];
        lanes[lane]->flag = flags[lane];
        lanes[lane]->state = GV_READY;
    }
}

/* Resolves what the waiting lanes of a warp allow; returns the lanes that can run on. */
GV_FN uint32_t gv_resolve_warp(struct gv_frame *const *lanes, uint32_t waiting, uint32_t live)
{
    uint32_t ready = 0;
    for (uint32_t rest = waiting; rest;) {
        struct gv_frame *first = lanes[__builtin_ctz(rest)];
        uint32_t group = 0;
        GV_EACH(lane, rest) {
            const struct gv_frame *other = lanes[lane];
            if (other->masked == first->masked && other->kind == first->kind &&
                (first->masked ? other->mask == first->mask : other->pc == first->pc))
                group |= 1u << lane;
        }
        rest &= ~group;
        /* Lanes that have ended do not hold up the others. */
        if (first->masked && !(first->mask & live & ~group)) {
            gv_resolve(lanes, group);
            ready |= group;
        }
    }
    if (ready)
        return ready;
    /* Nobody else can move, so those that wait at one place without naming members are what a GPU calls converged. */
    GV_EACH(lane, waiting) {
        if (lanes[lane]->masked)
            continue;
        GV_EACH(other, waiting) if (!lanes[other]->masked && lanes[other]->pc == lanes[lane]->pc) ready |= 1u << other;
        gv_resolve(lanes, ready);
        break;
    }
    return ready;
}

GV_FN int gv_run_warp(struct gv_schedule *schedule, uint32_t first)
{
    struct gv_frame *lanes[32];
    uint32_t size = schedule->count - first < 32 ? schedule->count - first : 32;
    uint32_t ready = 0, waiting = 0, live = 0;
    for (uint32_t lane = 0; lane < size; lane++) {
        lanes[lane] = gv_frame_at(schedule->block, schedule->stride, first + lane);
        uint8_t state = lanes[lane]->state;
        live |= state != GV_ENDED ? 1u << lane : 0;
        ready |= state == GV_READY ? 1u << lane : 0;
        waiting |= state == GV_AT_WARP ? 1u << lane : 0;
    }
    /* Lanes may also become ready because another one has ended, so waiting lanes are looked at even if none ran. */
    do {
        GV_EACH(lane, ready) {
            struct gv_frame *frame = lanes[lane];
            int result;
            while ((result = schedule->step(frame)) == GV_ARRIVE) {
                schedule->barriers[frame->a & 15].arrived++;
                schedule->barriers[frame->a & 15].expected = frame->mask;
            }
            if (result == GV_WARP) {
                frame->state = GV_AT_WARP;
                waiting |= 1u << lane;
            } else if (result == GV_BARRIER) {
                frame->state = GV_AT_BARRIER;
                schedule->barriers[frame->a & 15].waiting++;
                schedule->barriers[frame->a & 15].expected = frame->mask;
                schedule->barriers[frame->a & 15].population += frame->b;
            } else if (result == GV_EXIT) {
                frame->state = GV_ENDED;
                schedule->ended++;
                live &= ~(1u << lane);
            } else {
                return result;
            }
        }
        ready = waiting ? gv_resolve_warp(lanes, waiting, live) : 0;
        waiting &= ~ready;
    } while (ready);
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
        for (uint32_t i = 0; i < schedule->count; i++) {
            struct gv_frame *frame = gv_frame_at(schedule->block, schedule->stride, i);
            if (frame->state != GV_AT_BARRIER || (frame->a & 15) != id)
                continue;
            frame->state = GV_READY;
            frame->value = population;
            frame->flag = frame->kind == GV_BAR_AND ? population == waiting : population != 0;
        }
    }
    return released;
}

/* Any kernel: barriers of all kinds and warp operations. */
GV_FN int gv_run_schedule(const struct gv_block *block, size_t stride, gv_step step, uint32_t dynamic, uint32_t fixed)
{
    struct gv_schedule schedule = {.block = block, .stride = stride, .step = step};
    schedule.count = gv_start_frames(block, stride, dynamic, fixed);
    for (;;) {
        for (uint32_t first = 0; first < schedule.count; first += 32) {
            int result = gv_run_warp(&schedule, first);
            if (result != GV_BLOCK_DONE)
                return result;
        }
        if (schedule.ended == schedule.count)
            return GV_BLOCK_DONE;
        if (!gv_release_barriers(&schedule))
            return GV_BLOCK_DEADLOCK;
    }
}

#endif
