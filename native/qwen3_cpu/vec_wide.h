/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sixteen lanes in several registers of VEC_BYTES bytes each (16 or 32), written with the
 * compiler's vector types: the portable kernels, and those of AVX2 and of NEON (VEC_NEON), which
 * say how a product is fused with a sum and how halves are widened. The portable ones fuse nothing,
 * so that they give the same bits on every processor.
 */
#ifndef MLN_CPU_VEC_WIDE_H
#define MLN_CPU_VEC_WIDE_H

#include <stdint.h>
#include <string.h>

#ifdef __F16C__
#include <immintrin.h>
#endif
#ifdef VEC_NEON
#include <arm_neon.h>
#endif

#include "half.h"

enum { VEC_PARTS = 64 / VEC_BYTES, PART_LANES = VEC_BYTES / 4 };
/* For a token or two there are so many loads that a processor guesses better alone. */
#define FETCH_DENSE MLN_CPU_FETCH_NONE

typedef float part_f __attribute__((vector_size(VEC_BYTES)));
typedef int32_t part_i __attribute__((vector_size(VEC_BYTES)));
typedef uint32_t part_u __attribute__((vector_size(VEC_BYTES)));
typedef int8_t part_c __attribute__((vector_size(VEC_BYTES / 4)));
typedef struct vf {
    part_f v[VEC_PARTS];
} vf;
typedef struct vw {
    part_u v[VEC_PARTS];
} vw;

#define EACH_PART _Pragma("GCC unroll 4") for (int p = 0; p < VEC_PARTS; p++)

INLINE part_f part_set1(float x) {
    return x - (part_f){0};
}
INLINE part_f part_select(part_i mask, part_f yes, part_f no) {
    return (part_f)((mask & (part_i)yes) | (~mask & (part_i)no));
}
INLINE part_f part_fma(part_f a, part_f b, part_f c) {
#if defined(__FMA__) && VEC_BYTES == 32
    return (part_f)_mm256_fmadd_ps((__m256)a, (__m256)b, (__m256)c);
#elif defined(VEC_NEON)
    return (part_f)vfmaq_f32((float32x4_t)c, (float32x4_t)a, (float32x4_t)b);
#else
    return a * b + c;
#endif
}
INLINE vf vf_set1(float x) {
    vf r;
    EACH_PART r.v[p] = part_set1(x);
    return r;
}
INLINE vf vf_zero(void) {
    vf r;
    EACH_PART r.v[p] = (part_f){0};
    return r;
}
INLINE vf vf_load(const float *from) {
    vf r;
    EACH_PART memcpy(&r.v[p], from + p * PART_LANES, VEC_BYTES);
    return r;
}
INLINE void vf_store(float *to, vf x) {
    EACH_PART memcpy(to + p * PART_LANES, &x.v[p], VEC_BYTES);
}
INLINE vf vf_add(vf a, vf b) {
    EACH_PART a.v[p] += b.v[p];
    return a;
}
INLINE vf vf_sub(vf a, vf b) {
    EACH_PART a.v[p] -= b.v[p];
    return a;
}
INLINE vf vf_mul(vf a, vf b) {
    EACH_PART a.v[p] *= b.v[p];
    return a;
}
INLINE vf vf_div(vf a, vf b) {
    EACH_PART a.v[p] /= b.v[p];
    return a;
}
/* Of a NaN and a number the second operand, as x86 has it. */
INLINE vf vf_max(vf a, vf b) {
    EACH_PART a.v[p] = part_select(a.v[p] > b.v[p], a.v[p], b.v[p]);
    return a;
}
INLINE vf vf_min(vf a, vf b) {
    EACH_PART a.v[p] = part_select(a.v[p] < b.v[p], a.v[p], b.v[p]);
    return a;
}
INLINE vf vf_abs(vf a) {
    EACH_PART a.v[p] = (part_f)((part_u)a.v[p] & 0x7fffffffu);
    return a;
}
INLINE vf vf_fma(vf a, vf b, vf c) {
    EACH_PART c.v[p] = part_fma(a.v[p], b.v[p], c.v[p]);
    return c;
}
/* To the nearest whole number, even among equals, for |x| < 2^22. */
INLINE vf vf_round(vf a) {
    const float magic = 12582912.0f; /* 1.5 * 2^23: its last bit counts ones */
    EACH_PART {
        part_f shifted = a.v[p] + part_set1(magic);
        a.v[p] = shifted - part_set1(magic);
    }
    return a;
}
/* a * 2^n for whole n; 0 below 2^-126, as the steps of vf_exp() need it. */
INLINE vf vf_scale2(vf a, vf n) {
    EACH_PART {
        part_f least = part_set1(-127.0f);
        part_f bounded = part_select(n.v[p] < least, least, n.v[p]);
        part_i exponent = __builtin_convertvector(bounded, part_i) + 127;
        a.v[p] *= (part_f)(exponent << 23);
    }
    return a;
}
INLINE vf vf_load_f16(const uint16_t *from) {
#if defined(__F16C__) && VEC_BYTES == 32
    vf r;
    EACH_PART r.v[p] =
        (part_f)_mm256_cvtph_ps(_mm_loadu_si128((const __m128i *)(const void *)(from + 8 * p)));
    return r;
#elif defined(VEC_NEON)
    vf r;
    EACH_PART r.v[p] = (part_f)vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from + 4 * p)));
    return r;
#else
    float wide[16];
    for (int i = 0; i < 16; i++)
        wide[i] = half_to_float(from[i]);
    return vf_load(wide);
#endif
}
INLINE vf vf_load_i8(const int8_t *from) {
    vf r;
#if defined(__AVX2__) && VEC_BYTES == 32
    EACH_PART r.v[p] = (part_f)_mm256_cvtepi32_ps(
        _mm256_cvtepi8_epi32(_mm_loadl_epi64((const __m128i *)(const void *)(from + 8 * p))));
#elif defined(VEC_NEON)
    EACH_PART {
        int16x8_t wide = vmovl_s8(vld1_s8(from + p / 2 * 8));
        int16x4_t half = p % 2 == 0 ? vget_low_s16(wide) : vget_high_s16(wide);
        r.v[p] = (part_f)vcvtq_f32_s32(vmovl_s16(half));
    }
#else
    EACH_PART {
        part_c codes;
        memcpy(&codes, from + p * PART_LANES, sizeof codes);
        r.v[p] = __builtin_convertvector(codes, part_f);
    }
#endif
    return r;
}
INLINE void vf_store_f16(uint16_t *to, vf x) {
#ifdef VEC_NEON
    EACH_PART vst1_u16(to + 4 * p, vreinterpret_u16_f16(vcvt_f16_f32((float32x4_t)x.v[p])));
#else
    float wide[16];
    vf_store(wide, x);
    for (int i = 0; i < 16; i++)
        to[i] = float_to_half(wide[i]);
#endif
}
INLINE vf vf_load_bf16(const uint16_t *from) {
    uint32_t wide[16];
    for (int i = 0; i < 16; i++)
        wide[i] = (uint32_t)from[i] << 16;
    vf r;
    memcpy(&r, wide, sizeof r);
    return r;
}
INLINE void vf_store_int(int32_t *to, vf x) {
    EACH_PART {
        part_i whole = __builtin_convertvector(x.v[p], part_i);
        memcpy(to + p * PART_LANES, &whole, VEC_BYTES);
    }
}

/* Register by register: copied as a whole it would go through the stack. */
INLINE vw vw_load(const void *from) {
    vw r;
    EACH_PART memcpy(&r.v[p], (const unsigned char *)from + p * VEC_BYTES, VEC_BYTES);
    return r;
}
INLINE vw vw_low4(vw w) {
    EACH_PART w.v[p] &= 0x0f0f0f0fu;
    return w;
}
INLINE vw vw_high4(vw w) {
    EACH_PART w.v[p] = w.v[p] >> 4 & 0x0f0f0f0fu;
    return w;
}
INLINE vw vw_upper4(vw w) {
    EACH_PART w.v[p] &= 0xf0f0f0f0u;
    return w;
}
INLINE void vw_store(void *to, vw w) {
    EACH_PART memcpy((unsigned char *)to + p * VEC_BYTES, &w.v[p], VEC_BYTES);
}

/* Each 16 bytes of these apart from the others, as the instructions of every processor have it. */
#if defined(__AVX2__) && VEC_BYTES == 32
typedef __m256i part_b;
INLINE part_b part_lookup(part_b table, part_b numbers) {
    return _mm256_shuffle_epi8(table, numbers);
}
INLINE part_b part_zip(part_b a, part_b b, int upper) {
    return upper ? _mm256_unpackhi_epi8(a, b) : _mm256_unpacklo_epi8(a, b);
}
INLINE part_b part_unzip(part_b a, part_b b, int odd) {
    __m256i lower = _mm256_set1_epi16(255);
    return odd ? _mm256_packus_epi16(_mm256_srli_epi16(a, 8), _mm256_srli_epi16(b, 8))
               : _mm256_packus_epi16(_mm256_and_si256(a, lower), _mm256_and_si256(b, lower));
}
#elif defined(VEC_NEON)
typedef uint8x16_t part_b;
INLINE part_b part_lookup(part_b table, part_b numbers) {
    return vqtbl1q_u8(table, numbers);
}
INLINE part_b part_zip(part_b a, part_b b, int upper) {
    return upper ? vzip2q_u8(a, b) : vzip1q_u8(a, b);
}
INLINE part_b part_unzip(part_b a, part_b b, int odd) {
    return odd ? vuzp2q_u8(a, b) : vuzp1q_u8(a, b);
}
#else
typedef uint8_t part_b __attribute__((vector_size(VEC_BYTES)));
/* Through memory: a vector's elements one by one cost more. */
INLINE part_b part_lookup(part_b table, part_b numbers) {
    uint8_t t[VEC_BYTES], n[VEC_BYTES];
    memcpy(t, &table, sizeof t);
    memcpy(n, &numbers, sizeof n);
    for (int i = 0; i < VEC_BYTES; i++)
        n[i] = t[n[i] & 15];
    memcpy(&numbers, n, sizeof n);
    return numbers;
}
INLINE part_b part_zip(part_b a, part_b b, int upper) {
    part_b r;
    for (int i = 0; i < VEC_BYTES / 2; i++) {
        r[2 * i] = a[i + upper * VEC_BYTES / 2];
        r[2 * i + 1] = b[i + upper * VEC_BYTES / 2];
    }
    return r;
}
INLINE part_b part_unzip(part_b a, part_b b, int odd) {
    uint8_t from[2 * VEC_BYTES], to[VEC_BYTES];
    memcpy(from, &a, sizeof a);
    memcpy(from + VEC_BYTES, &b, sizeof b);
    for (int i = 0; i < VEC_BYTES; i++)
        to[i] = from[2 * i + odd];
    memcpy(&a, to, sizeof to);
    return a;
}
#endif
/* table[16] at every byte's number below 16 */
INLINE vw vw_table(const uint8_t *table) {
    unsigned char all[sizeof(vw)];
    for (size_t i = 0; i < sizeof all / 16; i++)
        memcpy(all + 16 * i, table, 16);
    return vw_load(all);
}
INLINE vw vw_lookup(vw table, vw numbers) {
    EACH_PART numbers.v[p] = (part_u)part_lookup((part_b)table.v[p], (part_b)numbers.v[p]);
    return numbers;
}
/* Bytes of a and b in turns: of each 16 the first eight, and the last eight. */
INLINE vw vw_zip_low(vw a, vw b) {
    EACH_PART a.v[p] = (part_u)part_zip((part_b)a.v[p], (part_b)b.v[p], 0);
    return a;
}
INLINE vw vw_zip_high(vw a, vw b) {
    EACH_PART a.v[p] = (part_u)part_zip((part_b)a.v[p], (part_b)b.v[p], 1);
    return a;
}
/* The reverse: of each 16 bytes of a, then of b, those with even numbers and those with odd ones.
 */
INLINE vw vw_even_bytes(vw a, vw b) {
    EACH_PART a.v[p] = (part_u)part_unzip((part_b)a.v[p], (part_b)b.v[p], 0);
    return a;
}
INLINE vw vw_odd_bytes(vw a, vw b) {
    EACH_PART a.v[p] = (part_u)part_unzip((part_b)a.v[p], (part_b)b.v[p], 1);
    return a;
}
INLINE vw vw_or(vw a, vw b) {
    EACH_PART a.v[p] |= b.v[p];
    return a;
}
/* pair[at], of 64 numbers of 16 bits, = value; through memory, as it is rare */
INLINE void vw_put(vw pair[2], int at, uint16_t value) {
    uint16_t all[2 * sizeof(vw) / sizeof value];
    vw_store(all, pair[0]);
    vw_store(all + sizeof(vw) / sizeof value, pair[1]);
    all[at] = value;
    pair[0] = vw_load(all);
    pair[1] = vw_load(all + sizeof(vw) / sizeof value);
}
/* The codes of upper bytes, mln_cpu_code_of(), in the low half of each byte or in the high one. */
INLINE vw vw_codes(vw upper, int high) {
    EACH_PART {
        part_u exponent = upper.v[p] & 0x07070707u, sign = upper.v[p] & 0x80808080u;
        upper.v[p] = high ? exponent << 4 | sign : exponent | sign >> 4;
    }
    return upper;
}
INLINE int vw_same(vw a, vw b) {
    part_u differ = {0};
    EACH_PART differ |= a.v[p] ^ b.v[p];
    uint64_t words[VEC_BYTES / 8];
    memcpy(words, &differ, sizeof words);
    for (int i = 1; i < VEC_BYTES / 8; i++)
        words[0] |= words[i];
    return words[0] == 0;
}

/* Of 16 pairs of bfloat16 the first ones and the second ones. */
INLINE vf vw_first(vw w) {
    vf r;
    EACH_PART r.v[p] = (part_f)(w.v[p] << 16);
    return r;
}
INLINE vf vw_second(vw w) {
    vf r;
    EACH_PART r.v[p] = (part_f)(w.v[p] & 0xffff0000u);
    return r;
}

/* Fours of codes: lane l adds codes[4l .. 4l+3] times four activations, exactly. */
#ifdef VEC_NEON
#include "dot_neon.h"
#else
#define Q_PARTS 1

typedef struct qv {
    part_i sum[VEC_PARTS];
} qv;
INLINE qv q_zero(void) {
    qv r;
    EACH_PART r.sum[p] = (part_i){0};
    return r;
}
INLINE qv q_add(qv a, qv b) {
    EACH_PART a.sum[p] += b.sum[p];
    return a;
}
INLINE qv q_sub(qv a, qv b) {
    EACH_PART a.sum[p] -= b.sum[p];
    return a;
}
INLINE qv q_sixteenth(qv a) {
    EACH_PART a.sum[p] >>= 4;
    return a;
}
INLINE vf q_float(qv sum) {
    vf r;
    EACH_PART r.v[p] = __builtin_convertvector(sum.sum[p], part_f);
    return r;
}
INLINE part_i pair_products(part_u codes, const unsigned char *x) {
    int16_t two[2];
    memcpy(two, x, sizeof two);
#if defined(__AVX2__) && VEC_BYTES == 32
    int32_t both;
    memcpy(&both, two, sizeof both);
    return (part_i)_mm256_madd_epi16((__m256i)codes, _mm256_set1_epi32(both));
#else
    return (part_i)(codes & 0xffffu) * two[0] + (part_i)(codes >> 16) * two[1];
#endif
}
INLINE qv q_dot(qv acc, vw codes, const unsigned char *x, int part) {
    (void)part;
    EACH_PART {
        acc.sum[p] += pair_products(codes.v[p] & 0x00ff00ffu, x);
        acc.sum[p] += pair_products(codes.v[p] >> 8 & 0x00ff00ffu, x + 4);
    }
    return acc;
}
#endif

#endif
