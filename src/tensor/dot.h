/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The dot product of ops.h in parts, for loops that compute several at once: lanes that go on from
 * one stretch of the vectors to the next, and the tree that adds them up at the end.
 */
#ifndef MLN_TENSOR_DOT_H
#define MLN_TENSOR_DOT_H

#include <stdint.h>
#include <string.h>

#include "tensor/ops.h"

/* Four floats the compiler keeps in one register of any processor that has such. */
typedef float mln_f32x4 __attribute__((vector_size(16)));

/* MLN_DOT_TILE: how many dot products with one vector fill the registers with their lanes. */
enum { MLN_DOT_VECTORS = MLN_DOT_LANES / 4, MLN_DOT_TILE = 3 };

typedef struct mln_lanes {
    mln_f32x4 v[MLN_DOT_VECTORS]; /* lane l is v[l / 4][l % 4] */
} mln_lanes;

static inline mln_f32x4 mln_load_f32x4(const float *from) {
    mln_f32x4 v;
    memcpy(&v, from, sizeof v);
    return v;
}

/*
 * Adds a[0 .. count) * b_r[0 .. count) to lanes[r] for the n <= MLN_DOT_TILE vectors b_r = b + r *
 * stride. The count is a multiple of MLN_DOT_LANES, except in the last stretch. Inlined with a
 * constant n, the lanes stay in registers; what a lane sums up does not depend on n.
 */
static inline __attribute__((always_inline)) void mln_dot_stretch(mln_lanes *lanes, const float *a,
                                                                  const float *b, int64_t stride,
                                                                  int64_t count, int n) {
    mln_lanes sum[MLN_DOT_TILE];
    for (int r = 0; r < n; r++)
        sum[r] = lanes[r];
    int64_t whole = count - count % MLN_DOT_LANES;
    for (int64_t i = 0; i < whole; i += MLN_DOT_LANES)
        for (int k = 0; k < MLN_DOT_VECTORS; k++) {
            mln_f32x4 av = mln_load_f32x4(a + i + 4 * k);
            for (int r = 0; r < n; r++)
                sum[r].v[k] += av * mln_load_f32x4(b + r * stride + i + 4 * k);
        }
    for (int r = 0; r < n; r++)
        lanes[r] = sum[r];
    for (int r = 0; r < n; r++)
        for (int64_t i = whole; i < count; i++)
            lanes[r].v[(i - whole) / 4][(i - whole) % 4] += a[i] * b[r * stride + i];
}

/* The same for any n. */
static inline void mln_dot_stretches(mln_lanes *lanes, const float *a, const float *b,
                                     int64_t stride, int64_t count, int64_t n) {
    int64_t r = 0;
    for (; r + MLN_DOT_TILE <= n; r += MLN_DOT_TILE)
        mln_dot_stretch(lanes + r, a, b + r * stride, stride, count, MLN_DOT_TILE);
    for (; r < n; r++)
        mln_dot_stretch(lanes + r, a, b + r * stride, stride, count, 1);
}

/* The tree. */
static inline float mln_dot_total(const mln_lanes *lanes) {
    mln_f32x4 eight[2] = {lanes->v[0] + lanes->v[2], lanes->v[1] + lanes->v[3]};
    mln_f32x4 four = eight[0] + eight[1];
    return (four[0] + four[2]) + (four[1] + four[3]);
}

#endif
