/* SPDX-License-Identifier: Apache-2.0 */
#include "scalar_model.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#if defined(__x86_64__)
#include <immintrin.h>
#endif

#define UNIT 0x1p-24 /* of rounding */

bool scalar_fused;

float scalar_madd(float a, float b, float c) {
    if (scalar_fused)
        return fmaf(a, b, c);
    float product = a * b;
    return product + c;
}

/* Columns ascending in one accumulator; an odd last column of bfloat16 is paired with a zero. */
static void dense_times(float *out, double *exact, double *bound, const scalar_panel *p,
                        const float *x) {
    int64_t columns = p->matrix.columns;
    for (int r = 0; r < MLN_CPU_PANEL; r++) {
        float sum = 0.0f;
        double magnitude = 0;
        exact[r] = 0;
        for (int64_t c = 0; c < columns; c++) {
            double product = (double)p->weights[r * columns + c] * (double)x[c];
            sum = scalar_madd(p->weights[r * columns + c], x[c], sum);
            exact[r] += product;
            magnitude += fabs(product);
        }
        if (p->matrix.kind >= MLN_CPU_BF16 && columns % 2 != 0)
            sum = scalar_madd(0.0f, 0.0f, sum);
        out[r] = sum;
        bound[r] = (double)(2 * columns + 2) * (UNIT * magnitude + 0x1p-149);
    }
}

/* A group of activations as whole numbers v of at most `limit`; the scale. */
static float quantize(int32_t *v, const float *x, int32_t group, float limit) {
    float largest = 0.0f;
    bool bad = false;
    memset(v, 0, (size_t)group * sizeof *v);
    for (int32_t i = 0; i < group; i++) {
        bad = bad || !isfinite(x[i]);
        largest = fabsf(x[i]) > largest ? fabsf(x[i]) : largest;
    }
    if (bad)
        return NAN;
    float inverse = limit / largest;
    if (largest == 0.0f || inverse > 3e38f)
        return 0.0f;
    for (int32_t i = 0; i < group; i++)
        v[i] = (int32_t)rintf(x[i] * inverse);
    return largest / limit;
}

static void codes_times(float *out, double *exact, double *bound, const scalar_panel *p,
                        const float *x) {
    int32_t group = p->matrix.group, v[128];
    int64_t columns = p->matrix.columns, groups = columns / group;
    for (int r = 0; r < MLN_CPU_PANEL; r++)
        out[r] = 0.0f, exact[r] = bound[r] = 0;
    for (int64_t g = 0; g < groups; g++) {
        float step = quantize(v, x + g * group, group, p->bytes ? 127.0f : 32639.0f);
        for (int r = 0; r < MLN_CPU_PANEL; r++) {
            float scale = p->scales[r * groups + g], bias = p->biases[r * groups + g];
            int32_t dot = 0, sum = 0;
            double lost = 0, magnitude = 0;
            for (int32_t i = 0; i < group; i++) {
                int32_t code = p->codes[r * columns + g * group + i];
                double weight = (double)scale * code + (double)bias;
                double of = (double)x[g * group + i];
                dot += code * v[i];
                sum += v[i];
                exact[r] += weight * of;
                lost += fabs(weight * (of - (double)step * v[i]));
                magnitude += (fabs((double)scale) * code + fabs((double)bias)) * fabs(of);
            }
            out[r] = scalar_madd((float)dot * step, scale, out[r]);
            out[r] = scalar_madd(bias, step * (float)sum, out[r]);
            bound[r] += lost + (double)(8 + 4 * groups) * (UNIT * magnitude + 0x1p-149);
        }
    }
}

/* To nearest even; subnormal numbers are zeros. */
static float to_bfloat16(float x) {
    uint32_t bits;
    if (isnan(x) || fabsf(x) < 0x1p-126f)
        return isnan(x) ? x : 0.0f * x;
    memcpy(&bits, &x, sizeof bits);
    bits = (bits + 0x7fffu + (bits >> 16 & 1u)) & 0xffff0000u;
    memcpy(&x, &bits, sizeof x);
    return x;
}

float scalar_piece(float x, int32_t pieces, int32_t which) {
    uint32_t bits;
    float upper;
    if (pieces == 1)
        return to_bfloat16(x);
    memcpy(&bits, &x, sizeof bits);
    bits &= 0xffff0000u;
    memcpy(&upper, &bits, sizeof upper);
    if (which == 0)
        return to_bfloat16(upper);
    return isinf(x) ? 0.0f : to_bfloat16(x - upper);
}

/* Zeros in place of subnormal numbers, read or written, until it is called with what it returned.
 */
static unsigned without_subnormals(unsigned former) {
#if defined(__x86_64__)
    unsigned before = _mm_getcsr();
    _mm_setcsr(former ? former : before | 0x8040u);
    return before;
#else
    return former;
#endif
}

/* Of 32 columns the even ones, and the odd ones, from zero; both added to the sum before. */
static float tile_sum(const float *w, const float *x, int64_t columns) {
    float sum = 0.0f;
    for (int64_t k = 0; k < columns; k += 32) {
        float of[2] = {0.0f, 0.0f};
        for (int64_t i = k; i < k + 32 && i < columns; i++)
            of[i % 2] = fmaf(w[i], x[i], of[i % 2]);
        sum += of[0] + of[1];
    }
    return sum;
}

void scalar_tiles(float *out, const scalar_panel *p, const float *x, int32_t pieces) {
    int64_t columns = p->matrix.columns;
    float *cut = malloc((size_t)columns * sizeof *cut);
    if (!cut)
        abort();
    for (int32_t which = 0; which < pieces; which++) {
        for (int64_t i = 0; i < columns; i++)
            cut[i] = scalar_piece(x[i], pieces, which);
        for (int r = 0; r < MLN_CPU_PANEL; r++) {
            unsigned before = without_subnormals(0);
            float sum = tile_sum(p->weights + r * columns, cut, columns);
            without_subnormals(before);
            out[r] = which == 0 ? sum : out[r] + sum;
        }
    }
    free(cut);
}

void scalar_times(float *out, double *exact, double *bound, const scalar_panel *panel,
                  const float *x) {
    if (panel->codes)
        codes_times(out, exact, bound, panel, x);
    else
        dense_times(out, exact, bound, panel, x);
}

void scalar_rms_norm(float *out, const float *x, const float *weight, int64_t n, float eps) {
    float lanes[MLN_CPU_LANES] = {0};
    int64_t whole = n - n % MLN_CPU_LANES;
    for (int64_t i = 0; i < whole; i++)
        lanes[i % MLN_CPU_LANES] = scalar_madd(x[i], x[i], lanes[i % MLN_CPU_LANES]);
    for (int half = MLN_CPU_LANES / 2; half > 0; half /= 2)
        for (int i = 0; i < half; i++)
            lanes[i] += lanes[i + half];
    for (int64_t i = whole; i < n; i++)
        lanes[0] += x[i] * x[i];
    float factor = 1.0f / sqrtf(lanes[0] / (float)n + eps);
    for (int64_t i = 0; i < n; i++)
        out[i] = x[i] * factor * weight[i];
}

/* For -88 <= x <= 88. */
static float scalar_exp(float x) {
    static const float factors[] = {1.0f / 720, 1.0f / 120, 1.0f / 24, 1.0f / 6, 0.5f, 1.0f, 1.0f};
    float n = rintf(x * 1.44269504088896341f);
    float r = scalar_madd(n, -0.693145751953125f, x);
    r = scalar_madd(n, -1.428606820309417232e-6f, r);
    float e = 1.0f / 5040;
    for (size_t i = 0; i < sizeof factors / sizeof *factors; i++)
        e = scalar_madd(e, r, factors[i]);
    return n < -126.0f ? 0.0f : ldexpf(e, (int)n);
}

float scalar_silu_mul(float gate, float up) {
    float negative = 0.0f - gate;
    negative = negative < 88.0f ? negative : 88.0f;
    negative = negative > -200.0f ? negative : -200.0f;
    return gate / (1.0f + scalar_exp(negative)) * up;
}
