/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Fours of codes times activations, or times a byte of them, with NEON, exactly: included by
 * vec_wide.h in place of its own. Four lanes a register, as the codes lie: byte 4l + j is lane l's
 * column j.
 */
#ifndef MLN_CPU_DOT_NEON_H
#define MLN_CPU_DOT_NEON_H

typedef struct qv {
    int32x4_t sum[VEC_PARTS];
#if defined(__ARM_FEATURE_DOTPROD) && !defined(__ARM_FEATURE_MATMUL_INT8)
    int32x4_t shift; /* the same in all lanes: what taking 128 from each code took from them */
#endif
} qv;

INLINE qv q_zero(void) {
    qv r;
    memset(&r, 0, sizeof r);
    return r;
}

#ifdef __ARM_FEATURE_DOTPROD
#define Q_PARTS 2
INLINE qv q_dot(qv acc, vw codes, const unsigned char *x, int part) {
    int32_t four;
    memcpy(&four, x + 4 * part, sizeof four);
    int8x16_t xs = vreinterpretq_s8_s32(vdupq_n_s32(four));
#ifdef __ARM_FEATURE_MATMUL_INT8
    EACH_PART acc.sum[p] = vusdotq_s32(acc.sum[p], (uint8x16_t)codes.v[p], xs);
#else
    EACH_PART {
        int8x16_t less = (int8x16_t)(codes.v[p] ^ 0x80808080u); /* code - 128 */
        acc.sum[p] = vdotq_s32(acc.sum[p], less, xs);
    }
    acc.shift = vdotq_s32(acc.shift, vdupq_n_s8(-128), xs);
#endif
    return acc;
}
INLINE int32x4_t q_sum(qv acc, int p) {
#ifdef __ARM_FEATURE_MATMUL_INT8
    return acc.sum[p];
#else
    return vsubq_s32(acc.sum[p], acc.shift);
#endif
}
INLINE qv q_shift(qv high) {
    qv r = q_zero();
    EACH_PART r.sum[p] = vshlq_n_s32(q_sum(high, p), 8);
    return r;
}
#else
#define Q_PARTS 1
INLINE int32x4_t q_sum(qv acc, int p) {
    return acc.sum[p];
}
INLINE int16x8_t q_broadcast(const unsigned char *x) {
    int32_t two;
    memcpy(&two, x, sizeof two);
    return vreinterpretq_s16_s32(vdupq_n_s32(two));
}
INLINE qv q_dot(qv acc, vw codes, const unsigned char *x, int part) {
    (void)part;
    int16x8_t xe = q_broadcast(x), xo = q_broadcast(x + 4);
    EACH_PART {
        int16x8_t even = (int16x8_t)(codes.v[p] & 0x00ff00ffu);
        int16x8_t odd = (int16x8_t)(codes.v[p] >> 8 & 0x00ff00ffu);
        int32x4_t lower = vmull_s16(vget_low_s16(even), vget_low_s16(xe));
        int32x4_t upper = vmull_high_s16(even, xe);
        lower = vmlal_s16(lower, vget_low_s16(odd), vget_low_s16(xo));
        upper = vmlal_high_s16(upper, odd, xo);
        acc.sum[p] = vaddq_s32(acc.sum[p], vpaddq_s32(lower, upper));
    }
    return acc;
}
#endif

INLINE qv q_add(qv a, qv b) {
    qv r = q_zero();
    EACH_PART r.sum[p] = vaddq_s32(q_sum(a, p), q_sum(b, p));
    return r;
}
INLINE qv q_sub(qv a, qv b) {
    qv r = q_zero();
    EACH_PART r.sum[p] = vsubq_s32(q_sum(a, p), q_sum(b, p));
    return r;
}
INLINE qv q_sixteenth(qv a) {
    qv r = q_zero();
    EACH_PART r.sum[p] = vshrq_n_s32(q_sum(a, p), 4);
    return r;
}
INLINE vf q_float(qv sum) {
    vf r;
    EACH_PART r.v[p] = (part_f)vcvtq_f32_s32(q_sum(sum, p));
    return r;
}

#endif
