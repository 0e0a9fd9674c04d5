/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The eight warps of a block of persist.cu that multiply, whatever the model's shape.
 *
 * While activations are awaited, a warp makes what it multiplies first ready in its registers, all
 * of a small product. Warps that do less give it some of theirs. How such a product goes on from
 * there has a cost of its own for each jump, so that it is one piece of code for each shape.
 */
#ifndef MLN_CUDA_PERSIST_PRODUCTS_CUH
#define MLN_CUDA_PERSIST_PRODUCTS_CUH

#include <cuda_fp16.h>
#include <stdint.h>

#include "device.cuh"
#include "epilogue.cuh"
#include "persist.h"
#include "persist_block.cuh"
#include "persist_units.cuh"
#include "stage.cuh"
#include "weights.cuh"

namespace {

/* What a product reads, and where its rows go: words from the first of all on. */
struct Passage {
    int from;        /* kEmbedded: the residual, which is the token's embedding */
    int before;      /* likewise what sums are added to, if they are */
    int to, emptied; /* as a Turn has it */
};
constexpr int kEmbedded = -1;

/* Whether a product is of the norm of a residual; else its sums are added to one. */
__device__ bool is_normed(int kind) {
    return kind != MLN_PERSIST_O && kind != MLN_PERSIST_DOWN;
}

/* A stretch for one of its lanes, whose quads are `first`, `first` + 32, ... */
struct Span : Stretch {
    int wide, narrow; /* what of it is this lane's to make binary16, and to where */

    __device__ Span(const Stretch &stretch, int lane) : Stretch(stretch) {
        int unit = row + lane / kUnitQuads * kRowUnit, quad = lane % kUnitQuads;
        wide = unit + quad * (int)sizeof(float4);
        narrow = unit + mln_single_offset(4 * quad);
        first += lane;
    }
};

/* A row that a thread finishes, if `to` is not negative. */
struct Finished {
    int to;
    float undo;      /* the power of two of its weights */
    uint32_t before; /* what it is added to, or empty */
};

/* The eight warps that multiply. */
template <int CODE> struct Products {
    const mln_cuda_persist &p;
    Common &common;
    unsigned char *shared;
    Layers layers;
    Ring ring;
    int warp, lane, parity;
    Place place; /* of the round */
    int32_t id;  /* of the token */

    __device__ Products(const mln_cuda_persist &persist, unsigned char *dynamic, Common &all)
        : p(persist), common(all), shared(dynamic), layers(persist, dynamic),
          ring(all.barriers, threadIdx.x / 32, persist.slots), warp(threadIdx.x / 32),
          lane(threadIdx.x % 32), parity(0), place{persist.rounds - 1, persist.rounds - 2},
          id(persist.row.id) {
        forget();
        if (threadIdx.x < MLN_PERSIST_PRODUCTS)
            common.products[threadIdx.x] = p.products[threadIdx.x];
        if (threadIdx.x < MLN_PERSIST_PRODUCTS * kParts)
            measure(common.stretches[threadIdx.x / kParts][threadIdx.x % kParts],
                    p.products[threadIdx.x / kParts], threadIdx.x % kParts);
        ProductSync()();
    }

    /* The best row that this thread has finished. */
    __device__ void forget() {
        if (threadIdx.x < kTogether * MLN_TILE_ROWS)
            common.bests[threadIdx.x] = mln_cuda_best{0.0f, INT32_MAX};
    }

    __device__ float *words() const {
        return p.residual[0].all;
    }

    __device__ void post(const Passage &way, int row, float value) const {
        put_word(words() + (way.to + row), as_word(value));
        put_word(words() + (way.emptied + row), kEmpty);
    }

    __device__ float4 *norm_at() const {
        return reinterpret_cast<float4 *>(shared + p.at_norm);
    }

    /* The norm's weights of this warp's part on their way to where this lane will want them. */
    __device__ void ask_norm(const float *from) const {
        const Stretch &stretch = common.stretches[MLN_PERSIST_QKV][warp];
        int last = stretch.last;
#pragma unroll 1
        for (int i = stretch.first + lane; i <= last; i += 32)
            asm volatile(
                "cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(shared_address(norm_at() + i)),
                "l"(from + 4 * i)
                : "memory");
        asm volatile("cp.async.commit_group;" ::: "memory");
    }

    __device__ float *embedded() const {
        return reinterpret_cast<float *>(shared + p.at_embedded);
    }

    /* The token's row of the embedding to shared memory. */
    __device__ void embed() const {
#pragma unroll 1
        for (int base = threadIdx.x; base < p.hidden; base += 4 * kProductThreads) {
            float v[4];
#pragma unroll
            for (int u = 0; u < 4; u++)
                v[u] = tiled_at(p.embedding, id, min(base + u * kProductThreads, p.hidden - 1));
#pragma unroll
            for (int u = 0; u < 4; u++)
                if (base + u * kProductThreads < p.hidden)
                    embedded()[base + u * kProductThreads] = v[u];
        }
        ProductSync()();
    }

    /* Quads first, first + 32, ... of a row; `last` for those past it. */
    template <int N>
    __device__ void look_at(uint4 (&found)[N], const Passage &way, int first, int last) const {
#pragma unroll
        for (int u = 0; u < N; u++)
            found[u] = look_four(words() + (way.from + 4 * min(first + 32 * u, last)));
    }

    template <int N> __device__ static bool are_there(const uint4 (&found)[N]) {
        bool all = true;
#pragma unroll
        for (int u = 0; u < N; u++)
            all = all && is_there(found[u]);
        return all;
    }

    /* The same until they are there; `found` may have been looked at before. */
    template <int N>
    __device__ void take(uint4 (&found)[N], const Passage &way, int first, int last) const {
        const float *at[N];
#pragma unroll
        for (int u = 0; u < N; u++)
            at[u] = words() + (way.from + 4 * min(first + 32 * u, last));
        if (!are_there(found))
            await(lost_of(p), [&] {
#pragma unroll
                for (int u = 0; u < N; u++)
                    found[u] = look_four(at[u]);
                return are_there(found);
            });
    }

    /* Those quads times the norm's weights, zeros past `last`. */
    template <int N, bool NORM>
    __device__ void gather(float4 (&v)[N], uint4 (&found)[N], const Passage &way, int first,
                           int last) {
        float4 n[N];
#pragma unroll
        for (int u = 0; u < N; u++)
            if (NORM)
                n[u] = norm_at()[min(first + 32 * u, last)];
        if (NORM && way.from == kEmbedded)
#pragma unroll
            for (int u = 0; u < N; u++)
                found[u] = reinterpret_cast<const uint4 *>(embedded())[min(first + 32 * u, last)];
        else
            take(found, way, first, last);
        if (NORM && way.from != kEmbedded) /* for the norm's factor */
#pragma unroll
            for (int u = 0; u < N; u++)
                if (first + 32 * u <= last)
                    reinterpret_cast<uint4 *>(embedded())[first + 32 * u] = found[u];
#pragma unroll
        for (int u = 0; u < N; u++) {
            v[u] = make_float4(__uint_as_float(found[u].x), __uint_as_float(found[u].y),
                               __uint_as_float(found[u].z), __uint_as_float(found[u].w));
            if (NORM)
                v[u] =
                    make_float4(v[u].x * n[u].x, v[u].y * n[u].y, v[u].z * n[u].z, v[u].w * n[u].w);
            if (first + 32 * u > last)
                v[u] = make_float4(0.0f, 0.0f, 0.0f, 0.0f);
        }
    }

    /* Nothing has been looked at. */
    template <int N> __device__ static void begin_looks(uint4 (&found)[N]) {
#pragma unroll
        for (int u = 0; u < N; u++)
            found[u] = make_uint4(kEmpty, kEmpty, kEmpty, kEmpty);
    }

    template <int N> __device__ static float most_of(const float4 (&v)[N]) {
        float most = 0.0f;
#pragma unroll
        for (int u = 0; u < N; u++)
            most = fmaxf(most, fmaxf(fmaxf(fabsf(v[u].x), fabsf(v[u].y)),
                                     fmaxf(fabsf(v[u].z), fabsf(v[u].w))));
        return most;
    }

    /* The powers of two for a row of which this lane has seen `most`. */
    template <bool NORM> __device__ void meet(float most, float *up, float *down) {
        most = warp_most(most);
        if (lane == 0)
            common.mosts[0][warp] = most;
        ProductSync()();
        if (NORM)
            NormSync().arrive(); /* the row is there, and all have used the factor before */
        static_assert(kParts == 8, "two vectors");
        const float4 *mosts = reinterpret_cast<const float4 *>(common.mosts[0]);
        float4 a = mosts[0], b = mosts[1];
        most =
            fmaxf(fmaxf(fmaxf(a.x, a.y), fmaxf(a.z, a.w)), fmaxf(fmaxf(b.x, b.y), fmaxf(b.z, b.w)));
        powers_for(most, up, down);
    }

    __device__ static uint2 halves_of(float4 v, float up) {
        return make_uint2(as_word(__floats2half2_rn(v.x * up, v.y * up)),
                          as_word(__floats2half2_rn(v.z * up, v.w * up)));
    }

    __device__ static void put_halves(unsigned char *to, uint2 halves) {
        *reinterpret_cast<uint32_t *>(to) = halves.x;
        *reinterpret_cast<uint32_t *>(to + 16) = halves.y;
    }

    /* A warp's part of 32 N quads, through registers. */
    template <int N, bool NORM>
    __device__ float stage_short(uint4 (&found)[N], const Passage &way, const Span &span) {
        float4 v[N];
        gather<N, NORM>(v, found, way, span.first, span.first + 32 * (N - 1));
        float up, down;
        meet<NORM>(most_of(v), &up, &down);
#pragma unroll
        for (int u = 0; u < N; u++)
            put_halves(shared + span.narrow + 2 * u * kRowUnit, halves_of(v[u], up));
        __syncwarp();
        return down;
    }

    template <int N, bool NORM> __device__ float stage_short(const Passage &way, const Span &span) {
        uint4 found[N];
        begin_looks(found);
        return stage_short<N, NORM>(found, way, span);
    }

    /* Of any length, through shared memory. */
    template <int N, bool NORM> __device__ float stage_long(const Passage &way, const Span &span) {
        float most = 0.0f, up, down;
        unsigned char *to = shared + span.wide;
#pragma unroll 1
        for (int i = span.first; i < span.end; i += 32 * N) {
            float4 v[N];
            uint4 found[N];
            begin_looks(found);
            gather<N, NORM>(v, found, way, i, span.last);
            most = fmaxf(most, most_of(v));
#pragma unroll
            for (int u = 0; u < N; u++)
                if (i + 32 * u < span.end)
                    *reinterpret_cast<float4 *>(to + 2 * u * kRowUnit) = v[u];
            to += 2 * N * kRowUnit;
        }
        meet<NORM>(most, &up, &down);
        narrow_part(span, up);
        return down;
    }

    /* 2 N units of this warp's part of a row from floats to binary16, in their place. */
    template <int N>
    __device__ void narrow(unsigned char *from, unsigned char *to, int left, float up) const {
        uint2 halves[N];
#pragma unroll
        for (int n = 0; n < N; n++)
            halves[n] =
                2 * n + lane / kUnitQuads < left
                    ? halves_of(*reinterpret_cast<const float4 *>(from + 2 * n * kRowUnit), up)
                    : make_uint2(0, 0);
        __syncwarp();
#pragma unroll
        for (int n = 0; n < N; n++)
            if (2 * n + lane / kUnitQuads < left)
                put_halves(to + 2 * n * kRowUnit, halves[n]);
    }

    __device__ void narrow_part(const Span &span, float up) const {
        constexpr int MOST = 3;
        unsigned char *from = shared + span.wide, *to = shared + span.narrow;
#pragma unroll 1
        for (int left = span.units; left > 0; left -= 2 * MOST) {
            if (left <= 2)
                narrow<1>(from, to, left, up);
            else
                narrow<MOST>(from, to, left, up);
            from += 2 * MOST * kRowUnit;
            to += 2 * MOST * kRowUnit;
        }
        __syncwarp();
    }

    /* A product's activations to where this warp reads its part of them, as stage_row() does it;
     * what undoes their power of two. */
    __device__ float stage(int kind, const Passage &way, const Span &span) {
        if (is_normed(kind)) {
            asm volatile("cp.async.wait_all;" ::: "memory");
            switch (span.batches) {
            case 1:
                return stage_short<1, true>(way, span);
            case 2:
                return stage_short<2, true>(way, span);
            case 4:
                return stage_short<4, true>(way, span);
            default:
                return span.units <= 6 ? stage_long<3, true>(way, span)
                                       : stage_long<kStageBatch, true>(way, span);
            }
        }
        switch (span.batches) {
        case 2:
            return stage_short<2, false>(way, span);
        case 3:
            return stage_short<3, false>(way, span);
        case 4:
            return stage_short<4, false>(way, span);
        case 6:
            return stage_short<6, false>(way, span);
        default:
            return stage_long<kStageBatch, false>(way, span);
        }
    }

    __device__ const unsigned char *slot_at(int slot) const {
        return shared + (warp * p.slots + slot) * Slot<CODE>::BYTES;
    }

    /* All lanes have used a slot. */
    __device__ void give_back() {
        if (lane == 0)
            ring.give_back();
        ring.next();
    }

    /* A warp's part of a tile's sums to where those who finish rows find it. */
    __device__ void put_part(int tile, const float (&c)[4]) {
        if (lane % 4 == 0) {
            float *to = &common.parts[parity][tile][warp][lane / 4];
            to[0] = c[0];
            to[8] = c[2];
        }
    }

    /* To unit `used` of the next slot, or of T of them when each tile has its own. */
    template <int T> __device__ void enter(Run<CODE, T> &run, const Span &span, int used) const {
        bool own = mln_persist_may_own(CODE) && span.own;
        Ring walk = ring;
#pragma unroll
        for (int t = 0; t < T; t++) {
            if (own || t == 0)
                walk.await_full();
            run.begin(t, slot_at(walk.slot) +
                             (used + (own ? 0 : t * span.at_once)) * Unit<CODE>::BYTES);
            if (own)
                walk.next();
        }
    }

    template <int T> __device__ void leave(const Span &span) {
        __syncwarp();
        give_back();
#pragma unroll
        for (int t = 1; t < T; t++)
            if (mln_persist_may_own(CODE) && span.own)
                give_back();
    }

    /* Units from slot after slot, which are fragments already. */
    template <int T, int MOST, int COUNT>
    __device__ void hold_dense(Held<CODE, COUNT> &held, const Span &span) {
        uint32_t loaded = 0;
#pragma unroll
        for (int u = 0; u < MOST; u++)
            if (u < held.units) {
                Run<CODE, T> run;
                enter(run, span, held.used);
#pragma unroll
                for (int t = 0; t < T; t++) {
                    Unit<CODE> unit;
                    run.load(unit, t, 0);
                    loaded ^= word_of_all(unit);
                    held.put(t * MOST + u, unit);
                }
                held.used++;
                leave_used<T>(held.used, span, u + 1, loaded);
            } else {
#pragma unroll
                for (int t = 0; t < T; t++)
                    held.put(t * MOST + u, Unit<CODE>{});
            }
    }

    /* Units of the next slot alone, made fragments without a jump, also those that are not there.
     */
    template <int T, int MOST, int COUNT>
    __device__ void hold_codes(Held<CODE, COUNT> &held, const Span &span) {
        Run<CODE, T> run;
        Unit<CODE> units[T * MOST];
        held.used = held.units;
        enter(run, span, 0);
#pragma unroll
        for (int i = 0; i < T * MOST; i++)
            run.load(units[i], i / MOST, i % MOST);
        uint32_t loaded = 0;
#pragma unroll
        for (int i = 0; i < T * MOST; i++)
            loaded ^= word_of_all(units[i]);
        leave_used<T>(held.used, span, held.units, loaded);
#pragma unroll
        for (int i = 0; i < T * MOST; i++)
            held.put(i, units[i]);
    }

    /* A word of all that is loaded of a unit: none of it is on its way when that is known. */
    __device__ static uint32_t word_of_all(const Unit<CODE> &unit) {
        uint32_t word = 0;
#pragma unroll
        for (int i = 0; i < Unit<CODE>::VECTORS; i++)
            word ^= unit.v[i].x;
#pragma unroll
        for (int i = 0; i < Unit<CODE>::SETS; i++)
            word ^= unit.scales[i].x;
        return word;
    }

    /* Gives back what has been used up of slots, `unit` units into the part, when it is loaded. */
    template <int T>
    __device__ void leave_used(int &used, const Span &span, int unit, uint32_t loaded) {
        if (used == span.at_once || unit == span.units) {
            if (used > 0) {
                await_word(loaded);
                leave<T>(span);
            }
            used = 0;
        }
    }

    /* Before activations are there: what can be done without them. All of `held` is written, so
     * that no register keeps what was there before. */
    template <int T, int MOST, int COUNT>
    __device__ void hold_tiles(Held<CODE, COUNT> &held, const Span &span, int units) {
        held.used = 0;
        held.units = units;
        if constexpr (CODE == MLN_TILE_DENSE)
            hold_dense<T, MOST>(held, span);
        else
            hold_codes<T, MOST>(held, span);
#pragma unroll
        for (int i = T * MOST; i < COUNT; i++)
            held.put(i, Unit<CODE>{});
    }

    template <int T, int MOST, int COUNT>
    __device__ void add_held(float (&c)[kTogether][4], const Held<CODE, COUNT> &held,
                             const Span &span) const {
        const unsigned char *x = shared + span.row + lane * 16;
#pragma unroll
        for (int u = 0; u < MOST; u++)
            if (u < held.units) {
                Column column(x + u * kRowUnit);
#pragma unroll
                for (int step = 0; step < 4; step++)
#pragma unroll
                    for (int t = 0; t < T; t++)
                        column.multiply(c[t], held.a[t * MOST + u][step], step);
            }
    }

    /* Of the first tiles of a product that is not small. Where a part of codes is short, making
     * them ready takes longer than activations. */
    __device__ void hold(Held<CODE, kHeld> &held, const Span &span, int tiles) {
        constexpr bool DENSE = CODE == MLN_TILE_DENSE;
        int units = DENSE ? span.units : span.units < kLongPart ? 0 : span.at_once;
        switch (units > 0 ? tiles : 0) {
        case 0:
            held.used = held.units = 0;
#pragma unroll
            for (int i = 0; i < kHeld; i++)
                held.put(i, Unit<CODE>{});
            return;
        case 1:
            return hold_tiles<1, kHeld>(held, span, min(kHeld, units));
        case 2:
            return hold_tiles<2, kHeld / 2>(held, span, min(kHeld / 2, units));
        case 3:
            return hold_tiles<3, kHeld / 3>(held, span, min(kHeld / 3, units));
        default:
            return hold_tiles<4, kHeld / 4>(held, span, min(kHeld / 4, units));
        }
    }

    __device__ void begin_group(float (&c)[kTogether][4], const Held<CODE, kHeld> &held,
                                const Span &span, int tiles) const {
        switch (held.units > 0 ? tiles : 0) {
        case 0:
            return;
        case 1:
            return add_held<1, kHeld>(c, held, span);
        case 2:
            return add_held<2, kHeld / 2>(c, held, span);
        case 3:
            return add_held<3, kHeld / 3>(c, held, span);
        default:
            return add_held<4, kHeld / 4>(c, held, span);
        }
    }

    /* T tiles side by side, from a unit on of whose slot so many have been used. */
    template <int T>
    __device__ void add_tiles(float (&c)[kTogether][4], const Span &span, int unit, int used) {
        const unsigned char *x = shared + span.row + unit * kRowUnit + lane * 16;
#pragma unroll 1
        while (unit < span.units) {
            Run<CODE, T> run;
            enter(run, span, used);
            int count = min(span.at_once - used, span.units - unit);
            run.template add_all<(T > 2 ? 1 : CODE == MLN_TILE_DENSE ? 2 : 4)>(c, x, count);
            leave<T>(span);
            unit += count;
            used = 0;
        }
#pragma unroll
        for (int t = 0; t < T; t++)
            put_part(t, c[t]);
    }

    __device__ void add_group(float (&c)[kTogether][4], const Span &span, int tiles, int unit,
                              int used) {
        switch (tiles) {
        case 1:
            return add_tiles<1>(c, span, unit, used);
        case 2:
            return add_tiles<2>(c, span, unit, used);
        case 3:
            return add_tiles<3>(c, span, unit, used);
        default:
            return add_tiles<4>(c, span, unit, used);
        }
    }

    /* Threads of whole warps: the parts of a row added in order. */
    __device__ void finish(int kind, const Passage &way, const Finished &row, float factor) {
        int t = threadIdx.x / MLN_TILE_ROWS, slot = threadIdx.x % MLN_TILE_ROWS;
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < kParts; w++)
            sum += common.parts[parity][t][w][slot];
        float y = sum * row.undo * factor;
        if (kind == MLN_PERSIST_GATED) {
            float z = __shfl_xor_sync(~0u, y, 8);
            if (row.to >= 0)
                post(way, row.to, silu(y) * z);
        } else if (kind == MLN_PERSIST_HEAD) {
            if (row.to >= 0 && y == y)
                common.bests[threadIdx.x] =
                    better(common.bests[threadIdx.x], mln_cuda_best{y, row.to});
        } else if (row.to >= 0) {
            uint32_t before = row.before;
            if (!is_normed(kind) && !is_there(before))
                before = look(words() + (way.before + row.to)); /* all of them are there now */
            post(way, row.to, is_normed(kind) ? y : __uint_as_float(before) + y);
        }
    }

    __device__ void measure(Stretch &stretch, const mln_persist_product &product, int part) const {
        int begin = mln_split_begin(product.units, part);
        int end = mln_split_begin(product.units, part + 1);
        stretch.units = end - begin;
        stretch.at_once = product.at_once;
        stretch.own = product.own;
        stretch.first = begin * kUnitQuads;
        stretch.end = end * kUnitQuads;
        stretch.last = min(stretch.end, product.columns / 4) - 1;
        stretch.row = p.at_row + begin * kRowUnit;
        bool even = stretch.last + 1 == stretch.end && stretch.units % 2 == 0;
        stretch.batches = even ? stretch.units / 2 : 0;
    }

    __device__ Span span_of(int kind) const {
        Span span(common.stretches[kind][warp], lane);
        settle(span.first);
        settle(span.narrow);
        return span;
    }

    /* The row that this thread finishes of a group whose first tile is `first`. */
    __device__ Finished row_of(int kind, int layer, const Passage &way,
                               const mln_persist_product &product, int first) const {
        int slot = threadIdx.x % MLN_TILE_ROWS;
        int tile = first + (int)(threadIdx.x / MLN_TILE_ROWS) * (int)gridDim.x;
        Finished row = {-1, 0.0f, kEmpty};
        if (threadIdx.x >= product.together * MLN_TILE_ROWS || tile >= product.tiles)
            return row;
        row.undo = __ldg(layers.all[layer].row_scales[kind % 4] + tile * MLN_TILE_ROWS + slot);
        int to = kind == MLN_PERSIST_GATED ? tile * 8 + slot : tile * MLN_TILE_ROWS + slot;
        if (to < product.rows && (kind != MLN_PERSIST_GATED || slot < 8))
            row.to = to;
        if (row.to >= 0 && !is_normed(kind))
            row.before = way.before == kEmbedded ? __float_as_uint(embedded()[to])
                                                 : look(words() + (way.before + to));
        return row;
    }

    __device__ __forceinline__ void run(int kind, int layer, const Passage &way) {
        const mln_persist_product &product = common.products[kind];
        Share share = share_of(layers, kind, layer);
        if (share.count > 0)
            run_share(kind, layer, way, product, share);
        else if (is_normed(kind))
            asm volatile("cp.async.wait_all;" ::: "memory");
        if (is_normed(kind))
            ask_norm(norm_after(kind, layer));
    }

    __device__ __forceinline__ void run_share(int kind, int layer, const Passage &way,
                                              const mln_persist_product &product,
                                              const Share &share) {
        const Stretch &stretch = common.stretches[kind][warp];
        bool whole = CODE == MLN_TILE_DENSE || stretch.at_once >= stretch.units; /* in a slot */
        int tiles = whole && share.count <= product.together ? share.count : 0;
        int batches = stretch.batches;
        if (is_normed(kind) && batches == 1) {
            if (tiles == 2)
                return run_small<2, 1, true>(kind, layer, way, product, share.first);
            if (tiles == 3)
                return run_small<3, 1, true>(kind, layer, way, product, share.first);
            if (tiles == 1)
                return run_small<1, 1, true>(kind, layer, way, product, share.first);
        } else if (!is_normed(kind) && tiles == 1) {
            if (batches == 2)
                return run_small<1, 2, false>(kind, layer, way, product, share.first);
            if (batches == 3)
                return run_small<1, 3, false>(kind, layer, way, product, share.first);
        }
        run_any(kind, layer, way, product, share);
    }

    /* T tiles of a product whose units, 2 N each, are all held: one look at what may be there by
     * now, before, and hardly a jump. */
    template <int T, int N, bool NORM>
    __device__ __forceinline__ void run_small(int kind, int layer, const Passage &way,
                                              const mln_persist_product &product, int first) {
        Finished row = row_of(kind, layer, way, product, first);
        Span span = span_of(kind);
        Held<CODE, T * 2 * N> held;
        uint4 found[N];
        begin_looks(found);
        if (!NORM || way.from != kEmbedded)
            look_at(found, way, span.first, span.first + 32 * (N - 1));
        hold_tiles<T, 2 * N>(held, span, 2 * N);
        if (NORM) /* its weights are there */
            asm volatile("cp.async.wait_all;" ::: "memory");
        float factor = stage_short<N, NORM>(found, way, span), c[kTogether][4] = {};
        add_held<T, 2 * N>(c, held, span);
#pragma unroll
        for (int t = 0; t < T; t++)
            put_part(t, c[t]);
        finish_group(kind, way, row, factor, true);
    }

    /* As many groups of tiles as there are, of parts of any length. */
    __device__ void run_any(int kind, int layer, const Passage &way,
                            const mln_persist_product &product, const Share &share) {
        int together = product.together, first = share.first;
        Finished row = row_of(kind, layer, way, product, first);
        Span span = span_of(kind);
        settle(together);
        Held<CODE, kHeld> held;
        hold(held, span, min(together, share.count));
        float factor = stage(kind, way, span), c[kTogether][4] = {};
        begin_group(c, held, span, min(together, share.count));
        int unit = held.units, used = held.used;
#pragma unroll 1
        for (int left = share.count; left > 0; left -= together) {
            add_group(c, span, min(together, left), unit, used);
            unit = used = 0;
#pragma unroll
            for (int i = 0; i < 4 * kTogether; i++)
                c[i / 4][i % 4] = 0.0f;
            factor = finish_group(kind, way, row, factor, left == share.count);
            if (threadIdx.x < kTogether * MLN_TILE_ROWS && left > together)
                row = row_of(kind, layer, way, product, first += together * (int)gridDim.x);
        }
    }

    /* The parts of a group's rows are there. */
    __device__ float finish_group(int kind, const Passage &way, const Finished &row, float factor,
                                  bool begins) {
        ProductSync()();
        if (threadIdx.x < kTogether * MLN_TILE_ROWS) {
            if (begins && is_normed(kind)) {
                FactorSync()();
                factor *= common.factor;
            }
            finish(kind, way, row, factor);
        }
        parity ^= 1;
        return factor;
    }

    /* The head's input is that of the round before, as a layer's. */
    __device__ Passage passage(int kind, int layer) const {
        int now = place.now * p.round_words, before = place.before * p.round_words;
        int residual = layer == 0 ? kEmbedded : before + p.products[MLN_PERSIST_QKV].from;
        const mln_persist_product &product = common.products[kind];
        Passage way = {now + product.from, now + product.before, now + product.to,
                       before + product.to};
        if (kind == MLN_PERSIST_QKV)
            way.from = residual;
        if (kind == MLN_PERSIST_O)
            way.before = residual;
        return way;
    }

    /* The norm after a product's. */
    __device__ const float *norm_after(int kind, int layer) const {
        return kind == MLN_PERSIST_QKV    ? layers.all[layer].norms[1]
               : kind == MLN_PERSIST_HEAD ? layers.all[0].norms[0]
                                          : layers.all[layer + 1].norms[0];
    }

    /* The token after this one. */
    __device__ void pick(int step) {
        if (warp < kTogether * MLN_TILE_ROWS / 32) {
            mln_cuda_best best = best_of_warp(common.bests[threadIdx.x]);
            if (lane == 0)
                common.own[warp] = best;
            forget();
        }
        TokenSync()();
        agree_on_best(step);
    }

    /* The best of all blocks, the same in each, when all threads have met. */
    __device__ __forceinline__ void agree_on_best(int step) {
        /* all have written, and so have read what is two tokens old */
        Turn turn = turn_of_few(p.best, step, 2);
        if (threadIdx.x == 0) {
            order_words();
            mln_cuda_best best = better(common.own[0], common.own[1]);
            turn.post_two(2 * blockIdx.x, best.value, __int_as_float(best.id));
        }
        mln_cuda_best best = {0.0f, INT32_MAX};
        if (threadIdx.x < gridDim.x) {
            uint2 two = make_uint2(0, INT32_MAX);
            await(lost_of(p), [&] {
                two = look_two(turn.now + 2 * threadIdx.x);
                return is_there(two);
            });
            best = mln_cuda_best{__uint_as_float(two.x), (int32_t)two.y};
            order_words();
        }
        best = best_of_warp(best);
        if (lane == 0)
            common.winners[warp] = best;
        ProductSync()();
        best = common.winners[0];
#pragma unroll 1
        for (int w = 1; w < kParts; w++)
            best = better(best, common.winners[w]);
        id = best.id < 0 || best.id == INT32_MAX ? 0 : best.id; /* empty when patience has ended */
    }

    __device__ __forceinline__ void decode() {
        ask_norm(layers.all[0].norms[0]);
#pragma unroll 1
        for (int step = 0; step < p.steps; step++) {
            embed();
#pragma unroll 1
            for (int index = 0; index <= 4 * p.num_layers; index++) {
                int layer = index / 4, kind = layer < p.num_layers ? index % 4 : MLN_PERSIST_HEAD;
                if (kind == MLN_PERSIST_QKV) {
                    place.next(p.rounds);
                    if (threadIdx.x == 0) {
                        __threadfence_block();
                        common.round = step * p.num_layers + layer;
                    }
                }
                run(kind, layer, passage(kind, layer));
            }
            pick(step);
            if (blockIdx.x == 0 && threadIdx.x == 0)
                p.out_ids[step] = id;
        }
        asm volatile("cp.async.wait_all;" ::: "memory");
    }
};

} // namespace

#endif
