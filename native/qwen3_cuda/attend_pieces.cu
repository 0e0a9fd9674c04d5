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

#include "attend_sides.cuh"
#include "pieces.h"

namespace {

constexpr int kStages = 2, kBytes = kStages * 2 * kSide;

/* The two queries a lane has parts of: rows lane / 4 and lane / 4 + 8 of its warp. */
struct Lines {
    int token[2], head[2], limit[2]; /* keys it sees from the present split on */
    bool there[2];
    Row low, high;
    Seen seen[2];
    float out[kChunks][4]; /* product n has d = 8 n .. 8 n + 7 */
};

__device__ void begin_lines(Lines &lines, const mln_cuda_attention &p, int2 piece) {
    int group = p.heads / p.kv_heads, each = kRows / group, lane = threadIdx.x % 32;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        int r = lane / 4 + 8 * half, t = (int)threadIdx.x / 32 * each + r / group;
        lines.there[half] = r / group < each && t < piece.y;
        lines.token[half] = piece.x + (lines.there[half] ? t : 0);
        lines.head[half] = blockIdx.y * group + r % group;
        lines.limit[half] = lines.there[half] ? p.rows[lines.token[half]].position + 1 : 0;
        lines.seen[half] = Seen{-INFINITY, 0.0f};
    }
    const __half *queries = static_cast<const __half *>(p.queries);
    auto at = [&](int half) {
        return queries + ((int64_t)lines.token[half] * p.heads + lines.head[half]) * D;
    };
    lines.low = load_row(at(0), lane % 4, lines.there[0]);
    lines.high = load_row(at(1), lane % 4, lines.there[1]);
#pragma unroll
    for (int n = 0; n < kChunks; n++)
        lines.out[n][0] = lines.out[n][1] = lines.out[n][2] = lines.out[n][3] = 0.0f;
}

/* One split by one warp. */
__device__ void attend_split(Lines &lines, const unsigned char *keys, uint32_t values) {
    int lane = threadIdx.x % 32, q = lane % 4;
    float c[kSplit / 8][4], most[2] = {-INFINITY, -INFINITY};
    score_all(c, lines.low, lines.high, keys);
#pragma unroll
    for (int n = 0; n < kSplit / 8; n++) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            bool seen = 8 * n + 2 * q + e % 2 < lines.limit[e / 2];
            c[n][e] = seen ? c[n][e] * score_scale() : -INFINITY;
            most[e / 2] = fmaxf(most[e / 2], c[n][e]);
        }
    }
    uint32_t a[4][4];
    float before[2] = {1.0f, 1.0f}, now[2] = {0.0f, 0.0f};
#pragma unroll
    for (int half = 0; half < 2; half++) {
        most[half] = row_max(most[half]);
        float base = lines.limit[half] > 0 ? most[half] : 0.0f; /* 2^-infinity is 0 */
#pragma unroll
        for (int n = 0; n < kSplit / 8; n++)
            a[n / 2][half + n % 2 * 2] = as_word(
                __floats2half2_rn(exp2f(c[n][2 * half] - base), exp2f(c[n][2 * half + 1] - base)));
    }
#pragma unroll
    for (int half = 0; half < 2; half++) {
        float sum = weight_sum(a, half);
        if (lines.limit[half] > 0)
            join(lines.seen[half], most[half], sum, &before[half], &now[half]);
        lines.limit[half] -= kSplit;
    }
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

__device__ void end_lines(const Lines &lines, const mln_cuda_attention &p) {
    int q = threadIdx.x % 4;
#pragma unroll
    for (int half = 0; half < 2; half++) {
        if (!lines.there[half])
            continue;
        float *to =
            p.attended + ((int64_t)lines.token[half] * p.heads + lines.head[half]) * D + 2 * q;
#pragma unroll
        for (int n = 0; n < kChunks; n++)
            *reinterpret_cast<float2 *>(to + 8 * n) =
                make_float2(lines.out[n][2 * half] / lines.seen[half].sum,
                            lines.out[n][2 * half + 1] / lines.seen[half].sum);
    }
}

/* grid [pieces, kv_heads] */
template <int WARPS, int BLOCKS>
__global__ void __launch_bounds__(32 * WARPS, BLOCKS) pieces_kernel(mln_cuda_attention p) {
    extern __shared__ __align__(16) unsigned char shared[];
    constexpr int THREADS = 32 * WARPS;
    uint32_t base = (uint32_t)__cvta_generic_to_shared(shared);
    dependency_launch();
    dependency_wait();
    int head = blockIdx.y;
    int2 piece = p.pieces[gridDim.x - 1 - blockIdx.x]; /* the longest first, mostly */
    mln_cuda_row row = p.rows[piece.x];
    int length = row.position + piece.y, splits = (length + kSplit - 1) / kSplit;
    auto copy = [&](int split) {
        uint32_t to = base + split % kStages * 2 * kSide;
        copy_side<THREADS>(to, split_of<1>(p, row, 0, head, split), length - split * kSplit);
        copy_side<THREADS>(to + kSide, split_of<1>(p, row, 1, head, split),
                           length - split * kSplit);
    };
    copy(0);
    commit();
    Lines lines;
    begin_lines(lines, p, piece);
    for (int split = 0; split < splits; split++) {
        if (split + 1 < splits)
            copy(split + 1);
        commit();
        wait_but_one();
        __syncthreads();
        int stage = split % kStages * 2 * kSide;
        if (__any_sync(~0u, lines.limit[0] > 0 || lines.limit[1] > 0))
            attend_split(lines, shared + stage, base + stage + kSide);
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
                                       int32_t tokens, int32_t pieces, int32_t splits) {
    return mln_cuda_attends_in_tiles(half_cache, head_dim) &&
           mln_pieces_suffice(kv_heads, tokens, pieces, splits);
}

extern "C" cudaError_t mln_cuda_prepare_pieces(void) {
    return cudaFuncSetAttribute(pieces_kernel<kWarps, kBlocks>,
                                cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
}

extern "C" cudaError_t mln_cuda_attend_pieces_launch(const mln_cuda_attention *p,
                                                     cudaStream_t stream) {
    dim3 grid((unsigned)p->num_pieces, (unsigned)p->kv_heads);
    return launch_kernel(pieces_kernel<kWarps, kBlocks>, grid, 32 * kWarps, kBytes, p->early != 0,
                         *p, stream);
}
