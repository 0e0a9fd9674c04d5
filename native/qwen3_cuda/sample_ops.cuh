/* SPDX-License-Identifier: Apache-2.0 */
/* What sample.cu and sample_wide.cu share: candidates and their order. */
#ifndef MLN_CUDA_SAMPLE_OPS_CUH
#define MLN_CUDA_SAMPLE_OPS_CUH

#include <float.h>
#include <stdint.h>

#define MLN_DRAW_FUNCTION __device__ inline
#include "base/draw.h"
#include "sample.h"

constexpr float kLeast = -INFINITY;

__device__ inline uint64_t word_of(float z, int32_t id) {
    uint32_t bits = __float_as_uint(z + 0.0f); /* there is one zero */
    bits = bits >> 31 ? ~bits : bits | 0x80000000u;
    return (uint64_t)bits << 32 | (uint32_t)~id;
}

__device__ inline float logit_of(uint64_t word) {
    uint32_t bits = (uint32_t)(word >> 32);
    return __uint_as_float(bits >> 31 ? bits & 0x7fffffffu : ~bits);
}

__device__ inline int32_t id_of(uint64_t word) {
    return (int32_t) ~(uint32_t)word;
}

__device__ inline mln_cuda_key better(mln_cuda_key a, mln_cuda_key b) {
    return a.key != b.key ? (a.key > b.key ? a : b) : (a.id < b.id ? a : b);
}

__device__ inline mln_cuda_key better_of_warp(mln_cuda_key mine) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2) {
        mln_cuda_key theirs = {__shfl_xor_sync(~0u, mine.key, offset),
                               __shfl_xor_sync(~0u, mine.id, offset)};
        mine = better(mine, theirs);
    }
    return mine;
}

/* Worse than any. */
__device__ inline mln_cuda_key no_key() {
    return {-INFINITY, INT32_MAX};
}

#endif
