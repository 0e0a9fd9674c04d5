/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What the kernels of native/qwen3_cpu promise, one number after the other: the same roundings in
 * the same order. A set of kernels either fuses every product with its sum, or none.
 */
#ifndef TESTS_NATIVE_SCALAR_MODEL_H
#define TESTS_NATIVE_SCALAR_MODEL_H

#include <stdbool.h>
#include <stdint.h>

#include "native/qwen3_cpu/kernels.h"

/* A panel of 32 rows as plain numbers; dense: weights; Q4, Q8: codes, scales and biases. */
typedef struct scalar_panel {
    mln_cpu_matrix matrix;
    float *weights;         /* [32][K]: of codes, what they stand for is scales * code + biases */
    uint8_t *codes;         /* [32][K] */
    float *scales, *biases; /* [32][G] */
    bool bytes;             /* Q4, Q8: activations are bytes, not 16 bits */
} scalar_panel;

/* Set before each call: whether the kernels under test fuse. */
extern bool scalar_fused;

float scalar_madd(float a, float b, float c); /* a * b + c */

/*
 * out[32] of one token x[K], and the bound of its distance from the sum without any rounding,
 * which is in exact[32].
 */
void scalar_times(float *out, double *exact, double *bound, const scalar_panel *panel,
                  const float *x);
/*
 * The first or second bfloat16 number of an activation cut in `pieces`, as the instructions make
 * them: subnormal ones are zeros.
 */
float scalar_piece(float x, int32_t pieces, int32_t which);
/* out[32] of one token cut in pieces, as tiles add (native/qwen3_cpu/tile_amx.h). */
void scalar_tiles(float *out, const scalar_panel *panel, const float *x, int32_t pieces);
void scalar_rms_norm(float *out, const float *x, const float *weight, int64_t n, float eps);
float scalar_silu_mul(float gate, float up);

#endif
