/* SPDX-License-Identifier: Apache-2.0
 *
 * Writing a lot of memory that nobody reads soon: past the caches, so that it is not read first. Half the time of memcpy and
 * memset for the megabytes that device memory is moved in.
 */
#ifndef GPUVIRT_SOFTGPU_PAST_CACHE_H
#define GPUVIRT_SOFTGPU_PAST_CACHE_H

#include <stdint.h>
#include <string.h>
#ifdef __SSE2__
#include <emmintrin.h>
#endif

enum { GV_PAST_CACHE_AT = 1 << 20 }; /* bytes, from which on it pays: about what a core's own cache holds */

#ifdef __SSE2__
enum { GV_LINE = 64 };

/* The ranges do not overlap. */
static inline void gv_copy_past_cache(uint8_t *to, const uint8_t *from, size_t bytes)
{
    const size_t head = (size_t)(-(uintptr_t)to % GV_LINE) < bytes ? (size_t)(-(uintptr_t)to % GV_LINE) : bytes;
    memcpy(to, from, head);
    size_t at = head;
    for (; bytes - at >= GV_LINE; at += GV_LINE) {
        const __m128i *const source = (const __m128i *)(const void *)(from + at);
        __m128i *const sink = (__m128i *)(void *)(to + at);
        const __m128i a = _mm_loadu_si128(source), b = _mm_loadu_si128(source + 1);
        const __m128i c = _mm_loadu_si128(source + 2), d = _mm_loadu_si128(source + 3);
        _mm_stream_si128(sink, a);
        _mm_stream_si128(sink + 1, b);
        _mm_stream_si128(sink + 2, c);
        _mm_stream_si128(sink + 3, d);
    }
    _mm_sfence(); /* such stores are ordered by nothing else, and others are told that the copy has ended */
    memcpy(to + at, from + at, bytes - at);
}

static inline void gv_clear_past_cache(uint8_t *to, size_t bytes)
{
    const size_t head = (size_t)(-(uintptr_t)to % GV_LINE) < bytes ? (size_t)(-(uintptr_t)to % GV_LINE) : bytes;
    const __m128i zero = _mm_setzero_si128();
    memset(to, 0, head);
    size_t at = head;
    for (; bytes - at >= GV_LINE; at += GV_LINE) {
        __m128i *const sink = (__m128i *)(void *)(to + at);
        _mm_stream_si128(sink, zero);
        _mm_stream_si128(sink + 1, zero);
        _mm_stream_si128(sink + 2, zero);
        _mm_stream_si128(sink + 3, zero);
    }
    _mm_sfence();
    memset(to + at, 0, bytes - at);
}
#else
static inline void gv_copy_past_cache(uint8_t *to, const uint8_t *from, size_t bytes) { memcpy(to, from, bytes); }
static inline void gv_clear_past_cache(uint8_t *to, size_t bytes) { memset(to, 0, bytes); }
#endif

#endif
