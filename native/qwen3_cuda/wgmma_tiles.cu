/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Projections of many tokens by warp groups. The sums are those of tiles.cu to the last bit, as far
 * as wgmma adds 16 products as mma does, which is not documented: wgmma_check.cu looks before
 * these kernels are used.
 *
 * A block has one or two warp groups of 64 rows each, and warps that copy weights and activations
 * into a ring of stages of one unit. Weights become registers as in tiles.cu; activations are read
 * where they are. There are as many blocks as the device holds, and each has one piece of the
 * output after another: the copying warps begin the next while the last one's outputs are put,
 * which each group does for itself.
 */
#include <cuda_fp16.h>
#include <stdint.h>
#include <type_traits>

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
constexpr int kMultiprocessors = 132; /* of an H100 or H200 */
constexpr int kGroupThreads = 128, kGroupTiles = 4, kGroupRows = kGroupTiles * MLN_TILE_ROWS;

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
    static constexpr bool AHEAD = N <= 128; /* there is room for the next unit's weights */
    static constexpr int FEW = AHEAD ? 40 : 24,
                         MANY_ = (EVEN * (GROUPS + 1) - FEW) / GROUPS / 8 * 8;
    static constexpr int MANY = MANY_ > 240 ? 240 : MANY_;
    static constexpr int WEIGHT_BYTES = TILES * Unit<CODE>::BYTES, TOKEN_BYTES = N * 128;
    static constexpr int AT_ONCE = PARTS == 1 && N > 64 ? 64 : N; /* tokens whose sums are put */
    static constexpr int SUMS = (kGroupRows + 4) * AT_ONCE * 4;   /* bytes, of a group */
    static constexpr int BESTS = kGroupThreads * 8;
    static constexpr int RING = STAGES * (WEIGHT_BYTES + TOKEN_BYTES);
    static constexpr int PARTS_BYTES = 256 * GROUPS * N;
    static constexpr int MOST = PARTS == 1           ? RING + GROUPS * (SUMS + BESTS)
                                : RING > PARTS_BYTES ? RING
                                                     : PARTS_BYTES;
    static constexpr int BYTES = 1024 + MOST; /* groups of tokens lie at multiples of 1024 */
    static_assert(PARTS == 1 || PARTS == kSplits, "a part a block");
    static_assert(PARTS == 1 || GROUPS == 1, "whose products meet");
    static_assert(STAGES <= kMostStages, "barriers");
    static_assert(PARTS > 1 || MANY > FEW, "registers to take");
};

/* What a warp needs of a unit, in the form of products. */
struct Weights {
    uint32_t a[4][4];
};

/* In shared memory. */
struct Ring {
    uint32_t tokens, weights; /* of the first stage */
    uint32_t full, empty;     /* barriers */
};

/* What a block, or one of its groups, is at. */
struct Site {
    Ring ring;
    int tile, token; /* the first */
    int runs;        /* of 64 tokens that exist */
    int begin, end;  /* units */
};

/* Blocks of tokens, and of tiles. */
template <typename S> __host__ __device__ int token_blocks(const mln_cuda_linear &p) {
    return (p.tokens + S::N - 1) / S::N;
}

template <typename S> __host__ __device__ int tile_blocks(const mln_cuda_linear &p) {
    return (int)((p.weight.tiles + S::TILES - 1) / S::TILES);
}

/* Groups of tiles, each with a best output a token. */
__host__ __device__ int best_blocks(const mln_cuda_matrix &m) {
    return (int)((m.tiles + kGroupTiles - 1) / kGroupTiles);
}

/* A block has every gridDim.x-th item, those of neighbouring tokens and the same tiles at once. */
template <typename S> __device__ int items_of(const mln_cuda_linear &p) {
    return S::PARTS > 1 ? 1 : token_blocks<S>(p) * tile_blocks<S>(p);
}

template <typename S> __device__ int first_item() {
    return S::PARTS > 1 ? 0 : (int)blockIdx.x;
}

template <typename S>
__device__ Site site_of(const mln_cuda_linear &p, const Ring &ring, int item) {
    Site at;
    at.ring = ring;
    at.tile = (S::PARTS > 1 ? (int)blockIdx.y : item / token_blocks<S>(p)) * S::TILES;
    at.token = (S::PARTS > 1 ? (int)blockIdx.x : item % token_blocks<S>(p)) * S::N;
    int left = (p.tokens - at.token + MLN_WGMMA_TOKENS - 1) / MLN_WGMMA_TOKENS;
    at.runs = max(0, min(left, S::N / MLN_WGMMA_TOKENS));
    at.begin = S::PARTS > 1 ? mln_split_begin(p.weight.units, blockIdx.z) : 0;
    at.end = S::PARTS > 1 ? mln_split_begin(p.weight.units, blockIdx.z + 1) : p.weight.units;
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
    uint32_t barrier = at.ring.full + 8 * stage;
    if (index == 0)
        barrier_expect(barrier, S::WEIGHT_BYTES + at.runs * kRun);
#pragma unroll
    for (int i = 0; i < S::TILES / S::COPIERS; i++) {
        int tile = i * S::COPIERS + index;
        const unsigned char *from =
            p.weight.data + ((int64_t)(at.tile + tile) * p.weight.units + unit) * EACH;
        copy_run(at.ring.weights + stage * S::WEIGHT_BYTES + tile * EACH, from, EACH, barrier);
    }
}

template <typename S>
__device__ void copy_tokens(const mln_cuda_linear &p, const Site &at, int index, int unit,
                            int stage) {
    const unsigned char *first = p.fragments + mln_wgmma_units(at.token, p.weight.units);
    for (int run = S::COPIERS - 1 - index; run < at.runs; run += S::COPIERS)
        copy_run(at.ring.tokens + stage * S::TOKEN_BYTES + run * kRun,
                 first + ((int64_t)run * p.weight.units + unit) * kRun, kRun,
                 at.ring.full + 8 * stage);
}

template <typename S>
__device__ void produce(const mln_cuda_linear &p, const Ring &ring, int index) {
    int items = items_of<S>(p), item = first_item<S>(), stage = 0, parity = 1;
    auto next = [&] {
        if (++stage == S::STAGES) {
            stage = 0;
            parity ^= 1;
        }
    };
    Site at = site_of<S>(p, ring, item);
    int early = item < items ? min(at.end - at.begin, S::STAGES) : 0;
    for (int i = 0; i < early; i++)
        copy_weights<S>(p, at, index, at.begin + i, i);
    dependency_wait();
    for (int i = 0; i < early; i++, next())
        copy_tokens<S>(p, at, index, at.begin + i, i);
    for (; item < items; item += (int)gridDim.x, early = 0) {
        at = site_of<S>(p, ring, item);
        for (int unit = at.begin + early; unit < at.end; unit++, next()) {
            barrier_wait(ring.empty + 8 * stage, parity); /* at first it lets everyone pass */
            copy_weights<S>(p, at, index, unit, stage);
            copy_tokens<S>(p, at, index, unit, stage);
        }
    }
}

/* --- the warp groups --- */

/* A thread's group, known to be the same in all of a warp, and its place there. */
__device__ int group_index() {
    return __shfl_sync(~0u, (int)threadIdx.x / kGroupThreads, 0);
}

__device__ int group_thread() {
    return (int)threadIdx.x % kGroupThreads;
}

/* A warp group's threads wait for each other. */
__device__ void meet_group() {
    asm volatile("bar.sync %0, %1;" ::"r"(1 + group_index()), "n"(kGroupThreads) : "memory");
}

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
    barrier_wait(at.ring.full + 8 * turn.stage, turn.parity);
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
    const uint32_t *from = lists_of(m, at.tile + group_thread() / 32);
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

/*
 * Products of the group's units: the sum of the parts, or of the one there is. The next unit's
 * products are begun before those of the last have ended, but where a part ends; of 192 tokens the
 * two groups take turns.
 */
template <typename S>
__device__ void consume(float (&sum)[S::N / 2], const unsigned char *ring_weights,
                        const uint32_t *lists, const mln_cuda_linear &p, const Site &at,
                        Turn<S> &ahead, int &stage) {
    int units = p.weight.units, count = at.end - at.begin;
    float apart[S::PARTS == 1 ? S::N / 2 : 1];
    float(&c)[S::N / 2] = accumulators(sum, apart);
#pragma unroll
    for (int i = 0; i < S::N / 2; i++)
        c[i] = sum[i] = 0.0f;
    Walk<S::CODE> walk;
    walk.begin(p.weight, lists, at.tile + group_thread() / 32, at.begin, threadIdx.x % 32);
    int split = 0, fetched = 0;
    uint32_t more = 0;
    auto get = [&](Weights &to) {
        if (fetched < count)
            fetch<S>(to, p.weight, at.begin + fetched, ring_weights, at, ahead, walk);
        fetched++;
    };
    auto issue = [&](const Weights &weights, int from) {
        uint64_t b = wgmma_descriptor(at.ring.tokens + from * S::TOKEN_BYTES);
        wgmma_fence();
#pragma unroll
        for (int step = 0; step < 4; step++)
            wgmma<S::N>(c, weights.a[step], b + 2 * step, step == 0 ? more : 1);
        wgmma_commit();
        more = 1;
    };
    auto following = [&] { return stage + 1 == S::STAGES ? 0 : stage + 1; };
    auto release = [&] {
        __syncwarp(); /* all lanes have read what one of them gives back */
        if (threadIdx.x % 32 == 0)
            barrier_arrive(at.ring.empty + 8 * stage);
        stage = following();
    };
    if constexpr (!S::AHEAD) {
        Weights weights;
        for (int done = 0, left; done < count; done += left) {
            while ((left = mln_split_begin(units, split + 1) - done) == 0)
                split++;
            more = 0;
#pragma unroll 1
            for (int i = 0; i < left; i++) {
                get(weights);
                issue(weights, stage);
                wgmma_wait<0>(); /* the other group's products are under way meanwhile */
                release();
            }
#pragma unroll
            for (int k = 0; k < S::N / 2; k++)
                sum[k] += c[k];
        }
        return;
    }
    Weights even, odd;
    get(even);
    for (int done = 0; done < count;) {
        int left = count;
        if (S::PARTS == 1) /* to the end of a part that is not empty */
            while ((left = mln_split_begin(units, split + 1) - done) == 0)
                split++;
        done += left;
        more = 0;
        issue(even, stage);
        get(odd);
#pragma unroll 1
        for (; left > 2; left -= 2) {
            issue(odd, following());
            wgmma_wait<1>();
            release();
            get(even);
            issue(even, following());
            wgmma_wait<1>();
            release();
            get(odd);
        }
        if (left == 2) {
            issue(odd, following());
            wgmma_wait<1>();
            release();
            get(even);
        }
        wgmma_wait<0>();
        release();
        if (left == 1)
            even = odd;
        if (S::PARTS == 1) {
#pragma unroll
            for (int k = 0; k < S::N / 2; k++)
                sum[k] += c[k];
        }
    }
}

/* What a thread needs at the end: rows g and g + 8 of the warp's tile. */
struct Rows {
    float undo[2];
    int tile;
    bool there;
};

template <typename S>
__device__ Rows rows_of(const mln_cuda_linear &p, const Site &at, const float *undo) {
    Rows rows;
    int row = (int)threadIdx.x / 32 * MLN_TILE_ROWS + (int)threadIdx.x % 32 / 4;
    rows.tile = at.tile + (int)threadIdx.x / 32;
    rows.there = rows.tile < p.weight.tiles;
    rows.undo[0] = undo[row];
    rows.undo[1] = undo[row + 8];
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
                    const float *factors, int n, const float sum[4], const float before[4]) {
    int lane = threadIdx.x % 32, g = lane / 4, q = lane % 4;
    float y[4];
#pragma unroll
    for (int e = 0; e < 4; e++)
        y[e] = sum[e] * rows.undo[e / 2] * factors[8 * n + 2 * q + e % 2];
    if (p.epilogue != MLN_CUDA_GATED) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            Place place = place_of(p, at, rows, n, e);
            if (place.there)
                store(p, p.out + place.at, y[e], before[e]);
        }
        return;
    }
#pragma unroll
    for (int odd = 0; odd < 2; odd++) {
        int token = at.token + 8 * n + 2 * q + odd, row = rows.tile * 8 + g;
        if (rows.there && token < p.tokens && row < p.weight.rows)
            p.out[token * p.out_stride + row] = silu(y[odd]) * y[2 + odd];
    }
}

/* Asked for here, not where it is first needed. */
__device__ float load_now(const float *from) {
    float x;
    asm volatile("ld.global.cg.f32 %0, [%1];" : "=f"(x) : "l"(from));
    return x;
}

__device__ float4 load_quad_now(const float *from) {
    float4 v;
    asm volatile("ld.global.cg.v4.f32 {%0, %1, %2, %3}, [%4];"
                 : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w)
                 : "l"(from));
    return v;
}

/* What a group's sums are multiplied by: in registers before it multiplies, then in shared memory.
 */
template <typename S> struct Scales { float factors[S::N], undo[kGroupRows]; };

struct Scale {
    float factors[2], undo; /* of tokens i and i + kGroupThreads, of row i */
};

template <typename S> __device__ Scale ask_scale(const mln_cuda_linear &p, const Site &at) {
    static_assert(S::N <= 2 * kGroupThreads && kGroupRows <= kGroupThreads, "two and one a thread");
    int i = group_thread();
    auto factor = [&](int token) {
        bool there = token < S::N && at.token + token < p.tokens;
        return there ? load_now(p.factors + at.token + token) : 0.0f;
    };
    bool row = i < kGroupRows && at.tile + i / MLN_TILE_ROWS < p.weight.tiles;
    return Scale{{factor(i), S::N > kGroupThreads ? factor(i + kGroupThreads) : 0.0f},
                 row ? load_now(p.weight.row_scales + at.tile * MLN_TILE_ROWS + i) : 0.0f};
}

template <typename S> __device__ void keep_scale(Scales<S> &scales, const Scale &scale) {
    int i = group_thread();
    if (i < S::N)
        scales.factors[i] = scale.factors[0];
    if (i + kGroupThreads < S::N)
        scales.factors[i + kGroupThreads] = scale.factors[1];
    if (i < kGroupRows)
        scales.undo[i] = scale.undo;
}

/* Where a thread keeps the sums of product n: in the ring, when nobody uses it any more. */
template <typename S> __device__ int sums_at(int n) {
    return ((int)threadIdx.x / 32 * (S::N / 8) + n) * 512 + (int)threadIdx.x % 32 * 16;
}

template <typename S> __device__ void keep_sums(unsigned char *ring, const float (&sum)[S::N / 2]) {
    meet_group();
#pragma unroll
    for (int n = 0; n < S::N / 8; n++)
        *reinterpret_cast<float4 *>(ring + sums_at<S>(n)) =
            make_float4(sum[4 * n], sum[4 * n + 1], sum[4 * n + 2], sum[4 * n + 3]);
}

/* Parts of the columns from the blocks of the cluster, in order; each block has some tokens. */
template <typename S>
__device__ void put_parts(const mln_cuda_linear &p, const Site &at, const Scales<S> &scales) {
    constexpr int EACH = S::N / 8 / kSplits;
    Rows rows = rows_of<S>(p, at, scales.undo);
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
                at.ring.tokens + (uint32_t)sums_at<S>((int)blockIdx.z * EACH + i), (uint32_t)s));
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
        put<S>(p, at, rows, scales.factors, (int)blockIdx.z * EACH + i, all, before[i]);
    }
}

/* --- the end of a block that has all parts --- */

/*
 * Its sums, token after token, in the ring that nobody uses any more: written without two lanes
 * meeting in a bank, and read in runs of four rows.
 */
template <typename S> struct Sums {
    static constexpr int STRIDE = kGroupRows + 4;
    static_assert(STRIDE % 16 == 4, "banks");

    /* Those of AT_ONCE tokens. */
    template <int FIRST> __device__ static void keep(float *sums, const float (&sum)[S::N / 2]) {
        int lane = threadIdx.x % 32, row = group_thread() / 32 * MLN_TILE_ROWS + lane / 4;
#pragma unroll
        for (int n = 0; n < S::AT_ONCE / 8; n++)
#pragma unroll
            for (int e = 0; e < 4; e++)
                sums[(8 * n + 2 * (lane % 4) + e % 2) * STRIDE + row + e / 2 * 8] =
                    sum[FIRST / 2 + 4 * n + e];
    }
    __device__ static float4 quad(const float *sums, int token, int row) {
        return *reinterpret_cast<const float4 *>(sums + token * STRIDE + row);
    }
    __device__ static float2 pair(const float *sums, int token, int row) {
        return *reinterpret_cast<const float2 *>(sums + token * STRIDE + row);
    }
};

/* What a group's outputs go through. */
template <typename S> struct Way {
    float *sums;
    mln_cuda_best *bests;
    Scales<S> *scales;
};

/*
 * Sums of AT_ONCE tokens from FIRST on, and with the first of them what scales all. meanwhile() is
 * called when these registers are free and not all threads have come so far.
 */
template <typename S, int FIRST, typename Meanwhile>
__device__ void keep_some(const Way<S> &way, const Scale &scale, const float (&sum)[S::N / 2],
                          Meanwhile meanwhile) {
    meet_group(); /* nobody needs those before */
    if (FIRST == 0)
        keep_scale(*way.scales, scale);
    Sums<S>::template keep<FIRST>(way.sums, sum);
    meanwhile();
    meet_group();
}

/* A lane has four rows, or two of each matrix, of every STEP-th token. */
constexpr int kPutLanes = kGroupRows / 4, kPutStep = kGroupThreads / kPutLanes, kPutBatch = 8;

/* A token's outputs in runs that lie together, four of them a lane. */
template <typename S, int FIRST>
__device__ void put_rows(const mln_cuda_linear &p, const Site &at, const Way<S> &way,
                         const Scale &scale, const float (&sum)[S::N / 2]) {
    static_assert(S::AT_ONCE == kPutStep * kPutBatch, "a batch");
    int first = FIRST + group_thread() / kPutLanes, slot = group_thread() % kPutLanes * 4;
    int64_t row = (int64_t)at.tile * MLN_TILE_ROWS + slot;
    float *out = p.out + (at.token + first) * p.out_stride + row;
    int64_t step = kPutStep * p.out_stride;
    int left = p.tokens - at.token - first; /* tokens: every STEP-th is the lane's */
    bool add = p.epilogue == MLN_CUDA_ADD;
    bool plain = (add || p.epilogue == MLN_CUDA_STORE) && row + 3 < p.weight.rows &&
                 p.out_stride % 4 == 0 && (uintptr_t)p.out % 16 == 0;
    float4 before[kPutBatch];
    keep_some<S, FIRST>(way, scale, sum, [&] {
#pragma unroll
        for (int i = 0; i < kPutBatch; i++) {
            before[i] = make_float4(-0.0f, -0.0f, -0.0f, -0.0f); /* added to y gives y */
            if (add && plain && i * kPutStep < left)
                before[i] = load_quad_now(out + i * step);
        }
    });
    float4 undo = *reinterpret_cast<const float4 *>(way.scales->undo + slot);
    auto result = [&](int i) {
        int column = first + i * kPutStep;
        float4 y = Sums<S>::quad(way.sums, column - FIRST, slot);
        float factor = way.scales->factors[column];
        return make_float4(y.x * undo.x * factor, y.y * undo.y * factor, y.z * undo.z * factor,
                           y.w * undo.w * factor);
    };
    if (plain) {
        float4 y[kPutBatch];
#pragma unroll
        for (int i = 0; i < kPutBatch; i++)
            y[i] = result(i);
#pragma unroll
        for (int i = 0; i < kPutBatch; i++)
            if (i * kPutStep < left)
                __stcg(reinterpret_cast<float4 *>(out + i * step),
                       make_float4(before[i].x + y[i].x, before[i].y + y[i].y, before[i].z + y[i].z,
                                   before[i].w + y[i].w));
        return;
    }
#pragma unroll 1
    for (int i = 0; i < kPutBatch && i * kPutStep < left; i++) {
        float4 quad = result(i);
        float y[4] = {quad.x, quad.y, quad.z, quad.w}, *to = out + i * step;
#pragma unroll
        for (int e = 0; e < 4; e++)
            if (row + e < p.weight.rows)
                store(p, to + e, y[e], wants_out(p) ? __ldcg(to + e) : 0.0f);
    }
}

/* Likewise of tiles that have eight rows of each matrix: two outputs a lane. */
template <typename S, int FIRST>
__device__ void put_gated(const mln_cuda_linear &p, const Site &at, const Way<S> &way,
                          const Scale &scale, const float (&sum)[S::N / 2]) {
    int first = FIRST + group_thread() / kPutLanes, lane = group_thread() % kPutLanes;
    int slot = lane / 4 * MLN_TILE_ROWS + lane % 4 * 2;
    int64_t row = (int64_t)at.tile * 8 + lane * 2;
    bool aligned = p.out_stride % 2 == 0 && (uintptr_t)p.out % 8 == 0 && row + 1 < p.weight.rows;
    keep_some<S, FIRST>(way, scale, sum, [] {});
    float2 low = *reinterpret_cast<const float2 *>(way.scales->undo + slot);
    float2 high = *reinterpret_cast<const float2 *>(way.scales->undo + slot + 8);
    float2 gate[kPutBatch], up[kPutBatch];
    float factor[kPutBatch];
#pragma unroll
    for (int i = 0; i < kPutBatch; i++) {
        gate[i] = Sums<S>::pair(way.sums, first + i * kPutStep - FIRST, slot);
        up[i] = Sums<S>::pair(way.sums, first + i * kPutStep - FIRST, slot + 8);
        factor[i] = way.scales->factors[first + i * kPutStep];
    }
#pragma unroll
    for (int i = 0; i < kPutBatch; i++) {
        float2 y =
            make_float2(silu(gate[i].x * low.x * factor[i]) * (up[i].x * high.x * factor[i]),
                        silu(gate[i].y * low.y * factor[i]) * (up[i].y * high.y * factor[i]));
        int token = at.token + first + i * kPutStep;
        float *to = p.out + token * p.out_stride + row;
        if (token >= p.tokens)
            continue;
        if (aligned)
            __stcg(reinterpret_cast<float2 *>(to), y);
        else if (row < p.weight.rows)
            to[0] = y.x;
        if (!aligned && row + 1 < p.weight.rows)
            to[1] = y.y;
    }
}

/* The largest of the group's rows for each of its tokens: some threads a token, each some rows. */
template <typename S, int FIRST>
__device__ void put_best(const mln_cuda_linear &p, const Site &at, const Way<S> &way,
                         const Scale &scale, const float (&sum)[S::N / 2]) {
    constexpr int SHARES = kGroupThreads / S::AT_ONCE, EACH = kGroupRows / SHARES;
    int thread = group_thread(), column = thread % S::AT_ONCE, begin = thread / S::AT_ONCE * EACH;
    int64_t row = (int64_t)at.tile * MLN_TILE_ROWS + begin;
    mln_cuda_best best = {0.0f, INT32_MAX};
    keep_some<S, FIRST>(way, scale, sum, [] {});
    float factor = way.scales->factors[FIRST + column];
#pragma unroll 4
    for (int i = 0; i < EACH; i += 4) {
        float4 part = Sums<S>::quad(way.sums, column, begin + i);
        float y[4] = {part.x, part.y, part.z, part.w};
#pragma unroll
        for (int e = 0; e < 4; e++) {
            float value = y[e] * way.scales->undo[begin + i + e] * factor;
            if (row + i + e < p.weight.rows && value == value)
                best = better(best, mln_cuda_best{value, (int32_t)(row + i + e)});
        }
    }
    way.bests[thread] = best;
    meet_group();
    int token = at.token + FIRST + thread;
    if (thread >= S::AT_ONCE || token >= p.tokens)
        return;
    for (int share = 1; share < SHARES; share++)
        best = better(best, way.bests[share * S::AT_ONCE + thread]);
    if (at.tile < p.weight.tiles)
        p.best[(int64_t)token * best_blocks(p.weight) + at.tile / kGroupTiles] = best;
}

/* The outputs of AT_ONCE tokens from FIRST on. */
template <typename S, int FIRST>
__device__ void put_some(const mln_cuda_linear &p, const Site &at, const Way<S> &way,
                         const Scale &scale, const float (&sum)[S::N / 2]) {
    if (p.epilogue == MLN_CUDA_ARGMAX)
        put_best<S, FIRST>(p, at, way, scale, sum);
    else if (p.epilogue == MLN_CUDA_GATED)
        put_gated<S, FIRST>(p, at, way, scale, sum);
    else
        put_rows<S, FIRST>(p, at, way, scale, sum);
}

/* The other group, and the copying warps, go on meanwhile. */
template <typename S>
__device__ void put_all(const mln_cuda_linear &p, const Site &at, const Way<S> &way,
                        const Scale &scale, const float (&sum)[S::N / 2]) {
    put_some<S, 0>(p, at, way, scale, sum);
    if constexpr (S::AT_ONCE < S::N)
        put_some<S, S::AT_ONCE>(p, at, way, scale, sum);
    if constexpr (2 * S::AT_ONCE < S::N)
        put_some<S, 2 * S::AT_ONCE>(p, at, way, scale, sum);
}

/* All of a warp group's items. */
template <typename S>
__device__ void multiply(const mln_cuda_linear &p, const Ring &ring, unsigned char *first,
                         Scales<S> &scales) {
    constexpr int ENDS = S::SUMS + S::BESTS; /* bytes */
    int items = items_of<S>(p), item = first_item<S>(), group = group_index();
    auto place = [&](int of) {
        Site at = site_of<S>(p, ring, of);
        at.tile += group * kGroupTiles;
        return at;
    };
    Way<S> way;
    way.sums = reinterpret_cast<float *>(first + S::RING + group * ENDS);
    way.bests = reinterpret_cast<mln_cuda_best *>(first + S::RING + group * ENDS + S::SUMS);
    way.scales = &scales;
    Turn<S> ahead;
    int stage = 0;
    dependency_wait();
    for (; item < items; item += (int)gridDim.x) {
        Site at = place(item);
        float sum[S::N / 2];
        Scale scale = ask_scale<S>(p, at);
        if (S::PARTS > 1)
            keep_scale(scales, scale);
        const uint32_t *lists = fetch_lists<S>(p.weight, at);
        consume<S>(sum, first + S::STAGES * S::TOKEN_BYTES, lists, p, at, ahead, stage);
        if constexpr (S::PARTS == 1) {
            put_all<S>(p, at, way, scale, sum);
        } else {
            keep_sums<S>(first, sum);
            put_parts<S>(p, at, scales);
        }
    }
}

template <typename S>
__global__ void __launch_bounds__(S::THREADS, S::BLOCKS) wgmma_kernel(mln_cuda_linear p) {
    extern __shared__ unsigned char shared[];
    __shared__ __align__(8) uint64_t barriers[2 * kMostStages];
    __shared__ __align__(16) Scales<S> scales[S::GROUPS];
    uint32_t base = (uint32_t)__cvta_generic_to_shared(shared);
    Ring ring;
    ring.tokens = (base + 1023) / 1024 * 1024;
    ring.weights = ring.tokens + S::STAGES * S::TOKEN_BYTES;
    ring.full = (uint32_t)__cvta_generic_to_shared(barriers);
    ring.empty = ring.full + 8 * kMostStages;
    int warp = threadIdx.x / 32;
    dependency_launch();
    if (threadIdx.x == 0) {
        for (int i = 0; i < S::STAGES; i++) {
            barrier_init(ring.full + 8 * i, 1);
            barrier_init(ring.empty + 8 * i, S::TILES);
        }
        barrier_publish();
    }
    __syncthreads();
    if (warp >= S::TILES) {
        if constexpr (S::PARTS == 1)
            give_registers<S::FEW>();
        if (threadIdx.x % 32 == 0)
            produce<S>(p, ring, warp - S::TILES);
        __syncwarp();
        if (S::PARTS > 1)
            cluster_meet();
    } else {
        if constexpr (S::PARTS == 1)
            take_registers<S::MANY>();
        multiply<S>(p, ring, shared + (ring.tokens - base), scales[group_index()]);
    }
    if (S::PARTS > 1) /* nobody ends while others read from its memory */
        cluster_meet();
}

/* --- launching --- */

template <typename S> cudaError_t launch(const mln_cuda_linear &p, cudaStream_t stream) {
    cudaLaunchConfig_t config = {};
    int across = token_blocks<S>(p), down = tile_blocks<S>(p);
    int64_t items = (int64_t)across * down, room = S::BLOCKS * kMultiprocessors;
    config.gridDim = S::PARTS > 1 ? dim3((unsigned)across, (unsigned)down, S::PARTS)
                                  : dim3((unsigned)(items < room ? items : room));
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
 * How a matrix is cut. What each takes was measured on an H200, in us: `begin` the kernel, `end`
 * the outputs of a block, `unit` one of its units; of WIDE cycles on an H100 beside those of LARGE.
 * None of it changes a result.
 */
enum cut { LARGE, SMALL, PARTS_128, PARTS_64, WIDE, CUTS };

struct Cost {
    int tiles, tokens, parts, residents;
    float begin, end, unit;
};

constexpr Cost kCosts[CUTS] = {
    {8, 128, 1, 1, 5.0f, 4.5f, 0.42f},       {4, 64, 1, 2, 4.5f, 2.4f, 0.345f},
    {4, 128, kSplits, 2, 7.0f, 6.2f, 0.62f}, {4, 64, kSplits, 3, 6.0f, 4.4f, 0.61f},
    {8, 192, 1, 1, 5.0f, 8.0f, 0.57f},
};

float cost_of(const Cost &c, const mln_cuda_matrix &m, int tokens) {
    int64_t blocks = (m.tiles + c.tiles - 1) / c.tiles * ((tokens + c.tokens - 1) / c.tokens);
    int64_t room = c.residents * kMultiprocessors / c.parts; /* blocks, or clusters, at once */
    int units = (m.units + c.parts - 1) / c.parts;
    return c.begin + (float)((blocks + room - 1) / room) * (c.end + (float)units * c.unit);
}

cut cut_of(const mln_cuda_matrix &m, int tokens, bool argmax) {
    int best = LARGE, cuts = argmax ? PARTS_128 : m.tile_code == MLN_TILE_DENSE ? CUTS : WIDE;
    for (int i = SMALL; i < cuts; i++)
        if (cost_of(kCosts[i], m, tokens) < cost_of(kCosts[best], m, tokens))
            best = i;
    return (cut)best;
}

template <int CODE> struct Kernels {
    typedef Shape<CODE, 2, 128, 5, 1, 1> Large;
    /* of dense weights: there is no room for what becomes of others */
    typedef std::conditional_t<CODE == MLN_TILE_DENSE, Shape<CODE, 2, 192, 4, 1, 1>, Large> Wide;
    typedef Shape<CODE, 1, 64, 5, 2, 1> Small;
    typedef Shape<CODE, 1, 128, 4, 2, kSplits> Parts128;
    typedef Shape<CODE, 1, 64, 4, 3, kSplits> Parts64;

    static cudaError_t prepare() {
        cudaError_t (*const all[])() = {prepare_shape<Large>, prepare_shape<Small>,
                                        prepare_shape<Parts128>, prepare_shape<Parts64>,
                                        prepare_shape<Wide>};
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
        case WIDE:
            return launch<Wide>(p, stream);
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

extern "C" int32_t mln_cuda_wgmma_argmax_blocks(const mln_cuda_matrix *weight) {
    return best_blocks(*weight);
}

extern "C" cudaError_t mln_cuda_wgmma_launch(const mln_cuda_linear *p, cudaStream_t stream) {
    return run_by_code<Kernels>(*p, stream);
}

extern "C" cudaError_t mln_cuda_prepare_wgmma(void) {
    return prepare_codes<Kernels>();
}
