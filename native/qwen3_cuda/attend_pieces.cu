/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of neighbouring tokens of one sequence: a block brings each split of its keys and
 * values to shared memory once, for 16 queries a warp. The sums are those of attend_tiles.cu to the
 * last bit: a score is the same chain of products, a split's weights are added and multiplied with
 * the values in the same order, splits are put together in ascending order.
 */
#include <cuda_fp16.h>
#include <math.h>
#include <stdint.h>

#include "attend_lines.cuh"
#include "pieces.h"

namespace {

constexpr int kStages = 2, kBytes = kStages * 2 * kSide;

/* One split by one warp. */
__device__ void attend_split(Lines &lines, const Row &low, const Row &high,
                             const unsigned char *keys, uint32_t values) {
    int lane = threadIdx.x % 32;
    float c[kSplit / 8][4], before[2], now[2];
    uint32_t a[4][4];
    score_all(c, low, high, keys);
    weigh(lines, c, before, now);
    pack_weights(a, c);
    constexpr int GROUP = 4; /* of products that do not wait for each other */
#pragma unroll
    for (int n = 0; n < kChunks; n += GROUP) {
        float sums[GROUP][4] = {};
#pragma unroll
        for (int s = 0; s < 4; s++) {
            uint32_t b[GROUP / 2][4];
#pragma unroll
            for (int i = 0; i < GROUP / 2; i++)
                load_values(b[i], values + vector_at(16 * s + lane % 16, n + 2 * i + lane / 16));
#pragma unroll
            for (int i = 0; i < GROUP; i++)
                mma(sums[i], a[s], b[i / 2][i % 2 * 2], b[i / 2][i % 2 * 2 + 1]);
        }
#pragma unroll
        for (int i = 0; i < GROUP; i++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                lines.out[n + i][e] =
                    fmaf(sums[i][e], now[e / 2], lines.out[n + i][e] * before[e / 2]);
    }
}

/* grid [kv_heads, pieces] */
template <int WARPS, int BLOCKS>
__global__ void __launch_bounds__(32 * WARPS, BLOCKS) pieces_kernel(mln_cuda_attention p) {
    extern __shared__ __align__(16) unsigned char shared[];
    constexpr int THREADS = 32 * WARPS;
    uint32_t base = (uint32_t)__cvta_generic_to_shared(shared);
    dependency_launch();
    dependency_wait();
    int head = blockIdx.x;
    Piece piece(p);
    auto copy = [&](int split) {
        uint32_t to = base + split % kStages * 2 * kSide;
        copy_side<THREADS>(to, split_of<1>(p, piece.row, 0, head, split),
                           piece.length - split * kSplit);
        copy_side<THREADS>(to + kSide, split_of<1>(p, piece.row, 1, head, split),
                           piece.length - split * kSplit);
    };
    copy(0);
    commit();
    Lines lines;
    begin_lines(lines, p, piece.tokens);
    Row low = load_row(query_of(lines, p, 0), (int)threadIdx.x % 4, lines.there[0]);
    Row high = load_row(query_of(lines, p, 1), (int)threadIdx.x % 4, lines.there[1]);
    for (int split = 0; split < piece.splits; split++) {
        if (split + 1 < piece.splits)
            copy(split + 1);
        commit();
        wait_but_one();
        __syncthreads();
        int stage = split % kStages * 2 * kSide;
        if (__any_sync(~0u, lines.limit[0] > 0 || lines.limit[1] > 0))
            attend_split(lines, low, high, shared + stage, base + stage + kSide);
        __syncthreads();
    }
    end_lines(lines, p);
}

constexpr int kBlocks = 3;
static_assert(kWarps == MLN_PIECE_WARPS && kRows == MLN_PIECE_ROWS, "as the host counts");

} // namespace

extern "C" int32_t mln_cuda_piece_tokens(int32_t heads, int32_t kv_heads) {
    return mln_piece_tokens(heads, kv_heads);
}

extern "C" int mln_cuda_attends_pieces(int half_cache, int32_t head_dim, int32_t kv_heads,
                                       int32_t tokens, int32_t pieces, int32_t splits,
                                       int32_t wgmma) {
    return mln_cuda_attends_in_tiles(half_cache, head_dim) &&
           (mln_pieces_suffice(kv_heads, tokens, pieces, splits) ||
            (wgmma && mln_groups_suffice(kv_heads, tokens, pieces)));
}

extern "C" cudaError_t mln_cuda_prepare_pieces(void) {
    return cudaFuncSetAttribute(pieces_kernel<kWarps, kBlocks>,
                                cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
}

extern "C" cudaError_t mln_cuda_attend_pieces_launch(const mln_cuda_attention *p,
                                                     cudaStream_t stream) {
    if (p->wgmma)
        return mln_cuda_attend_groups_launch(p, stream);
    dim3 grid((unsigned)p->kv_heads, (unsigned)p->num_pieces);
    return launch_kernel(pieces_kernel<kWarps, kBlocks>, grid, 32 * kWarps, kBytes, p->early != 0,
                         *p, stream);
}
