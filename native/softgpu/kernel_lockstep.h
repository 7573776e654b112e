/* SPDX-License-Identifier: Apache-2.0
 *
 * Groups whose lanes come to each wait together. A group is up to 32 threads in a row: consecutive %tid.x from a multiple of
 * 32 on, the same %tid.y and %tid.z. In blocks whose rows are whole warps a group is a warp.
 * Included by kernel_runtime.h.
 */
#ifndef GPUVIRT_SOFTGPU_KERNEL_LOCKSTEP_H
#define GPUVIRT_SOFTGPU_KERNEL_LOCKSTEP_H

/* The general version of a kernel that has a lockstep version: built for size, which is quick. */
#define GV_SELDOM __attribute__((cold))

#define GV_KNOW(condition)                                                                                             \
    do {                                                                                                               \
        if (!(condition))                                                                                              \
            __builtin_unreachable();                                                                                   \
    } while (0)

/* The loop over the lanes. Lanes do not depend on each other between two waits, or the program has a race; within a lane the
 * order of accesses holds, in vector code too. */
#define GV_LANES _Pragma("GCC ivdep") for (uint64_t l = 0; l < 32; l++)

/* First members of the frame of a group. */
#define GV_GROUP                                                                                                       \
    uint32_t pc, alive;        /* where to go on; lanes that have not ended */                                         \
    uint32_t x0, y, z, linear; /* of lane 0 */                                                                         \
    _Alignas(64) uint32_t shown[32]

/* Whether groups are warps: rows of whole warps, or one row. */
GV_FN int gv_whole_warps(const struct gv_block *block)
{
    return block->block.x % 32 == 0 || (block->block.y == 1 && block->block.z == 1);
}

/* All lanes have come to a warp operation. 0: some name members that do not take part. */
GV_FN int gv_meet(struct gv_warp *warp, uint32_t alive)
{
    warp->live = warp->waiting = alive;
    if (gv_same_key(warp, alive, warp->key[__builtin_ctz(alive)]) == alive) {
        gv_resolve(warp, alive);
        return 1;
    }
    return gv_resolve_warp(warp) == alive;
}

#ifdef __AVX512F__
typedef int32_t gv_lanes16 __attribute__((vector_size(64)));

/* Sixteen results of a shuffle of 32 values, for the lanes in `lane`; `outside`: all ones where the source is outside. */
GV_INLINE gv_lanes16 gv_shuffle_half(const gv_lanes16 *values, gv_lanes16 lane, uint32_t kind, int32_t distance,
                                     int32_t clamp, int32_t segment, gv_lanes16 *outside)
{
    const gv_lanes16 last = (lane & segment) | (clamp & ~segment);
    gv_lanes16 source = (lane & segment) | (distance & ~segment);
    if (kind == GV_SHFL_UP)
        source = lane - distance;
    if (kind == GV_SHFL_DOWN)
        source = lane + distance;
    if (kind == GV_SHFL_BFLY)
        source = lane ^ distance;
    *outside = kind == GV_SHFL_UP ? source < last : source > last;
    return __builtin_shuffle(values[0], values[1], (source & ~*outside) | (lane & *outside));
}
#endif

GV_COLD uint32_t gv_shuffle_some(uint32_t *shown, uint32_t kind, uint32_t b, uint32_t c, uint32_t alive)
{
    const int32_t distance = (int32_t)(b & 31), clamp = (int32_t)(c & 31), segment = (int32_t)(c >> 8 & 31);
    uint32_t results[32], inside = 0;
    for (int32_t lane = 0; lane < 32; lane++) {
        const int32_t last = (lane & segment) | (clamp & ~segment);
        const int32_t source = kind == GV_SHFL_UP     ? lane - distance
                               : kind == GV_SHFL_DOWN ? lane + distance
                               : kind == GV_SHFL_BFLY ? lane ^ distance
                                                      : (lane & segment) | (distance & ~segment);
        const int in = kind == GV_SHFL_UP ? source >= last : source <= last;
        results[lane] = shown[in && alive >> (source & 31) & 1 ? source & 31 : lane];
        inside |= (uint32_t)in << lane;
    }
    __builtin_memcpy(shown, results, sizeof results);
    return inside;
}

/* A shuffle of all lanes in `alive` by the same distance. Returns the lanes whose source is inside: their predicate. */
GV_INLINE uint32_t gv_shuffle_together(uint32_t *shown, uint32_t kind, uint32_t b, uint32_t c, uint32_t alive)
{
#ifdef __AVX512F__
    if (alive == 0xffffffffu) {
        const int32_t distance = (int32_t)(b & 31), clamp = (int32_t)(c & 31), segment = (int32_t)(c >> 8 & 31);
        const gv_lanes16 values[2] = {((gv_lanes16 *)(void *)shown)[0], ((gv_lanes16 *)(void *)shown)[1]};
        const gv_lanes16 first = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
        gv_lanes16 out[2], *const results = (gv_lanes16 *)(void *)shown;
        results[0] = gv_shuffle_half(values, first, kind, distance, clamp, segment, &out[0]);
        results[1] = gv_shuffle_half(values, first + 16, kind, distance, clamp, segment, &out[1]);
        uint32_t outside = 0;
        for (int lane = 0; lane < 16; lane++)
            outside |= ((uint32_t)out[0][lane] & 1) << lane | ((uint32_t)out[1][lane] & 1) << (lane + 16);
        return ~outside;
    }
#else
    if (alive == 0xffffffffu && kind != GV_SHFL_IDX) { /* loops that vectorise: moved, or permuted */
        const int32_t distance = (int32_t)(b & 31), clamp = (int32_t)(c & 31), segment = (int32_t)(c >> 8 & 31);
        uint32_t wide[96], inside = 0;
        __builtin_memcpy(wide + 32, shown, 128);
        const uint32_t *const from = wide + 32 + (kind == GV_SHFL_UP ? -distance : distance);
        for (int32_t lane = 0; lane < 32; lane++) {
            const int32_t last = (lane & segment) | (clamp & ~segment);
            const int32_t source = kind == GV_SHFL_UP     ? lane - distance
                                   : kind == GV_SHFL_DOWN ? lane + distance
                                                          : lane ^ distance;
            const int in = kind == GV_SHFL_UP ? source >= last : source <= last;
            const uint32_t value = kind == GV_SHFL_BFLY ? wide[32 + source] : from[lane];
            shown[lane] = in ? value : wide[32 + lane];
            inside |= (uint32_t)in << lane;
        }
        return inside;
    }
#endif
    return gv_shuffle_some(shown, kind, b, c, alive);
}

/* How the values of the lanes, `first` in lane 0 and one more in each, compare with a limit: a bit for each lane. */
GV_FN uint32_t gv_lanes_lt(uint32_t first, int64_t limit)
{
    const int64_t lanes = limit - first;
    return lanes <= 0 ? 0 : lanes >= 32 ? 0xffffffffu : (1u << lanes) - 1;
}
GV_FN uint32_t gv_lanes_ge(uint32_t first, int64_t limit) { return ~gv_lanes_lt(first, limit); }
GV_FN uint32_t gv_lanes_le(uint32_t first, int64_t limit) { return gv_lanes_lt(first, limit + 1); }
GV_FN uint32_t gv_lanes_gt(uint32_t first, int64_t limit) { return ~gv_lanes_lt(first, limit + 1); }
GV_FN uint32_t gv_lanes_eq(uint32_t first, int64_t limit)
{
    const int64_t lane = limit - first;
    return lane >= 0 && lane < 32 ? 1u << lane : 0;
}
GV_FN uint32_t gv_lanes_ne(uint32_t first, int64_t limit) { return ~gv_lanes_eq(first, limit); }

/* Lanes from `lo` to before `hi`. */
GV_FN uint32_t gv_part(uint32_t mask, uint64_t lo, uint64_t hi)
{
    return mask & (uint32_t)((1ull << hi) - (1ull << lo));
}

/* Lowers `hi` to the first lane where a value that is `value` in lane `lo` and grows by `step` wraps. */
GV_FN void gv_until_wrap_u(uint64_t *hi, uint64_t lo, uint32_t value, int32_t step)
{
    const uint32_t room = step > 0 ? 0xffffffffu - value : value,
                   pace = step > 0 ? (uint32_t)step : 0u - (uint32_t)step;
    if (room < 32 * pace && lo + room / pace + 1 < *hi)
        *hi = lo + room / pace + 1;
}

GV_FN void gv_until_wrap_s(uint64_t *hi, uint64_t lo, uint32_t value, int32_t step)
{
    gv_until_wrap_u(hi, lo, value ^ 0x80000000u, step);
}

/* Starts the frame of each group; `body` follows with C pointing to it. */
#define GV_EACH_GROUP(body)                                                                                            \
    for (uint32_t z = 0, linear = 0; z < B->block.z; z++)                                                              \
        for (uint32_t y = 0; y < B->block.y; y++)                                                                      \
            for (uint32_t x = 0; x < B->block.x; x += 32) {                                                            \
                const uint32_t lanes = B->block.x - x < 32 ? B->block.x - x : 32;                                      \
                C->pc = 0;                                                                                             \
                C->alive = 0xffffffffu >> (32 - lanes);                                                                \
                C->x0 = x;                                                                                             \
                C->y = y;                                                                                              \
                C->z = z;                                                                                              \
                C->linear = linear;                                                                                    \
                linear += lanes;                                                                                       \
                body                                                                                                   \
            }

/* A block without barriers: one group after the other, in one frame. */
#define GV_RUN_ALONE(frame, group)                                                                                     \
    do {                                                                                                               \
        frame *const C = (frame *)(void *)B->scratch;                                                                  \
        GV_EACH_GROUP({                                                                                                \
            const int result = group(B, C);                                                                            \
            if (result != GV_EXIT)                                                                                     \
                return result;                                                                                         \
        })                                                                                                             \
        return GV_BLOCK_DONE;                                                                                          \
    } while (0)

/* A block whose groups meet at `bar.sync 0`. Groups that have ended count as arrived. */
#define GV_RUN_PHASES(frame, group)                                                                                    \
    do {                                                                                                               \
        frame *const frames = (frame *)(void *)B->scratch, *C = frames;                                                \
        GV_EACH_GROUP({ C++; })                                                                                        \
        const frame *const end = C;                                                                                    \
        uint32_t waiting;                                                                                              \
        do {                                                                                                           \
            waiting = 0;                                                                                               \
            for (C = frames; C != end; C++) {                                                                          \
                if (!C->alive)                                                                                         \
                    continue;                                                                                          \
                const int result = group(B, C);                                                                        \
                if (result == GV_BARRIER)                                                                              \
                    waiting = 1;                                                                                       \
                else if (result == GV_EXIT)                                                                            \
                    C->alive = 0;                                                                                      \
                else                                                                                                   \
                    return result;                                                                                     \
            }                                                                                                          \
        } while (waiting);                                                                                             \
        return GV_BLOCK_DONE;                                                                                          \
    } while (0)

#endif
