/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Projections of many tokens by warp groups. The sums are those of tiles.cu to the last bit, as far
 * as wgmma adds 16 products as mma does, which is not documented: wgmma_check.cu looks before
 * these kernels are used.
 *
 * A block has one or two warp groups of 64 rows each, and warps that copy weights and activations
 * into a ring of stages of one unit. Weights become registers as in tiles.cu; activations are read
 * where they are.
 */
#include <cuda_fp16.h>
#include <stdint.h>

#include "codes.cuh"
#include "cuda_kernels.h"
#include "device.cuh"
#include "epilogue.cuh"
#include "tile_ops.cuh"
#include "wgmma.cuh"

namespace {

constexpr int kSplits = MLN_TILE_SPLITS;
constexpr int kRun = MLN_WGMMA_TOKENS * MLN_UNIT_COLUMNS * 2; /* bytes of a unit of 64 tokens */
constexpr int kMostStages = 8;

/*
 * GROUPS warp groups, N tokens, a ring of STAGES; BLOCKS of them fit a multiprocessor. With PARTS 8
 * the blocks of a cluster each take a part of the columns.
 */
template <int CODE_, int GROUPS_, int N_, int STAGES_, int BLOCKS_, int PARTS_> struct Shape {
    static constexpr int CODE = CODE_, GROUPS = GROUPS_, N = N_, STAGES = STAGES_;
    static constexpr int BLOCKS = BLOCKS_, PARTS = PARTS_;
    static constexpr int TILES = 4 * GROUPS, COPIERS = PARTS > 1 ? 2 : 4; /* warps that copy */
    static constexpr int THREADS = 128 * GROUPS + 32 * COPIERS;
    static constexpr int EVEN = 65536 / (THREADS * BLOCKS) / 8 * 8; /* registers a thread has */
    static constexpr int FEW = 32, MANY_ = (EVEN * (GROUPS + 1) - FEW) / GROUPS / 8 * 8;
    static constexpr int MANY = MANY_ > 240 ? 240 : MANY_;
    static constexpr int WEIGHT_BYTES = TILES * Unit<CODE>::BYTES, TOKEN_BYTES = N * 128;
    static constexpr int SUMS = 256 * GROUPS * N, BESTS = TILES * N * 8; /* bytes */
    static constexpr int RING = STAGES * (WEIGHT_BYTES + TOKEN_BYTES);
    static constexpr int MOST = RING > SUMS + BESTS ? RING : SUMS + BESTS;
    static constexpr int BYTES = 1024 + MOST; /* groups of tokens lie at multiples of 1024 */
    static_assert(PARTS == 1 || PARTS == kSplits, "a part a block");
    static_assert(STAGES <= kMostStages, "barriers");
    static_assert(PARTS > 1 || MANY > FEW, "registers to take");
};

/* What a warp needs of a unit, in the form of products. */
struct Weights {
    uint32_t a[4][4];
};

/* Where a block is. */
struct Site {
    int tile, token;      /* the first */
    int runs;             /* of 64 tokens that exist */
    int begin, end;       /* units */
    uint32_t tokens;      /* the ring, in shared memory: activations, */
    uint32_t weights;     /* weights, */
    uint32_t full, empty; /* barriers */
};

template <typename S> __device__ Site site_of(const mln_cuda_linear &p, uint32_t ring) {
    Site at;
    at.tile = blockIdx.y * S::TILES;
    at.token = blockIdx.x * S::N;
    int left = (p.tokens - at.token + MLN_WGMMA_TOKENS - 1) / MLN_WGMMA_TOKENS;
    at.runs = max(0, min(left, S::N / MLN_WGMMA_TOKENS));
    at.begin = S::PARTS > 1 ? mln_split_begin(p.weight.units, blockIdx.z) : 0;
    at.end = S::PARTS > 1 ? mln_split_begin(p.weight.units, blockIdx.z + 1) : p.weight.units;
    at.tokens = ring;
    at.weights = ring + S::STAGES * S::TOKEN_BYTES;
    return at;
}

/* --- the copying warps --- */

/*
 * One thread of each copying warp, so that copies are begun at the same time: beginning one takes
 * as long as a warp group's product. Warp `index` has every COPIERS-th tile and run of tokens.
 */
template <typename S>
__device__ void copy_weights(const mln_cuda_linear &p, const Site &at, int index, int unit,
                             int stage) {
    constexpr int EACH = Unit<S::CODE>::BYTES;
    uint32_t barrier = at.full + 8 * stage;
    if (index == 0)
        barrier_expect(barrier, S::WEIGHT_BYTES + at.runs * kRun);
#pragma unroll
    for (int i = 0; i < S::TILES / S::COPIERS; i++) {
        int tile = i * S::COPIERS + index;
        const unsigned char *from =
            p.weight.data + ((int64_t)(at.tile + tile) * p.weight.units + unit) * EACH;
        copy_run(at.weights + stage * S::WEIGHT_BYTES + tile * EACH, from, EACH, barrier);
    }
}

template <typename S>
__device__ void copy_tokens(const mln_cuda_linear &p, const Site &at, int index, int unit,
                            int stage) {
    const unsigned char *first = p.fragments + mln_wgmma_units(at.token, p.weight.units);
    for (int run = S::COPIERS - 1 - index; run < at.runs; run += S::COPIERS)
        copy_run(at.tokens + stage * S::TOKEN_BYTES + run * kRun,
                 first + ((int64_t)run * p.weight.units + unit) * kRun, kRun, at.full + 8 * stage);
}

template <typename S> __device__ void produce(const mln_cuda_linear &p, const Site &at, int index) {
    int count = at.end - at.begin, early = min(count, S::STAGES);
    for (int i = 0; i < early; i++)
        copy_weights<S>(p, at, index, at.begin + i, i);
    dependency_wait();
    for (int i = 0; i < early; i++)
        copy_tokens<S>(p, at, index, at.begin + i, i);
    for (int i = S::STAGES, stage = 0, parity = 0; i < count; i++) {
        barrier_wait(at.empty + 8 * stage, parity);
        copy_weights<S>(p, at, index, at.begin + i, stage);
        copy_tokens<S>(p, at, index, at.begin + i, stage);
        if (++stage == S::STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
}

/* --- the warp groups --- */

/* A stage of the ring, and how often the ring has gone round. */
template <typename S> struct Turn {
    int stage = 0;
    uint32_t parity = 0;
    __device__ void next() {
        if (++stage == S::STAGES) {
            stage = 0;
            parity ^= 1;
        }
    }
};

/* Waits for a stage; its weights to registers. */
template <typename S>
__device__ __forceinline__ void fetch(Weights &to, const mln_cuda_matrix &m, int unit_index,
                                      const unsigned char *ring_weights, const Site &at,
                                      Turn<S> &turn, Walk<S::CODE> &walk) {
    uint32_t hits = walk.hits(m, unit_index, threadIdx.x % 32);
    barrier_wait(at.full + 8 * turn.stage, turn.parity);
    Unit<S::CODE> unit;
    unit.template load<PlainLoad>(ring_weights + turn.stage * S::WEIGHT_BYTES +
                                      threadIdx.x / 32 * Unit<S::CODE>::BYTES,
                                  threadIdx.x % 32);
#pragma unroll
    for (int step = 0; step < 4; step++) {
        fragment<S::CODE>(to.a[step], unit, step);
        walk.lift(to.a[step]);
    }
    if (hits) { /* apart, so that the rest is done without looking */
#pragma unroll
        for (int step = 0; step < 4; step++)
            walk.patch(to.a[step], hits, step, threadIdx.x % 32);
    }
    turn.next();
}

/* A warp's lists of escapes, in shared memory: one is looked at where each part begins. */
template <typename S>
__device__ const uint32_t *fetch_lists(const mln_cuda_matrix &m, const Site &at) {
    if constexpr (S::CODE != MLN_TILE_PACKED)
        return nullptr;
    constexpr int ROOM = MLN_TILE_SPLITS * MLN_PACKED_MOST_ESCAPES;
    __shared__ uint32_t lists[S::CODE == MLN_TILE_PACKED ? S::TILES : 1][ROOM];
    int warp = (int)threadIdx.x / 32, lane = (int)threadIdx.x % 32;
    const uint32_t *from = lists_of(m, at.tile + warp);
#pragma unroll
    for (int i = 0; i < MLN_TILE_SPLITS; i++)
        if (i * 32 + lane < MLN_TILE_SPLITS * m.escape_room)
            lists[warp][i * 32 + lane] = __ldg(from + i * 32 + lane);
    __syncwarp();
    return lists[warp];
}

/* Where products are added up: apart from the sum of parts, or in it when there is but one. */
template <int COUNT>
__device__ float (&accumulators(float (&)[COUNT], float (&apart)[COUNT]))[COUNT] {
    return apart;
}

template <int COUNT> __device__ float (&accumulators(float (&sum)[COUNT], float (&)[1]))[COUNT] {
    return sum;
}

/* Products of the block's units: the sum of the parts, or of the one there is. */
template <typename S>
__device__ void consume(float (&sum)[S::N / 2], const unsigned char *ring_weights,
                        const uint32_t *lists, const mln_cuda_linear &p, const Site &at) {
    int units = p.weight.units, count = at.end - at.begin;
    float apart[S::PARTS == 1 ? S::N / 2 : 1];
    float(&c)[S::N / 2] = accumulators(sum, apart);
#pragma unroll
    for (int i = 0; i < S::N / 2; i++)
        c[i] = sum[i] = 0.0f;
    if (count == 0)
        return;
    Turn<S> ahead;
    Walk<S::CODE> walk;
    walk.begin(p.weight, lists, at.tile + (int)threadIdx.x / 32, at.begin, threadIdx.x % 32);
    int stage = 0, split = 0, part_end = at.end;
    if (S::PARTS == 1)
        while ((part_end = mln_split_begin(units, split + 1)) == 0)
            split++;
    uint32_t more = 0;
    auto advance = [&](const Weights &now, Weights &then, int i) {
        uint64_t b = wgmma_descriptor(at.tokens + stage * S::TOKEN_BYTES);
        wgmma_fence();
#pragma unroll
        for (int step = 0; step < 4; step++)
            wgmma<S::N>(c, now.a[step], b + 2 * step, step == 0 ? more : 1);
        wgmma_commit();
        more = 1;
        if (i + 1 < count)
            fetch<S>(then, p.weight, at.begin + i + 1, ring_weights, at, ahead, walk);
        wgmma_wait();
        __syncwarp(); /* all lanes have read what one of them gives back */
        if (threadIdx.x % 32 == 0)
            barrier_arrive(at.empty + 8 * stage);
        stage = stage + 1 == S::STAGES ? 0 : stage + 1;
        if (S::PARTS == 1 && i + 1 == part_end) { /* of one part or several */
#pragma unroll
            for (int k = 0; k < S::N / 2; k++)
                sum[k] += c[k];
            more = 0;
            while (split < kSplits && part_end == i + 1)
                part_end = mln_split_begin(units, ++split + 1);
        }
    };
    Weights even, odd;
    fetch<S>(even, p.weight, at.begin, ring_weights, at, ahead, walk);
    for (int i = 0; i < count; i += 2) {
        advance(even, odd, i);
        if (i + 1 < count)
            advance(odd, even, i + 1);
    }
}

/* The largest of a warp's rows so far, for each of the block's tokens. */
template <typename S> struct Bests { mln_cuda_best of[S::TILES][S::N]; };

/* What a thread needs at the end: rows g and g + 8 of the warp's tile. */
struct Rows {
    float undo[2];
    int tile;
    bool there;
};

template <typename S> __device__ Rows rows_of(const mln_cuda_linear &p, const Site &at) {
    Rows rows;
    rows.tile = at.tile + (int)threadIdx.x / 32;
    rows.there = rows.tile < p.weight.tiles;
    const float *undo = p.weight.row_scales + rows.tile * MLN_TILE_ROWS + threadIdx.x % 32 / 4;
    rows.undo[0] = rows.there ? undo[0] : 0.0f;
    rows.undo[1] = rows.there ? undo[8] : 0.0f;
    return rows;
}

/* Element e of a product is row g + 8 (e / 2) of the tile, token 8 n + 2 q + e % 2 of the block. */
struct Place {
    int64_t at; /* in out; or the row */
    bool there;
};

__device__ Place place_of(const mln_cuda_linear &p, const Site &at, const Rows &rows, int n,
                          int e) {
    int lane = threadIdx.x % 32, token = at.token + 8 * n + 2 * (lane % 4) + e % 2;
    int row = rows.tile * MLN_TILE_ROWS + lane / 4 + e / 2 * 8;
    return Place{token * p.out_stride + row, rows.there && token < p.tokens && row < p.weight.rows};
}

/* What is there before, of all that is asked for at once. */
__device__ void load_before(float before[4], const mln_cuda_linear &p, const Site &at,
                            const Rows &rows, int n) {
#pragma unroll
    for (int e = 0; e < 4; e++) {
        Place place = place_of(p, at, rows, n, e);
        before[e] = place.there ? __ldcg(p.out + place.at) : 0.0f;
    }
}

/* One product's outputs; factors[N] of the block's tokens. */
template <typename S>
__device__ void put(const mln_cuda_linear &p, const Site &at, const Rows &rows,
                    const float *factors, int n, const float sum[4], const float before[4],
                    Bests<S> *bests) {
    int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    float y[4];
#pragma unroll
    for (int e = 0; e < 4; e++)
        y[e] = sum[e] * rows.undo[e / 2] * factors[8 * n + 2 * q + e % 2];
#pragma unroll
    for (int odd = 0; odd < 2; odd++) {
        int column = 8 * n + 2 * q + odd, token = at.token + column;
        if (p.epilogue == MLN_CUDA_GATED) {
            int row = rows.tile * 8 + g;
            if (rows.there && token < p.tokens && row < p.weight.rows)
                p.out[token * p.out_stride + row] = silu(y[odd]) * y[2 + odd];
        } else if (p.epilogue == MLN_CUDA_ARGMAX) {
            mln_cuda_best best = {0.0f, INT32_MAX};
            int row = rows.tile * MLN_TILE_ROWS + g;
            if (rows.there && row < p.weight.rows && y[odd] == y[odd])
                best = mln_cuda_best{y[odd], row};
            if (rows.there && row + 8 < p.weight.rows && y[2 + odd] == y[2 + odd])
                best = better(best, mln_cuda_best{y[2 + odd], row + 8});
            for (int offset = 4; offset < 32; offset *= 2)
                best = better_of_lanes(best, offset, ~0u);
            if (g == 0)
                bests->of[threadIdx.x / 32][column] = best;
        } else {
#pragma unroll
            for (int e = odd; e < 4; e += 2) {
                Place place = place_of(p, at, rows, n, e);
                if (place.there)
                    store(p, p.out + place.at, y[e], before[e]);
            }
        }
    }
}

/* Threads of the warp groups wait for each other. */
template <typename S> __device__ void meet_groups() {
    asm volatile("bar.sync 1, %0;" ::"n"(128 * S::GROUPS) : "memory");
}

/* Where a thread keeps the sums of product n: in the ring, when nobody uses it any more. */
template <typename S> __device__ int sums_at(int n) {
    return ((int)threadIdx.x / 32 * (S::N / 8) + n) * 512 + (int)threadIdx.x % 32 * 16;
}

template <typename S> __device__ void keep_sums(unsigned char *ring, const float (&sum)[S::N / 2]) {
    meet_groups<S>();
#pragma unroll
    for (int n = 0; n < S::N / 8; n++)
        *reinterpret_cast<float4 *>(ring + sums_at<S>(n)) =
            make_float4(sum[4 * n], sum[4 * n + 1], sum[4 * n + 2], sum[4 * n + 3]);
}

/* Parts of the columns from the blocks of the cluster, in order; each block has some tokens. */
template <typename S>
__device__ void put_parts(const mln_cuda_linear &p, const Site &at, const Rows &rows,
                          const float *factors) {
    constexpr int EACH = S::N / 8 / kSplits;
    float before[EACH][4];
#pragma unroll
    for (int i = 0; i < EACH; i++)
        if (wants_out(p))
            load_before(before[i], p, at, rows, (int)blockIdx.z * EACH + i);
    cluster_meet();
    float4 part[EACH][kSplits];
#pragma unroll
    for (int i = 0; i < EACH; i++)
#pragma unroll
        for (int s = 0; s < kSplits; s++)
            part[i][s] = load_from(place_in(
                at.tokens + (uint32_t)sums_at<S>((int)blockIdx.z * EACH + i), (uint32_t)s));
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        float all[4] = {0.0f, 0.0f, 0.0f, 0.0f};
#pragma unroll
        for (int s = 0; s < kSplits; s++) {
            all[0] += part[i][s].x;
            all[1] += part[i][s].y;
            all[2] += part[i][s].z;
            all[3] += part[i][s].w;
        }
        put<S>(p, at, rows, factors, (int)blockIdx.z * EACH + i, all, before[i], nullptr);
    }
}

/*
 * Sums of one block alone. A loop over what is in memory rather than over registers: unrolled, it
 * was so long that fetching the instructions took as long as 50 units.
 */
template <typename S>
__device__ void put_all(const mln_cuda_linear &p, const Site &at, const Rows &rows,
                        const float *factors, const unsigned char *ring, Bests<S> *bests) {
    constexpr int BATCH = 4; /* products whose former values are loaded at once */
#pragma unroll 1
    for (int first = 0; first < S::N / 8; first += BATCH) {
        float before[BATCH][4];
        float4 sum[BATCH];
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            sum[i] = *reinterpret_cast<const float4 *>(ring + sums_at<S>(first + i));
            if (wants_out(p))
                load_before(before[i], p, at, rows, first + i);
        }
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            float all[4] = {sum[i].x, sum[i].y, sum[i].z, sum[i].w};
            put<S>(p, at, rows, factors, first + i, all, before[i], bests);
        }
    }
    if (p.epilogue != MLN_CUDA_ARGMAX)
        return;
    meet_groups<S>();
    int token = at.token + (int)threadIdx.x;
    if (threadIdx.x < S::N && token < p.tokens) {
        mln_cuda_best best = bests->of[0][threadIdx.x];
        for (int w = 1; w < S::TILES; w++)
            best = better(best, bests->of[w][threadIdx.x]);
        p.best[(int64_t)token * gridDim.y + blockIdx.y] = best;
    }
}

template <typename S>
__global__ void __launch_bounds__(S::THREADS, S::BLOCKS) wgmma_kernel(mln_cuda_linear p) {
    extern __shared__ unsigned char shared[];
    __shared__ __align__(8) uint64_t barriers[2 * kMostStages];
    __shared__ float factors[S::N];
    uint32_t base = (uint32_t)__cvta_generic_to_shared(shared), ring = (base + 1023) / 1024 * 1024;
    Site at = site_of<S>(p, ring);
    at.full = (uint32_t)__cvta_generic_to_shared(barriers);
    at.empty = at.full + 8 * kMostStages;
    int warp = threadIdx.x / 32;
    dependency_launch();
    if (threadIdx.x == 0) {
        for (int i = 0; i < S::STAGES; i++) {
            barrier_init(at.full + 8 * i, 1);
            barrier_init(at.empty + 8 * i, S::TILES);
        }
        barrier_publish();
    }
    __syncthreads();
    if (warp >= S::TILES) {
        if constexpr (S::PARTS == 1)
            give_registers<S::FEW>();
        if (threadIdx.x % 32 == 0)
            produce<S>(p, at, warp - S::TILES);
        __syncwarp();
        if (S::PARTS > 1)
            cluster_meet();
    } else {
        if constexpr (S::PARTS == 1)
            take_registers<S::MANY>();
        float sum[S::N / 2];
        Rows rows = rows_of<S>(p, at);
        const uint32_t *lists = fetch_lists<S>(p.weight, at);
        dependency_wait();
        for (int i = threadIdx.x; i < S::N; i += 128 * S::GROUPS)
            factors[i] = at.token + i < p.tokens ? __ldcg(p.factors + at.token + i) : 0.0f;
        meet_groups<S>();
        consume<S>(sum, shared + (at.weights - base), lists, p, at);
        unsigned char *sums = shared + (ring - base);
        keep_sums<S>(sums, sum);
        if constexpr (S::PARTS == 1)
            put_all<S>(p, at, rows, factors, sums, reinterpret_cast<Bests<S> *>(sums + S::SUMS));
        else
            put_parts<S>(p, at, rows, factors);
    }
    if (S::PARTS > 1) /* nobody ends while others read from its memory */
        cluster_meet();
}

/* --- launching --- */

template <typename S> cudaError_t launch(const mln_cuda_linear &p, cudaStream_t stream) {
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)(p.tokens + S::N - 1) / S::N,
                          (unsigned)((p.weight.tiles + S::TILES - 1) / S::TILES), S::PARTS);
    config.blockDim = dim3(S::THREADS);
    config.dynamicSmemBytes = S::BYTES;
    config.stream = stream;
    cudaLaunchAttribute attributes[2];
    attributes[0].id = cudaLaunchAttributeProgrammaticStreamSerialization;
    attributes[0].val.programmaticStreamSerializationAllowed = p.wait ? 1 : 0;
    attributes[1].id = cudaLaunchAttributeClusterDimension;
    attributes[1].val.clusterDim.x = 1;
    attributes[1].val.clusterDim.y = 1;
    attributes[1].val.clusterDim.z = S::PARTS;
    config.attrs = attributes;
    config.numAttrs = S::PARTS > 1 ? 2 : 1;
    return cudaLaunchKernelEx(&config, wgmma_kernel<S>, p);
}

template <typename S> cudaError_t prepare_shape() {
    return cudaFuncSetAttribute(wgmma_kernel<S>, cudaFuncAttributeMaxDynamicSharedMemorySize,
                                S::BYTES);
}

/*
 * How a matrix is cut. What each takes was measured on an H100, in us: `begin` a block, `unit` one
 * of its units; none of it changes a result.
 */
enum cut { LARGE, SMALL, PARTS_128, PARTS_64, CUTS };

struct Cost {
    int tiles, tokens, parts, residents;
    float begin, unit;
};

constexpr Cost kCosts[CUTS] = {
    {8, 128, 1, 1, 7.0f, 0.50f},
    {4, 64, 1, 2, 3.0f, 0.46f},
    {4, 128, kSplits, 2, 5.0f, 1.10f},
    {4, 64, kSplits, 3, 4.0f, 1.00f},
};
constexpr int kMultiprocessors = 132;

float cost_of(const Cost &c, const mln_cuda_matrix &m, int tokens) {
    int64_t blocks = (m.tiles + c.tiles - 1) / c.tiles * ((tokens + c.tokens - 1) / c.tokens);
    int64_t room = c.residents * kMultiprocessors / c.parts; /* blocks, or clusters, at once */
    int units = (m.units + c.parts - 1) / c.parts;
    return (float)((blocks + room - 1) / room) * (c.begin + (float)units * c.unit);
}

cut cut_of(const mln_cuda_matrix &m, int tokens, bool argmax) {
    int best = LARGE;
    for (int i = SMALL; i < (argmax ? PARTS_128 : CUTS); i++)
        if (cost_of(kCosts[i], m, tokens) < cost_of(kCosts[best], m, tokens))
            best = i;
    return (cut)best;
}

template <int CODE> struct Kernels {
    typedef Shape<CODE, 2, 128, 6, 1, 1> Large;
    typedef Shape<CODE, 1, 64, 6, 2, 1> Small;
    typedef Shape<CODE, 1, 128, 4, 2, kSplits> Parts128;
    typedef Shape<CODE, 1, 64, 4, 3, kSplits> Parts64;

    static cudaError_t prepare() {
        cudaError_t (*const all[])() = {prepare_shape<Large>, prepare_shape<Small>,
                                        prepare_shape<Parts128>, prepare_shape<Parts64>};
        cudaError_t error = cudaSuccess;
        for (auto one : all)
            if (error == cudaSuccess)
                error = one();
        return error;
    }

    static cudaError_t run(const mln_cuda_linear &p, cudaStream_t stream) {
        switch (cut_of(p.weight, p.tokens, p.epilogue == MLN_CUDA_ARGMAX)) {
        case LARGE:
            return launch<Large>(p, stream);
        case SMALL:
            return launch<Small>(p, stream);
        case PARTS_128:
            return launch<Parts128>(p, stream);
        default:
            return launch<Parts64>(p, stream);
        }
    }
};

} // namespace

extern "C" int32_t mln_cuda_wgmma_argmax_blocks(const mln_cuda_matrix *weight, int32_t tokens) {
    int64_t each = kCosts[cut_of(*weight, tokens, true)].tiles;
    return (int32_t)((weight->tiles + each - 1) / each);
}

extern "C" cudaError_t mln_cuda_wgmma_launch(const mln_cuda_linear *p, cudaStream_t stream) {
    return run_by_code<Kernels>(*p, stream);
}

extern "C" cudaError_t mln_cuda_prepare_wgmma(void) {
    return prepare_codes<Kernels>();
}
