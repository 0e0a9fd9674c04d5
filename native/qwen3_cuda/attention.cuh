/* SPDX-License-Identifier: Apache-2.0 */
/* What the kernels of attention share. */
#ifndef MLN_CUDA_ATTENTION_CUH
#define MLN_CUDA_ATTENTION_CUH

#include <cuda_fp16.h>
#include <stdint.h>

#include "cuda_kernels.h"
#include "device.cuh"

template <int HALF> struct Cached;
template <> struct Cached<1> {
    typedef __half type;
    __device__ static float2 pair(const __half *p) {
        return __half22float2(*reinterpret_cast<const __half2 *>(p));
    }
    __device__ static float get(__half x) {
        return __half2float(x);
    }
    /* The largest number a half can hold instead of infinity. */
    __device__ static __half put(float x) {
        return __float2half_rn(fminf(fmaxf(x, -65504.0f), 65504.0f));
    }
};
template <> struct Cached<0> {
    typedef float type;
    __device__ static float2 pair(const float *p) {
        return *reinterpret_cast<const float2 *>(p);
    }
    __device__ static float get(float x) {
        return x;
    }
    __device__ static float put(float x) {
        return x;
    }
};

/* Keys (part 0) or values (part 1) of a kv head in one split: [SPLIT, D]. */
template <int HALF>
__device__ inline typename Cached<HALF>::type *
split_of(const mln_cuda_attention &p, const mln_cuda_row &row, int part, int head, int split) {
    int64_t index = ((int64_t)p.layer * 2 + part) * p.kv_heads + head;
    int64_t at = index * row.capacity + (int64_t)split * MLN_CUDA_SPLIT;
    if (row.pages)
        at = ((int64_t)row.pages[split] * p.layers * 2 * p.kv_heads + index) * MLN_CUDA_SPLIT;
    return reinterpret_cast<typename Cached<HALF>::type *>(row.cache) + at * p.head_dim;
}

/* out[D] = rotate(norm(x[D])) * scale by one warp; out may be shared memory. */
__device__ inline void prepare_head(float *out, const float *x, const float *norm,
                                    const mln_cuda_attention &p, int token, float scale) {
    int lane = threadIdx.x % 32, half = p.head_dim / 2;
    const float2 *angles = p.angles + (int64_t)token * half;
    float squares = 0.0f;
    for (int d = lane; d < p.head_dim; d += 32)
        squares = fmaf(x[d], x[d], squares);
    float factor = 1.0f / sqrtf(warp_sum(squares) / (float)p.head_dim + p.eps);
    for (int i = lane; i < half; i += 32) {
        float2 angle = angles[i]; /* cosine and sine */
        float c = angle.x, s = angle.y;
        float a = x[i] * factor * norm[i], b = x[i + half] * factor * norm[i + half];
        out[i] = (a * c - b * s) * scale;
        out[i + half] = (b * c + a * s) * scale;
    }
}

/*
 * Likewise of D 128 and scale 1, kept by the warp: lane l has d = l + 32 i. Nothing is read twice.
 */
struct PreparedHead {
    float x[4];

    __device__ PreparedHead(const float *from, const float *norm, const mln_cuda_attention &p,
                            int token) {
        int lane = threadIdx.x % 32;
        const float2 *angles = p.angles + (int64_t)token * 64;
        float weight[4], squares = 0.0f;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            x[i] = __ldcg(from + lane + 32 * i);
            weight[i] = norm[lane + 32 * i];
        }
#pragma unroll
        for (int i = 0; i < 4; i++)
            squares = fmaf(x[i], x[i], squares);
        float factor = 1.0f / sqrtf(warp_sum(squares) / 128.0f + p.eps);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float2 angle = angles[lane + 32 * i];
            float a = x[i] * factor * weight[i], b = x[i + 2] * factor * weight[i + 2];
            x[i] = a * angle.x - b * angle.y;
            x[i + 2] = b * angle.x + a * angle.y;
        }
    }
    __device__ void put(__half *to) const {
#pragma unroll
        for (int i = 0; i < 4; i++)
            to[threadIdx.x % 32 + 32 * i] = Cached<1>::put(x[i]);
    }
};

/*
 * Whether the block is the last of `count` that come here; it then sees what the others have
 * written. `done` counts them and is 0 again in the end, for the next layer.
 */
__device__ inline bool ends_last(int32_t *done, int count) {
    __shared__ bool last;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        last = atomicAdd(done, 1) == count - 1;
        if (last)
            *done = 0;
    }
    __syncthreads();
    if (last)
        __threadfence();
    return last;
}

__device__ inline const float *qkv_row(const mln_cuda_attention &p, int token) {
    return p.qkv + (int64_t)token * (p.heads + 2 * p.kv_heads) * p.head_dim;
}

#endif
