/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The arithmetic of a draw, the same to the last bit on every processor: which token is drawn is a
 * function of (logits, seed, position) wherever it is computed. So there is no library function in
 * it, whose last bit nobody promises, but integers and sums, products, quotients and conversions of
 * IEEE doubles, each rounded by itself in the order written; compile without contraction. Code for
 * a processor that wants its functions marked defines MLN_DRAW_FUNCTION before it includes this.
 */
#ifndef MLN_BASE_DRAW_H
#define MLN_BASE_DRAW_H

#include <stdint.h>
#include <string.h>

#ifndef MLN_DRAW_FUNCTION
#define MLN_DRAW_FUNCTION static inline
#endif

/* Masses are in units of 2^-38 of the likeliest token's: 2^24 of them add up to 2^62 at most. */
enum { MLN_DRAW_MASS_BITS = 38 };

/* ln 2 in two parts; the first times an exponent is exact. */
#define MLN_DRAW_LN2_HIGH 0x1.62e42fefap-1
#define MLN_DRAW_LN2_LOW  0x1.cf79abc9e3b39p-40

/* What a key can be above its logit, at most. */
#define MLN_DRAW_MOST_NOISE 36.8

/*
 * Philox4x32-10 (Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC 2011): four words
 * from a 64-bit key and a 128-bit counter.
 */
MLN_DRAW_FUNCTION void mln_philox(uint32_t out[4], uint64_t key, const uint32_t counter[4]) {
    uint32_t x[4] = {counter[0], counter[1], counter[2], counter[3]};
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * x[0];
        uint64_t b = (uint64_t)0xCD9E8D57u * x[2];
        x[0] = (uint32_t)(b >> 32) ^ x[1] ^ k0;
        x[1] = (uint32_t)b;
        x[2] = (uint32_t)(a >> 32) ^ x[3] ^ k1;
        x[3] = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    for (int i = 0; i < 4; i++)
        out[i] = x[i];
}

/* 53 bits as a number in (0, 1), never either end. */
MLN_DRAW_FUNCTION double mln_uniform_of(uint64_t bits) {
    double u = ((double)bits + 0.5) * 0x1p-53;
    return u < 1 ? u : 1 - 0x1p-53; /* the largest sum rounds up */
}

/* The random number of a token: the first 53 bits of philox(seed, (id, position, 0, 0)). */
MLN_DRAW_FUNCTION double mln_uniform(uint64_t seed, uint32_t position, uint32_t id) {
    uint32_t word[4], counter[4] = {id, position, 0, 0};
    mln_philox(word, seed, counter);
    uint64_t bits = (uint64_t)word[0] << 21 ^ word[1] >> 11;
    return mln_uniform_of(bits & ((UINT64_C(1) << 53) - 1));
}

/*
 * e^x for x up to 0, within 2^-51 of its size; 0 below -708 and for NaN. x is n ln 2 + r with r
 * within half of ln 2, and e^r its power series, whose fourteenth term no longer counts.
 */
MLN_DRAW_FUNCTION double mln_draw_exp(double x) {
    if (!(x >= -708))
        return 0;
    if (x >= 0)
        return 1;
    int64_t n = (int64_t)(x * 1.4426950408889634 - 0.5);
    double r = (x - (double)n * MLN_DRAW_LN2_HIGH) - (double)n * MLN_DRAW_LN2_LOW;
    double y = 1.0 / 6227020800.0;
    y = y * r + 1.0 / 479001600.0;
    y = y * r + 1.0 / 39916800.0;
    y = y * r + 1.0 / 3628800.0;
    y = y * r + 1.0 / 362880.0;
    y = y * r + 1.0 / 40320.0;
    y = y * r + 1.0 / 5040.0;
    y = y * r + 1.0 / 720.0;
    y = y * r + 1.0 / 120.0;
    y = y * r + 1.0 / 24.0;
    y = y * r + 1.0 / 6.0;
    y = y * r + 0.5;
    y = y * r + 1.0;
    y = y * r + 1.0;
    uint64_t bits = (uint64_t)(n + 1023) << 52;
    double power;
    memcpy(&power, &bits, sizeof power);
    return y * power;
}

/*
 * ln x for x positive and normal, within 2^-50 of its size. x is 2^n m with m between the roots of
 * 1/2 and 2, and ln m = 2 artanh s with s = (m - 1) / (m + 1), the series of which ends with s^23.
 */
MLN_DRAW_FUNCTION double mln_draw_log(double x) {
    uint64_t bits;
    memcpy(&bits, &x, sizeof bits);
    int64_t n = (int64_t)(bits >> 52) - 1023;
    bits = (bits & ((UINT64_C(1) << 52) - 1)) | UINT64_C(1023) << 52;
    double m;
    memcpy(&m, &bits, sizeof m);
    if (m > 1.4142135623730951) {
        m = m * 0.5;
        n++;
    }
    double s = (m - 1) / (m + 1), z = s * s;
    double y = 1.0 / 23.0;
    y = y * z + 1.0 / 21.0;
    y = y * z + 1.0 / 19.0;
    y = y * z + 1.0 / 17.0;
    y = y * z + 1.0 / 15.0;
    y = y * z + 1.0 / 13.0;
    y = y * z + 1.0 / 11.0;
    y = y * z + 1.0 / 9.0;
    y = y * z + 1.0 / 7.0;
    y = y * z + 1.0 / 5.0;
    y = y * z + 1.0 / 3.0;
    y = y * z + 1.0;
    return (double)n * MLN_DRAW_LN2_HIGH + ((double)n * MLN_DRAW_LN2_LOW + 2 * s * y);
}

/*
 * The probability of a token whose logit is `below` (up to 0) from the largest, not normalised and
 * in fixed point: such sums know no order.
 */
MLN_DRAW_FUNCTION uint64_t mln_draw_mass(double below) {
    if (!(below >= -28)) /* rounds to 0 */
        return 0;
    return (uint64_t)(mln_draw_exp(below) * (double)(UINT64_C(1) << MLN_DRAW_MASS_BITS) + 0.5);
}

/* Whether tokens of this mass together are not yet top_p of the total. */
MLN_DRAW_FUNCTION int mln_draw_lacks(uint64_t mass, uint64_t total, double top_p) {
    return (double)mass < top_p * (double)total;
}

/* Of the candidates, the one with the largest key is drawn, or the lowest id among equals. */
MLN_DRAW_FUNCTION double mln_draw_key(float logit, uint64_t seed, uint32_t position, uint32_t id) {
    return (double)logit - mln_draw_log(-mln_draw_log(mln_uniform(seed, position, id)));
}

#endif
