/* SPDX-License-Identifier: Apache-2.0
 *
 * What translated kernels include: threads, memory access, integer helpers, calls, atomics.
 * Floating point is in kernel_float.h, barriers and warp operations are in kernel_threads.h.
 *
 * Everything is static: a module is compiled alone, by a compiler that the driver starts, with GNU C11 extensions.
 */
#ifndef GPUVIRT_SOFTGPU_KERNEL_RUNTIME_H
#define GPUVIRT_SOFTGPU_KERNEL_RUNTIME_H

#include "kernel_abi.h"

#include <sched.h>
#include <stddef.h>
#include <time.h>

typedef unsigned __int128 gv_u128;

#define GV_FN static inline __attribute__((unused))
#define GV_INLINE static inline __attribute__((unused, always_inline))
#define GV_COLD static __attribute__((unused, noinline))

/* How a step of a thread, or a device function, ended. Values below GV_EXIT are enum gv_block_result: 0 is "go on". */
enum gv_step_result {
    GV_EXIT = 100,
    GV_BARRIER = 101, /* waits at a barrier */
    GV_ARRIVE = 102,  /* arrived at a barrier and runs on */
    GV_WARP = 103,    /* waits for its warp */
    GV_YIELD = 104,   /* lets the others run, then goes on */
};

/* One thread, as device functions see it. */
struct gv_thread {
    const struct gv_block *block;
    uint32_t x, y, z;        /* %tid */
    uint32_t linear;         /* number in the block: lane and warp follow from it */
    uint32_t dynamic_shared; /* offset of the dynamic shared memory of this kernel */
    uint32_t static_shared;  /* bytes */
};

/* Device memory is ordinary memory at ordinary addresses. A misaligned access works here, unlike on a GPU. */
#define GV_LD(type, address) (*(const type *)(uintptr_t)(address))
#define GV_ST(type, address, value) (*(type *)(uintptr_t)(address) = (value))
#define GV_LDV(type, address) (*(const volatile type *)(uintptr_t)(address))
#define GV_STV(type, address, value) (*(volatile type *)(uintptr_t)(address) = (value))

/* Bits to float and back. */
GV_FN float gv_f32(uint32_t bits)
{
    float value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

GV_FN uint32_t gv_u32(float value)
{
    uint32_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
}

GV_FN double gv_f64(uint64_t bits)
{
    double value;
    __builtin_memcpy(&value, &bits, sizeof value);
    return value;
}

GV_FN uint64_t gv_u64(double value)
{
    uint64_t bits;
    __builtin_memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Shifts clamp in PTX; in C a shift by the width or more is undefined. */
#define GV_SHIFTS(bits)                                                                                                \
    GV_FN uint##bits##_t gv_shl_##bits(uint##bits##_t a, uint32_t b)                                                   \
    {                                                                                                                  \
        return b >= bits ? 0 : (uint##bits##_t)(a << b);                                                               \
    }                                                                                                                  \
    GV_FN uint##bits##_t gv_shr_u##bits(uint##bits##_t a, uint32_t b)                                                  \
    {                                                                                                                  \
        return b >= bits ? 0 : (uint##bits##_t)(a >> b);                                                               \
    }                                                                                                                  \
    GV_FN int##bits##_t gv_shr_s##bits(int##bits##_t a, uint32_t b)                                                    \
    {                                                                                                                  \
        return (int##bits##_t)(a >> (b >= bits ? bits - 1 : b));                                                       \
    }
GV_SHIFTS(16)
GV_SHIFTS(32)
GV_SHIFTS(64)

/* Division by zero must not kill the process: PTX leaves the result open, GPUs give all ones and the dividend. */
#define GV_DIVISIONS(bits, min)                                                                                        \
    GV_FN uint##bits##_t gv_div_u##bits(uint##bits##_t a, uint##bits##_t b)                                            \
    {                                                                                                                  \
        return b ? (uint##bits##_t)(a / b) : (uint##bits##_t) - 1;                                                     \
    }                                                                                                                  \
    GV_FN uint##bits##_t gv_rem_u##bits(uint##bits##_t a, uint##bits##_t b)                                            \
    {                                                                                                                  \
        return b ? (uint##bits##_t)(a % b) : a;                                                                        \
    }                                                                                                                  \
    GV_FN int##bits##_t gv_div_s##bits(int##bits##_t a, int##bits##_t b)                                               \
    {                                                                                                                  \
        return !b ? (int##bits##_t) - 1 : b == -1 ? (int##bits##_t)(0 - (uint##bits##_t)a) : (int##bits##_t)(a / b);   \
    }                                                                                                                  \
    GV_FN int##bits##_t gv_rem_s##bits(int##bits##_t a, int##bits##_t b)                                               \
    {                                                                                                                  \
        return !b ? a : b == -1 ? 0 : (int##bits##_t)(a % b);                                                          \
    }
GV_DIVISIONS(16, INT16_MIN)
GV_DIVISIONS(32, INT32_MIN)
GV_DIVISIONS(64, INT64_MIN)

GV_FN uint32_t gv_clz_32(uint32_t a) { return a ? (uint32_t)__builtin_clz(a) : 32; }
GV_FN uint32_t gv_clz_64(uint64_t a) { return a ? (uint32_t)__builtin_clzll(a) : 64; }

GV_FN uint32_t gv_brev_32(uint32_t a)
{
    a = (a >> 1 & 0x55555555u) | (a & 0x55555555u) << 1;
    a = (a >> 2 & 0x33333333u) | (a & 0x33333333u) << 2;
    a = (a >> 4 & 0x0f0f0f0fu) | (a & 0x0f0f0f0fu) << 4;
    return __builtin_bswap32(a);
}

GV_FN uint64_t gv_brev_64(uint64_t a)
{
    return (uint64_t)gv_brev_32((uint32_t)a) << 32 | gv_brev_32((uint32_t)(a >> 32));
}

/* Position of the highest bit that differs from the sign (signed) or is set (unsigned); all ones if there is none. */
GV_FN uint32_t gv_bfind_u64(uint64_t a) { return a ? 63 - gv_clz_64(a) : 0xffffffffu; }
GV_FN uint32_t gv_bfind_s64(int64_t a) { return gv_bfind_u64(a < 0 ? ~(uint64_t)a : (uint64_t)a); }

GV_FN uint64_t gv_bfe_u64(uint64_t a, uint32_t position, uint32_t length)
{
    position &= 0xff;
    length &= 0xff;
    uint64_t field = gv_shr_u64(a, position);
    return length >= 64 ? field : field & ((1ull << length) - 1);
}

GV_FN uint64_t gv_bfe_s64(uint64_t a, uint32_t position, uint32_t length, uint32_t bits)
{
    position &= 0xff;
    length &= 0xff;
    if (!length)
        return 0;
    uint32_t top = position + length - 1 < bits - 1 ? position + length - 1 : bits - 1;
    uint64_t sign = a >> top & 1 ? ~0ull : 0;
    uint64_t field = gv_shr_u64(a, position);
    uint32_t have = position <= top ? top - position + 1 : 0;
    return have >= 64 ? field : (field & ((1ull << have) - 1)) | (sign & ~((1ull << have) - 1));
}

GV_FN uint64_t gv_bfi(uint64_t a, uint64_t b, uint32_t position, uint32_t length)
{
    position &= 0xff;
    length &= 0xff;
    if (position >= 64 || !length)
        return b;
    uint64_t mask = (length >= 64 ? ~0ull : (1ull << length) - 1) << position;
    return (b & ~mask) | (a << position & mask);
}

GV_FN uint32_t gv_bmsk(uint32_t a, uint32_t b, int clamp)
{
    if (!clamp) {
        a &= 31;
        b &= 31;
    }
    return gv_shl_32(b >= 32 ? 0xffffffffu : (1u << b) - 1, a);
}

GV_FN uint32_t gv_prmt(uint32_t a, uint32_t b, uint32_t selector)
{
    uint64_t bytes = (uint64_t)b << 32 | a;
    uint32_t result = 0;
    for (int i = 0; i < 4; i++) {
        uint32_t select = selector >> 4 * i & 15;
        uint32_t byte = (uint32_t)(bytes >> 8 * (select & 7)) & 0xff;
        if (select & 8)
            byte = byte & 0x80 ? 0xff : 0;
        result |= byte << 8 * i;
    }
    return result;
}

GV_FN uint32_t gv_prmt_mode(uint32_t a, uint32_t b, uint32_t c, int mode)
{
    static const uint16_t table[6][4] = {
        {0x3210, 0x4321, 0x5432, 0x6543}, /* f4e */
        {0x5670, 0x6701, 0x7012, 0x0123}, /* b4e */
        {0x0000, 0x1111, 0x2222, 0x3333}, /* rc8 */
        {0x3210, 0x3211, 0x3222, 0x3333}, /* ecl */
        {0x0000, 0x1110, 0x2210, 0x3210}, /* ecr */
        {0x1010, 0x3232, 0x1010, 0x3232}, /* rc16 */
    };
    return gv_prmt(a, b, table[mode][c & 3]);
}

/* Position of the n-th set bit of mask from `base` on, upwards or (offset < 0) downwards; all ones if there is none. */
GV_FN uint32_t gv_fns(uint32_t mask, uint32_t base, int32_t offset)
{
    if (!offset)
        return base < 32 && mask >> base & 1 ? base : 0xffffffffu;
    int64_t left = offset < 0 ? -(int64_t)offset : offset;
    for (int64_t position = base; position >= 0 && position < 32; position += offset > 0 ? 1 : -1)
        if (mask >> position & 1 && --left == 0)
            return (uint32_t)position;
    return 0xffffffffu;
}

GV_FN uint32_t gv_shf_l(uint32_t a, uint32_t b, uint32_t n) { return (uint32_t)(((uint64_t)b << 32 | a) << n >> 32); }
GV_FN uint32_t gv_shf_r(uint32_t a, uint32_t b, uint32_t n) { return (uint32_t)(((uint64_t)b << 32 | a) >> n); }

GV_FN uint32_t gv_lop3(uint32_t a, uint32_t b, uint32_t c, uint32_t table)
{
    return (table & 0x80 ? a & b & c : 0) | (table & 0x40 ? a & b & ~c : 0) | (table & 0x20 ? a & ~b & c : 0) |
           (table & 0x10 ? a & ~b & ~c : 0) | (table & 0x08 ? ~a & b & c : 0) | (table & 0x04 ? ~a & b & ~c : 0) |
           (table & 0x02 ? ~a & ~b & c : 0) | (table & 0x01 ? ~a & ~b & ~c : 0);
}

GV_FN uint32_t gv_dp4a(uint32_t a, uint32_t b, uint32_t c, int a_signed, int b_signed)
{
    for (int i = 0; i < 32; i += 8)
        c += (uint32_t)((a_signed ? (int8_t)(a >> i) : (int)(uint8_t)(a >> i)) *
                        (b_signed ? (int8_t)(b >> i) : (int)(uint8_t)(b >> i)));
    return c;
}

GV_FN uint32_t gv_dp2a(uint32_t a, uint32_t b, uint32_t c, int a_signed, int b_signed, int high)
{
    for (int i = 0; i < 2; i++) {
        uint32_t x = a >> 16 * i, y = b >> (8 * i + 16 * high);
        c += (uint32_t)(a_signed ? (int16_t)x : (int)(uint16_t)x) * (uint32_t)(b_signed ? (int8_t)y : (int)(uint8_t)y);
    }
    return c;
}

GV_COLD uint64_t gv_clock(int which)
{
    struct timespec now;
    clock_gettime(which, &now);
    return (uint64_t)now.tv_sec * 1000000000ull + (uint64_t)now.tv_nsec;
}

/* Before a load that may be one of a loop which waits for another block of a cooperative launch: the others need the CPU.
 * Not 0: one of them has failed. */
GV_COLD int gv_spin(const struct gv_block *block)
{
    sched_yield();
    return (int)__atomic_load_n(&block->workspace->stopped, __ATOMIC_RELAXED);
}

/* A device pointer to a function is the address of one of these, in the module's table. */
struct gv_function {
    void (*code)(void); /* cast to its real type before the call; NULL: cannot be called by pointer */
    uint32_t signature; /* number of the list of result and parameter sizes */
};

/* The function behind a device pointer, or NULL if it is none of this module or has another signature. */
GV_FN void (*gv_find_function(const struct gv_function *table, uint32_t count, uint64_t pointer,
                              uint32_t signature))(void)
{
    uint64_t offset = pointer - (uint64_t)(uintptr_t)table;
    if (offset >= count * sizeof *table || offset % sizeof *table)
        return NULL;
    const struct gv_function *function = &table[offset / sizeof *table];
    return function->signature == signature ? function->code : NULL;
}

/* Atomics. Blocks run on several threads and processes, so these are real; `old` is the value before. */
#define GV_ATOMIC_LOOP(type, address, expression)                                                                      \
    ({                                                                                                                 \
        type *gv_at = (type *)(uintptr_t)(address);                                                                    \
        type old = __atomic_load_n(gv_at, __ATOMIC_RELAXED), gv_new;                                                   \
        do                                                                                                             \
            gv_new = (type)(expression);                                                                               \
        while (!__atomic_compare_exchange_n(gv_at, &old, gv_new, 0, __ATOMIC_SEQ_CST, __ATOMIC_RELAXED));              \
        old;                                                                                                           \
    })
/* The same for memory that only this block sees: its threads take turns. volatile: lanes that are computed side by side
 * (GV_LANES) may mean the same word, so these updates must not be done side by side. */
#define GV_PLAIN_UPDATE(type, address, expression)                                                                     \
    ({                                                                                                                 \
        volatile type *gv_at = (volatile type *)(uintptr_t)(address);                                                  \
        type old = *gv_at;                                                                                             \
        *gv_at = (type)(expression);                                                                                   \
        old;                                                                                                           \
    })

GV_FN gv_u128 gv_cas_128(uint64_t address, gv_u128 expected, gv_u128 desired)
{
    gv_u128 *at = (gv_u128 *)(uintptr_t)address;
#if defined(__GCC_HAVE_SYNC_COMPARE_AND_SWAP_16)
    return __sync_val_compare_and_swap(at, expected, desired);
#else
    gv_u128 old = *at; /* without a 16-byte instruction: atomic within the block only */
    if (old == expected)
        *at = desired;
    return old;
#endif
}

GV_FN gv_u128 gv_exchange_128(uint64_t address, gv_u128 value)
{
    gv_u128 old = *(const gv_u128 *)(uintptr_t)address, seen; /* perhaps torn: then the first comparison fails */
    do {
        seen = old;
        old = gv_cas_128(address, seen, value);
    } while (old != seen);
    return old;
}

#include "kernel_float.h"
#include "kernel_mbarrier.h"
#include "kernel_threads.h"

#include "kernel_lockstep.h"

#endif
