// SPDX-License-Identifier: Apache-2.0
// Integer intrinsics, 16-bit and 8-bit floats, rounding modes. Element i of each row comes from element i of the inputs.
#define OUT(k) out[(k) * n + i]

KERNEL void integer_intrinsics(const unsigned *in, unsigned *out)
{
    const unsigned i = threadIdx.x, n = blockDim.x, a = in[i], b = in[n + i], c = in[2 * n + i];
    OUT(0) = __dp4a((int)a, (int)b, (int)c);
    OUT(1) = __dp4a(a, b, c);
    OUT(2) = __dp2a_lo((int)a, (int)b, (int)c);
    OUT(3) = __byte_perm(a, b, c);
    OUT(4) = __funnelshift_l(a, b, c);
    OUT(5) = __funnelshift_rc(a, b, c & 63);
    OUT(6) = __mul24(a, b);
    OUT(7) = __mulhi((int)a, (int)b);
    OUT(8) = __umulhi(a, b);
    OUT(9) = __usad(a, b, c);
    OUT(10) = __brev(a);
    OUT(11) = __clz(a) + 100 * __ffs(a) + 10000 * __popc(a);
    OUT(12) = __vadd4(a, b);
    OUT(13) = __vaddss2(a, b);
    OUT(14) = __vabsdiffu4(a, b);
    OUT(15) = __vsads4(a, b);
    OUT(16) = __vavgu4(a, b);
    OUT(17) = __vcmpgts2(a, b);
    OUT(18) = __viaddmax_s32(a, b, c);
    OUT(19) = __vimin3_u16x2(a, b, c);
    unsigned r;
    asm("bfe.s32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b & 31), "r"(c & 31));
    OUT(20) = r;
    asm("bfi.b32 %0, %1, %2, %3, 7;" : "=r"(r) : "r"(a), "r"(b), "r"(c & 31));
    OUT(21) = r;
    asm("szext.wrap.s32 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b));
    OUT(22) = r;
    asm("lop3.b32 %0, %1, %2, %3, 0x6a;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    OUT(23) = r;
    asm("vadd2.s32.s32.s32.sat %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c));
    OUT(24) = r;
}

KERNEL void int128(const __int128 *in, __int128 *out)
{
    const unsigned i = threadIdx.x, n = blockDim.x;
    const __int128 a = in[i], b = in[n + i];
    OUT(0) = a * b;
    OUT(1) = a / b;
    OUT(2) = a % b;
    OUT(3) = a - b;
    OUT(4) = a >> (int)(b & 127);
    OUT(5) = (__int128)((unsigned __int128)a >> (int)(b & 127));
    OUT(6) = a << (int)(b & 127);
}

KERNEL void rounded(const float *in, float *out)
{
    const unsigned i = threadIdx.x, n = blockDim.x;
    const float a = in[i], b = in[n + i];
    OUT(0) = __fadd_rz(a, b);
    OUT(1) = __fadd_ru(a, b);
    OUT(2) = __fmul_rd(a, b);
    OUT(3) = __fmaf_rz(a, b, a);
    OUT(4) = __fdiv_ru(a, b);
    OUT(5) = __fsqrt_rd(fabsf(a));
    OUT(6) = __double2float_ru((double)a * b);
    OUT(7) = __int2float_rz(__float_as_int(a));
    OUT(8) = (float)__float2int_rd(a);
    OUT(9) = fminf(a, b);
    OUT(10) = __saturatef(a);
}

KERNEL void halves(const __half *in, __half *out, const float *single)
{
    const unsigned i = threadIdx.x, n = blockDim.x;
    const __half a = in[i], b = in[n + i];
    OUT(0) = __hadd(a, b);
    OUT(1) = __hmul(a, b);
    OUT(2) = __hfma(a, b, a);
    OUT(3) = __hdiv(a, b);
    OUT(4) = hsqrt(__habs(a));
    OUT(5) = __hmin(a, b);
    OUT(6) = __float2half_rn(single[i]);
    OUT(7) = __float2half_rz(single[i]);
    OUT(8) = __float2half_ru(single[i]);
    OUT(9) = hrint(a);
    const __half2 pair = __hfma2(__halves2half2(a, b), __halves2half2(b, b), __halves2half2(a, a));
    OUT(10) = __low2half(pair);
    OUT(11) = __high2half(pair);
    OUT(12) = __int2half_rn(__half2int_rz(a) + __hlt(a, b));
    OUT(13) = __hadd_sat(a, b);
}

KERNEL void bfloats_of(const float *in, unsigned short *out)
{
    const unsigned i = threadIdx.x, n = blockDim.x;
#if __CUDA_ARCH__ >= 800
    const __nv_bfloat16 a = __float2bfloat16(in[i]), b = __float2bfloat16(in[n + i]);
    OUT(0) = __bfloat16_as_ushort(a);
    OUT(1) = __bfloat16_as_ushort(__hadd(a, b));
    OUT(2) = __bfloat16_as_ushort(__hmul(a, b));
    OUT(3) = __bfloat16_as_ushort(__hfma(a, b, a));
    OUT(4) = __bfloat16_as_ushort(__float2bfloat16_rz(in[i]));
    OUT(5) = __bfloat16_as_ushort(__hmax(a, b));
    const __nv_bfloat162 pair = __hmul2(__halves2bfloat162(a, b), __halves2bfloat162(b, b));
    OUT(6) = __bfloat16_as_ushort(pair.y);
    OUT(7) = (unsigned short)__bfloat162int_rn(__hmax(__hmin(a, __float2bfloat16(100)), __float2bfloat16(-100)));
#endif
}

KERNEL void eights(const float *in, unsigned char *out, const unsigned char *codes, float *values)
{
    const unsigned i = threadIdx.x, n = blockDim.x;
    OUT(0) = __nv_cvt_float_to_fp8(in[i], __NV_SATFINITE, __NV_E4M3);
    OUT(1) = __nv_cvt_float_to_fp8(in[i], __NV_SATFINITE, __NV_E5M2);
    OUT(2) = (unsigned char)__nv_cvt_halfraw_to_fp8(__float2half(in[i]), __NV_SATFINITE, __NV_E4M3);
    const __nv_fp8x2_storage_t two = __nv_cvt_float2_to_fp8x2(make_float2(in[i], -in[i]), __NV_SATFINITE, __NV_E5M2);
    OUT(3) = two >> 8;
    values[i] = __half2float(__nv_cvt_fp8_to_halfraw(codes[i], __NV_E4M3));
    values[n + i] = __half2float(__nv_cvt_fp8_to_halfraw(codes[i], __NV_E5M2));
}
