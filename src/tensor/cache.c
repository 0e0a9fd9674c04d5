/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "tensor/dtype.h"
#include "tensor/ops.h"

#define LARGEST_F16 65504.0f

static void round_int8(float *out, const float *x, int64_t count) {
    float most = 0.0f;
    bool finite = true;
    for (int64_t i = 0; i < count; i++) {
        finite = finite && isfinite(x[i]);
        most = fabsf(x[i]) > most ? fabsf(x[i]) : most;
    }
    bool tiny = most == 0.0f || 127.0f / most > 3e38f;
    float scale = !finite ? NAN : tiny ? 0.0f : most / 127.0f;
    float inverse = !finite || tiny ? 0.0f : 127.0f / most;
    for (int64_t i = 0; i < count; i++)
        out[i] = (finite ? rintf(x[i] * inverse) : 0.0f) * scale;
}

void mln_round_cached(float *out, const float *x, int64_t count, int32_t type) {
    if (type == MYELIN_CACHE_INT8) {
        round_int8(out, x, count);
        return;
    }
    if (type != MYELIN_CACHE_F16) {
        memcpy(out, x, (size_t)count * sizeof *out);
        return;
    }
    for (int64_t i = 0; i < count; i++) {
        uint16_t half;
        float bounded = x[i] < LARGEST_F16 ? x[i] : LARGEST_F16;
        bounded = bounded > -LARGEST_F16 ? bounded : -LARGEST_F16;
        mln_from_f32(&half, MYELIN_DTYPE_F16, &bounded, 1);
        mln_to_f32(&out[i], &half, MYELIN_DTYPE_F16, 1);
    }
}
