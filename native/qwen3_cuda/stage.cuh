/* SPDX-License-Identifier: Apache-2.0 */
/* A row of activations on its way to the tensor cores. */
#ifndef MLN_CUDA_STAGE_CUH
#define MLN_CUDA_STAGE_CUH

#include <cuda_fp16.h>
#include <stdint.h>

#include "cuda_kernels.h"
#include "device.cuh"
#include "tile_ops.cuh"

constexpr int kStageThreads = 256;
constexpr int kStageBatch = 4; /* quads a thread asks for at once */

/* Four values of a row, zeros past its end. */
__device__ inline float4 load_quad(const float *x, int i, int columns) {
    if (4 * i + 3 < columns && columns % 4 == 0)
        return __ldcg(reinterpret_cast<const float4 *>(x) + i);
    return make_float4(4 * i < columns ? x[4 * i] : 0.0f, 4 * i + 1 < columns ? x[4 * i + 1] : 0.0f,
                       4 * i + 2 < columns ? x[4 * i + 2] : 0.0f,
                       4 * i + 3 < columns ? x[4 * i + 3] : 0.0f);
}

/* Those of quads base, base + THREADS, ... that there are. */
template <int THREADS = kStageThreads>
__device__ inline void load_quads(float4 (&v)[kStageBatch], const float *x, int base, int columns,
                                  int quads) {
#pragma unroll
    for (int u = 0; u < kStageBatch; u++)
        if (base + u * THREADS < quads)
            v[u] = load_quad(x, base + u * THREADS, columns);
}

/* The norm's weights to where stage_row() wants them: each thread its own. */
__device__ inline void stage_norm(float4 *wide, const float *norm, int columns, int quads) {
    if (norm)
        for (int i = threadIdx.x; i < quads; i += kStageThreads)
            wide[i] = load_quad(norm, i, columns);
}

/* The power of two that brings `most` near 2^14, as far as it can, and what undoes it. */
__device__ inline void powers_for(float most, float *up, float *down) {
    int exponent = 14 + 127 - (int)(__float_as_uint(most) >> 23);
    exponent = !(most > 0.0f) || exponent < -113 ? 0 : exponent > 126 ? 126 : exponent;
    *up = __uint_as_float((uint32_t)(127 + exponent) << 23);
    *down = __uint_as_float((uint32_t)(127 - exponent) << 23);
}

/* The largest of a warp's values, none of them negative: they order as whole numbers do. */
__device__ inline float warp_most(float x) {
    return __uint_as_float(__reduce_max_sync(~0u, __float_as_uint(x)));
}

/* The size of the largest of four. */
__device__ inline float largest_of(float4 v) {
    return fmaxf(fmaxf(fabsf(v.x), fabsf(v.y)), fmaxf(fabsf(v.z), fabsf(v.w)));
}

/*
 * One row of activations by so many threads, of which sync() is a barrier; with a norm their number
 * decides in which order squares are added. load(v, base) fetches quads base, base + THREADS, ...
 * of those there are; put(column, four values) receives them times the norm's weights (NULL: 1;
 * they may lie in `wide`) and a power of two. Returns what products with them are multiplied by.
 */
template <int THREADS = kStageThreads, typename Load, typename Put, typename Sync>
__device__ inline float stage_row(float4 *wide, const float4 *norm, int columns, int quads,
                                  float eps, Load load, Put put, Sync sync) {
    constexpr int WARPS = THREADS / 32;
    __shared__ __align__(16) float sums[WARPS], mosts[WARPS];
    float squares = 0.0f, most = 0.0f;
    for (int base = threadIdx.x; base < quads; base += kStageBatch * THREADS) {
        float4 v[kStageBatch];
        load(v, base);
#pragma unroll
        for (int u = 0; u < kStageBatch; u++) {
            int i = base + u * THREADS;
            if (i >= quads)
                break;
            if (norm) {
                squares = fmaf(v[u].x, v[u].x, squares);
                squares = fmaf(v[u].y, v[u].y, squares);
                squares = fmaf(v[u].z, v[u].z, squares);
                squares = fmaf(v[u].w, v[u].w, squares);
                float4 n = norm[i];
                v[u] = make_float4(v[u].x * n.x, v[u].y * n.y, v[u].z * n.z, v[u].w * n.w);
            }
            most = fmaxf(most, largest_of(v[u]));
            wide[i] = v[u];
        }
    }
    if (norm)
        squares = warp_sum(squares);
    most = warp_most(most);
    if (threadIdx.x % 32 == 0) {
        sums[threadIdx.x / 32] = squares;
        mosts[threadIdx.x / 32] = most;
    }
    sync();
    squares = sums[0];
    most = mosts[0];
#pragma unroll
    for (int i = 1; i < WARPS; i++) {
        squares += sums[i];
        most = fmaxf(most, mosts[i]);
    }
    float up, down;
    powers_for(most, &up, &down);
    for (int i = threadIdx.x; i < quads; i += THREADS) {
        float4 v = wide[i];
        __half2 a = __floats2half2_rn(v.x * up, v.y * up);
        __half2 b = __floats2half2_rn(v.z * up, v.w * up);
        put(4 * i, as_word(a), as_word(b));
    }
    return norm ? down * (1.0f / sqrtf(squares / (float)columns + eps)) : down;
}

/* Where a token's row lies among those of others: as tiles.h has it, or for warp groups. */
template <bool WGMMA> struct Fragments {
    unsigned char *to;
    int column, stride;

    __device__ Fragments(unsigned char *fragments, int token, int units)
        : to(fragments + (int64_t)(token / MLN_TOKEN_TILE) * units * MLN_TOKEN_UNIT_BYTES),
          column(token % MLN_TOKEN_TILE), stride(MLN_TOKEN_UNIT_BYTES) {
        if (WGMMA) {
            to = fragments + mln_wgmma_units(token, units) +
                 token % MLN_WGMMA_TOKENS / MLN_TOKEN_TILE * MLN_TOKEN_UNIT_BYTES;
            stride = MLN_TOKEN_UNIT_BYTES * (MLN_WGMMA_TOKENS / MLN_TOKEN_TILE);
        }
    }

    /* Columns k to k + 3. */
    __device__ void put(int k, uint32_t a, uint32_t b) const {
        unsigned char *unit = to + k / MLN_UNIT_COLUMNS * stride;
        int c = k % MLN_UNIT_COLUMNS;
        if (WGMMA) {
            *reinterpret_cast<uint2 *>(unit + mln_wgmma_offset(column, c)) = make_uint2(a, b);
            return;
        }
        *reinterpret_cast<uint32_t *>(unit + mln_token_offset(column, c)) = a;
        *reinterpret_cast<uint32_t *>(unit + mln_token_offset(column, c + 2)) = b;
    }

    /* Likewise of v times a power of two. */
    __device__ void put_quad(int k, float4 v, float up) const {
        put(k, as_word(__floats2half2_rn(v.x * up, v.y * up)),
            as_word(__floats2half2_rn(v.z * up, v.w * up)));
    }
};

/* A single row's quad to where the tensor cores read it. */
__device__ inline void put_single(unsigned char *packed, int k, uint32_t a, uint32_t b) {
    unsigned char *unit = packed + (unsigned)k / MLN_UNIT_COLUMNS * 128;
    int c = (int)((unsigned)k % MLN_UNIT_COLUMNS);
    *reinterpret_cast<uint32_t *>(unit + mln_single_offset(c)) = a;
    *reinterpret_cast<uint32_t *>(unit + mln_single_offset(c + 2)) = b;
}

#endif
