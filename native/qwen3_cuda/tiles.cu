/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Projections on tensor cores. Whatever the number of tokens, a row's sum is that of 8 parts at
 * fixed places, added in order, each a chain of products of 16 columns in order: one token, a few
 * and hundreds give the same bits.
 *
 * Activations are binary16 times a power of two for each token that puts its largest near 2^14.
 */
#include <cuda_fp16.h>
#include <stdint.h>

#include "codes.cuh"
#include "cuda_kernels.h"
#include "device.cuh"
#include "epilogue.cuh"
#include "stage.cuh"
#include "tile_ops.cuh"

namespace {

constexpr int kThreads = kStageThreads, kWarps = 8, kSplits = MLN_TILE_SPLITS;
constexpr int kUnit = MLN_UNIT_COLUMNS;
constexpr int kMultiprocessors = 132; /* of an H100 or H200: how work is cut, not what it gives */
constexpr int kFew = 32; /* tokens up to which the warps of a block split the columns */
static_assert(kWarps == kSplits, "a warp a part");

/* --- activations --- */

/*
 * fragments[token tile, unit], or with WGMMA as mln_wgmma_units() says, and factors[token] of
 * several tokens, one a block.
 */
template <bool WGMMA>
__global__ void __launch_bounds__(kThreads) convert_kernel(mln_cuda_linear p) {
    extern __shared__ float4 wide[];
    int token = blockIdx.x, units = p.weight.units, columns = (int)p.weight.columns;
    int quads = units * (kUnit / 4);
    dependency_launch();
    stage_norm(wide, p.norm, columns, quads);
    dependency_wait();
    int64_t row = p.order ? p.order[token] : token;
    Fragments<WGMMA> fragments(p.fragments, token, units);
    const float *x = p.x + row * p.x_stride;
    auto load = [&](float4(&v)[kStageBatch], int base) { load_quads(v, x, base, columns, quads); };
    auto put = [&](int k, uint32_t a, uint32_t b) { fragments.put(k, a, b); };
    float factor =
        stage_row(wide, p.norm ? wide : nullptr, columns, quads, p.eps, load, put, BlockSync());
    if (threadIdx.x == 0)
        p.factors[token] = factor;
}

/* --- up to 32 tokens: a tile at a time by a block, its columns split among the warps --- */

/* Where a warp is in its tiles. */
struct Place {
    int tile, base;
};

/* Blocks that fit a multiprocessor at once, given the words of weights a lane has under way. */
constexpr int few_residents(int code, int units, int buffers, int token_tiles) {
    int words = units * buffers *
                (code == MLN_TILE_DENSE                            ? 16
                 : code == MLN_TILE_PACKED                         ? 12
                 : code == MLN_TILE_Q8 || code == MLN_TILE_Q8_PAIR ? 10
                                                                   : 6);
    return token_tiles > 0 ? 2 : words <= 24 && code != MLN_TILE_PACKED ? 4 : words <= 40 ? 3 : 2;
}

/*
 * TT token tiles of 8; 0: one token, whose row the block prepares itself. A units of weights are
 * loaded at once, BUFFERS times that are under way; with one buffer each is loaded again as soon as
 * it has been used.
 */
template <int CODE, int A, int BUFFERS, int TT>
__global__ void __launch_bounds__(kThreads, few_residents(CODE, A, BUFFERS, TT))
    few_kernel(mln_cuda_linear p) {
    constexpr int TOKENS = TT ? 8 * TT : 1, TILES = TT ? TT : 1;
    constexpr int OUTPUTS = MLN_TILE_ROWS * TOKENS, EACH = (OUTPUTS + kThreads - 1) / kThreads;
    constexpr uint32_t MASK = TT ? ~0u : 0xffffu;
    extern __shared__ __align__(16) unsigned char shared[];
    __shared__ float parts[2][kWarps][TOKENS][MLN_TILE_ROWS + 1];
    const mln_cuda_matrix &m = p.weight;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, units = m.units;
    int begin = mln_split_begin(units, warp), count = mln_split_begin(units, warp + 1) - begin;
    int tiles = (int)m.tiles;
    const unsigned char *weights = m.data + (int64_t)begin * Unit<CODE>::BYTES;
    int64_t tile_bytes = (int64_t)units * Unit<CODE>::BYTES;
    Unit<CODE> buffer[BUFFERS][A];
    Extras<CODE> extras, later; /* of this tile and the one after it */
    auto load_unit = [&](Unit<CODE> &to, const Place &at, int i) {
        if (at.tile < tiles && at.base + i < count)
            to.template load<StreamLoad>(
                weights + at.tile * tile_bytes + (at.base + i) * Unit<CODE>::BYTES, lane);
    };
    auto load = [&](Unit<CODE>(&to)[A], const Place &at) {
#pragma unroll
        for (int i = 0; i < A; i++)
            load_unit(to[i], at, i);
    };
    auto next = [&](Place at) {
        at.base += A;
        if (at.base >= count) {
            at.base = 0;
            at.tile += gridDim.x;
        }
        return at;
    };
    dependency_launch();
    Place now = {(int)blockIdx.x, 0}, ahead = now;
#pragma unroll
    for (int i = 0; i < BUFFERS; i++) {
        load(buffer[i], ahead);
        ahead = next(ahead);
    }
    extras.load(m, now.tile, warp, lane);
    if (now.tile + (int)gridDim.x < tiles)
        later.load(m, now.tile + (int)gridDim.x, warp, lane);
    /* the output of this thread: row slot of tile, token */
    int slot = threadIdx.x % MLN_TILE_ROWS;
    float undo = threadIdx.x < OUTPUTS ? m.row_scales[now.tile * MLN_TILE_ROWS + slot] : 0.0f;
    float factor = 0.0f, before = 0.0f;
    if constexpr (TT == 0) {
        float4 *wide = reinterpret_cast<float4 *>(shared + units * 128);
        int columns = (int)m.columns, quads = units * (kUnit / 4);
        stage_norm(wide, p.norm, columns, quads);
        dependency_wait();
        if (wants_out(p) && threadIdx.x < OUTPUTS && now.tile * MLN_TILE_ROWS + slot < m.rows)
            before = __ldcg(p.out + now.tile * MLN_TILE_ROWS + slot);
        const float *x = p.x + (p.order ? p.order[0] : 0) * p.x_stride;
        auto quad = [&](float4(&v)[kStageBatch], int base) {
            load_quads(v, x, base, columns, quads);
        };
        auto put = [&](int k, uint32_t a, uint32_t b) { put_single(shared, k, a, b); };
        factor =
            stage_row(wide, p.norm ? wide : nullptr, columns, quads, p.eps, quad, put, BlockSync());
        __syncthreads();
    } else {
        dependency_wait();
    }
    float c[TILES][4];
#pragma unroll
    for (int t = 0; t < TILES; t++)
        c[t][0] = c[t][1] = c[t][2] = c[t][3] = 0.0f;
    auto multiply = [&](const Unit<CODE> &from, const uint4(&x)[TILES][2], uint32_t hits) {
#pragma unroll
        for (int step = 0; step < 4; step++) {
            uint32_t a[4];
            fragment<CODE>(a, from, step);
            extras.lift(a);
            extras.patch(a, hits, step, lane);
#pragma unroll
            for (int t = 0; t < TILES; t++)
                mma(c[t], a, word_of(x[t][step / 2], step % 2 * 2),
                    word_of(x[t][step / 2], step % 2 * 2 + 1));
        }
    };
    auto consume = [&](const Unit<CODE> &from, int rest) {
        int unit = begin + rest;
        uint4 x[TILES][2];
#pragma unroll
        for (int t = 0; t < TILES; t++)
#pragma unroll
            for (int h = 0; h < 2; h++) {
                if constexpr (TT == 0) {
                    x[t][h] = make_uint4(0, 0, 0, 0);
                    if (lane < 4) /* column 0 of 8: the others are zeros */
                        x[t][h] = *reinterpret_cast<const uint4 *>(shared + unit * 128 + h * 64 +
                                                                   lane * 16);
                } else {
                    x[t][h] = __ldcg(reinterpret_cast<const uint4 *>(
                        p.fragments + ((int64_t)t * units + unit) * MLN_TOKEN_UNIT_BYTES + h * 512 +
                        lane * 16));
                }
            }
        uint32_t hits = extras.hits(rest);
        if (hits) /* apart, so that the others are done without looking */
            multiply(from, x, hits);
        else
            multiply(from, x, 0);
    };
    auto consume_all = [&](Unit<CODE>(&from)[A], const Place &at, const Place &then) {
#pragma unroll
        for (int i = 0; i < A; i++) {
            if (at.base + i < count)
                consume(from[i], at.base + i);
            if (BUFFERS == 1)
                load_unit(from[i], then, i);
        }
        if (BUFFERS > 1)
            load(from, then);
    };
    mln_cuda_best bests[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++)
        bests[i] = mln_cuda_best{0.0f, INT32_MAX};
    int parity = 0;
    /* The warps' parts of a tile put together. */
    auto finish = [&](int tile) {
        int g = lane / 4, q = lane % 4;
#pragma unroll
        for (int t = 0; t < TILES; t++) {
            if (TT || q == 0) {
                parts[parity][warp][TT ? 8 * t + 2 * q : 0][g] = c[t][0];
                parts[parity][warp][TT ? 8 * t + 2 * q : 0][g + 8] = c[t][2];
            }
            if (TT) {
                parts[parity][warp][TT ? 8 * t + 2 * q + 1 : 0][g] = c[t][1];
                parts[parity][warp][TT ? 8 * t + 2 * q + 1 : 0][g + 8] = c[t][3];
            }
            c[t][0] = c[t][1] = c[t][2] = c[t][3] = 0.0f;
        }
        __syncthreads();
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int index = threadIdx.x + i * kThreads;
            if (index >= OUTPUTS)
                break;
            int token = index / MLN_TILE_ROWS;
            float sum = 0.0f;
#pragma unroll
            for (int w = 0; w < kWarps; w++)
                sum += parts[parity][w][token][slot];
            bool live = token < p.tokens;
            if (TT)
                factor = live ? __ldcg(p.factors + token) : 0.0f;
            float y = sum * undo * factor;
            int row = tile * MLN_TILE_ROWS + slot;
            if (p.epilogue == MLN_CUDA_GATED) {
                float z = __shfl_xor_sync(MASK, y, 8);
                row = tile * 8 + slot;
                if (slot < 8 && live && row < m.rows)
                    p.out[(int64_t)token * p.out_stride + row] = silu(y) * z;
                continue;
            }
            live = live && row < m.rows;
            if (p.epilogue == MLN_CUDA_ARGMAX) {
                if (live && y == y)
                    bests[i] = better(bests[i], mln_cuda_best{y, row});
            } else if (live) {
                float *out = p.out + (int64_t)token * p.out_stride + row;
                if (TT && wants_out(p))
                    before = __ldcg(out);
                store(p, out, y, before);
            }
        }
        parity = 1 - parity;
        tile += gridDim.x;
        extras = later;
        if (tile + (int)gridDim.x < tiles)
            later.load(m, tile + (int)gridDim.x, warp, lane);
        if (tile < tiles && threadIdx.x < OUTPUTS) {
            undo = m.row_scales[tile * MLN_TILE_ROWS + slot];
            if (!TT && wants_out(p) && tile * MLN_TILE_ROWS + slot < m.rows)
                before = __ldcg(p.out + tile * MLN_TILE_ROWS + slot);
        }
    };
    while (now.tile < tiles) {
#pragma unroll
        for (int i = 0; i < BUFFERS; i++) {
            if (now.tile < tiles) {
                consume_all(buffer[i], now, ahead);
                Place then = next(now);
                if (then.tile != now.tile)
                    finish(now.tile);
                now = then;
                ahead = next(ahead);
            }
        }
    }
    if (p.epilogue == MLN_CUDA_ARGMAX) {
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int index = threadIdx.x + i * kThreads, token = index / MLN_TILE_ROWS;
            if (index >= OUTPUTS)
                break;
            mln_cuda_best best = bests[i];
            for (int offset = 8; offset > 0; offset /= 2)
                best = better_of_lanes(best, offset, MASK);
            if (slot == 0 && token < p.tokens)
                p.best[(int64_t)token * gridDim.x + blockIdx.x] = best;
        }
    }
}

/* --- many tokens: tiles of weights and of tokens through shared memory --- */

__device__ void copy_async(uint32_t to, const unsigned char *from) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to), "l"(from) : "memory");
}

__device__ void commit_copies() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}

template <int LEFT> __device__ void wait_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
}

/* A block of ROWS x COLUMNS warps, each with R tiles of weights and T of tokens. */
template <int CODE, int R, int T, int ROWS, int COLUMNS, int STAGES> struct Many {
    static constexpr int TILES = R * ROWS, TOKEN_TILES = T * COLUMNS;
    static constexpr int WEIGHT_BYTES = TILES * Unit<CODE>::BYTES;
    static constexpr int STAGE_BYTES = WEIGHT_BYTES + TOKEN_TILES * MLN_TOKEN_UNIT_BYTES;
    static_assert(ROWS * COLUMNS == kWarps, "eight warps");
    static constexpr int BYTES = STAGES * STAGE_BYTES;
};

constexpr int GROUP = 4; /* token tiles whose products are independent of each other */

template <int CODE, int R, int T, int ROWS, int COLUMNS, int STAGES, int BLOCKS>
__global__ void __launch_bounds__(kThreads, BLOCKS) many_kernel(mln_cuda_linear p) {
    typedef Many<CODE, R, T, ROWS, COLUMNS, STAGES> Shape;
    extern __shared__ __align__(16) unsigned char shared[];
    const mln_cuda_matrix &m = p.weight;
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32, units = m.units;
    int warp_row = warp % ROWS, warp_column = warp / ROWS;
    int first_tile = blockIdx.y * Shape::TILES, first_token = blockIdx.x * Shape::TOKEN_TILES;
    uint32_t base = (uint32_t)__cvta_generic_to_shared(shared);
    /* What this thread copies of a unit: vectors threadIdx.x, + 256, ... of the block's tiles,
     * which all have room in memory, though those past the end hold nothing of use. */
    constexpr int EACH = Unit<CODE>::BYTES / 16, VECTORS = Shape::WEIGHT_BYTES / 16;
    constexpr int COPIES = (VECTORS + kThreads - 1) / kThreads;
    constexpr int TOKEN_EACH = MLN_TOKEN_UNIT_BYTES / 16;
    constexpr int TOKEN_COPIES = Shape::TOKEN_TILES * TOKEN_EACH / kThreads;
    uint32_t tile_bytes = (uint32_t)units * Unit<CODE>::BYTES;
    uint32_t token_bytes = (uint32_t)units * MLN_TOKEN_UNIT_BYTES;
    const unsigned char *weight_base = m.data + (int64_t)first_tile * tile_bytes;
    const unsigned char *token_base = p.fragments + (int64_t)first_token * token_bytes +
                                      threadIdx.x / TOKEN_EACH * token_bytes +
                                      threadIdx.x % TOKEN_EACH * 16;
    uint32_t offsets[COPIES];
#pragma unroll
    for (int i = 0; i < COPIES; i++) {
        uint32_t v = threadIdx.x + i * kThreads;
        offsets[i] = kThreads % EACH == 0 && i > 0 ? offsets[0] + i * (kThreads / EACH) * tile_bytes
                                                   : v / EACH * tile_bytes + v % EACH * 16;
    }
    auto copy_weights = [&](int unit) {
        uint32_t to = base + unit % STAGES * Shape::STAGE_BYTES + 16 * threadIdx.x;
        const unsigned char *from = weight_base + unit * Unit<CODE>::BYTES;
#pragma unroll
        for (int i = 0; i < COPIES; i++)
            if (VECTORS % kThreads == 0 || threadIdx.x + i * kThreads < VECTORS)
                copy_async(to + 16 * i * kThreads, from + offsets[i]);
    };
    auto copy_tokens = [&](int unit) {
        uint32_t to =
            base + unit % STAGES * Shape::STAGE_BYTES + Shape::WEIGHT_BYTES + 16 * threadIdx.x;
        const unsigned char *from = token_base + unit * MLN_TOKEN_UNIT_BYTES;
#pragma unroll
        for (int i = 0; i < TOKEN_COPIES; i++)
            copy_async(to + 16 * i * kThreads,
                       from + i * (kThreads / TOKEN_EACH) * (int64_t)token_bytes);
    };
    dependency_launch();
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++)
        if (s < units)
            copy_weights(s);
    dependency_wait();
#pragma unroll
    for (int s = 0; s < STAGES - 1; s++) {
        if (s < units)
            copy_tokens(s);
        commit_copies();
    }
    float c[R][T][4], sum[R][T][4];
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int t = 0; t < T; t++)
#pragma unroll
            for (int i = 0; i < 4; i++)
                c[r][t][i] = sum[r][t][i] = 0.0f;
    int split = 0;
    while (mln_split_begin(units, split + 1) == 0)
        split++;
    Walk<CODE> walks[R];
#pragma unroll
    for (int r = 0; r < R; r++) {
        int tile = first_tile + warp_row * R + r;
        walks[r].begin(m, lists_of(m, tile), tile, 0, lane);
    }
    for (int unit = 0; unit < units; unit++) {
        wait_copies<STAGES - 2>();
        __syncthreads();
        if (unit + STAGES - 1 < units) {
            copy_weights(unit + STAGES - 1);
            copy_tokens(unit + STAGES - 1);
        }
        commit_copies();
        const unsigned char *stage = shared + unit % STAGES * Shape::STAGE_BYTES;
        const unsigned char *tokens =
            stage + Shape::WEIGHT_BYTES + warp_column * T * MLN_TOKEN_UNIT_BYTES + lane * 16;
        Unit<CODE> weights[R];
        uint32_t hits[R];
#pragma unroll
        for (int r = 0; r < R; r++) {
            weights[r].template load<PlainLoad>(stage + (warp_row * R + r) * Unit<CODE>::BYTES,
                                                lane);
            hits[r] = walks[r].hits(m, unit, lane);
        }
#pragma unroll
        for (int h = 0; h < 2; h++) {
            uint32_t a[2][R][4];
#pragma unroll
            for (int r = 0; r < R; r++) {
#pragma unroll
                for (int i = 0; i < 2; i++) {
                    fragment<CODE>(a[i][r], weights[r], 2 * h + i);
                    walks[r].lift(a[i][r]);
                    if (hits[r])
                        walks[r].patch(a[i][r], hits[r], 2 * h + i, lane);
                }
            }
#pragma unroll
            for (int first = 0; first < T; first += GROUP) {
                uint4 x[GROUP];
#pragma unroll
                for (int t = 0; t < GROUP; t++)
                    x[t] = *reinterpret_cast<const uint4 *>(
                        tokens + (first + t) * MLN_TOKEN_UNIT_BYTES + h * 512);
#pragma unroll
                for (int step = 0; step < 2; step++)
#pragma unroll
                    for (int t = 0; t < GROUP; t++)
#pragma unroll
                        for (int r = 0; r < R; r++)
                            mma(c[r][first + t], a[step][r], word_of(x[t], 2 * step),
                                word_of(x[t], 2 * step + 1));
            }
        }
        if (unit + 1 == mln_split_begin(units, split + 1)) { /* the end of a part, or of several */
            while (split < kSplits && mln_split_begin(units, split + 1) == unit + 1)
                split++;
#pragma unroll
            for (int r = 0; r < R; r++)
#pragma unroll
                for (int t = 0; t < T; t++)
#pragma unroll
                    for (int i = 0; i < 4; i++) {
                        sum[r][t][i] += c[r][t][i];
                        c[r][t][i] = 0.0f;
                    }
        }
    }
    int g = lane / 4, q = lane % 4;
    __shared__ mln_cuda_best bests[ROWS][Shape::TOKEN_TILES * MLN_TOKEN_TILE];
#pragma unroll
    for (int t = 0; t < T; t++)
#pragma unroll
        for (int odd = 0; odd < 2; odd++) {
            int column = (warp_column * T + t) * MLN_TOKEN_TILE + 2 * q + odd;
            int token = first_token * MLN_TOKEN_TILE + column;
            bool live = token < p.tokens;
            float factor = live ? __ldcg(p.factors + token) : 0.0f;
            float *out = p.out + (int64_t)token * p.out_stride;
            mln_cuda_best best = {0.0f, INT32_MAX};
#pragma unroll
            for (int r = 0; r < R; r++) {
                int tile = first_tile + warp_row * R + r;
                const float *undo = m.row_scales + tile * MLN_TILE_ROWS + g;
                float y = sum[r][t][odd] * undo[0] * factor;
                float z = sum[r][t][2 + odd] * undo[8] * factor;
                int row = tile * MLN_TILE_ROWS + g;
                if (p.epilogue == MLN_CUDA_GATED) {
                    row = tile * 8 + g;
                    if (live && row < m.rows)
                        out[row] = silu(y) * z;
                } else if (p.epilogue == MLN_CUDA_ARGMAX) {
                    if (live && row < m.rows && y == y)
                        best = better(best, mln_cuda_best{y, row});
                    if (live && row + 8 < m.rows && z == z)
                        best = better(best, mln_cuda_best{z, row + 8});
                } else {
                    if (live && row < m.rows)
                        store(p, out + row, y, wants_out(p) ? __ldcg(out + row) : 0.0f);
                    if (live && row + 8 < m.rows)
                        store(p, out + row + 8, z, wants_out(p) ? __ldcg(out + row + 8) : 0.0f);
                }
            }
            if (p.epilogue == MLN_CUDA_ARGMAX) {
                for (int offset = 4; offset < 32; offset *= 2)
                    best = better_of_lanes(best, offset, ~0u);
                if (g == 0)
                    bests[warp_row][column] = best;
            }
        }
    if (p.epilogue == MLN_CUDA_ARGMAX) {
        __syncthreads();
        for (int i = threadIdx.x; i < Shape::TOKEN_TILES * MLN_TOKEN_TILE; i += kThreads) {
            mln_cuda_best best = bests[0][i];
            for (int w = 1; w < ROWS; w++)
                best = better(best, bests[w][i]);
            int token = first_token * MLN_TOKEN_TILE + i;
            if (token < p.tokens)
                p.best[(int64_t)token * gridDim.y + blockIdx.y] = best;
        }
    }
}

/* --- launching --- */

cudaError_t launch_grid(void (*kernel)(mln_cuda_linear), dim3 grid, size_t shared,
                        const mln_cuda_linear &p, cudaStream_t stream) {
    return launch_kernel(kernel, grid, kThreads, shared, p.wait != 0, p, stream);
}

/* Units of a stream that are loaded at once, and how often: all of most rows is under way before x
 * is there. */
template <int CODE>
constexpr int kBuffers = CODE == MLN_TILE_DENSE || CODE == MLN_TILE_PACKED ? 1 : 2;
template <int CODE> constexpr int kStream = kBuffers<CODE> == 1 ? 5 : 4;

/* How few_kernel() cuts a matrix. */
enum few_shape { ONE_LOAD, ONE_LONG_LOAD, STREAM };

few_shape few_shape_of(const mln_cuda_matrix &m, int tokens) {
    int each = (m.units + kSplits - 1) / kSplits;
    if (m.tiles > few_residents(m.tile_code, 2, 1, 0) * kMultiprocessors || tokens > 1)
        return STREAM;
    if (each <= 2)
        return ONE_LOAD;
    return each <= 6 && m.tiles <= 2 * kMultiprocessors ? ONE_LONG_LOAD : STREAM;
}

/* At most one wave of blocks, the rest of the tiles in turns. */
unsigned few_blocks(const mln_cuda_matrix &m, int tokens) {
    few_shape shape = few_shape_of(m, tokens);
    int residents = tokens > 1          ? 2
                    : shape == STREAM   ? 2
                    : shape == ONE_LOAD ? few_residents(m.tile_code, 2, 1, 0)
                                        : few_residents(m.tile_code, 6, 1, 0);
    int64_t most = residents * kMultiprocessors;
    return (unsigned)(m.tiles < most ? m.tiles : most);
}

/*
 * Blocks of many_kernel(): 64 rows and 64 tokens, three a multiprocessor, or twice the rows, two.
 * A wave of the large ones was seen to take 1.3 times as long as one of the small ones.
 */
constexpr int kTokens = 64, kSmallTiles = 4, kLargeTiles = 8;
constexpr int kSmallResidents = 3, kLargeResidents = 2;

int64_t waves(const mln_cuda_matrix &m, int tokens, int tiles, int residents) {
    int64_t blocks = (m.tiles + tiles - 1) / tiles * ((tokens + kTokens - 1) / kTokens);
    return (blocks + residents * kMultiprocessors - 1) / (residents * kMultiprocessors);
}

bool is_large(const mln_cuda_matrix &m, int tokens) {
    return 13 * waves(m, tokens, kLargeTiles, kLargeResidents) <
           10 * waves(m, tokens, kSmallTiles, kSmallResidents);
}

template <int CODE> struct Kernels {
    static constexpr auto one_short = few_kernel<CODE, 2, 1, 0>;
    static constexpr auto one_long = few_kernel<CODE, 6, 1, 0>;
    static constexpr auto one_stream = few_kernel<CODE, kStream<CODE>, kBuffers<CODE>, 0>;
    static constexpr auto eight = few_kernel<CODE, 2, 2, 1>;
    static constexpr auto sixteen = few_kernel<CODE, 2, 2, 2>;
    static constexpr auto thirty_two = few_kernel<CODE, 2, 1, 4>;
    typedef Many<CODE, 1, 4, 4, 2, 4> SmallShape;
    typedef Many<CODE, 2, 4, 4, 2, 4> LargeShape;
    static constexpr auto small = many_kernel<CODE, 1, 4, 4, 2, 4, kSmallResidents>;
    static constexpr auto large = many_kernel<CODE, 2, 4, 4, 2, 4, kLargeResidents>;

    static cudaError_t prepare() {
        const struct {
            const void *kernel;
            int bytes;
        } all[] = {{(const void *)one_short, MLN_CUDA_MAX_SMEM},
                   {(const void *)one_long, MLN_CUDA_MAX_SMEM},
                   {(const void *)one_stream, MLN_CUDA_MAX_SMEM},
                   {(const void *)small, SmallShape::BYTES},
                   {(const void *)large, LargeShape::BYTES}};
        for (auto &one : all) {
            cudaError_t error = cudaFuncSetAttribute(
                one.kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, one.bytes);
            if (error != cudaSuccess)
                return error;
        }
        return cudaSuccess;
    }

    static cudaError_t run_one(const mln_cuda_linear &p, cudaStream_t stream) {
        size_t shared = (size_t)p.weight.units * (128 + kUnit * sizeof(float));
        dim3 grid(few_blocks(p.weight, 1));
        switch (few_shape_of(p.weight, 1)) {
        case ONE_LOAD:
            return launch_grid(one_short, grid, shared, p, stream);
        case ONE_LONG_LOAD:
            return launch_grid(one_long, grid, shared, p, stream);
        default:
            return launch_grid(one_stream, grid, shared, p, stream);
        }
    }

    static cudaError_t run(const mln_cuda_linear &p, cudaStream_t stream) {
        if (p.tokens == 1)
            return run_one(p, stream);
        size_t wide = (size_t)p.weight.units * kUnit * sizeof(float);
        bool groups = mln_cuda_fragment_form(&p.weight, p.tokens) == MLN_CUDA_FORM_WGMMA;
        cudaError_t error = cudaSuccess;
        if (!p.converted)
            error = launch_grid(groups ? convert_kernel<true> : convert_kernel<false>,
                                dim3((unsigned)p.tokens), wide, p, stream);
        if (error != cudaSuccess)
            return error;
        if (groups)
            return mln_cuda_wgmma_launch(&p, stream);
        if (p.tokens <= kFew) {
            dim3 grid(few_blocks(p.weight, p.tokens));
            return p.tokens <= 8    ? launch_grid(eight, grid, 0, p, stream)
                   : p.tokens <= 16 ? launch_grid(sixteen, grid, 0, p, stream)
                                    : launch_grid(thirty_two, grid, 0, p, stream);
        }
        bool wide_blocks = is_large(p.weight, p.tokens);
        int tiles = wide_blocks ? kLargeTiles : kSmallTiles;
        dim3 grid((unsigned)(p.tokens + kTokens - 1) / kTokens,
                  (unsigned)((p.weight.tiles + tiles - 1) / tiles));
        return wide_blocks ? launch_grid(large, grid, LargeShape::BYTES, p, stream)
                           : launch_grid(small, grid, SmallShape::BYTES, p, stream);
    }
};

} // namespace

extern "C" int64_t mln_cuda_fragment_bytes(int64_t columns, int32_t tokens) {
    /* many_kernel() reads whole blocks of tokens, wanted or not */
    static_assert(kTokens == MLN_WGMMA_TOKENS, "one size serves both forms");
    return (int64_t)(tokens + kTokens - 1) / kTokens * (kTokens / MLN_TOKEN_TILE) *
           ((columns + kUnit - 1) / kUnit) * MLN_TOKEN_UNIT_BYTES;
}

extern "C" int mln_cuda_fragment_form(const mln_cuda_matrix *weight, int32_t tokens) {
    if (weight->tile_code == MLN_TILE_NONE || tokens == 1)
        return MLN_CUDA_FORM_NONE;
    return weight->wgmma && tokens > kFew ? MLN_CUDA_FORM_WGMMA : MLN_CUDA_FORM_MMA;
}

extern "C" int32_t mln_cuda_tiled_argmax_blocks(const mln_cuda_matrix *weight, int32_t tokens) {
    if (tokens <= kFew)
        return (int32_t)few_blocks(*weight, tokens);
    if (weight->wgmma)
        return mln_cuda_wgmma_argmax_blocks(weight);
    int64_t each = is_large(*weight, tokens) ? kLargeTiles : kSmallTiles;
    return (int32_t)((weight->tiles + each - 1) / each);
}

extern "C" cudaError_t mln_cuda_tiled_launch(const mln_cuda_linear *p, cudaStream_t stream) {
    return run_by_code<Kernels>(*p, stream);
}

extern "C" cudaError_t mln_cuda_prepare_tiles(void) {
    cudaError_t error = cudaSuccess;
    for (auto kernel : {convert_kernel<false>, convert_kernel<true>})
        if (error == cudaSuccess)
            error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                         MLN_CUDA_MAX_SMEM);
    return error == cudaSuccess ? prepare_codes<Kernels>() : error;
}
