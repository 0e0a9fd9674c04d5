/* SPDX-License-Identifier: Apache-2.0 */
/* Rotary embedding, the KV cache, and attention over it in splits at fixed positions. */
#include <cuda_fp16.h>
#include <float.h>
#include <stdint.h>

#include "attention.cuh"

namespace {

constexpr int kThreads = 128, kSplit = MLN_CUDA_SPLIT;

/* angles[token, D / 2]: cosine and sine of each token's position */
__global__ void angles_kernel(float2 *angles, const mln_cuda_row *rows, const float *inv_freq,
                              float scale, int half) {
    for (int i = threadIdx.x; i < half; i += blockDim.x) {
        float angle = (float)rows[blockIdx.x].position * inv_freq[i];
        angles[(int64_t)blockIdx.x * half + i] =
            make_float2(cosf(angle) * scale, sinf(angle) * scale);
    }
}

/*
 * Key and value of one token and kv head into the cache; with `queries`, the query of one head to
 * where tensor cores read it. One warp a (token, head).
 */
template <int HALF> __global__ void prepare_kernel(mln_cuda_attention p) {
    extern __shared__ float keys[];
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, D = p.head_dim;
    int index = blockIdx.x * (blockDim.x / 32) + warp;
    int each = p.kv_heads + (p.queries ? p.heads : 0);
    dependency_launch();
    dependency_wait();
    if (index >= p.tokens * each)
        return;
    int token = index / each, head = index % each;
    mln_cuda_row row = p.rows[token];
    float *key = keys + warp * D;
    if (head >= p.kv_heads) {
        head -= p.kv_heads;
        prepare_head(key, qkv_row(p, token) + head * D, p.q_norm, p, token, 1.0f);
        __syncwarp();
        __half *to = static_cast<__half *>(p.queries) + ((int64_t)token * p.heads + head) * D;
        for (int d = lane; d < D; d += 32)
            to[d] = Cached<1>::put(key[d]);
        return;
    }
    const float *k = qkv_row(p, token) + (p.heads + head) * D, *v = k + p.kv_heads * D;
    prepare_head(key, k, p.k_norm, p, token, 1.0f);
    __syncwarp();
    int split = row.position / kSplit, at = row.position % kSplit * D;
    auto *to_key = split_of<HALF>(p, row, 0, head, split) + at;
    auto *to_value = split_of<HALF>(p, row, 1, head, split) + at;
    for (int d = lane; d < D; d += 32) {
        to_key[d] = Cached<HALF>::put(key[d]);
        to_value[d] = Cached<HALF>::put(v[d]);
    }
}

/* The same for a cache of binary16 and D 128. */
__global__ void __launch_bounds__(128) prepare_128_kernel(mln_cuda_attention p) {
    constexpr int D = 128;
    int index = blockIdx.x * 4 + (int)threadIdx.x / 32, lane = threadIdx.x % 32;
    int each = p.kv_heads + (p.queries ? p.heads : 0);
    dependency_launch();
    dependency_wait();
    if (index >= p.tokens * each)
        return;
    int token = index / each, head = index % each;
    const float *qkv = qkv_row(p, token);
    if (head >= p.kv_heads) {
        head -= p.kv_heads;
        PreparedHead query(qkv + head * D, p.q_norm, p, token);
        query.put(static_cast<__half *>(p.queries) + ((int64_t)token * p.heads + head) * D);
        return;
    }
    mln_cuda_row row = p.rows[token];
    const float *k = qkv + (p.heads + head) * D, *v = k + p.kv_heads * D;
    int split = row.position / kSplit, at = row.position % kSplit * D;
    PreparedHead key(k, p.k_norm, p, token);
    key.put(split_of<1>(p, row, 0, head, split) + at);
    __half *to = split_of<1>(p, row, 1, head, split) + at;
#pragma unroll
    for (int d = 0; d < D; d += 32)
        to[lane + d] = Cached<1>::put(v[lane + d]);
}

/* attended[d] of one (token, head): its splits put together in ascending order. */
__device__ float combined(const mln_cuda_attention &p, int token, int head, int splits, int d) {
    int stride = p.head_dim + 2;
    const float *partial = p.partial + (int64_t)(token * p.heads + head) * p.max_splits * stride;
    float most = -INFINITY, out = 0.0f, sum = 0.0f;
    for (int s = 0; s < splits; s++)
        most = fmaxf(most, __ldcg(partial + s * stride + p.head_dim));
    for (int s = 0; s < splits; s++) {
        float weight = expf(__ldcg(partial + s * stride + p.head_dim) - most);
        out = fmaf(__ldcg(partial + s * stride + d), weight, out);
        sum = fmaf(__ldcg(partial + s * stride + p.head_dim + 1), weight, sum);
    }
    return out / sum;
}

/*
 * The block of a (token, kv head) that ends last puts all splits together. Which one that is makes
 * no difference: the order of the sum is by position.
 */
__device__ void combine_if_last(const mln_cuda_attention &p, int token, int head, int splits) {
    int group = p.heads / p.kv_heads;
    if (!ends_last(p.done + token * p.kv_heads + head, splits))
        return;
    for (int i = threadIdx.x; i < group * p.head_dim; i += blockDim.x)
        p.attended[(int64_t)(token * p.heads + head * group) * p.head_dim + i] =
            combined(p, token, head * group + i / p.head_dim, splits, i % p.head_dim);
}

/* One split of one token's positions for the query heads of one kv head; grid [kv_heads, splits,
 * tokens]. Shared: q [group][D], scores [group][SPLIT], key and value of the own position [2][D].
 */
template <int HALF>
__global__ void __launch_bounds__(kThreads) attend_kernel(mln_cuda_attention p) {
    extern __shared__ float shared[];
    int head = blockIdx.x, split = blockIdx.y, token = blockIdx.z;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, D = p.head_dim;
    int group = p.heads / p.kv_heads;
    dependency_wait();
    dependency_launch();
    mln_cuda_row row = p.rows[token];
    int first = split * kSplit, count = min(kSplit, row.position + 1 - first);
    if (count <= 0)
        return;
    float *q = shared, *scores = q + group * D, *own = scores + group * kSplit;
    bool mine = p.own && row.position < first + kSplit; /* the own position is in this split */
    const float *qkv = qkv_row(p, token);
    float scale = 1.0f / sqrtf((float)D);
    for (int h = warp; h < group; h += kThreads / 32)
        prepare_head(q + h * D, qkv + (head * group + h) * D, p.q_norm, p, token, scale);
    auto *keys = split_of<HALF>(p, row, 0, head, split);
    auto *values = split_of<HALF>(p, row, 1, head, split);
    if (mine) {
        const float *k = qkv + (p.heads + head) * D, *v = k + p.kv_heads * D;
        if (warp == kThreads / 32 - 1) {
            prepare_head(own, k, p.k_norm, p, token, 1.0f);
            __syncwarp();
        }
        __syncthreads();
        int at = (row.position - first) * D;
        for (int d = threadIdx.x; d < D; d += kThreads) {
            auto key = Cached<HALF>::put(own[d]), value = Cached<HALF>::put(v[d]);
            keys[at + d] = key;
            values[at + d] = value;
        }
    }
    __syncthreads(); /* the writes to the cache are seen by this block's reads after it */
    for (int j = warp; j < count; j += kThreads / 32) {
        const auto *key = keys + j * D;
        float dot[MLN_CUDA_MAX_GROUP];
#pragma unroll
        for (int h = 0; h < MLN_CUDA_MAX_GROUP; h++)
            dot[h] = 0.0f;
        for (int i = 2 * lane; i < D; i += 64) {
            float2 k = Cached<HALF>::pair(key + i);
#pragma unroll
            for (int h = 0; h < MLN_CUDA_MAX_GROUP; h++)
                if (h < group) {
                    dot[h] = fmaf(k.x, q[h * D + i], dot[h]);
                    dot[h] = fmaf(k.y, q[h * D + i + 1], dot[h]);
                }
        }
#pragma unroll
        for (int h = 0; h < MLN_CUDA_MAX_GROUP; h++)
            if (h < group) {
                float sum = warp_sum(dot[h]);
                if (lane == 0)
                    scores[h * kSplit + j] = sum;
            }
    }
    __syncthreads();
    for (int h = warp; h < group; h += kThreads / 32) {
        float *s = scores + h * kSplit;
        float a = lane < count ? s[lane] : -INFINITY;
        float b = lane + 32 < count ? s[lane + 32] : -INFINITY;
        float largest = warp_max(fmaxf(a, b));
        a = lane < count ? expf(a - largest) : 0.0f;
        b = lane + 32 < count ? expf(b - largest) : 0.0f;
        s[lane] = a;
        s[lane + 32] = b;
        float sum = warp_sum(a + b);
        if (lane == 0) {
            float *state =
                p.partial +
                ((int64_t)(token * p.heads + head * group + h) * p.max_splits + split) * (D + 2) +
                D;
            state[0] = largest;
            state[1] = sum;
        }
    }
    __syncthreads();
    for (int d = threadIdx.x; d < D; d += kThreads) {
        float acc[MLN_CUDA_MAX_GROUP];
#pragma unroll
        for (int h = 0; h < MLN_CUDA_MAX_GROUP; h++)
            acc[h] = 0.0f;
#pragma unroll 8
        for (int j = 0; j < count; j++) {
            float v = Cached<HALF>::get(values[j * D + d]);
#pragma unroll
            for (int h = 0; h < MLN_CUDA_MAX_GROUP; h++)
                if (h < group)
                    acc[h] = fmaf(v, scores[h * kSplit + j], acc[h]);
        }
#pragma unroll
        for (int h = 0; h < MLN_CUDA_MAX_GROUP; h++)
            if (h < group)
                p.partial[((int64_t)(token * p.heads + head * group + h) * p.max_splits + split) *
                              (D + 2) +
                          d] = acc[h];
    }
    combine_if_last(p, token, head, row.position / kSplit + 1);
}

} // namespace

extern "C" cudaError_t mln_cuda_angles_launch(float2 *angles, const mln_cuda_row *rows,
                                              const float *inv_freq, float scale, int32_t half,
                                              int32_t tokens, cudaStream_t stream) {
    angles_kernel<<<(unsigned)tokens, 64, 0, stream>>>(angles, rows, inv_freq, scale, half);
    return cudaGetLastError();
}

extern "C" cudaError_t mln_cuda_prepare_launch(const mln_cuda_attention *p, cudaStream_t stream) {
    int warps = 4, count = p->tokens * (p->kv_heads + (p->queries ? p->heads : 0));
    dim3 grid((unsigned)((count + warps - 1) / warps));
    size_t shared = (size_t)(warps * p->head_dim) * sizeof(float);
    bool early = p->early != 0;
    if (p->half_cache && p->head_dim == 128)
        return launch_kernel(prepare_128_kernel, grid, 128, 0, early, *p, stream);
    return p->half_cache ? launch_kernel(prepare_kernel<1>, grid, 128, shared, early, *p, stream)
                         : launch_kernel(prepare_kernel<0>, grid, 128, shared, early, *p, stream);
}

extern "C" cudaError_t mln_cuda_attend_launch(const mln_cuda_attention *p, cudaStream_t stream) {
    int group = p->heads / p->kv_heads;
    if (mln_cuda_attends_in_tiles(p->half_cache, p->head_dim))
        return mln_cuda_attend_tiles_launch(p, stream);
    dim3 grid((unsigned)p->kv_heads, (unsigned)p->max_splits, (unsigned)p->tokens);
    size_t shared = (size_t)(group * (p->head_dim + kSplit) + 2 * p->head_dim) * sizeof(float);
    return p->half_cache
               ? launch_kernel(attend_kernel<1>, grid, kThreads, shared, p->early != 0, *p, stream)
               : launch_kernel(attend_kernel<0>, grid, kThreads, shared, p->early != 0, *p, stream);
}
