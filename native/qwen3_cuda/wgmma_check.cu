/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Whether this device's wgmma adds up as its mma does, to the last bit. That is not documented, so
 * it is tried before anything depends on it: chains of 16 products of 16 columns that start from a
 * sum, with operands that show how a product is added up - of any size, subnormal, cancelling each
 * other, one much larger than the rest.
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

template <int N>
__global__ void __launch_bounds__(kThreads) check_kernel(uint32_t seed, int32_t *different) {
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
            *reinterpret_cast<uint32_t *>(tokens + token / 8 * 1024 +
                                          mln_wgmma_offset(token % 8, c)) =
                pair_at(seed ^ 0x5bd1e995u, kind, (uint32_t)token, c, false);
        }
        uint32_t a[4][4];
#pragma unroll
        for (int step = 0; step < 4; step++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                a[step][i] = pair_at(seed, kind, (uint32_t)(16 * warp + g + i % 2 * 8),
                                     16 * step + 2 * q + i / 2 * 8, true);
        asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
        __syncthreads();
        wgmma_fence();
        uint64_t b = wgmma_descriptor((uint32_t)__cvta_generic_to_shared(tokens));
#pragma unroll
        for (int step = 0; step < 4; step++)
            wgmma<N>(groups, a[step], b + 2 * step, 1);
        wgmma_commit();
        wgmma_wait<0>();
#pragma unroll
        for (int step = 0; step < 4; step++)
#pragma unroll
            for (int n = 0; n < N / 8; n++) {
                const unsigned char *from = tokens + n * 1024;
                int c = 16 * step + 2 * q;
                mma(single + 4 * n, a[step],
                    *reinterpret_cast<const uint32_t *>(from + mln_wgmma_offset(g, c)),
                    *reinterpret_cast<const uint32_t *>(from + mln_wgmma_offset(g, c + 8)));
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
    check_kernel<64><<<(unsigned)blocks, kThreads, 0, stream>>>(seed, different);
    check_kernel<128><<<(unsigned)blocks, kThreads, 0, stream>>>(seed + 1, different);
    return cudaGetLastError();
}
