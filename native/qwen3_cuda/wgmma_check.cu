/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether this device's wgmma adds up as its mma does, to the last bit. That is not documented, so
 * it is tried before anything depends on it: chains of 16 products of 16 columns that start from a
 * sum, with operands that show how a product is added up - of any size, subnormal, cancelling each
 * other, one much larger than the rest. So is whether it matters in which order a product has its
 * columns.
 */
#include <cuda_fp16.h>
#include <stdint.h>

#include "cuda_kernels.h"
#include "tile_ops.cuh"
#include "wgmma.cuh"

namespace {

constexpr int kThreads = 128, kChain = 4; /* units of 4 products in a chain */
constexpr int kKinds = MLN_CUDA_CHECKS;

__device__ uint32_t scramble(uint32_t x) {
    x ^= x >> 16;
    x *= 0x7feb352du;
    x ^= x >> 15;
    x *= 0x846ca68bu;
    return x ^ x >> 16;
}

/* A number of column `column`, the bits of a half, from random ones. */
__device__ uint32_t operand(int kind, uint32_t random, int column, bool weight) {
    uint32_t sign = random & 0x8000u, fraction = random & 0x3ffu, exponent = random >> 16 & 31u;
    exponent = exponent == 31 ? 30 : exponent;
    switch (kind) {
    case 0: /* near 1 */
        return sign | 15u << 10 | fraction;
    case 1: /* of any size */
        return sign | exponent << 10 | fraction;
    case 2: /* subnormal, or small */
        return sign | exponent % 3u << 10 | fraction;
    case 3: /* neighbours cancel, but for the last bits: the caller gives them the same bits */
        return (weight || column % 2 == 0 ? 0 : 0x8000u) | 12u + exponent % 6u << 10 |
               (fraction ^ (!weight && column % 2 && random >> 24 & 1u));
    case 4: /* one much larger than the others */
        return sign | (column % 16 == (int)(random >> 21 & 15u) ? 29u : exponent % 12u) << 10 |
               fraction;
    default: /* as weights and activations are: the largest near 2^14 */
        return sign | 20u + exponent % 9u << 10 | fraction;
    }
}

__device__ uint32_t random_at(uint32_t seed, int kind, uint32_t row, int column) {
    int which = kind == 3 ? column / 2 : column;
    return scramble(scramble(seed + row * 0x9e3779b9u) + (uint32_t)which * 0x85ebca6bu);
}

__device__ uint32_t pair_at(uint32_t seed, int kind, uint32_t row, int column, bool weight) {
    return operand(kind, random_at(seed, kind, row, column), column, weight) |
           operand(kind, random_at(seed, kind, row, column + 1), column + 1, weight) << 16;
}

/* How wgmma and mma have the same products. */
enum order {
    ALIKE,
    NEIGHBOURS, /* columns 4 q + i of 16 are mma's 2 q + i % 2 + 8 (i / 2), as attend_groups.cu has
                   keys */
    ACROSS      /* wgmma finds a column's numbers side by side, as it does values */
};

/* Where column c of token t of a unit lies. */
template <order ORDER> __device__ uint32_t place_of(int t, int c) {
    if (ORDER == ACROSS)
        return (uint32_t)(c * 128 + (t / 8 ^ c % 8) * 16 + t % 8 * 2);
    return (uint32_t)(t / 8 * 1024 + mln_wgmma_offset(t % 8, c));
}

template <int N, order ORDER>
__global__ void __launch_bounds__(kThreads) check_kernel(uint32_t seed, int32_t *different) {
    static_assert(ORDER != ACROSS || N == 64, "128 bytes a column");
    __shared__ __align__(1024) unsigned char tokens[N * 128];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    int kind = blockIdx.x % kKinds;
    seed = scramble(seed + blockIdx.x);
    float groups[N / 2], single[N / 2];
#pragma unroll
    for (int i = 0; i < N / 2; i++) { /* sums to begin with: none, or of any size */
        uint32_t random = scramble(seed ^ (threadIdx.x * (N / 2) + i));
        uint32_t exponent = 100 + (random >> 16) % 60;
        groups[i] = blockIdx.x / kKinds % 2
                        ? __uint_as_float((random & 0x80000000u) | exponent << 23 |
                                          (scramble(random) & 0x7fffffu))
                        : 0.0f;
        single[i] = groups[i];
    }
    for (int unit = 0; unit < kChain; unit++) {
        seed = scramble(seed);
        for (int i = threadIdx.x; i < N * 32; i += kThreads) {
            int token = i / 32, c = i % 32 * 2;
            uint32_t pair = pair_at(seed ^ 0x5bd1e995u, kind, (uint32_t)token, c, false);
            for (int e = 0; e < 2; e++)
                *reinterpret_cast<uint16_t *>(tokens + place_of<ORDER>(token, c + e)) =
                    (uint16_t)(pair >> 16 * e);
        }
        /* the first of two columns that a register has: of wgmma's operand, and of mma's */
        auto column = [&](order of, int step, int i) {
            return 16 * step + (of == NEIGHBOURS ? 4 * q + i / 2 * 2 : 2 * q + i / 2 * 8);
        };
        auto weights = [&](uint32_t(&to)[4], order of, int step) {
#pragma unroll
            for (int i = 0; i < 4; i++)
                to[i] = pair_at(seed, kind, (uint32_t)(16 * warp + g + i % 2 * 8),
                                column(of, step, i), true);
        };
        uint32_t a[4][4];
#pragma unroll
        for (int step = 0; step < 4; step++)
            weights(a[step], ALIKE, step);
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        __syncthreads();
        wgmma_fence();
        uint64_t b = wgmma_descriptor((uint32_t)__cvta_generic_to_shared(tokens));
#pragma unroll
        for (int step = 0; step < 4; step++)
            if constexpr (ORDER == ACROSS)
                wgmma_across(groups, a[step], b + 128 * step, 1);
            else
                wgmma<N>(groups, a[step], b + 2 * step, 1);
        wgmma_commit();
        wgmma_wait<0>();
#pragma unroll
        for (int step = 0; step < 4; step++) {
            uint32_t mine[4];
            weights(mine, ORDER, step);
            auto pair = [&](int n, int c) {
                auto half = [&](int at) {
                    return (uint32_t) * reinterpret_cast<const uint16_t *>(
                                            tokens + place_of<ORDER>(8 * n + g, at));
                };
                return half(c) | half(c + 1) << 16;
            };
#pragma unroll
            for (int n = 0; n < N / 8; n++)
                mma(single + 4 * n, mine, pair(n, column(ORDER, step, 0)),
                    pair(n, column(ORDER, step, 2)));
        }
        __syncthreads();
    }
    int count = 0;
#pragma unroll
    for (int i = 0; i < N / 2; i++) /* the bits, but one NaN is like another */
        count += __float_as_uint(groups[i]) != __float_as_uint(single[i]) &&
                 (groups[i] == groups[i] || single[i] == single[i]);
    if (count)
        atomicAdd(different + kind, count);
}

} // namespace

extern "C" cudaError_t mln_cuda_wgmma_check(uint32_t seed, int32_t blocks, int32_t *different,
                                            cudaStream_t stream) {
    check_kernel<64, ALIKE><<<(unsigned)blocks, kThreads, 0, stream>>>(seed, different);
    check_kernel<128, ALIKE><<<(unsigned)blocks, kThreads, 0, stream>>>(seed + 1, different);
    check_kernel<64, NEIGHBOURS><<<(unsigned)blocks, kThreads, 0, stream>>>(seed + 2, different);
    check_kernel<64, ACROSS><<<(unsigned)blocks, kThreads, 0, stream>>>(seed + 3, different);
    return cudaGetLastError();
}
