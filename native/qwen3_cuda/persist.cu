/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Greedy tokens of one sequence by one kernel, as persist.h says: a block for each multiprocessor,
 * all of them there from the first token to the last. In a block eight warps multiply, each with
 * one of the eight parts of every row; four attend; one or two copy weights. Sums are those of
 * tiles.cu and attend_tiles.cu, to the last bit.
 */
#include <cuda_fp16.h>
#include <stdint.h>

#include "device.cuh"
#include "epilogue.cuh"
#include "persist.h"
#include "persist_attend.cuh"
#include "persist_block.cuh"
#include "stage.cuh"
#include "weights.cuh"

namespace {

#ifdef MLN_PERSISTS

/* --- copying weights --- */

/* Where in the weights one of a row's eight parts is: tiles of this block that are summed side by
 * side. */
template <int CODE> struct Cursor {
    static constexpr int BYTES = Unit<CODE>::BYTES;
    const mln_cuda_persist &p;
    Layers layers;
    int part, step, index;
    int left, units;           /* tiles left of the product; units of the part of a row */
    int together, at_once;     /* of the product */
    bool own;                  /* each of them has a slot of its own */
    const unsigned char *from; /* the first tile's */
    int64_t stride;            /* to the next tile of this block */
    bool done;

    __device__ Cursor(const mln_cuda_persist &persist, const unsigned char *shared, int which)
        : p(persist), layers(persist, shared), part(which), step(0), index(-1), done(false) {
        next_product();
    }

    /* On to the next product of which there is anything to copy. */
    __device__ void next_product() {
        do {
            if (++index > 4 * p.num_layers) {
                index = 0;
                step++;
            }
            done = step >= p.steps;
        } while (!done && !begin_product(index / 4, index == 4 * p.num_layers ? 4 : index % 4));
    }

    __device__ bool begin_product(int layer, int kind) {
        const mln_persist_product &product = p.products[kind];
        Share share = share_of(p, layers, kind, layer);
        int begin = mln_split_begin(product.units, part);
        units = mln_split_begin(product.units, part + 1) - begin;
        left = share.count;
        together = product.together;
        at_once = product.at_once;
        own = product.own;
        int64_t tile_bytes = (int64_t)product.units * BYTES;
        stride = gridDim.x * tile_bytes;
        from = layers.all[layer].data[kind % 4] + share.first * tile_bytes + begin * BYTES;
        return left > 0 && units > 0;
    }

    __device__ int tiles() const {
        return min(together, left);
    }

    __device__ void next() {
        from += together * stride;
        left -= together;
        if (left <= 0)
            next_product();
    }
};

/* What is copied for one warp: which slot's content comes next. */
template <int CODE> struct Supply {
    static constexpr int BYTES = Unit<CODE>::BYTES;
    Cursor<CODE> at, ahead; /* ahead: what is asked for, to be in L2 when it is copied */
    Ring ring;
    uint32_t base;  /* shared address of slot 0 */
    int unit, tile; /* the next; tile: of those side by side, where each has a slot */

    __device__ Supply(const mln_cuda_persist &p, const unsigned char *shared,
                      const Barriers &barriers, int part)
        : at(p, shared, part), ahead(at), ring(barriers, part, p.slots), unit(0), tile(0) {
        base = shared_address(shared) + (uint32_t)(part * p.slots) * Slot<CODE>::BYTES;
        ahead.next();
        ahead.done = ahead.done || !p.ahead;
    }

    __device__ void ask() {
        for (int t = 0; t < ahead.tiles(); t++)
            prefetch_bulk(ahead.from + t * ahead.stride, (uint32_t)(ahead.units * BYTES));
        ahead.next();
    }

    __device__ void fill(uint64_t policy) {
        if (unit == 0 && tile == 0 && !ahead.done)
            ask();
        int count = min(at.at_once, at.units - unit);
        const unsigned char *from = at.from + unit * BYTES;
        uint32_t bytes = (uint32_t)(count * BYTES);
        uint32_t full = ring.full + 8 * ring.slot, to = base + ring.slot * Slot<CODE>::BYTES;
        if (mln_persist_may_own(CODE) && at.own) {
            expect_bytes(full, bytes);
            copy_bulk(to, from + tile * at.stride, bytes, full, policy);
            ring.next();
            if (++tile < at.tiles())
                return;
            tile = 0;
        } else {
            expect_bytes(full, bytes * at.tiles());
            for (int t = 0; t < at.tiles(); t++)
                copy_bulk(to + t * at.at_once * BYTES, from + t * at.stride, bytes, full, policy);
            ring.next();
        }
        unit += count;
        if (unit == at.units) {
            unit = 0;
            at.next();
        }
    }
};

/* A lane for each of the eight rings, dealt to the warps that copy. */
template <int CODE>
__device__ void supply(const mln_cuda_persist &p, const unsigned char *shared,
                       const Barriers &barriers) {
    constexpr int EACH = kParts / mln_persist_copying(CODE);
    int lane = threadIdx.x % 32, ring = lane % EACH;
    if constexpr (EACH < kParts)
        ring += (threadIdx.x - kProductThreads - kAttendThreads) / 32 * EACH;
    Supply<CODE> mine(p, shared, barriers, ring);
    mine.at.done = mine.at.done || lane >= EACH;
    uint64_t policy = read_once_policy();
    for (uint32_t looks = 0; looks < kManyLooks && !__all_sync(~0u, mine.at.done); looks++)
        if (!mine.at.done && mine.ring.is_empty()) {
            mine.fill(policy);
            looks = 0;
        } else {
            __nanosleep(64); /* the warps beside it have work */
        }
}

/* --- products --- */

/* Units of T tiles, one after the other, from shared memory. */
template <int CODE, int T> struct Run {
    const unsigned char *w[T], *x; /* this lane's; x: of lanes 0 to 3 */
    int scales;                    /* from the lane's vectors to its scales, less the codes */

    __device__ explicit Run(const unsigned char *row)
        : x(row + threadIdx.x % 32 * 16),
          scales((int)(threadIdx.x % 32 / 4 * 8) - (int)(threadIdx.x % 32 * 16)) {
    }

    __device__ void begin(int tile, const unsigned char *units) {
        w[tile] = units + threadIdx.x % 32 * 16;
    }

    /* The products of the next N units with the activations. */
    template <int N> __device__ void add(float (&c)[T][4]) {
#pragma unroll
        for (int u = 0; u < N; u++) {
            Unit<CODE> unit[T];
#pragma unroll
            for (int t = 0; t < T; t++)
                unit[t].template load_at<PlainLoad>(w[t] + u * Unit<CODE>::BYTES,
                                                    w[t] + scales + u * Unit<CODE>::BYTES);
            uint4 b[2] = {make_uint4(0, 0, 0, 0), make_uint4(0, 0, 0, 0)};
            if (threadIdx.x % 32 < 4) { /* column 0 of 8: the others are zeros */
                b[0] = *reinterpret_cast<const uint4 *>(x + u * kRowUnit);
                b[1] = *reinterpret_cast<const uint4 *>(x + u * kRowUnit + 64);
            }
#pragma unroll
            for (int step = 0; step < 4; step++)
#pragma unroll
                for (int t = 0; t < T; t++) {
                    uint32_t a[4];
                    fragment<CODE>(a, unit[t], step);
                    mma(c[t], a, word_of(b[step / 2], step % 2 * 2),
                        word_of(b[step / 2], step % 2 * 2 + 1));
                }
        }
#pragma unroll
        for (int t = 0; t < T; t++)
            w[t] += N * Unit<CODE>::BYTES;
        x += N * kRowUnit;
    }

    /* `count` units, up to MOST without a jump. */
    template <int MOST> __device__ void add_all(float (&c)[T][4], int count) {
        if (MOST > 1 && count & 1)
            add<1>(c);
        if (MOST > 2 && count & 2)
            add<2>(c);
#pragma unroll 1
        for (int left = count & -MOST; left > 0; left -= MOST)
            add<MOST>(c);
    }
};

__device__ __noinline__ mln_cuda_best best_of_warp(mln_cuda_best best) {
    for (int offset = 16; offset > 0; offset /= 2)
        best = better_of_lanes(best, offset, ~0u);
    return best;
}

/* What a product reads, and where its rows go. */
struct Passage {
    const float *from, *before; /* before: what the sums are added to, or NULL */
    Turn to;
    bool embedded; /* the residual is the embedding of the token */
    bool norm;     /* of the residual */
};

/* A warp's part of a product's row, and where in shared memory it is. */
struct Span {
    int units, at_once;    /* in a slot */
    bool own;              /* a tile's */
    int first, last, end;  /* quads: this lane's first, the part's last that there is, its end */
    int batches;           /* quads of each lane, if all have as many */
    int row, wide, narrow; /* what of it is this lane's to make binary16, and to where */
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
    Patience patience;
    int warp, lane, parity;
    Place place; /* of the round */
    int32_t id;  /* of the token */
    mln_cuda_best best;

    __device__ Products(const mln_cuda_persist &persist, unsigned char *dynamic, Common &all)
        : p(persist), common(all), shared(dynamic), layers(persist, dynamic),
          ring(all.barriers, threadIdx.x / 32, persist.slots), patience{persist.out_ids +
                                                                            MLN_PERSIST_STEPS,
                                                                        false},
          warp(threadIdx.x / 32), lane(threadIdx.x % 32),
          parity(0), place{persist.rounds - 1, persist.rounds - 2},
          id(persist.row.id), best{0.0f, INT32_MAX} {
    }

    __device__ float4 *norm_at() const {
        return reinterpret_cast<float4 *>(shared + p.at_norm);
    }

    /* The norm's weights of this warp's part on their way to where this lane will want them. */
    __device__ void ask_norm(const float *from) const {
        int units = p.products[MLN_PERSIST_QKV].units;
        int end = min(kUnitQuads * mln_split_begin(units, warp + 1), p.hidden / 4);
        for (int i = kUnitQuads * mln_split_begin(units, warp) + lane; i < end; i += 32)
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
    __device__ void take(uint4 (&found)[N], const Passage &way, int first, int last) {
        const float *at[N];
#pragma unroll
        for (int u = 0; u < N; u++)
            at[u] = way.from + 4 * min(first + 32 * u, last);
        patience.await([&] {
            bool all = true;
#pragma unroll
            for (int u = 0; u < N; u++)
                found[u] = look_four(at[u]);
#pragma unroll
            for (int u = 0; u < N; u++)
                all = all && is_there(found[u]);
            return all;
        });
    }

    /* Those quads times the norm's weights, zeros past `last`. */
    template <int N, bool NORM>
    __device__ void gather(float4 (&v)[N], const Passage &way, int first, int last) {
        uint4 found[N];
        float4 n[N];
#pragma unroll
        for (int u = 0; u < N; u++)
            if (NORM)
                n[u] = norm_at()[min(first + 32 * u, last)];
        if (NORM && way.embedded)
#pragma unroll
            for (int u = 0; u < N; u++)
                found[u] = reinterpret_cast<const uint4 *>(embedded())[min(first + 32 * u, last)];
        else
            take(found, way, first, last);
        if (NORM && !way.embedded) /* for the norm's factor */
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
            common.mosts[warp] = most;
        ProductSync()();
        if (NORM)
            NormSync().arrive(); /* the row is there, and all have used the factor before */
        static_assert(kParts == 8, "two vectors");
        const float4 *mosts = reinterpret_cast<const float4 *>(common.mosts);
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
    template <int N, bool NORM> __device__ float stage_short(const Passage &way, const Span &span) {
        float4 v[N];
        float up, down;
        gather<N, NORM>(v, way, span.first, span.first + 32 * (N - 1));
        meet<NORM>(most_of(v), &up, &down);
#pragma unroll
        for (int u = 0; u < N; u++)
            put_halves(shared + span.narrow + 2 * u * kRowUnit, halves_of(v[u], up));
        __syncwarp();
        return down;
    }

    /* Of any length, through shared memory. */
    template <int N, bool NORM> __device__ float stage_long(const Passage &way, const Span &span) {
        float most = 0.0f, up, down;
        unsigned char *to = shared + span.wide;
#pragma unroll 1
        for (int i = span.first; i < span.end; i += 32 * N) {
            float4 v[N];
            gather<N, NORM>(v, way, i, span.last);
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
            if (2 * n + lane / kUnitQuads < left) {
                halves[n] =
                    halves_of(*reinterpret_cast<const float4 *>(from + 2 * n * kRowUnit), up);
            }
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
    __device__ float stage(const Passage &way, const Span &span) {
        if (way.norm) {
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
            arrive(ring.empty + 8 * ring.slot);
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

    /* T tiles side by side, in one slot or in slots of their own. */
    template <int T> __device__ void add_tiles(const Span &span) {
        bool own = mln_persist_may_own(CODE) && span.own;
        float c[T][4];
#pragma unroll
        for (int t = 0; t < T; t++)
            c[t][0] = c[t][1] = c[t][2] = c[t][3] = 0.0f;
#pragma unroll 1
        for (int unit = 0; unit < span.units; unit += span.at_once) {
            Run<CODE, T> run(shared + span.row + unit * kRowUnit);
            Ring walk = ring;
#pragma unroll
            for (int t = 0; t < T; t++) {
                if (own || t == 0)
                    walk.await_full();
                run.begin(t, slot_at(walk.slot) + (own ? 0 : t * span.at_once * Unit<CODE>::BYTES));
                if (own)
                    walk.next();
            }
            run.template add_all<(T > 2                    ? 1
                                  : CODE == MLN_TILE_DENSE ? 2
                                                           : 4)>(
                c, min(span.at_once, span.units - unit));
            __syncwarp();
            give_back();
#pragma unroll
            for (int t = 1; t < T; t++)
                if (own)
                    give_back();
        }
#pragma unroll
        for (int t = 0; t < T; t++)
            put_part(t, c[t]);
    }

    __device__ void add_group(const Span &span, int tiles) {
        switch (tiles) {
        case 1:
            return add_tiles<1>(span);
        case 2:
            return add_tiles<2>(span);
        case 3:
            return add_tiles<3>(span);
        default:
            return add_tiles<4>(span);
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
                way.to.post(row.to, silu(y) * z);
        } else if (kind == MLN_PERSIST_HEAD) {
            if (row.to >= 0 && y == y)
                best = better(best, mln_cuda_best{y, row.to});
        } else if (row.to >= 0) {
            uint32_t before = row.before;
            if (way.before && !is_there(before))
                before = look(way.before + row.to); /* all of them are there now */
            way.to.post(row.to, way.before ? __uint_as_float(before) + y : y);
        }
    }

    __device__ Span span_of(const mln_persist_product &product) const {
        int begin = mln_split_begin(product.units, warp), quad = lane % kUnitQuads;
        int end = mln_split_begin(product.units, warp + 1);
        Span span = {end - begin,
                     product.at_once,
                     product.own != 0,
                     begin * kUnitQuads + lane,
                     0,
                     end * kUnitQuads,
                     0,
                     p.at_row + begin * kRowUnit,
                     0,
                     0};
        span.last = min(span.end, product.columns / 4) - 1;
        if (span.last + 1 == span.end && span.units % 2 == 0)
            span.batches = span.units / 2;
        int unit = span.row + lane / kUnitQuads * kRowUnit;
        span.wide = unit + quad * (int)sizeof(float4);
        span.narrow = unit + mln_single_offset(4 * quad);
        settle(span.units);
        settle(span.at_once);
        settle(span.first);
        settle(span.batches);
        settle(span.row);
        settle(span.wide);
        settle(span.narrow);
        return span;
    }

    /* The row that this thread finishes of a group whose first tile is `first`. */
    __device__ Finished row_of(int kind, const Passage &way, const mln_persist_product &product,
                               const float *undos, int first) const {
        int slot = threadIdx.x % MLN_TILE_ROWS;
        int tile = first + (int)(threadIdx.x / MLN_TILE_ROWS) * (int)gridDim.x;
        Finished row = {-1, 0.0f, kEmpty};
        if (threadIdx.x >= product.together * MLN_TILE_ROWS || tile >= product.tiles)
            return row;
        row.undo = __ldg(undos + tile * MLN_TILE_ROWS + slot);
        int to = kind == MLN_PERSIST_GATED ? tile * 8 + slot : tile * MLN_TILE_ROWS + slot;
        if (to < product.rows && (kind != MLN_PERSIST_GATED || slot < 8))
            row.to = to;
        if (row.to >= 0 && way.before)
            row.before = way.embedded ? __float_as_uint(embedded()[to]) : look(way.before + to);
        return row;
    }

    __device__ void run(int kind, int layer, const Passage &way) {
        const mln_persist_product &product = p.products[kind];
        Share share = share_of(p, layers, kind, layer);
        if (share.count > 0) {
            run_share(kind, way, product, share, layers.all[layer].row_scales[kind % 4]);
        } else if (way.norm) {
            asm volatile("cp.async.wait_all;" ::: "memory");
        }
        if (way.norm)
            ask_norm(norm_after(kind, layer));
    }

    __device__ void run_share(int kind, const Passage &way, const mln_persist_product &product,
                              const Share &share, const float *undos) {
        int together = product.together, step = together * (int)gridDim.x, first = share.first;
        Finished row = row_of(kind, way, product, undos, first);
        Span span = span_of(product);
        settle(together);
        settle(step);
        float factor = stage(way, span);
#pragma unroll 1
        for (int left = share.count; left > 0; left -= together) {
            add_group(span, min(together, left));
            ProductSync()();
            if (threadIdx.x < kTogether * MLN_TILE_ROWS) {
                if (left == share.count && way.norm) {
                    FactorSync()();
                    factor *= common.factor;
                }
                finish(kind, way, row, factor);
                if (left > together)
                    row = row_of(kind, way, product, undos, first += step);
            }
            parity ^= 1;
        }
    }

    /* The head's input is that of the round before, as a layer's. */
    __device__ Passage passage(int kind, int layer) const {
        bool first = layer == 0;
        Turn out = place.of(p.residual[1]), middle = place.of(p.residual[0]);
        Turn gated = place.of(p.gated);
        const float *in = out.emptied;
        switch (kind) {
        case MLN_PERSIST_O:
            return Passage{place.of(p.attended).now, in, middle, first, false};
        case MLN_PERSIST_GATED:
            return Passage{middle.now, nullptr, gated, false, true};
        case MLN_PERSIST_DOWN:
            return Passage{gated.now, middle.now, out, false, false};
        case MLN_PERSIST_HEAD:
            return Passage{out.now, nullptr, gated, false, true};
        default:
            return Passage{in, nullptr, place.of(p.qkv), first, true};
        }
    }

    /* The norm after a product's. */
    __device__ const float *norm_after(int kind, int layer) const {
        return kind == MLN_PERSIST_QKV    ? layers.all[layer].norms[1]
               : kind == MLN_PERSIST_HEAD ? layers.all[0].norms[0]
                                          : layers.all[layer + 1].norms[0];
    }

    /* The best of all blocks, the same in each. */
    __device__ void pick(int step) {
        if (warp < 2) {
            best = best_of_warp(best);
            if (lane == 0)
                common.bests[warp] = best;
        }
        TokenSync()();
        /* all have written, and so have read what is two tokens old */
        Turn turn = turn_of_few(p.best, step, 2);
        if (threadIdx.x == 0) {
            order_words();
            best = better(common.bests[0], common.bests[1]);
            turn.post_two(2 * blockIdx.x, best.value, __int_as_float(best.id));
        }
        best = mln_cuda_best{0.0f, INT32_MAX};
        if (threadIdx.x < gridDim.x) {
            uint2 two = make_uint2(0, INT32_MAX);
            patience.await([&] {
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
        best = mln_cuda_best{0.0f, INT32_MAX};
    }

    __device__ void decode() {
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
/* --- the kernel --- */

/* What all threads do first. */
template <int CODE>
__device__ void set_up(const mln_cuda_persist &p, unsigned char *shared, Common &common,
                       AttendCommon &attending) {
    int bytes = (p.num_layers + 1) * (int)sizeof(mln_persist_layer);
    for (int i = threadIdx.x; i < bytes / 4; i += kThreads<CODE>)
        reinterpret_cast<uint32_t *>(shared + p.at_layers)[i] =
            reinterpret_cast<const uint32_t *>(p.layers)[i];
    for (int i = threadIdx.x; i < kGroup * (D + 8); i += kThreads<CODE>)
        (&attending.queries[0][0])[i] = __half(0.0f);
    for (int i = threadIdx.x; i < kParts * p.slots; i += kThreads<CODE>) {
        make_barrier(shared_address(&common.barriers.full[i / p.slots][i % p.slots]), 1);
        make_barrier(shared_address(&common.barriers.empty[i / p.slots][i % p.slots]), 1);
    }
    asm volatile("fence.mbarrier_init.release.cluster;" ::: "memory");
    if (threadIdx.x == 0)
        common.round = -1;
    __syncthreads();
}

#endif

template <int CODE>
__global__ void __launch_bounds__(kThreads<CODE>, 1)
    persist_kernel(const __grid_constant__ mln_cuda_persist p) {
#ifdef MLN_PERSISTS
    extern __shared__ __align__(128) unsigned char memory[];
    int base = (int)shared_address(memory);
    settle(base);
    unsigned char *all = static_cast<unsigned char *>(__cvta_shared_to_generic((uint32_t)base));
    Common &common = *reinterpret_cast<Common *>(all);
    AttendCommon &attending = *reinterpret_cast<AttendCommon *>(all + kCommonBytes);
    unsigned char *shared = all + kFixedBytes;
    set_up<CODE>(p, shared, common, attending);
    if (threadIdx.x < kProductThreads)
        Products<CODE>(p, shared, common).decode();
    else if (threadIdx.x < kProductThreads + kAttendThreads)
        Attending(p, shared, attending, common).decode();
    else
        supply<CODE>(p, shared, common.barriers);
#endif
}

const void *kernel_of(int code) {
    switch (code) {
    case MLN_TILE_DENSE:
        return (const void *)persist_kernel<MLN_TILE_DENSE>;
    case MLN_TILE_Q8:
        return (const void *)persist_kernel<MLN_TILE_Q8>;
    case MLN_TILE_Q8_PAIR:
        return (const void *)persist_kernel<MLN_TILE_Q8_PAIR>;
    case MLN_TILE_Q4:
        return (const void *)persist_kernel<MLN_TILE_Q4>;
    default:
        return (const void *)persist_kernel<MLN_TILE_Q4_PAIR>;
    }
}

} // namespace

extern "C" cudaError_t mln_cuda_persist_room(int32_t tile_code, int32_t *blocks, int32_t *bytes) {
    const void *kernel = kernel_of(tile_code);
    cudaFuncAttributes attributes;
    int values[4] = {0, 0, 0, 0};
    const cudaDeviceAttr asked[4] = {cudaDevAttrComputeCapabilityMajor,
                                     cudaDevAttrCooperativeLaunch, cudaDevAttrMultiProcessorCount,
                                     cudaDevAttrMaxSharedMemoryPerBlockOptin};
    *blocks = *bytes = 0;
    cudaError_t error = cudaSuccess;
    for (int i = 0; i < 4 && error == cudaSuccess; i++)
        error = cudaDeviceGetAttribute(&values[i], asked[i], 0);
    if (error != cudaSuccess || values[0] < 9 || !values[1])
        return error;
    error = cudaFuncGetAttributes(&attributes, kernel);
    if (error != cudaSuccess)
        return error;
    int most = values[3] - (int)attributes.sharedSizeBytes;
    error = cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, most);
    most -= kFixedBytes;
    if (error != cudaSuccess)
        return error;
    *blocks = values[2] < MLN_PERSIST_BLOCKS ? values[2] : MLN_PERSIST_BLOCKS;
    *bytes = most;
    return cudaSuccess;
}

extern "C" cudaError_t mln_cuda_persist_launch(const mln_cuda_persist *p, cudaStream_t stream) {
    cudaLaunchConfig_t config = {};
    config.gridDim = dim3((unsigned)p->blocks);
    int copying = 32 * mln_persist_copying(p->tile_code);
    config.blockDim = dim3((unsigned)(kProductThreads + kAttendThreads + copying));
    config.dynamicSmemBytes = (size_t)(kFixedBytes + p->shared_bytes);
    config.stream = stream;
    cudaLaunchAttribute attribute;
    attribute.id = cudaLaunchAttributeCooperative;
    attribute.val.cooperative = 1;
    config.attrs = &attribute;
    config.numAttrs = 1;
    mln_cuda_persist copy = *p;
    void *arguments[] = {&copy};
    return cudaLaunchKernelExC(&config, kernel_of(p->tile_code), arguments);
}
