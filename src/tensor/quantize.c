/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/quantize.h"

#include <math.h>

/* What keeps the scale of a group of equal numbers away from zero; MLX's own figure. */
static const float least_scale = 1e-7f;

/* The range of a group; false when a number in it is not finite. */
static bool range_of(const float *group, int32_t size, float *low, float *high, int64_t *bad) {
    *low = *high = group[0];
    for (int32_t i = 0; i < size; i++) {
        if (!isfinite(group[i])) {
            *bad = i;
            return false;
        }
        *low = group[i] < *low ? group[i] : *low;
        *high = group[i] > *high ? group[i] : *high;
    }
    return true;
}

static void fit(float low, float high, float steps, float *scale, float *bias) {
    bool below = fabsf(low) > fabsf(high);
    float edge = below ? low : high;
    float step = (high - low) / steps;
    step = step > least_scale ? step : least_scale;
    *scale = below ? step : -step;
    *bias = 0;
    float whole = rintf(edge / *scale);
    if (whole != 0) {
        *scale = edge / whole;
        *bias = edge;
    }
}

static uint32_t code_of(float x, float scale, float bias, float steps) {
    float code = rintf((x - bias) / scale);
    return code <= 0 ? 0 : code >= steps ? (uint32_t)steps : (uint32_t)code;
}

bool mln_quantize_row(const float *row, int64_t columns, int32_t bits, int32_t group_size,
                      uint32_t *packed, float *scales, float *biases, int64_t *bad) {
    float steps = (float)((1 << bits) - 1);
    int32_t per_word = 32 / bits;
    for (int64_t first = 0; first < columns; first += group_size) {
        const float *group = row + first;
        float low, high, scale, bias;
        if (!range_of(group, group_size, &low, &high, bad)) {
            *bad += first;
            return false;
        }
        fit(low, high, steps, &scale, &bias);
        scales[first / group_size] = scale;
        biases[first / group_size] = bias;
        for (int32_t i = 0; i < group_size; i += per_word) {
            uint32_t word = 0;
            for (int32_t k = 0; k < per_word; k++)
                word |= code_of(group[i + k], scale, bias, steps) << k * bits;
            packed[(first + i) / per_word] = word;
        }
    }
    return true;
}
