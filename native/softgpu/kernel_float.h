/* SPDX-License-Identifier: Apache-2.0
 *
 * Floating point as PTX defines it: half and bfloat16, NaN rules of min and max, saturation, conversions, rounding modes.
 * Included by kernel_runtime.h.
 */
#ifndef GPUVIRT_SOFTGPU_KERNEL_FLOAT_H
#define GPUVIRT_SOFTGPU_KERNEL_FLOAT_H

#include <fenv.h>

#define GV_NAN32 0x7fffffffu
#define GV_NAN64 0x7fffffffffffffffull

/* Half precision: values are kept as bits and computed in float. */
GV_FN float gv_f16_value(uint16_t bits)
{
    _Float16 half;
    __builtin_memcpy(&half, &bits, sizeof half);
    return (float)half;
}

GV_FN uint16_t gv_f16_bits(float value)
{
    if (value != value)
        return 0x7fff;
    _Float16 half = (_Float16)value;
    uint16_t bits;
    __builtin_memcpy(&bits, &half, sizeof bits);
    return bits;
}

GV_FN float gv_bf16_value(uint16_t bits) { return gv_f32((uint32_t)bits << 16); }

GV_FN uint16_t gv_bf16_bits(float value)
{
    uint32_t bits = gv_u32(value);
    if (value != value)
        return 0x7fff;
    return (uint16_t)((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

/* Double to float, rounded to odd: a second rounding to 16 bits then gives what one rounding would have. */
GV_FN float gv_round_to_odd(double value)
{
    float result = (float)value;
    if (value != value || (double)result == value || __builtin_isinf(value))
        return result;
    uint32_t bits = gv_u32(result);
    if (__builtin_isinf(result) || __builtin_fabs((double)result) > __builtin_fabs(value))
        bits--; /* truncate */
    return gv_f32(bits | 1);
}

GV_FN uint16_t gv_f16_fma(float a, float b, float c) { return gv_f16_bits(gv_round_to_odd((double)a * b + c)); }
GV_FN uint16_t gv_bf16_fma(float a, float b, float c) { return gv_bf16_bits(gv_round_to_odd((double)a * b + c)); }

/* 8-bit floats: e4m3 has no infinity and one NaN, e5m2 is IEEE. Rounded to nearest, what is too large saturates (.satfinite). */
GV_COLD uint8_t gv_fp8_bits(float value, int mantissa, int bias, uint8_t largest)
{
    uint8_t sign = (uint8_t)(gv_u32(value) >> 24 & 0x80), code = largest;
    if (value != value)
        return 0x7f;
    double magnitude = __builtin_fabs((double)value);
    if (magnitude < 1e6) {
        int exponent = magnitude > 0 ? __builtin_ilogb(magnitude) : -1000;
        if (exponent < 1 - bias)
            exponent = 1 - bias;
        int digits = (int)__builtin_rint(__builtin_ldexp(magnitude, mantissa - exponent));
        /* a carry out of the digits counts the exponent up by itself */
        int bits = digits < 1 << mantissa ? digits : ((exponent + bias - 1) << mantissa) + digits;
        code = bits < largest ? (uint8_t)bits : largest;
    }
    return sign | code;
}

GV_COLD float gv_fp8_value(uint8_t bits, int mantissa, int bias)
{
    int exponent = (bits & 0x7f) >> mantissa, digits = bits & ((1 << mantissa) - 1);
    double value = exponent ? __builtin_ldexp(digits + (1 << mantissa), exponent - bias - mantissa)
                            : __builtin_ldexp(digits, 1 - bias - mantissa);
    return (float)(bits & 0x80 ? -value : value);
}

GV_FN uint8_t gv_e4m3_bits(float value) { return gv_fp8_bits(value, 3, 7, 0x7e); }
GV_FN uint8_t gv_e5m2_bits(float value) { return gv_fp8_bits(value, 2, 15, 0x7b); }
GV_FN float gv_e4m3_value(uint8_t bits) { return (bits & 0x7f) == 0x7f ? gv_f32(GV_NAN32) : gv_fp8_value(bits, 3, 7); }
GV_FN float gv_e5m2_value(uint8_t bits)
{
    if ((bits & 0x7f) > 0x7c)
        return gv_f32(GV_NAN32);
    return gv_f16_value((uint16_t)(bits << 8));
}

/* Moves a rounded result one step when the rounding mode asks for the other neighbour. `up`: towards +infinity. */
GV_FN uint64_t gv_step_bits(uint64_t bits, uint64_t sign, int up)
{
    if (!(bits & ~sign))
        return up ? 1 : sign | 1;
    return (!(bits & sign)) == up ? bits + 1 : bits - 1;
}

enum gv_rounding { GV_RN, GV_RZ, GV_RM, GV_RP };

/* Whether `got`, rounded to nearest from `want`, must move, and where to: 0 no, 1 up, -1 down. */
GV_FN int gv_direction(double want, double got, int mode)
{
    if (want != want || got == want)
        return 0;
    if (mode == GV_RZ)
        mode = want < 0 ? GV_RP : GV_RM;
    if (mode == GV_RM)
        return got > want ? -1 : 0;
    return got < want ? 1 : 0;
}

#define GV_NARROW(name, type, sign, to_bits, to_value)                                                                 \
    GV_COLD type name(double value, int mode)                                                                          \
    {                                                                                                                  \
        type bits = to_bits;                                                                                           \
        int direction = gv_direction(value, to_value(bits), mode);                                                     \
        return direction ? (type)gv_step_bits(bits, sign, direction > 0) : bits;                                       \
    }
GV_NARROW(gv_f16_narrow, uint16_t, 0x8000, gv_f16_bits(gv_round_to_odd(value)), gv_f16_value)
GV_NARROW(gv_bf16_narrow, uint16_t, 0x8000, gv_bf16_bits(gv_round_to_odd(value)), gv_bf16_value)
GV_NARROW(gv_f32_narrow, uint32_t, 0x80000000u, gv_u32((float)value), gv_f32)

/* Arithmetic in another rounding mode. volatile keeps the compiler from moving it out of the mode. */
#define GV_ROUNDED(name, type, expression)                                                                             \
    GV_COLD type name(type x, type y, type z, int mode)                                                                \
    {                                                                                                                  \
        static const int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};                              \
        volatile type a = x, b = y, c = z, result;                                                                     \
        fesetround(modes[mode]);                                                                                       \
        result = (expression);                                                                                         \
        fesetround(FE_TONEAREST);                                                                                      \
        (void)a, (void)b, (void)c;                                                                                     \
        return result;                                                                                                 \
    }
GV_ROUNDED(gv_add_f32, float, a + b)
GV_ROUNDED(gv_sub_f32, float, a - b)
GV_ROUNDED(gv_mul_f32, float, a *b)
GV_ROUNDED(gv_div_f32, float, a / b)
GV_ROUNDED(gv_fma_f32, float, __builtin_fmaf(a, b, c))
GV_ROUNDED(gv_sqrt_f32, float, __builtin_sqrtf(a))
GV_ROUNDED(gv_add_f64, double, a + b)
GV_ROUNDED(gv_sub_f64, double, a - b)
GV_ROUNDED(gv_mul_f64, double, a *b)
GV_ROUNDED(gv_div_f64, double, a / b)
GV_ROUNDED(gv_fma_f64, double, __builtin_fma(a, b, c))
GV_ROUNDED(gv_sqrt_f64, double, __builtin_sqrt(a))

#define GV_FROM_INTEGER(name, type, source)                                                                            \
    GV_COLD type name(source x, int mode)                                                                              \
    {                                                                                                                  \
        static const int modes[] = {FE_TONEAREST, FE_TOWARDZERO, FE_DOWNWARD, FE_UPWARD};                              \
        volatile source a = x;                                                                                         \
        volatile type result;                                                                                          \
        fesetround(modes[mode]);                                                                                       \
        result = (type)a;                                                                                              \
        fesetround(FE_TONEAREST);                                                                                      \
        return result;                                                                                                 \
    }
GV_FROM_INTEGER(gv_f32_from_s64, float, int64_t)
GV_FROM_INTEGER(gv_f64_from_s64, double, int64_t)

/* Unsigned 64-bit integers are converted by several instructions, whose roundings do not add up: by hand. */
GV_COLD double gv_from_u64(uint64_t value, uint32_t digits, int mode)
{
    uint32_t bits = 64 - gv_clz_64(value);
    if (bits <= digits)
        return (double)value;
    uint32_t drop = bits - digits;
    uint64_t kept = value >> drop;
    if (mode == GV_RP && value & ((1ull << drop) - 1))
        kept++;
    return __builtin_ldexp((double)kept, (int)drop);
}
GV_FN float gv_f32_from_u64(uint64_t value, int mode) { return (float)gv_from_u64(value, 24, mode); }
GV_FN double gv_f64_from_u64(uint64_t value, int mode) { return gv_from_u64(value, 53, mode); }

GV_FN float gv_ftz(float value) { return (gv_u32(value) & 0x7f800000u) ? value : gv_f32(gv_u32(value) & 0x80000000u); }

GV_FN float gv_sat_f32(float value) { return value > 0.0f ? (value < 1.0f ? value : 1.0f) : 0.0f; }
GV_FN double gv_sat_f64(double value) { return value > 0.0 ? (value < 1.0 ? value : 1.0) : 0.0; }
GV_FN float gv_relu(float value) { return value != value ? value : value > 0.0f ? value : 0.0f; }

/* A NaN operand loses against a number; .NaN: it wins. -0 is less than +0. */
#define GV_MIN_MAX(suffix, type, to_bits, from_bits, nan)                                                              \
    GV_FN type gv_min_##suffix(type a, type b)                                                                         \
    {                                                                                                                  \
        if (a != a)                                                                                                    \
            return b != b ? from_bits(nan) : b;                                                                        \
        if (a == b)                                                                                                    \
            return from_bits(to_bits(a) | to_bits(b));                                                                 \
        return b < a ? b : a;                                                                                          \
    }                                                                                                                  \
    GV_FN type gv_max_##suffix(type a, type b)                                                                         \
    {                                                                                                                  \
        if (a != a)                                                                                                    \
            return b != b ? from_bits(nan) : b;                                                                        \
        if (a == b)                                                                                                    \
            return from_bits(to_bits(a) & to_bits(b));                                                                 \
        return b > a ? b : a;                                                                                          \
    }                                                                                                                  \
    GV_FN type gv_min_nan_##suffix(type a, type b)                                                                     \
    {                                                                                                                  \
        return a != a || b != b ? from_bits(nan) : gv_min_##suffix(a, b);                                              \
    }                                                                                                                  \
    GV_FN type gv_max_nan_##suffix(type a, type b) { return a != a || b != b ? from_bits(nan) : gv_max_##suffix(a, b); }
GV_MIN_MAX(f32, float, gv_u32, gv_f32, GV_NAN32)
GV_MIN_MAX(f64, double, gv_u64, gv_f64, GV_NAN64)

/* Float to integer: out of range saturates, NaN gives `nan` (C leaves both undefined). double holds every float exactly. */
#define GV_TO_INTEGER(name, type, low, high, minimum, maximum)                                                         \
    GV_FN type name(double value, type nan)                                                                            \
    {                                                                                                                  \
        if (value != value)                                                                                            \
            return nan;                                                                                                \
        return value <= low ? minimum : value >= high ? maximum : (type)value;                                         \
    }
GV_TO_INTEGER(gv_to_s8, int8_t, -128.0, 127.0, INT8_MIN, INT8_MAX)
GV_TO_INTEGER(gv_to_u8, uint8_t, 0.0, 255.0, 0, UINT8_MAX)
GV_TO_INTEGER(gv_to_s16, int16_t, -32768.0, 32767.0, INT16_MIN, INT16_MAX)
GV_TO_INTEGER(gv_to_u16, uint16_t, 0.0, 65535.0, 0, UINT16_MAX)
GV_TO_INTEGER(gv_to_s32, int32_t, -2147483648.0, 2147483647.0, INT32_MIN, INT32_MAX)
GV_TO_INTEGER(gv_to_u32, uint32_t, 0.0, 4294967295.0, 0, UINT32_MAX)
GV_TO_INTEGER(gv_to_s64, int64_t, -9223372036854775808.0, 9223372036854775808.0, INT64_MIN, INT64_MAX)
GV_TO_INTEGER(gv_to_u64, uint64_t, 0.0, 18446744073709551616.0, 0, UINT64_MAX)

/* tf32: 10 bits of mantissa, ties away from zero (rna) or to even (rn). */
GV_FN uint32_t gv_tf32(float value, int even)
{
    uint32_t bits = gv_u32(value);
    if (value != value)
        return GV_NAN32;
    bits += even ? 0xfff + (bits >> 13 & 1) : 0x1000;
    return bits & 0xffffe000u;
}

GV_FN _Bool gv_is_normal_f32(float a) { return __builtin_isnormal(a); }
GV_FN _Bool gv_is_normal_f64(double a) { return __builtin_isnormal(a); }

#endif
