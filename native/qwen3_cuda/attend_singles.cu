/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of one token each of many sequences: a block brings all keys and values of one kv head
 * to shared memory, three sides of splits at a time, and prepares the token's own. Each of its two
 * warps has all scores and half of the columns: one is not done in time, four spend more on scores
 * than they save. The sums are those of attend_tiles.cu to the last bit.
 */
#include <cuda_fp16.h>
#include <math.h>
#include <stdint.h>

#include "attend_sides.cuh"
#include "pieces.h"
#include "stage.cuh"

namespace {

constexpr int kSides = 3, kBytes = kSides * kSide;
constexpr int kOwnWarps = 2, kThreads = 32 * kOwnWarps, kBlocks = 4;
constexpr int kHeads = 8; /* query heads of a kv head at most: half the rows of a product */
constexpr int kTiles = D / 8 / kOwnWarps; /* of eight columns, a warp's */

/* A kv head's query heads as products want them, and the token's own key and value. */
struct Own {
    __align__(16) __half queries[kHeads][D + 8];
    __align__(16) __half sides[2][D];
};

/* Prepares queries, key and value; the last two go to the cache as well. */
__device__ void prepare(Own &own, const mln_cuda_attention &p, const mln_cuda_row &row, int token,
                        int head) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, group = p.heads / p.kv_heads;
    const float *qkv = qkv_row(p, token);
    for (int h = warp; h < group; h += kOwnWarps)
        PreparedHead(qkv + (head * group + h) * D, p.q_norm, p, token).put(own.queries[h]);
    if (warp != kOwnWarps - 1)
        return;
    const float *k = qkv + (p.heads + head) * D, *v = k + p.kv_heads * D;
    int split = row.position / kSplit, at = row.position % kSplit * D;
    __half *to_key = split_of<1>(p, row, 0, head, split) + at;
    __half *to_value = split_of<1>(p, row, 1, head, split) + at;
    PreparedHead key(k, p.k_norm, p, token);
    key.put(own.sides[0]);
    key.put(to_key);
    for (int d = lane; d < D; d += 32)
        own.sides[1][d] = to_value[d] = Cached<1>::put(v[d]);
}

/* What is known of the queries; a lane's are of row lane / 4. */
struct Line {
    Row low;
    Seen seen;
    float out[kTiles][2];
};

/* Weights of a split's keys, relative to the largest score, which join what was seen before. */
__device__ void weigh(uint32_t a[4][4], Line &line, const unsigned char *keys, int limit,
                      float *before, float *now) {
    int q = threadIdx.x % 4;
    const Row none = {};
    float c[kSplit / 8][4], most = -INFINITY;
    score_all(c, line.low, none, keys);
#pragma unroll
    for (int n = 0; n < kSplit / 8; n++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            c[n][e] = 8 * n + 2 * q + e < limit ? c[n][e] * score_scale() : -INFINITY;
            most = fmaxf(most, c[n][e]);
        }
    most = row_max(most);
#pragma unroll
    for (int n = 0; n < kSplit / 8; n++) {
        a[n / 2][n % 2 * 2] =
            as_word(__floats2half2_rn(exp2f(c[n][0] - most), exp2f(c[n][1] - most)));
        a[n / 2][n % 2 * 2 + 1] = 0;
    }
    join(line.seen, most, weight_sum(a, 0), before, now);
}

__device__ void add_values(Line &line, const uint32_t a[4][4], uint32_t values, float before,
                           float now) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    constexpr int GROUP = 4; /* of products that do not wait for each other */
#pragma unroll
    for (int n = 0; n < kTiles; n += GROUP) {
        float sums[GROUP][4] = {};
#pragma unroll
        for (int s = 0; s < 4; s++)
#pragma unroll
            for (int i = 0; i < GROUP; i += 2) {
                uint32_t b[4];
                load_values(
                    b, values + vector_at(16 * s + lane % 16, warp * kTiles + n + i + lane / 16));
                mma(sums[i], a[s], b[0], b[1]);
                mma(sums[i + 1], a[s], b[2], b[3]);
            }
#pragma unroll
        for (int i = 0; i < GROUP; i++)
#pragma unroll
            for (int e = 0; e < 2; e++)
                line.out[n + i][e] = fmaf(sums[i][e], now, line.out[n + i][e] * before);
    }
}

/* The token's own key or value to its row of a side, whose copy has ended. */
__device__ void put_own(unsigned char *side, const __half *own, int at) {
    if (threadIdx.x < kChunks)
        *reinterpret_cast<uint4 *>(side + vector_at(at, (int)threadIdx.x)) =
            reinterpret_cast<const uint4 *>(own)[threadIdx.x];
    __syncthreads();
}

/* A token's row to where a product with it wants it, by the block that ends last of its heads'. */
template <bool WGMMA>
__device__ void convert_row(float4 *wide, const mln_cuda_attention &p, int token) {
    int columns = p.heads * D, quads = columns / 4;
    const float *x = p.attended + (int64_t)token * columns;
    Fragments<WGMMA> fragments(p.fragments, token, columns / MLN_UNIT_COLUMNS);
    auto load = [&](float4(&v)[kStageBatch], int base) {
        load_quads<kThreads>(v, x, base, columns, quads);
    };
    auto put = [&](int k, uint32_t a, uint32_t b) { fragments.put(k, a, b); };
    float factor =
        stage_row<kThreads>(wide, nullptr, columns, quads, p.eps, load, put, BlockSync());
    if (threadIdx.x == 0)
        p.factors[token] = factor;
}

__device__ void convert_if_last(float4 *wide, const mln_cuda_attention &p, int token) {
    if (!ends_last(p.done + token * p.kv_heads, p.kv_heads))
        return;
    if (p.form == MLN_CUDA_FORM_WGMMA)
        convert_row<true>(wide, p, token);
    else
        convert_row<false>(wide, p, token);
}

__device__ void put_out(const Line &line, const mln_cuda_attention &p, int token, int head) {
    int lane = threadIdx.x % 32, group = p.heads / p.kv_heads;
    if (lane / 4 >= group)
        return;
    float *to = p.attended + ((int64_t)token * p.heads + head * group + lane / 4) * D +
                (int)threadIdx.x / 32 * kTiles * 8 + 2 * (lane % 4);
#pragma unroll
    for (int n = 0; n < kTiles; n++)
        *reinterpret_cast<float2 *>(to + 8 * n) =
            make_float2(line.out[n][0] / line.seen.sum, line.out[n][1] / line.seen.sum);
}

/* grid [kv_heads, tokens] */
__global__ void __launch_bounds__(kThreads, kBlocks) singles_kernel(mln_cuda_attention p) {
    /* Whole sectors: where copies begin 16 bytes on, all takes a quarter longer. */
    extern __shared__ __align__(128) unsigned char shared[];
    __shared__ Own own;
    uint32_t base = (uint32_t)__cvta_generic_to_shared(shared);
    int head = blockIdx.x, token = blockIdx.y, lane = threadIdx.x % 32;
    int group = p.heads / p.kv_heads;
    dependency_launch();
    mln_cuda_row row = p.rows[token];
    int splits = row.position / kSplit + 1;
    auto copy =
        [&](int side) { /* without the token's own */
                        if (side < 2 * splits)
                            copy_side<kThreads>(base + side % kSides * kSide,
                                                split_of<1>(p, row, side % 2, head, side / 2),
                                                row.position - side / 2 * kSplit);
                        commit();
        };
    copy(0);
    copy(1);
    dependency_wait();
    prepare(own, p, row, token, head);
    __syncthreads();
    Line line;
    line.low = load_row(own.queries[lane / 4], lane % 4, lane / 4 < group);
    line.seen = Seen{-INFINITY, 0.0f};
#pragma unroll
    for (int n = 0; n < kTiles; n++)
        line.out[n][0] = line.out[n][1] = 0.0f;
    for (int split = 0; split < splits; split++) {
        int keys = 2 * split % kSides * kSide, values = (2 * split + 1) % kSides * kSide;
        int at = row.position - split * kSplit;
        uint32_t a[4][4];
        float before, now;
        wait_but_one();
        __syncthreads();
        copy(2 * split + 2);
        if (at < kSplit)
            put_own(shared + keys, own.sides[0], at);
        weigh(a, line, shared + keys, at + 1, &before, &now);
        wait_but_one();
        __syncthreads();
        copy(2 * split + 3);
        if (at < kSplit)
            put_own(shared + values, own.sides[1], at);
        add_values(line, a, base + values, before, now);
    }
    put_out(line, p, token, head);
    if (p.form != MLN_CUDA_FORM_NONE) /* the copies have ended: their room is free */
        convert_if_last(reinterpret_cast<float4 *>(shared), p, token);
}

} // namespace

extern "C" int mln_cuda_attends_singles(int half_cache, int32_t head_dim, int32_t heads,
                                        int32_t kv_heads, int32_t tokens, int32_t splits) {
    bool row_fits = heads * D * (int)sizeof(float) <= kBytes;
    if (!mln_cuda_attends_in_tiles(half_cache, head_dim) || heads > kHeads * kv_heads || !row_fits)
        return 0;
    return mln_pieces_suffice(kv_heads, tokens, tokens, splits);
}

extern "C" cudaError_t mln_cuda_prepare_singles(void) {
    return cudaFuncSetAttribute(singles_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                kBytes);
}

extern "C" cudaError_t mln_cuda_attend_singles_launch(const mln_cuda_attention *p,
                                                      cudaStream_t stream) {
    return launch_kernel(singles_kernel, dim3((unsigned)p->kv_heads, (unsigned)p->tokens), kThreads,
                         kBytes, p->early != 0, *p, stream);
}
