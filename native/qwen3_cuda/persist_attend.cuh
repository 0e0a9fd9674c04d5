/* SPDX-License-Identifier: Apache-2.0 */
/* The four warps of a block of persist.cu that attend, one of which makes the norms' factors. */
#ifndef MLN_CUDA_PERSIST_ATTEND_CUH
#define MLN_CUDA_PERSIST_ATTEND_CUH

#include <cuda_fp16.h>
#include <stdint.h>

#include "attend_ops.cuh"
#include "persist_block.cuh"
#include "persist_shape.cuh"

namespace {

__device__ float2 angle_of(float angle, float scale) {
    return make_float2(cosf(angle) * scale, sinf(angle) * scale);
}

constexpr int kSplitWords = D + MLN_PERSIST_STATE;

/* Value d of a query: its splits put together in ascending order. */
__device__ float combined(const float *partial, int d, int splits, int32_t *lost) {
    constexpr int BATCH = 8;
    Seen seen = {-INFINITY, 0.0f};
    float out = 0.0f;
    for (int first = 0; first < splits; first += BATCH) {
        uint32_t value[BATCH];
        uint2 state[BATCH];
        await(lost, [&] {
            bool all = true;
#pragma unroll
            for (int i = 0; i < BATCH; i++) {
                const float *at = partial + (int64_t)min(first + i, splits - 1) * kSplitWords;
                value[i] = look(at + d);
                state[i] = look_two(at + D);
            }
#pragma unroll
            for (int i = 0; i < BATCH; i++)
                all = all & is_there(value[i]) & is_there(state[i]);
            return all;
        });
#pragma unroll
        for (int i = 0; i < BATCH; i++) {
            bool live = first + i < splits; /* no branch: what does not depend goes side by side */
            float before, now;
            join(seen, live ? __uint_as_float(state[i].x) : -INFINITY,
                 live ? __uint_as_float(state[i].y) : 0.0f, &before, &now);
            out = live ? fmaf(__uint_as_float(value[i]), now, out * before) : out;
        }
    }
    return out / seen.sum;
}

/* The four warps that attend. Units are (split, kv head); block b has b, b + gridDim.x, ... */
template <class SHAPE> struct Attending {
    const mln_cuda_persist &p;
    AttendCommon &common;
    Common &products;
    Layers layers;
    int thread, warp, lane;
    const int group;
    const float4 *row; /* that a norm is of */
    Place place;       /* of the round */
    float2 angles[2];  /* cosine and sine of pairs lane and lane + 32 */
    Part part;

    __device__ Attending(const mln_cuda_persist &persist, const unsigned char *dynamic,
                         AttendCommon &all, Common &beside)
        : p(persist), common(all), products(beside), layers(persist, dynamic),
          thread(threadIdx.x % kAttendThreads), warp(thread / 32), lane(thread % 32),
          group(SHAPE::heads(persist) / SHAPE::kv_heads(persist)),
          row(reinterpret_cast<const float4 *>(dynamic + persist.at_embedded)),
          place{persist.rounds - 1, persist.rounds - 2} {
    }

    /* One warp: 1 / rms of what the block's products stage next, as stage_row() has it: lane by
     * lane what eight times as many threads do. */
    __device__ void make_factor(int kind, int layer) {
        if (share_of(layers, kind, layer).count == 0)
            return;
        float sums[kParts] = {};
        NormSync()();
#pragma unroll 1
        for (int first = lane; first < p.hidden / 4; first += kProductThreads)
#pragma unroll
            for (int w = 0; w < kParts; w++)
                if (first + 32 * w < p.hidden / 4) {
                    float4 v = row[first + 32 * w];
                    sums[w] = fmaf(v.x, v.x, sums[w]);
                    sums[w] = fmaf(v.y, v.y, sums[w]);
                    sums[w] = fmaf(v.z, v.z, sums[w]);
                    sums[w] = fmaf(v.w, v.w, sums[w]);
                }
#pragma unroll
        for (int w = 0; w < kParts; w++)
            sums[w] = warp_sum(sums[w]);
#pragma unroll
        for (int w = 1; w < kParts; w++)
            sums[0] += sums[w];
        if (lane == 0)
            products.factor = 1.0f / sqrtf(sums[0] / (float)p.hidden + p.eps);
        FactorSync().arrive();
    }

    /* The norms between attention in one layer and in the next; -1 when there is none. */
    __device__ void make_factors(int layer, int next) {
#pragma unroll 1
        for (int i = 0; i < 3; i++)
            if (i == 0 ? layer >= 0 : i == 1 ? layer == p.num_layers - 1 : next >= 0)
                make_factor(i == 0   ? MLN_PERSIST_GATED
                            : i == 1 ? MLN_PERSIST_HEAD
                                     : MLN_PERSIST_QKV,
                            i == 2 ? next : layer + i);
    }

    /* Keys or values of a unit in the cache. */
    __device__ __half *cached(int layer, int which, int unit) const {
        mln_cuda_attention at = {};
        at.layer = layer;
        at.layers = p.num_layers;
        at.kv_heads = SHAPE::kv_heads(p);
        at.head_dim = D;
        return split_of<1>(at, p.row, which, unit % SHAPE::kv_heads(p), unit / SHAPE::kv_heads(p));
    }

    /* Those that are in the cache before this token; zeros when there is no such unit. */
    __device__ void load_part(int layer, int position, int unit) {
        bool wanted = unit < SHAPE::kv_heads(p) * (position / kSplit + 1);
        unit = wanted ? unit : 0;
        int count = wanted ? min(kSplit, position - unit / SHAPE::kv_heads(p) * kSplit) : 0;
        part.load_keys(cached(layer, 0, unit), count);
        part.load_values(cached(layer, 1, unit), count);
    }

    /* The norms of queries and keys on their way. */
    __device__ void ask_norms(int layer) {
        for (int i = 0; i < 2; i++)
            asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(
                             shared_address(&common.norms[i][thread])),
                         "l"((i ? layers.all[layer].k_norm : layers.all[layer].q_norm) + thread)
                         : "memory");
        asm volatile("cp.async.commit_group;" ::: "memory");
    }

    __device__ void set_angles(int position) {
#pragma unroll
        for (int i = 0; i < 2; i++)
            angles[i] = angle_of((float)position * p.inv_freq[lane + 32 * i], p.rope_scale);
    }

    /* Values d = lane, lane + 32, ... of HEADS heads from `first` on, `step` words from each other.
     */
    template <int HEADS>
    __device__ void take_heads(float (&x)[HEADS][4], const float *row, int first, int step) {
        uint32_t words[HEADS][4];
        await(lost_of(p), [&] {
            bool all = true;
#pragma unroll
            for (int i = 0; i < 4 * HEADS; i++)
                words[i / 4][i % 4] = look(row + first + i / 4 * step + lane + i % 4 * 32);
#pragma unroll
            for (int i = 0; i < 4 * HEADS; i++)
                all = all & is_there(words[i / 4][i % 4]);
            return all;
        });
#pragma unroll
        for (int i = 0; i < 4 * HEADS; i++)
            x[i / 4][i % 4] = __uint_as_float(words[i / 4][i % 4]);
    }

    /* Of a norm what this lane needs. */
    struct NormPart {
        float v[4];
        __device__ explicit NormPart(const float *norms) {
#pragma unroll
            for (int i = 0; i < 4; i++)
                v[i] = norms[threadIdx.x % 32 + 32 * i];
        }
    };

    /* to[D] = rotate(norm(x)), as prepare_head() does it */
    __device__ __forceinline__ void prepare(__half *to, const float (&x)[4], const NormPart &norm) {
        float squares = 0.0f;
#pragma unroll
        for (int i = 0; i < 4; i++)
            squares = fmaf(x[i], x[i], squares);
        float factor = 1.0f / sqrtf(warp_sum(squares) / (float)D + p.eps);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float c = angles[i].x, s = angles[i].y;
            float a = x[i] * factor * norm.v[i], b = x[i + 2] * factor * norm.v[i + 2];
            to[lane + 32 * i] = Cached<1>::put(a * c - b * s);
            to[lane + 32 * i + D / 2] = Cached<1>::put(b * c + a * s);
        }
    }

    /* The key of the token itself. */
    __device__ __forceinline__ void prepare_key(int layer, int unit, int at, const float *qkv) {
        float x[1][4];
        __half *key = cached(layer, 0, unit) + at * D + lane;
        settle(key);
        NormPart norm(common.norms[1]);
        take_heads<1>(x, qkv, (SHAPE::heads(p) + unit % SHAPE::kv_heads(p)) * D, 0);
        prepare(common.own[0], x[0], norm);
#pragma unroll
        for (int i = 0; i < 4; i++)
            key[32 * i] = common.own[0][lane + 32 * i]; /* this lane's own */
    }

    /* The value. */
    __device__ __forceinline__ void prepare_value(int layer, int unit, int at, const float *qkv) {
        float x[1][4];
        __half *value = cached(layer, 1, unit) + at * D + lane;
        settle(value);
        take_heads<1>(x, qkv,
                      (SHAPE::heads(p) + SHAPE::kv_heads(p) + unit % SHAPE::kv_heads(p)) * D, 0);
#pragma unroll
        for (int i = 0; i < 4; i++)
            common.own[1][lane + 32 * i] = value[32 * i] = Cached<1>::put(x[0][i]);
    }

    /* Where a lane's eight neighbours of a query go: words from the first of a kind on. */
    struct Target {
        int now, emptied, state; /* state: less the values' first */
    };

    __device__ Target target_of(int unit, int round) const {
        int query = unit % SHAPE::kv_heads(p) * group + min(lane / 4, group - 1);
        int split = unit / SHAPE::kv_heads(p);
        constexpr int FEW = MLN_PERSIST_FEW_ROUNDS;
        int d = 32 * warp + 8 * (lane % 4), each = (int)p.partial.each;
        int split_at = (query * p.max_splits + split) * kSplitWords;
        Target to = {round % FEW * each + split_at + d,
                     (round + FEW - 1) % FEW * each + split_at + d, D - d};
        settle(to.now);
        settle(to.emptied);
        return to;
    }

    /* A split's values and what they are to be put together with. */
    __device__ __forceinline__ void post_split(const Result &result, const Target &to) {
        float *at = p.partial.all + to.now, *before = p.partial.all + to.emptied;
        uint4 none = make_uint4(kEmpty, kEmpty, kEmpty, kEmpty);
        if (warp == 0 && lane % 4 == 0)
            put_two(at + to.state, make_uint2(as_word(result.most[0]), as_word(result.sum[0])));
#pragma unroll
        for (int n = 0; n < 8; n += 4)
            put_four(at + n,
                     make_uint4(as_word(result.out[0][n / 4]), as_word(result.out[1][n / 4]),
                                as_word(result.out[2][n / 4]), as_word(result.out[3][n / 4])));
#pragma unroll
        for (int n = 0; n < 8; n += 4)
            put_four(before + n, none);
        if (warp == 0 && lane % 4 == 0)
            put_two(before + to.state, make_uint2(kEmpty, kEmpty));
    }

    /* Of the only split the result. */
    __device__ __forceinline__ void post_only(const Result &result, int query) {
        Turn turn = place.of(p.attended);
        int d = 32 * warp + 8 * (lane % 4);
        float values[8];
#pragma unroll
        for (int n = 0; n < 8; n++)
            values[n] = result.out[n % 4][n / 4] / result.sum[0];
#pragma unroll
        for (int n = 0; n < 8; n += 4)
            turn.post_four(query * D + d + n, values[n], values[n + 1], values[n + 2],
                           values[n + 3]);
    }

    /* One unit: its splits are put together by others, unless it is the only one. */
    __device__ __forceinline__ Result attend_unit(int layer, int position, int unit) {
        int head = unit % SHAPE::kv_heads(p), split = unit / SHAPE::kv_heads(p);
        int count = min(kSplit, position + 1 - split * kSplit);
        bool mine = position / kSplit == split;
        const float *qkv = place.of(p.qkv).now;
        for (int h = warp; h < group; h += kAttendThreads / 32) {
            float x[1][4];
            NormPart norm(common.norms[0]);
            take_heads<1>(x, qkv, (head * group + h) * D, 0);
            prepare(common.queries[h], x[0], norm);
        }
        if (mine && warp == kAttendThreads / 32 - 1)
            prepare_key(layer, unit, count - 1, qkv);
        if (mine && warp == kAttendThreads / 32 - 2)
            prepare_value(layer, unit, count - 1, qkv);
        AttendSync()();
        if (mine)
            part.replace(common.own[0], common.own[1], count - 1);
        Queries queries = {
            load_row(common.queries[lane / 4], lane % 4, true), Row{}, {count, count}};
        return attend<1>(
            common.exchange, queries, part, [] {}, AttendSync());
    }

    /* A unit's part of putting a kv head's splits together. */
    __device__ void combine_unit(int unit, int splits, int round) {
        int head = unit % SHAPE::kv_heads(p);
        const float *partial = turn_of_few(p.partial, round, 1).now;
        Turn attended = place.of(p.attended);
        for (int i = unit / SHAPE::kv_heads(p) * D + thread; i < group * D; i += splits * D) {
            int query = head * group + i / D, d = i % D;
            const float *from = partial + (int64_t)query * p.max_splits * kSplitWords;
            attended.post(query * D + d, combined(from, d, splits, lost_of(p)));
        }
    }

    __device__ void combine_units(int units, int splits, int round) {
#pragma unroll 1
        for (int unit = blockIdx.x; unit < units; unit += gridDim.x)
            combine_unit(unit, splits, round);
    }

    /* A unit whose part is on its way; whether the block has another one of the layer. */
    __device__ bool do_unit(int layer, int position, int unit, int round) {
        int splits = position / kSplit + 1, units = SHAPE::kv_heads(p) * splits;
        if (unit == (int)blockIdx.x) {
            await(lost_of(p), [&] {
                bool there = products.round >= round;
                if (!there)
                    __nanosleep(64); /* the warps beside it have work */
                return there;
            });
            __threadfence_block();
            asm volatile("cp.async.wait_all;" ::: "memory");
            AttendSync()(); /* all have the norms */
        }
        bool more = unit + (int)gridDim.x < units;
        bool mine = unit < units && lane / 4 < group; /* to post */
        Target to = {};
        Result result = {};
        if (unit < units) {
            to = target_of(unit, round);
            result = attend_unit(layer, position, unit);
        }
        if (splits > 1) {
            if (mine)
                post_split(result, to);
            if (!more)
                combine_units(units, splits, round);
        } else if (mine) {
            post_only(result, unit % SHAPE::kv_heads(p) * group + lane / 4);
        }
        return more;
    }

    /* The rows of the head, of which those who multiply make the parts; the best of each warp. */
    __device__ __forceinline__ void finish_head() {
        const mln_persist_product &product = products.products[MLN_PERSIST_HEAD];
        Share share = share_of(layers, MLN_PERSIST_HEAD, p.num_layers);
        const float *scales = layers.all[p.num_layers].row_scales[0];
        int t = thread / MLN_TILE_ROWS, slot = thread % MLN_TILE_ROWS;
        int row = (share.first + t * (int)gridDim.x) * MLN_TILE_ROWS + slot;
        int last = product.tiles * MLN_TILE_ROWS - 1, rows = product.rows;
        int groups = head_groups(share);
        float factor = 0.0f, undo = __ldg(scales + min(row, last));
        mln_cuda_best best = {0.0f, INT32_MAX};
#pragma unroll 1
        for (int g = 0; g < groups; g++) {
            int now = row;
            float of_row = undo, sum = 0.0f;
            row += kTogether * (int)gridDim.x * MLN_TILE_ROWS;
            undo = __ldg(scales + min(row, last));
            HeadSync::await(HeadSync::FULL, g % 2);
            if (g == 0)
                factor = products.down *
                         factor_of(products.squares[products.head_set], SmallShape::HIDDEN, p.eps);
#pragma unroll
            for (int w = 0; w < kParts; w++)
                sum += products.parts[g & 1][t][w][slot];
            if (g + 2 < groups)
                HeadSync::arrive(HeadSync::EMPTY, g & 1);
            float y = sum * of_row * factor;
            if (now < rows && y == y)
                best = better(best, mln_cuda_best{y, now});
        }
        best = best_of_warp(best);
        if (lane == 0)
            products.own[warp] = best;
    }

    /* Unit after unit of layer after layer of token after token, the next part always on its way.
     */
    __device__ __forceinline__ void decode() {
        int round = -1, layer = -1, position = p.row.position - 1, unit = blockIdx.x;
        bool more = true;
#pragma unroll 1
        while (true) {
            if (layer >= 0 && do_unit(layer, position, unit, round)) {
                unit += gridDim.x;
            } else {
                int last = layer;
                unit = blockIdx.x;
                order_words();
                if (layer == p.num_layers - 1) {
                    if (SHAPE::KNOWN && warp < kHeadFinishers / 32)
                        finish_head();
                    TokenSync().arrive();
                }
                round++;
                place.next(p.rounds);
                layer = round % p.num_layers;
                position += layer == 0;
                more = position < p.row.position + p.steps;
                if (more && layer == 0)
                    set_angles(position);
                if (more)
                    ask_norms(layer);
                if (!SHAPE::KNOWN && warp == kHelper)
                    make_factors(last, more ? layer : -1);
                if (!more)
                    return;
            }
            load_part(layer, position, unit);
        }
    }
};

} // namespace

#endif
