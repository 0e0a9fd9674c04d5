/* SPDX-License-Identifier: Apache-2.0 */
/* Sixteen lanes in one AVX-512 register. */
#ifndef MLN_CPU_VEC_AVX512_H
#define MLN_CPU_VEC_AVX512_H

#include <immintrin.h>
#include <stdint.h>
#include <string.h>

#define FETCH_DENSE MLN_CPU_FETCH_FAR

typedef __m512 vf;  /* 16 floats */
typedef __m512i vw; /* 64 raw bytes */

#include "half.h"

INLINE vf vf_zero(void) {
    return _mm512_setzero_ps();
}
INLINE vf vf_set1(float x) {
    return _mm512_set1_ps(x);
}
INLINE vf vf_load(const float *p) {
    return _mm512_loadu_ps(p);
}
INLINE void vf_store(float *p, vf x) {
    _mm512_storeu_ps(p, x);
}
INLINE vf vf_add(vf a, vf b) {
    return _mm512_add_ps(a, b);
}
INLINE vf vf_sub(vf a, vf b) {
    return _mm512_sub_ps(a, b);
}
INLINE vf vf_mul(vf a, vf b) {
    return _mm512_mul_ps(a, b);
}
INLINE vf vf_div(vf a, vf b) {
    return _mm512_div_ps(a, b);
}
INLINE vf vf_max(vf a, vf b) {
    return _mm512_max_ps(a, b);
}
INLINE vf vf_min(vf a, vf b) {
    return _mm512_min_ps(a, b);
}
INLINE vf vf_abs(vf a) {
    return _mm512_abs_ps(a);
}
/* a * b + c, rounded once */
INLINE vf vf_fma(vf a, vf b, vf c) {
    return _mm512_fmadd_ps(a, b, c);
}
INLINE vf vf_round(vf a) {
    return _mm512_roundscale_ps(a, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
}
/*
 * a * 2^n for whole n; 0 below 2^-126, as the steps of vf_exp() need it: a result that underflows
 * takes the processor more than a hundred cycles.
 */
INLINE vf vf_scale2(vf a, vf n) {
    __mmask16 normal = _mm512_cmp_ps_mask(n, _mm512_set1_ps(-127.0f), _CMP_GT_OQ);
    return _mm512_maskz_scalef_ps(normal, a, n);
}
/* Sums and maxima over lanes, in the order of lanes_sum(). */
#define VF_ACROSS
INLINE float vf_sum_across(vf x) {
    __m256 half = _mm256_add_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 part = _mm_add_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    part = _mm_add_ps(part, _mm_movehl_ps(part, part));
    return _mm_cvtss_f32(_mm_add_ss(part, _mm_shuffle_ps(part, part, 1)));
}
INLINE float vf_max_across(vf x) {
    __m256 half = _mm256_max_ps(_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1));
    __m128 part = _mm_max_ps(_mm256_castps256_ps128(half), _mm256_extractf128_ps(half, 1));
    part = _mm_max_ps(part, _mm_movehl_ps(part, part));
    return _mm_cvtss_f32(_mm_max_ss(part, _mm_shuffle_ps(part, part, 1)));
}
INLINE vf vf_load_f16(const uint16_t *p) {
    return _mm512_cvtph_ps(_mm256_loadu_si256((const __m256i *)(const void *)p));
}
INLINE vf vf_load_i8(const int8_t *p) {
    return _mm512_cvtepi32_ps(
        _mm512_cvtepi8_epi32(_mm_loadu_si128((const __m128i *)(const void *)p)));
}
INLINE void vf_store_f16(uint16_t *p, vf x) {
    _mm256_storeu_si256((__m256i *)(void *)p,
                        _mm512_cvtps_ph(x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC));
}
INLINE vf vf_load_bf16(const uint16_t *p) {
    __m512i wide = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i *)(const void *)p));
    return _mm512_castsi512_ps(_mm512_slli_epi32(wide, 16));
}
/* out[i] = (int32_t) x[i] for x within int32_t, rounded to nearest even */
INLINE void vf_store_int(int32_t *p, vf x) {
    _mm512_storeu_si512(p, _mm512_cvtps_epi32(x));
}

INLINE vw vw_load(const void *p) {
    return _mm512_loadu_si512(p);
}
/* Low and high halves of every byte. */
INLINE vw vw_low4(vw w) {
    return _mm512_and_si512(w, _mm512_set1_epi8(15));
}
INLINE vw vw_high4(vw w) {
    return _mm512_and_si512(_mm512_srli_epi16(w, 4), _mm512_set1_epi8(15));
}
/* Of every byte the high half, where it is. */
INLINE vw vw_upper4(vw w) {
    return _mm512_and_si512(w, _mm512_set1_epi8((char)0xf0));
}
INLINE void vw_store(void *p, vw w) {
    _mm512_storeu_si512(p, w);
}
/* table[16] at every byte's number below 16 */
INLINE vw vw_table(const uint8_t *table) {
    return _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)(const void *)table));
}
INLINE vw vw_lookup(vw table, vw numbers) {
    return _mm512_shuffle_epi8(table, numbers);
}
/* Bytes of a and b in turns: of each 16 the first eight, and the last eight. */
INLINE vw vw_zip_low(vw a, vw b) {
    return _mm512_unpacklo_epi8(a, b);
}
INLINE vw vw_zip_high(vw a, vw b) {
    return _mm512_unpackhi_epi8(a, b);
}
/* The reverse: of each 16 bytes of a, then of b, those with even numbers and those with odd ones.
 */
INLINE vw vw_even_bytes(vw a, vw b) {
    __m512i lower = _mm512_set1_epi16(255);
    return _mm512_packus_epi16(_mm512_and_si512(a, lower), _mm512_and_si512(b, lower));
}
INLINE vw vw_odd_bytes(vw a, vw b) {
    return _mm512_packus_epi16(_mm512_srli_epi16(a, 8), _mm512_srli_epi16(b, 8));
}
INLINE vw vw_or(vw a, vw b) {
    return _mm512_or_si512(a, b);
}
/* pair[at], of 64 numbers of 16 bits, = value */
INLINE void vw_put(vw pair[2], int at, uint16_t value) {
    uint64_t mask = (uint64_t)1 << at;
    pair[0] = _mm512_mask_set1_epi16(pair[0], (__mmask32)mask, (short)value);
    pair[1] = _mm512_mask_set1_epi16(pair[1], (__mmask32)(mask >> 32), (short)value);
}
/* The codes of upper bytes, mln_cpu_code_of(), in the low half of each byte or in the high one. */
INLINE vw vw_codes(vw upper, int high) {
    __m512i exponent = _mm512_and_si512(upper, _mm512_set1_epi8(7));
    __m512i sign = _mm512_and_si512(upper, _mm512_set1_epi8((char)0x80));
    return high ? _mm512_or_si512(_mm512_slli_epi32(exponent, 4), sign)
                : _mm512_or_si512(exponent, _mm512_srli_epi32(sign, 4));
}
INLINE int vw_same(vw a, vw b) {
    return _mm512_cmpneq_epi64_mask(a, b) == 0;
}

/* Of 16 pairs of bfloat16 the first ones and the second ones. */
INLINE vf vw_first(vw w) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(w, 16));
}
INLINE vf vw_second(vw w) {
    return _mm512_castsi512_ps(_mm512_and_si512(w, _mm512_set1_epi32((int)0xffff0000u)));
}

#ifdef __AVX512BF16__
/* 32 floats, to nearest even; subnormal ones are zeros. */
INLINE void p_pack(void *to, vf first, vf second) {
    __m512bh halves = _mm512_cvtne2ps_pbh(second, first);
    memcpy(to, &halves, sizeof halves);
}
#ifndef T_DOT
/* Pairs of bfloat16: lane l adds the products of its pair of weights and a pair of activations. */
#define P_DOT
/* By name: GCC 12 copies the accumulator twice around the instruction of _mm512_dpbf16_ps(). */
INLINE vf p_dot(vf acc, vw weights, vw x) {
    __asm__("vdpbf16ps %2, %1, %0" : "+v"(acc) : "v"(weights), "v"(x));
    return acc;
}
INLINE vw p_broadcast(const float *x) {
    int32_t pair;
    memcpy(&pair, x, sizeof pair);
    return _mm512_set1_epi32(pair);
}
#endif
#endif

/*
 * Fours of codes: lane l adds codes[4l .. 4l+3] times a part of four activations, exactly: all of
 * them, or with Q_PARTS 2 a byte of each.
 */
typedef __m512i qv;
INLINE qv q_zero(void) {
    return _mm512_setzero_si512();
}
INLINE qv q_add(qv a, qv b) {
    return _mm512_add_epi32(a, b);
}
INLINE qv q_sub(qv a, qv b) {
    return _mm512_sub_epi32(a, b);
}
/* Of a multiple of 16. */
INLINE qv q_sixteenth(qv a) {
    return _mm512_srai_epi32(a, 4);
}
INLINE vf q_float(qv sum) {
    return _mm512_cvtepi32_ps(sum);
}
INLINE __m512i q_broadcast(const unsigned char *x) {
    int32_t four;
    memcpy(&four, x, sizeof four);
    return _mm512_set1_epi32(four);
}

#ifdef __AVX512VNNI__
#define Q_PARTS 2
#define Q_PACK_LANES
INLINE void q_pack_lanes(unsigned char *to, int64_t stride, vf x, int bytes) {
    __m512i whole = _mm512_cvtps_epi32(x);
    __m512i upper = _mm512_srai_epi32(_mm512_add_epi32(whole, _mm512_set1_epi32(128)), 8);
    __m128i low = _mm512_cvtepi32_epi8(whole), high = _mm512_cvtepi32_epi8(upper);
    if (bytes == 1) {
        _mm_storeu_si32(to, low);
        _mm_storeu_si32(to + 4 * stride, _mm_shuffle_epi32(low, 1));
        _mm_storeu_si32(to + 8 * stride, _mm_shuffle_epi32(low, 2));
        _mm_storeu_si32(to + 12 * stride, _mm_shuffle_epi32(low, 3));
        return;
    }
    __m128i first = _mm_unpacklo_epi32(high, low), last = _mm_unpackhi_epi32(high, low);
    _mm_storel_epi64((__m128i *)(void *)to, first);
    _mm_storeh_pd((double *)(void *)(to + 8 * stride), _mm_castsi128_pd(first));
    _mm_storel_epi64((__m128i *)(void *)(to + 16 * stride), last);
    _mm_storeh_pd((double *)(void *)(to + 24 * stride), _mm_castsi128_pd(last));
}
/* By name: GCC 12 copies the accumulator twice around the instruction of _mm512_dpbusd_epi32(). */
INLINE qv q_dot(qv acc, vw codes, const unsigned char *x, int part) {
    __asm__("vpdpbusd %2, %1, %0" : "+v"(acc) : "v"(codes), "v"(q_broadcast(x + 4 * part)));
    return acc;
}
INLINE qv q_shift(qv high) {
    return _mm512_slli_epi32(high, 8);
}
#define Q_SETS 2
#define Q_CHAIN
#else
#define Q_PARTS 1
INLINE qv q_dot(qv acc, vw codes, const unsigned char *x, int part) {
    (void)part;
    __m512i even = _mm512_and_si512(codes, _mm512_set1_epi16(255));
    __m512i odd = _mm512_srli_epi16(codes, 8);
    acc = _mm512_add_epi32(acc, _mm512_madd_epi16(even, q_broadcast(x)));
    return _mm512_add_epi32(acc, _mm512_madd_epi16(odd, q_broadcast(x + 4)));
}
#endif

#endif
