/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/ops.h"

#include <math.h>
#include <string.h>

#include "tensor/dot.h"
#include "tensor/dtype.h"

float mln_dot(const float *a, const float *b, int64_t count) {
    mln_lanes lanes;
    memset(&lanes, 0, sizeof lanes);
    mln_dot_stretch(&lanes, a, b, 0, count, 1);
    return mln_dot_total(&lanes);
}

void mln_embedding(float *out, const myelin_tensor *weight, const int32_t *ids, int64_t tokens) {
    int64_t columns = weight->shape[1];
    for (int64_t t = 0; t < tokens; t++)
        mln_row_to_f32(out + t * columns, weight, ids[t], 0, columns);
}

void mln_rms_norm(float *out, const float *x, const myelin_tensor *weight, int64_t rows,
                  int64_t columns, double eps) {
    enum { STRETCH = 256 };
    size_t size = mln_dtype_size(weight->dtype);
    for (int64_t r = 0; r < rows; r++) {
        const float *row = x + r * columns;
        float *out_row = out + r * columns;
        float mean = mln_dot(row, row, columns) / (float)columns;
        float scale = 1.0f / sqrtf(mean + (float)eps);
        for (int64_t begin = 0; begin < columns; begin += STRETCH) {
            float w[STRETCH];
            int64_t count = columns - begin < STRETCH ? columns - begin : STRETCH;
            const char *from = (const char *)weight->data + (size_t)begin * size;
            mln_to_f32(w, from, weight->dtype, (size_t)count);
            for (int64_t i = 0; i < count; i++)
                out_row[begin + i] = w[i] * (row[begin + i] * scale);
        }
    }
}

void mln_rope(float *x, const float *cos, const float *sin, int64_t tokens, int64_t heads,
              int64_t head_dim) {
    int64_t half = head_dim / 2;
    for (int64_t t = 0; t < tokens; t++) {
        const float *c = cos + t * half, *s = sin + t * half;
        for (int64_t h = 0; h < heads; h++) {
            float *low = x + (t * heads + h) * head_dim;
            float *high = low + half;
            for (int64_t i = 0; i < half; i++) {
                float a = low[i], b = high[i];
                low[i] = a * c[i] - b * s[i];
                high[i] = b * c[i] + a * s[i];
            }
        }
    }
}

void mln_silu_mul(float *gate, const float *up, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        gate[i] = gate[i] / (1.0f + expf(-gate[i])) * up[i];
}

void mln_add_to(float *x, const float *y, int64_t count) {
    for (int64_t i = 0; i < count; i++)
        x[i] += y[i];
}

void mln_log_softmax(float *out, const float *x, int64_t count) {
    float largest = -INFINITY;
    for (int64_t i = 0; i < count; i++)
        largest = x[i] > largest ? x[i] : largest;
    double sum = 0;
    for (int64_t i = 0; i < count; i++)
        sum += exp((double)x[i] - (double)largest);
    double shift = (double)largest + log(sum);
    for (int64_t i = 0; i < count; i++)
        out[i] = (float)((double)x[i] - shift);
}

int32_t mln_argmax(const float *x, int64_t count) {
    int64_t best = 0;
    while (best + 1 < count && isnan(x[best]))
        best++;
    if (count > 0 && isnan(x[best]))
        return 0;
    for (int64_t i = best + 1; i < count; i++)
        if (x[i] > x[best])
            best = i;
    return (int32_t)best;
}
