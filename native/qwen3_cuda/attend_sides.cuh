/* SPDX-License-Identifier: Apache-2.0 */
/* Keys and values of a split in shared memory, as attend_pieces.cu and attend_singles.cu keep them.
 */
#ifndef MLN_CUDA_ATTEND_SIDES_CUH
#define MLN_CUDA_ATTEND_SIDES_CUH

#include <cuda_fp16.h>
#include <stdint.h>

#include "attend_ops.cuh"

namespace {

constexpr int kSide = kSplit * D * 2; /* bytes of the keys, or the values, of a split */
constexpr int kChunks = 16;           /* 16-byte vectors of a row */

/* Where vector `chunk` of row j lies: neither eight rows nor two rows of four vectors collide. */
__device__ inline int vector_at(int j, int chunk) {
    return (j * kChunks + (chunk ^ ((j & 1) << 2 | (j >> 1 & 3)))) * 16;
}

/* Rows from `count` on are zeros: nothing is known of what is there. */
template <int THREADS> __device__ void copy_side(uint32_t to, const __half *from, int count) {
    constexpr int STEP = THREADS / kChunks; /* rows between those of a thread */
    int first = (int)threadIdx.x / kChunks, chunk = (int)threadIdx.x % kChunks;
    const __half *vector = from + first * D + chunk * 8;
#pragma unroll
    for (int j = 0; j < kSplit; j += STEP) {
        bool there = first + j < count;
        asm volatile(
            "cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to + vector_at(first + j, chunk)),
            "l"(there ? vector + j * D : from), "r"(there ? 16 : 0)
            : "memory");
    }
}

__device__ inline void commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

/* All but the last group of copies are done. */
__device__ inline void wait_but_one() {
    asm volatile("cp.async.wait_group 1;" ::: "memory");
}

/* Vector v of eight keys, from row `first` on, as two products want it. */
__device__ inline uint4 load_keys(const unsigned char *keys, int first, int v) {
    int lane = threadIdx.x % 32;
    return *reinterpret_cast<const uint4 *>(keys + vector_at(first + lane / 4, 4 * v + lane % 4));
}

/*
 * What score() gives for all keys of a split. Products that wait for each other are kept apart by
 * those of other keys.
 */
__device__ inline void score_all(float (&c)[kSplit / 8][4], const Row &low, const Row &high,
                                 const unsigned char *keys) {
    constexpr int GROUP = 4;
#pragma unroll
    for (int n = 0; n < kSplit / 8; n++)
        c[n][0] = c[n][1] = c[n][2] = c[n][3] = 0.0f;
#pragma unroll
    for (int v = 0; v < 4; v++) {
        uint32_t first[4] = {low.v[v].x, high.v[v].x, low.v[v].y, high.v[v].y};
        uint32_t second[4] = {low.v[v].z, high.v[v].z, low.v[v].w, high.v[v].w};
#pragma unroll
        for (int from = 0; from < kSplit / 8; from += GROUP) {
            uint4 key[GROUP];
#pragma unroll
            for (int i = 0; i < GROUP; i++)
                key[i] = load_keys(keys, 8 * (from + i), v);
#pragma unroll
            for (int i = 0; i < GROUP; i++)
                mma(c[from + i], first, key[i].x, key[i].y);
#pragma unroll
            for (int i = 0; i < GROUP; i++)
                mma(c[from + i], second, key[i].z, key[i].w);
        }
    }
}

/* Values of 16 keys and 16 columns, as two products want them. */
__device__ inline void load_values(uint32_t b[4], uint32_t at) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(b[0]), "=r"(b[1]), "=r"(b[2]), "=r"(b[3])
                 : "r"(at)
                 : "memory");
}

} // namespace

#endif
