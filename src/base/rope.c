/* SPDX-License-Identifier: Apache-2.0 */
#include "base/rope.h"

#include <math.h>

/* theta^(2i/D), every step rounded to float32. */
static float wavelength(double theta, int32_t i, int32_t head_dim) {
    float exponent = (float)(2 * i) / (float)head_dim;
    return (float)pow((double)(float)theta, (double)exponent);
}

/* The (fractional) dimension that turns `rotations` times over the original context. */
static double correction_dim(double rotations, const myelin_rope_config *rope, int32_t head_dim) {
    double two_pi = 2 * 3.14159265358979323846;
    double context = (double)rope->original_max_position_embeddings;
    return head_dim * log(context / (rotations * two_pi)) / (2 * log(rope->theta));
}

/*
 * YaRN: dimensions below `low` turn fast and keep their frequency, those above `high` are slowed
 * down by `factor`, and those between are mixed linearly.
 */
static void yarn_inv_freq(float *inv_freq, const myelin_rope_config *rope, int32_t head_dim) {
    double low = correction_dim(rope->beta_fast, rope, head_dim);
    double high = correction_dim(rope->beta_slow, rope, head_dim);
    if (rope->truncate) {
        low = floor(low);
        high = ceil(high);
    }
    low = low > 0 ? low : 0;
    high = high < head_dim - 1 ? high : head_dim - 1;
    if (low == high)
        high += 0.001; /* the width of the mix must not be 0 */
    for (int32_t i = 0; i < head_dim / 2; i++) {
        float length = wavelength(rope->theta, i, head_dim);
        float kept = 1.0f / length;
        float slowed = 1.0f / ((float)rope->factor * length);
        float ramp = ((float)i - (float)low) / (float)(high - low);
        ramp = ramp < 0.0f ? 0.0f : ramp > 1.0f ? 1.0f : ramp;
        float keep = 1.0f - ramp;
        inv_freq[i] = slowed * (1.0f - keep) + kept * keep;
    }
}

void mln_rope_inv_freq(float *inv_freq, const myelin_rope_config *rope, int32_t head_dim) {
    if (rope->type == MYELIN_ROPE_YARN) {
        yarn_inv_freq(inv_freq, rope, head_dim);
        return;
    }
    for (int32_t i = 0; i < head_dim / 2; i++)
        inv_freq[i] = 1.0f / wavelength(rope->theta, i, head_dim);
}

void mln_rope_angles(float *cos, float *sin, const float *inv_freq, const myelin_rope_config *rope,
                     int32_t head_dim, int32_t position) {
    float scale = (float)rope->attention_factor;
    for (int32_t i = 0; i < head_dim / 2; i++) {
        float angle = (float)position * inv_freq[i];
        cos[i] = cosf(angle) * scale;
        sin[i] = sinf(angle) * scale;
    }
}
