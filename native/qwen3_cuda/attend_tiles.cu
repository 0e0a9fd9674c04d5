/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention on tensor cores, for head_dim 128 and a cache of binary16: 16 queries (the heads of a
 * kv head, of one token or of neighbours) times the 64 keys of a split at a time, by the four warps
 * of a block. A split's scores are one chain of products each, its weights are summed and
 * multiplied with the values in the order of the positions, and splits are put together in
 * ascending order. split_kernel(), a block for each split, and rows_kernel(), a block for all of
 * them, give the same bits.
 */
#include <cuda_fp16.h>
#include <math.h>
#include <stdint.h>

#include "attend_ops.cuh"

namespace {

constexpr int kThreads = 128;

/* The block of a (token, kv head) that ends last puts the splits together. */
__device__ void combine_if_last(const mln_cuda_attention &p, int token, int head, int splits) {
    int group = p.heads / p.kv_heads;
    if (!ends_last(p.done + token * p.kv_heads + head, splits))
        return;
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
    __shared__ __align__(16) float wide[kWarps][D];
    __shared__ __align__(16) __half queries[kRows][D + 8], own[2][D];
    __shared__ Exchange exchange;
    int head = blockIdx.x, split = blockIdx.y, token = blockIdx.z;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    int group = p.heads / p.kv_heads;
    dependency_launch();
    mln_cuda_row row = p.rows[token];
    int first = split * kSplit, count = min(kSplit, row.position + 1 - first);
    bool mine = p.own && count > 0 && row.position < first + kSplit;
    int valid = mine ? count - 1 : count; /* keys that earlier kernels have stored */
    int used = count > 0 ? split : 0;     /* more splits may be asked for than there are pages */
    const __half *keys = split_of<1>(p, row, 0, head, used);
    const __half *values = split_of<1>(p, row, 1, head, used);
    Part part;
    if (p.own) /* else they may be those of the kernel that is waited for */
        part.load_keys(keys, valid);
    dependency_wait();
    if (count <= 0)
        return;
    if (!p.own)
        part.load_keys(keys, valid);
    part.load_values(values, valid);
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
    if (mine)
        part.replace(own[0], own[1], count - 1);
    Queries mine_q = {
        load_row(queries[g], q, true), load_row(queries[g + 8], q, true), {count, count}};
    Result result = attend(
        exchange, mine_q, part, [] {}, BlockSync());
    int splits = row.position / kSplit + 1;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int h = g + 8 * half;
        if (h >= group)
            continue;
        int64_t query = (int64_t)token * p.heads + head * group + h;
        float *to = splits == 1 ? p.attended + query * D
                                : p.partial + (query * p.max_splits + split) * (D + 2);
        to += 32 * warp + 8 * q; /* the only split: nothing to be put together */
        float sum = result.sum[half];
#pragma unroll
        for (int n = 0; n < 4; n++) {
            float x = result.out[n][2 * half], y = result.out[n][2 * half + 1];
            to[n] = splits == 1 ? x / sum : x;
            to[4 + n] = splits == 1 ? y / sum : y;
        }
        if (splits > 1 && warp == 0 && q == 0) {
            to[D] = result.most[half];
            to[D + 1] = sum;
        }
    }
    if (splits > 1)
        combine_if_last(p, token, head, splits);
}

/* What a lane of rows_kernel() has of its queries rows lane / 4 and lane / 4 + 8. */
struct Mine {
    int token[2], head[2];
    bool there[2];
};

__device__ Mine rows_of(const mln_cuda_attention &p, int first, int each) {
    Mine mine;
    int group = p.heads / p.kv_heads;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int r = threadIdx.x % 32 / 4 + 8 * half;
        mine.token[half] = first + r / group;
        mine.head[half] = blockIdx.y * group + r % group;
        mine.there[half] = r / group < each && mine.token[half] < p.tokens;
    }
    return mine;
}

/*
 * All splits of 16 queries: the heads of a kv head, of 16 / group neighbours. Those of one sequence
 * are taken together, sequence after sequence. grid [tiles, kv_heads].
 */
__global__ void __launch_bounds__(kThreads, 3) rows_kernel(mln_cuda_attention p) {
    __shared__ Exchange exchange;
    int warp = threadIdx.x / 32, q = threadIdx.x % 4, head = blockIdx.y;
    int each = kRows / (p.heads / p.kv_heads);
    int token = (gridDim.x - 1 - blockIdx.x) * each; /* the longest first */
    int end = min(token + each, p.tokens);
    Mine mine = rows_of(p, token, each);
    const __half *prepared = static_cast<const __half *>(p.queries);
    while (token < end) {
        mln_cuda_row row = p.rows[token];
        int after = token + 1, longest = row.position;
        while (after < end && p.rows[after].cache == row.cache &&
               p.rows[after].pages == row.pages) {
            longest = max(longest, p.rows[after].position);
            after++;
        }
        Queries queries;
        Seen seen[2] = {{-INFINITY, 0.0f}, {-INFINITY, 0.0f}};
        bool there[2];
#pragma unroll
        for (int half = 0; half < 2; half++) {
            there[half] = mine.there[half] && mine.token[half] >= token && mine.token[half] < after;
            queries.limit[half] = there[half] ? p.rows[mine.token[half]].position + 1 : 0;
        }
        queries.low =
            load_row(prepared + ((int64_t)mine.token[0] * p.heads + mine.head[0]) * D, q, there[0]);
        queries.high =
            load_row(prepared + ((int64_t)mine.token[1] * p.heads + mine.head[1]) * D, q, there[1]);
        float out[4][4];
#pragma unroll
        for (int n = 0; n < 4; n++)
            out[n][0] = out[n][1] = out[n][2] = out[n][3] = 0.0f;
        Part part;
        part.load_keys(split_of<1>(p, row, 0, head, 0), longest + 1);
        for (int split = 0; split * kSplit <= longest; split++) {
            int count = longest + 1 - split * kSplit;
            part.load_values(split_of<1>(p, row, 1, head, split), count);
            auto next = [&] {
                if (count > kSplit)
                    part.load_keys(split_of<1>(p, row, 0, head, split + 1), count - kSplit);
            };
            Result result = attend(exchange, queries, part, next, BlockSync());
            float before[2] = {1.0f, 1.0f}, now[2] = {0.0f, 0.0f};
#pragma unroll
            for (int half = 0; half < 2; half++) {
                if (queries.limit[half] > 0)
                    join(seen[half], result.most[half], result.sum[half], &before[half],
                         &now[half]);
                queries.limit[half] -= kSplit;
            }
#pragma unroll
            for (int n = 0; n < 4; n++)
#pragma unroll
                for (int e = 0; e < 4; e++)
                    out[n][e] = fmaf(result.out[n][e], now[e / 2], out[n][e] * before[e / 2]);
        }
#pragma unroll
        for (int half = 0; half < 2; half++) {
            if (!there[half])
                continue;
            float *to = p.attended + ((int64_t)mine.token[half] * p.heads + mine.head[half]) * D +
                        32 * warp + 8 * q;
#pragma unroll
            for (int n = 0; n < 4; n++) {
                to[n] = out[n][2 * half] / seen[half].sum;
                to[4 + n] = out[n][2 * half + 1] / seen[half].sum;
            }
        }
        token = after;
    }
}

} // namespace

extern "C" int mln_cuda_attends_in_tiles(int half_cache, int32_t head_dim) {
    return half_cache && head_dim == D;
}

extern "C" int mln_cuda_attends_rows(int half_cache, int32_t head_dim, int32_t heads,
                                     int32_t kv_heads, int32_t tokens, int32_t splits) {
    int each = kRows / (heads / kv_heads);
    int64_t blocks = (int64_t)(tokens + each - 1) / each * kv_heads;
    return mln_cuda_attends_in_tiles(half_cache, head_dim) && tokens > 1 &&
           (splits <= 16 ? blocks >= 32 : blocks >= 128);
}

extern "C" cudaError_t mln_cuda_attend_tiles_launch(const mln_cuda_attention *p,
                                                    cudaStream_t stream) {
    if (p->singles)
        return mln_cuda_attend_singles_launch(p, stream);
    if (p->num_pieces)
        return mln_cuda_attend_pieces_launch(p, stream);
    if (!p->in_rows)
        return launch_kernel(
            split_kernel, dim3((unsigned)p->kv_heads, (unsigned)p->max_splits, (unsigned)p->tokens),
            kThreads, 0, p->early != 0, *p, stream);
    int each = kRows / (p->heads / p->kv_heads);
    return launch_kernel(rows_kernel,
                         dim3((unsigned)((p->tokens + each - 1) / each), (unsigned)p->kv_heads),
                         kThreads, 0, p->early != 0, *p, stream);
}
