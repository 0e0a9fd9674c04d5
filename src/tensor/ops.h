/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The composed operations: what a forward pass is made of, one plain function each, in float32.
 * They are the oracle, so they are written to be read and to be the same everywhere: each output is
 * accumulated in one fixed order, whatever the number of rows, of threads, or the vector width.
 *
 * Activations are dense float32 arrays, written with their shape as name[rows, columns]; weights
 * are myelin_tensors of any dtype. Nothing here allocates or fails.
 */
#ifndef MLN_TENSOR_OPS_H
#define MLN_TENSOR_OPS_H

#include <stdint.h>

#include "myelin/plugin.h"
#include "myelin/tensor.h"

/*
 * Lanes of a dot product: lane l sums elements l, l + 16, l + 32, ... in that order; then a fixed
 * tree adds the lanes (l and l + 8, l and l + 4, ...).
 */
enum { MLN_DOT_LANES = 16 };

/* sum a[i] * b[i] in the fixed order above. */
float mln_dot(const float *a, const float *b, int64_t count);

/* out[tokens, H] = rows ids[] of weight[vocab, H]. */
void mln_embedding(float *out, const myelin_tensor *weight, const int32_t *ids, int64_t tokens);

/* out[r, :] = x[r, :] / sqrt(mean(x[r, :]^2) + eps) * weight; out may be x. weight is [columns]. */
void mln_rms_norm(float *out, const float *x, const myelin_tensor *weight, int64_t rows,
                  int64_t columns, double eps);

/*
 * out[rows, N] = x[rows, K] times the transpose of weight[N, K]: each output is the mln_dot() of a
 * row of x and a row of the weight converted to float32. Parallel over the rows of the weight.
 */
void mln_linear(const myelin_host *host, float *out, const float *x, const myelin_tensor *weight,
                int64_t rows);

/*
 * Rotary position embedding, "rotate half": for each head and i < D/2, with c = cos[i], s = sin[i]
 * of the token's position,
 *   (x[i], x[i + D/2]) := (x[i] * c - x[i + D/2] * s,  x[i + D/2] * c + x[i] * s)
 * x[tokens, heads, D] in place; cos, sin [tokens, D/2].
 */
void mln_rope(float *x, const float *cos, const float *sin, int64_t tokens, int64_t heads,
              int64_t head_dim);

/* The keys and values of one layer of one sequence: [kv_heads, slots, D], dense. */
typedef struct mln_kv_view {
    const float *keys;
    const float *values;
    int64_t slots;        /* positions there is room for, of all sequences that lie there */
    const int32_t *pages; /* where those of this one are, page by page */
} mln_kv_view;

/* The slot that holds a position. */
static inline int64_t mln_kv_slot(const int32_t *pages, int64_t position) {
    return (int64_t)pages[position / MYELIN_PAGE_POSITIONS] * MYELIN_PAGE_POSITIONS +
           position % MYELIN_PAGE_POSITIONS;
}

typedef struct mln_attention_shape {
    int64_t heads;    /* query heads */
    int64_t kv_heads; /* divides heads */
    int64_t head_dim; /* D */
} mln_attention_shape;

/*
 * Causal attention with grouped heads over one sequence's cache, its positions 0 .. past+tokens-1
 * filled:
 *   out[t, h] = sum_j softmax_j(q[t, h] . keys[g, j] / sqrt(D)) values[g, j],  j = 0 .. past + t,
 *   g = h / (heads / kv_heads)
 * q, out [tokens, heads, D]; scores: scratch of heads * (past + tokens) floats. Parallel over
 * heads.
 */
void mln_attention(const myelin_host *host, float *out, const float *q, const mln_kv_view *cache,
                   mln_attention_shape shape, int64_t tokens, int64_t past, float *scores);

/*
 * out[count] = what a cache of a myelin_cache_type gives back of a key or value x[count]:
 *   AUTO, F32  x
 *   F16        x in binary16, the largest number instead of infinity and NaN
 *   INT8       q * scale, q = x * (127 / most) to the nearest whole number, even among equals,
 *              scale = most / 127, most = the largest |x|; NaN when a number of x is not finite, 0
 *              when 127 / most is above 3e38
 */
void mln_round_cached(float *out, const float *x, int64_t count, int32_t type);

/* gate[i] := silu(gate[i]) * up[i], silu(x) = x / (1 + exp(-x)). */
void mln_silu_mul(float *gate, const float *up, int64_t count);

/* x[i] += y[i] */
void mln_add_to(float *x, const float *y, int64_t count);

/* out[i] = x[i] - log(sum_j exp(x[j])), the sum in double; out may be x. */
void mln_log_softmax(float *out, const float *x, int64_t count);

/* Index of the largest value, the lowest among equals; NaN never wins (0 if all are NaN). */
int32_t mln_argmax(const float *x, int64_t count);

#endif
