/* SPDX-License-Identifier: Apache-2.0 */
/* The queries of a piece: 16 a warp, of which a lane has parts of two. */
#ifndef MLN_CUDA_ATTEND_LINES_CUH
#define MLN_CUDA_ATTEND_LINES_CUH

#include <math.h>
#include <stdint.h>

#include "attend_sides.cuh"

namespace {

/* The block's piece: its first token and their number, whose sequence, and the keys they see. */
struct Piece {
    int2 tokens;
    mln_cuda_row row;
    int length, splits;

    __device__ Piece(const mln_cuda_attention &p)
        : tokens(p.pieces[gridDim.y - 1 - blockIdx.y]), /* the longest first, mostly */
          row(p.rows[tokens.x]), length(row.position + tokens.y),
          splits((length + kSplit - 1) / kSplit) {
    }
};

/* A lane's queries: rows lane / 4 and lane / 4 + 8 of its warp. */
struct Lines {
    int token[2], head[2], limit[2]; /* keys it sees from the present split on */
    bool there[2];
    Seen seen[2];
    float out[kChunks][4]; /* product n has d = 8 n .. 8 n + 7 */
};

__device__ inline void begin_lines(Lines &lines, const mln_cuda_attention &p, int2 piece) {
    int group = p.heads / p.kv_heads, each = kRows / group, lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int r = lane / 4 + 8 * half, t = (int)threadIdx.x / 32 * each + r / group;
        lines.there[half] = r / group < each && t < piece.y;
        lines.token[half] = piece.x + (lines.there[half] ? t : 0);
        lines.head[half] = blockIdx.x * group + r % group;
        lines.limit[half] = lines.there[half] ? p.rows[lines.token[half]].position + 1 : 0;
        lines.seen[half] = Seen{-INFINITY, 0.0f};
    }
#pragma unroll
    for (int n = 0; n < kChunks; n++)
        lines.out[n][0] = lines.out[n][1] = lines.out[n][2] = lines.out[n][3] = 0.0f;
}

/* 2^x as exp2f() has it, but for what becomes 0 as binary16. */
__device__ inline float weight_of(float x) {
    float weight;
    asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(weight) : "f"(x));
    return weight;
}

/* Where a prepared query is. */
__device__ inline const __half *query_of(const Lines &lines, const mln_cuda_attention &p,
                                         int half) {
    return static_cast<const __half *>(p.queries) +
           ((int64_t)lines.token[half] * p.heads + lines.head[half]) * D;
}

/* Weights as an operand of products with values. */
__device__ inline void pack_weights(uint32_t (&a)[4][4], const float (&c)[kSplit / 8][4]) {
#pragma unroll
    for (int n = 0; n < kSplit / 8; n++)
#pragma unroll
        for (int half = 0; half < 2; half++)
            a[n / 2][half + n % 2 * 2] =
                as_word(__floats2half2_rn(c[n][2 * half], c[n][2 * half + 1]));
}

/*
 * In place of the products c of queries and keys weights of a split's keys, which join what was
 * seen before. That is to be multiplied by before[], products of values with these by now[].
 */
__device__ inline void weigh(Lines &lines, float (&c)[kSplit / 8][4], float (&before)[2],
                             float (&now)[2]) {
    int q = threadIdx.x % 4;
    float most[2] = {-INFINITY, -INFINITY};
    bool all = __all_sync(~0u, min(lines.limit[0], lines.limit[1]) >= kSplit);
#pragma unroll
    for (int n = 0; n < kSplit / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            c[n][e] *= score_scale();
    if (!all) {
#pragma unroll
        for (int n = 0; n < kSplit / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                if (8 * n + 2 * q + e % 2 >= lines.limit[e / 2])
                    c[n][e] = -INFINITY;
    }
#pragma unroll
    for (int n = 0; n < kSplit / 8; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            most[e / 2] = fmaxf(most[e / 2], c[n][e]);
#pragma unroll
    for (int half = 0; half < 2; half++) {
        most[half] = row_max(most[half]);
        float base = lines.limit[half] > 0 ? most[half] : 0.0f; /* 2^-infinity is 0 */
#pragma unroll
        for (int n = 0; n < kSplit / 8; n++)
#pragma unroll
            for (int e = 2 * half; e < 2 * half + 2; e++)
                c[n][e] = weight_of(c[n][e] - base);
    }
    uint32_t a[4][4];
    pack_weights(a, c); /* their sum is of what they are rounded to */
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = weight_sum(a, half);
        before[half] = 1.0f;
        now[half] = 0.0f;
        if (lines.limit[half] > 0)
            join(lines.seen[half], most[half], sum, &before[half], &now[half]);
        lines.limit[half] -= kSplit;
    }
}

__device__ inline void end_lines(const Lines &lines, const mln_cuda_attention &p) {
    int q = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        if (!lines.there[half])
            continue;
        float *to =
            p.attended + ((int64_t)lines.token[half] * p.heads + lines.head[half]) * D + 2 * q;
#pragma unroll
        for (int n = 0; n < kChunks; n++)
            *reinterpret_cast<float2 *>(to + 8 * n) =
                make_float2(lines.out[n][2 * half] / lines.seen[half].sum,
                            lines.out[n][2 * half + 1] / lines.seen[half].sum);
    }
}

} // namespace

#endif
