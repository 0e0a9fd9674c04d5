/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention on tensor cores, for head_dim 128 and a cache of binary16: 16 queries (the heads of a
 * kv head, of one token or of neighbours) times the 64 keys of a split at a time. A split's scores
 * are one chain of products each, its weights are summed and multiplied with the values in the
 * order of the positions, and splits are put together in ascending order: split_kernel(), for which
 * a split is a block's work, and rows_kernel(), for which all of a query is a warp's, give the same
 * bits.
 */
#include <cuda_fp16.h>
#include <math.h>
#include <stdint.h>

#include "attention.cuh"
#include "tile_ops.cuh"

namespace {

constexpr int D = 128, kSplit = MLN_CUDA_SPLIT, kThreads = 128, kWarps = 4;
constexpr int kRows = 16; /* queries of a product */
constexpr float kLog2e = 1.44269504088896340736f;

/* Scores are kept as powers of two. */
__device__ float score_scale() {
    return kLog2e * 0.08838834764831845f; /* 1 / sqrt(128) */
}

/*
 * Columns d of a product are lane q's d = 32 v + 8 q .. + 7 in products 2 v and 2 v + 1, so that a
 * vector of 16 bytes is what a lane needs of a row for two of them.
 */
struct Row {
    uint4 v[4];
};

__device__ Row load_row(const __half *row, int q, bool there) {
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
__device__ void score(float c[4], const Row &low, const Row &high, const Row &key) {
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
__device__ float row_max(float x) {
    x = fmaxf(x, __shfl_xor_sync(~0u, x, 1));
    return fmaxf(x, __shfl_xor_sync(~0u, x, 2));
}

__device__ float row_sum(float x) {
    x += __shfl_xor_sync(~0u, x, 1);
    return x + __shfl_xor_sync(~0u, x, 2);
}

/* The sum of a split's weights of row lane / 4 (half 0) or lane / 4 + 8 (1). */
__device__ float weight_sum(const uint32_t a[4][4], int half) {
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
__device__ uint32_t halves(uint32_t a, uint32_t b, int i) {
    return __byte_perm(a, b, i == 0 ? 0x5410 : 0x7632);
}

/* What a query has seen so far: the largest score, and sum and values relative to it. */
struct Seen {
    float most, sum;
};

/* What the former, and the new, must be multiplied by. */
__device__ void join(Seen &seen, float most, float sum, float *before, float *now) {
    float larger = fmaxf(seen.most, most);
    *before = exp2f(seen.most - larger);
    *now = exp2f(most - larger);
    seen.most = larger;
    seen.sum = fmaf(sum, *now, seen.sum * *before);
}

__device__ const __half *split_of(const mln_cuda_attention &p, const mln_cuda_row &row, int part,
                                  int head, int split) {
    return cache_of<1>(p, row, part, head) + (int64_t)split * kSplit * D;
}

/* The block of a (token, kv head) that ends last puts the splits together. */
__device__ void combine_if_last(const mln_cuda_attention &p, int token, int head, int splits) {
    __shared__ bool last;
    int group = p.heads / p.kv_heads;
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0) {
        int32_t *done = p.done + token * p.kv_heads + head;
        last = atomicAdd(done, 1) == splits - 1;
        if (last)
            *done = 0; /* ready for the next layer */
    }
    __syncthreads();
    if (!last)
        return;
    __threadfence();
    int d = threadIdx.x;
    for (int h = 0; h < group; h++) {
        int64_t query = (int64_t)token * p.heads + head * group + h;
        const float *partial = p.partial + query * p.max_splits * (D + 2);
        Seen seen = {-INFINITY, 0.0f};
        float out = 0.0f;
#pragma unroll 4
        for (int s = 0; s < splits; s++) {
            const float *from = partial + (int64_t)s * (D + 2);
            float before, now;
            join(seen, __ldcg(from + D), __ldcg(from + D + 1), &before, &now);
            out = fmaf(__ldcg(from + d), now, out * before);
        }
        p.attended[query * D + d] = out / seen.sum;
    }
}

/* One split of one token for the query heads of one kv head; grid [kv_heads, splits, tokens]. */
__global__ void __launch_bounds__(kThreads) split_kernel(mln_cuda_attention p) {
    constexpr int PITCH = D + 8, WEIGHTS = kSplit + 8; /* of rows in shared memory */
    __shared__ __align__(16) float wide[kWarps][D];
    __shared__ __align__(16) __half queries[kRows][PITCH], weights[kRows][WEIGHTS];
    __shared__ __align__(16) __half own[2][D];
    __shared__ float mosts[kWarps][kRows];
    int head = blockIdx.x, split = blockIdx.y, token = blockIdx.z;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    int group = p.heads / p.kv_heads;
    dependency_launch();
    mln_cuda_row row = p.rows[token];
    int first = split * kSplit, count = min(kSplit, row.position + 1 - first);
    bool mine = p.own && count > 0 && row.position < first + kSplit;
    int valid = mine ? count - 1 : count; /* keys that earlier kernels have stored */
    const __half *keys = split_of(p, row, 0, head, split);
    const __half *values = split_of(p, row, 1, head, split);
    Row key[2];
    if (p.own) { /* else they may be those of the kernel that is waited for */
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int j = 16 * warp + 8 * i + g;
            key[i] = load_row(keys + j * D, q, j < valid);
        }
    }
    dependency_wait();
    if (count <= 0)
        return;
    if (!p.own) {
#pragma unroll
        for (int i = 0; i < 2; i++) {
            int j = 16 * warp + 8 * i + g;
            key[i] = load_row(keys + j * D, q, j < valid);
        }
    }
    /* This warp's values: d = 32 warp + 4 g .. + 3 of all keys. */
    uint2 value[4][4];
#pragma unroll
    for (int s = 0; s < 4; s++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int j = 16 * s + 2 * q + i % 2 + i / 2 * 8;
            value[s][i] = make_uint2(0, 0);
            if (j < valid)
                value[s][i] = *reinterpret_cast<const uint2 *>(values + j * D + 32 * warp + 4 * g);
        }
    const float *qkv = qkv_row(p, token);
    for (int h = warp; h < kRows; h += kWarps) {
        if (h < group)
            prepare_head(wide[warp], qkv + (head * group + h) * D, p.q_norm, p, token, 1.0f);
        __syncwarp();
        for (int d = lane; d < D; d += 32)
            queries[h][d] = h < group ? Cached<1>::put(wide[warp][d]) : __half(0.0f);
        __syncwarp();
    }
    if (mine && warp == kWarps - 1) {
        const float *k = qkv + (p.heads + head) * D, *v = k + p.kv_heads * D;
        __half *to = const_cast<__half *>(keys) + (row.position - first) * D;
        __half *to_value = const_cast<__half *>(values) + (row.position - first) * D;
        prepare_head(wide[warp], k, p.k_norm, p, token, 1.0f);
        __syncwarp();
        for (int d = lane; d < D; d += 32) {
            own[0][d] = to[d] = Cached<1>::put(wide[warp][d]);
            own[1][d] = to_value[d] = Cached<1>::put(v[d]);
        }
    }
    __syncthreads();
    if (mine) {
        int at = count - 1;
#pragma unroll
        for (int i = 0; i < 2; i++)
            if (16 * warp + 8 * i + g == at)
                key[i] = load_row(own[0], q, true);
#pragma unroll
        for (int s = 0; s < 4; s++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                if (16 * s + 2 * q + i % 2 + i / 2 * 8 == at)
                    value[s][i] = *reinterpret_cast<const uint2 *>(own[1] + 32 * warp + 4 * g);
    }
    Row low = load_row(queries[g], q, true), high = load_row(queries[g + 8], q, true);
    float c[2][4], most[2] = {-INFINITY, -INFINITY};
#pragma unroll
    for (int i = 0; i < 2; i++) {
        score(c[i], low, high, key[i]);
#pragma unroll
        for (int e = 0; e < 4; e++) {
            bool there = 16 * warp + 8 * i + 2 * q + e % 2 < count;
            c[i][e] = there ? c[i][e] * score_scale() : -INFINITY;
            most[e / 2] = fmaxf(most[e / 2], c[i][e]);
        }
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        most[half] = row_max(most[half]);
        if (q == 0)
            mosts[warp][g + 8 * half] = most[half];
    }
    __syncthreads();
#pragma unroll
    for (int half = 0; half < 2; half++) {
#pragma unroll
        for (int w = 0; w < kWarps; w++)
            most[half] = fmaxf(most[half], mosts[w][g + 8 * half]);
#pragma unroll
        for (int i = 0; i < 2; i++)
            *reinterpret_cast<__half2 *>(&weights[g + 8 * half][16 * warp + 8 * i + 2 * q]) =
                __floats2half2_rn(exp2f(c[i][2 * half] - most[half]),
                                  exp2f(c[i][2 * half + 1] - most[half]));
    }
    __syncthreads();
    uint32_t a[4][4];
#pragma unroll
    for (int s = 0; s < 4; s++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            a[s][i] = *reinterpret_cast<const uint32_t *>(
                &weights[g + i % 2 * 8][16 * s + 2 * q + i / 2 * 8]);
    float out[4][4]; /* product n has d = 32 warp + 4 column + n */
#pragma unroll
    for (int n = 0; n < 4; n++) {
        out[n][0] = out[n][1] = out[n][2] = out[n][3] = 0.0f;
#pragma unroll
        for (int s = 0; s < 4; s++) {
            uint32_t w[4];
#pragma unroll
            for (int i = 0; i < 4; i++)
                w[i] = n / 2 == 0 ? value[s][i].x : value[s][i].y;
            mma(out[n], a[s], halves(w[0], w[1], n % 2), halves(w[2], w[3], n % 2));
        }
    }
    int splits = row.position / kSplit + 1;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = weight_sum(a, half);
        int h = g + 8 * half;
        if (h >= group)
            continue;
        int64_t query = (int64_t)token * p.heads + head * group + h;
        float *to = splits == 1 ? p.attended + query * D
                                : p.partial + (query * p.max_splits + split) * (D + 2);
        to += 32 * warp + 8 * q; /* the only split: nothing to be put together */
#pragma unroll
        for (int n = 0; n < 4; n++) {
            float x = out[n][2 * half], y = out[n][2 * half + 1];
            to[n] = splits == 1 ? x / sum : x;
            to[4 + n] = splits == 1 ? y / sum : y;
        }
        if (splits > 1 && warp == 0 && q == 0) {
            to[D] = most[half];
            to[D + 1] = sum;
        }
    }
    if (splits > 1)
        combine_if_last(p, token, head, splits);
}

/*
 * All splits of 16 queries by one warp: the heads of a kv head, of 16 / group neighbours. Those of
 * one sequence are taken together, sequence after sequence. grid [tiles / 4, kv_heads].
 */
__global__ void __launch_bounds__(kThreads) rows_kernel(mln_cuda_attention p) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    int group = p.heads / p.kv_heads, head = blockIdx.y, each = kRows / group;
    int tile = (gridDim.x - 1 - blockIdx.x) * kWarps + warp; /* the longest first */
    int token = tile * each, end = min(token + each, p.tokens);
    int tokens[2], heads[2];
    bool there[2];
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int r = g + 8 * half;
        tokens[half] = token + r / group;
        heads[half] = head * group + r % group;
        there[half] = r / group < each && tokens[half] < p.tokens;
    }
    const __half *queries = static_cast<const __half *>(p.queries);
    while (token < end) {
        mln_cuda_row row = p.rows[token];
        int after = token + 1, longest = row.position;
        while (after < end && p.rows[after].cache == row.cache) {
            longest = max(longest, p.rows[after].position);
            after++;
        }
        Row query[2];
        int position[2]; /* -1: none of this sequence */
        Seen seen[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            bool mine = there[half] && tokens[half] >= token && tokens[half] < after;
            position[half] = mine ? p.rows[tokens[half]].position : -1;
            query[half] =
                load_row(queries + ((int64_t)tokens[half] * p.heads + heads[half]) * D, q, mine);
            seen[half] = Seen{-INFINITY, 0.0f};
        }
        float out[2][8][4]; /* product 8 h + n has d = 64 h + 8 column + n */
#pragma unroll
        for (int h = 0; h < 2; h++)
#pragma unroll
            for (int n = 0; n < 8; n++)
                out[h][n][0] = out[h][n][1] = out[h][n][2] = out[h][n][3] = 0.0f;
        for (int split = 0; split <= longest / kSplit; split++) {
            const __half *keys = split_of(p, row, 0, head, split);
            const __half *values = split_of(p, row, 1, head, split);
            int count = longest + 1 - split * kSplit;
            float c[8][4], most[2] = {-INFINITY, -INFINITY};
#pragma unroll
            for (int i = 0; i < 8; i++) {
                Row key = load_row(keys + (8 * i + g) * D, q, 8 * i + g < count);
                score(c[i], query[0], query[1], key);
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    bool seen_by = split * kSplit + 8 * i + 2 * q + e % 2 <= position[e / 2];
                    c[i][e] = seen_by ? c[i][e] * score_scale() : -INFINITY;
                    most[e / 2] = fmaxf(most[e / 2], c[i][e]);
                }
            }
            uint32_t a[4][4];
            float before[2] = {1.0f, 1.0f}, now[2] = {0.0f, 0.0f};
#pragma unroll
            for (int half = 0; half < 2; half++) {
                most[half] = row_max(most[half]);
                bool any = split * kSplit <= position[half]; /* the same in a row's lanes */
                float base = any ? most[half] : 0.0f;        /* 2^(-infinity) is 0 */
#pragma unroll
                for (int i = 0; i < 8; i++)
                    a[i / 2][half + i % 2 * 2] = as_word(__floats2half2_rn(
                        exp2f(c[i][2 * half] - base), exp2f(c[i][2 * half + 1] - base)));
                float sum = weight_sum(a, half);
                if (any)
                    join(seen[half], most[half], sum, &before[half], &now[half]);
            }
#pragma unroll
            for (int h = 0; h < 2; h++) {
                float part[8][4];
#pragma unroll
                for (int n = 0; n < 8; n++)
                    part[n][0] = part[n][1] = part[n][2] = part[n][3] = 0.0f;
#pragma unroll
                for (int s = 0; s < 4; s++) {
                    uint4 v[4];
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        int j = 16 * s + 2 * q + i % 2 + i / 2 * 8;
                        v[i] = make_uint4(0, 0, 0, 0);
                        if (j < count)
                            v[i] =
                                *reinterpret_cast<const uint4 *>(values + j * D + 64 * h + 8 * g);
                    }
#pragma unroll
                    for (int n = 0; n < 8; n++)
                        mma(part[n], a[s],
                            halves(word_of(v[0], n / 2), word_of(v[1], n / 2), n % 2),
                            halves(word_of(v[2], n / 2), word_of(v[3], n / 2), n % 2));
                }
#pragma unroll
                for (int n = 0; n < 8; n++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        out[h][n][e] = fmaf(part[n][e], now[e / 2], out[h][n][e] * before[e / 2]);
            }
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            if (position[half] < 0)
                continue;
            float *to = p.attended + ((int64_t)tokens[half] * p.heads + heads[half]) * D + 16 * q;
#pragma unroll
            for (int h = 0; h < 2; h++)
#pragma unroll
                for (int odd = 0; odd < 2; odd++)
#pragma unroll
                    for (int n = 0; n < 8; n++)
                        to[64 * h + 8 * odd + n] = out[h][n][2 * half + odd] / seen[half].sum;
        }
        token = after;
    }
}

template <typename Kernel>
cudaError_t launch(Kernel kernel, dim3 grid, const mln_cuda_attention &p, cudaStream_t stream) {
    cudaLaunchConfig_t config = {};
    config.gridDim = grid;
    config.blockDim = dim3(kThreads);
    config.stream = stream;
    cudaLaunchAttribute attribute;
    attribute.id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attribute.val.programmaticStreamSerializationAllowed = 1;
    config.attrs = &attribute;
    config.numAttrs = p.early ? 1 : 0;
    return cudaLaunchKernelEx(&config, kernel, p);
}

} // namespace

extern "C" int mln_cuda_attends_in_tiles(int half_cache, int32_t head_dim) {
    return half_cache && head_dim == D;
}

extern "C" int mln_cuda_attends_rows(int half_cache, int32_t head_dim, int32_t heads,
                                     int32_t kv_heads, int32_t tokens, int32_t splits) {
    int each = kRows / (heads / kv_heads);
    int64_t warps = (int64_t)(tokens + each - 1) / each * kv_heads;
    return mln_cuda_attends_in_tiles(half_cache, head_dim) &&
           (splits <= 16 ? warps >= 64 : warps >= 512);
}

extern "C" cudaError_t mln_cuda_attend_tiles_launch(const mln_cuda_attention *p,
                                                    cudaStream_t stream) {
    if (!p->in_rows)
        return launch(split_kernel,
                      dim3((unsigned)p->kv_heads, (unsigned)p->max_splits, (unsigned)p->tokens), *p,
                      stream);
    int each = kRows / (p->heads / p->kv_heads) * kWarps;
    return launch(rows_kernel,
                  dim3((unsigned)((p->tokens + each - 1) / each), (unsigned)p->kv_heads), *p,
                  stream);
}
