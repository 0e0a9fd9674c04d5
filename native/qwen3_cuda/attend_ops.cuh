/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention on tensor cores, for heads of 128 columns and splits of 64 keys: what attend_tiles.cu,
 * attend_pieces.cu and persist.cu share.
 */
#ifndef MLN_CUDA_ATTEND_OPS_CUH
#define MLN_CUDA_ATTEND_OPS_CUH

#include <cuda_fp16.h>
#include <math.h>
#include <stdint.h>

#include "attention.cuh"
#include "tile_ops.cuh"

namespace {

constexpr int D = 128, kSplit = MLN_CUDA_SPLIT, kWarps = 4;
constexpr int kRows = 16; /* queries of a product */
constexpr float kLog2e = 1.44269504088896340736f;

/* Scores are kept as powers of two. */
__device__ inline float score_scale() {
    return kLog2e * 0.08838834764831845f; /* 1 / sqrt(128) */
}

/*
 * Columns d of a product are lane q's d = 32 v + 8 q .. + 7 in products 2 v and 2 v + 1, so that a
 * vector of 16 bytes is what a lane needs of a row for two of them.
 */
struct Row {
    uint4 v[4];
};

__device__ inline Row load_row(const __half *row, int q, bool there) {
    Row r;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        r.v[i] = make_uint4(0, 0, 0, 0);
        if (there)
            r.v[i] = *reinterpret_cast<const uint4 *>(row + 32 * i + 8 * q);
    }
    return r;
}

/* Scores of 16 queries (rows lane / 4 and lane / 4 + 8) with eight keys. */
__device__ inline void score(float c[4], const Row &low, const Row &high, const Row &key) {
    c[0] = c[1] = c[2] = c[3] = 0.0f;
#pragma unroll
    for (int i = 0; i < 4; i++) {
        uint32_t first[4] = {low.v[i].x, high.v[i].x, low.v[i].y, high.v[i].y};
        mma(c, first, key.v[i].x, key.v[i].y);
        uint32_t second[4] = {low.v[i].z, high.v[i].z, low.v[i].w, high.v[i].w};
        mma(c, second, key.v[i].z, key.v[i].w);
    }
}

/* The largest, or the sum, of the four lanes of a row. */
__device__ inline float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

__device__ inline float row_sum(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

/* The sum of a split's weights of row lane / 4 (half 0) or lane / 4 + 8 (1). */
__device__ inline float weight_sum(const uint32_t a[4][4], int half) {
    float sum = 0.0f;
#pragma unroll
    for (int s = 0; s < 4; s++) {
        float2 x = __half22float2(as_half2(a[s][half]));
        float2 y = __half22float2(as_half2(a[s][half + 2]));
        sum += x.x;
        sum += x.y;
        sum += y.x;
        sum += y.y;
    }
    return row_sum(sum);
}

/* Halves i of two words as one: (a's, b's). */
__device__ inline uint32_t halves(uint32_t a, uint32_t b, int i) {
    return __byte_perm(a, b, i == 0 ? 0x5410 : 0x7632);
}

/* What a query has seen so far: the largest score, and sum and values relative to it. */
struct Seen {
    float most, sum;
};

/* What the former, and the new, must be multiplied by. */
__device__ inline void join(Seen &seen, float most, float sum, float *before, float *now) {
    float larger = fmaxf(seen.most, most);
    *before = exp2f(seen.most - larger);
    *now = exp2f(most - larger);
    seen.most = larger;
    seen.sum = fmaf(sum, *now, seen.sum * *before);
}

/* A warp's part of a split: 16 keys, and d = 32 warp + 4 lane / 4 .. + 3 of all its values. */
struct Part {
    Row keys[2];
    uint2 values[4][4];

    /* Zeros from `count` on. */
    __device__ void load_keys(const __half *from, int count) {
        int warp = threadIdx.x / 32 % kWarps, lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int j = 16 * warp + 8 * i + lane / 4;
            keys[i] = load_row(from + j * D, lane % 4, j < count);
        }
    }

    __device__ static int value_index(int step, int i) {
        return 16 * step + 2 * (threadIdx.x % 4) + i % 2 + i / 2 * 8;
    }

    __device__ void load_values(const __half *from, int count) {
        int warp = threadIdx.x / 32 % kWarps, lane = threadIdx.x % 32;
#pragma unroll
        for (int s = 0; s < 4; s++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                values[s][i] = make_uint2(0, 0);
                if (value_index(s, i) < count)
                    values[s][i] = *reinterpret_cast<const uint2 *>(from + value_index(s, i) * D +
                                                                    32 * warp + lane / 4 * 4);
            }
    }

    /* Position `at` is not in the cache yet. */
    __device__ void replace(const __half *key, const __half *value, int at) {
        int warp = threadIdx.x / 32 % kWarps, lane = threadIdx.x % 32;
#pragma unroll
        for (int i = 0; i < 2; i++)
            if (16 * warp + 8 * i + lane / 4 == at)
                keys[i] = load_row(key, lane % 4, true);
#pragma unroll
        for (int s = 0; s < 4; s++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (value_index(s, i) == at)
                    values[s][i] =
                        *reinterpret_cast<const uint2 *>(value + 32 * warp + lane / 4 * 4);
    }
};

/* What the warps of a block tell each other about a split. */
struct Exchange {
    __align__(16) __half weights[kRows][kSplit + 8];
    float mosts[kWarps][kRows];
};

/* Queries of rows lane / 4 and lane / 4 + 8, which see `limit` keys of the split, or none. */
struct Queries {
    Row low, high;
    int limit[2];
};

struct Result {
    float most[2], sum[2];
    float out[4][4]; /* product n has d = 32 warp + 4 column + n */
};

/*
 * One split by four warps, of which sync() is a barrier; then() is called once the keys have been
 * used.
 */
template <int HALVES = 2, typename Then, typename Sync>
__device__ Result attend(Exchange &exchange, const Queries &queries, const Part &part, Then then,
                         Sync sync) {
    int warp = threadIdx.x / 32 % kWarps, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    Result result;
    float c[2][4];
    result.most[0] = result.most[1] = -INFINITY;
#pragma unroll
    for (int i = 0; i < 2; i++) {
        score(c[i], queries.low, queries.high, part.keys[i]);
#pragma unroll
        for (int e = 0; e < 2 * HALVES; e++) {
            bool there = 16 * warp + 8 * i + 2 * q + e % 2 < queries.limit[e / 2];
            c[i][e] = there ? c[i][e] * score_scale() : -INFINITY;
            result.most[e / 2] = fmaxf(result.most[e / 2], c[i][e]);
        }
    }
    then();
#pragma unroll
    for (int half = 0; half < HALVES; half++) {
        result.most[half] = row_max(result.most[half]);
        if (q == 0)
            exchange.mosts[warp][g + 8 * half] = result.most[half];
    }
    sync();
#pragma unroll
    for (int half = 0; half < HALVES; half++) {
#pragma unroll
        for (int w = 0; w < kWarps; w++)
            result.most[half] = fmaxf(result.most[half], exchange.mosts[w][g + 8 * half]);
        float base = queries.limit[half] > 0 ? result.most[half] : 0.0f; /* 2^-infinity is 0 */
#pragma unroll
        for (int i = 0; i < 2; i++)
            *reinterpret_cast<__half2 *>(
                &exchange.weights[g + 8 * half][16 * warp + 8 * i + 2 * q]) =
                __floats2half2_rn(exp2f(c[i][2 * half] - base), exp2f(c[i][2 * half + 1] - base));
    }
    sync();
    uint32_t a[4][4];
#pragma unroll
    for (int s = 0; s < 4; s++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            a[s][i] = i % 2 >= HALVES
                          ? 0
                          : *reinterpret_cast<const uint32_t *>(
                                &exchange.weights[g + i % 2 * 8][16 * s + 2 * q + i / 2 * 8]);
#pragma unroll
    for (int n = 0; n < 4; n++)
        result.out[n][0] = result.out[n][1] = result.out[n][2] = result.out[n][3] = 0.0f;
#pragma unroll
    for (int s = 0; s < 4; s++)
#pragma unroll
        for (int n = 0; n < 4; n++) {
            uint32_t w[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                w[i] = n / 2 == 0 ? part.values[s][i].x : part.values[s][i].y;
            mma(result.out[n], a[s], halves(w[0], w[1], n % 2), halves(w[2], w[3], n % 2));
        }
    result.sum[0] = weight_sum(a, 0);
    if (HALVES == 2)
        result.sum[1] = weight_sum(a, 1);
    return result;
}

} // namespace

#endif
