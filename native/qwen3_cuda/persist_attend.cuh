/* SPDX-License-Identifier: Apache-2.0 */
/* The four warps of a block of persist.cu that attend, one of which makes the norms' factors. */
#ifndef MLN_CUDA_PERSIST_ATTEND_CUH
#define MLN_CUDA_PERSIST_ATTEND_CUH

#include <cuda_fp16.h>
#include <stdint.h>

#include "attend_ops.cuh"
#include "persist_block.cuh"

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
                all = all && is_there(value[i]) && is_there(state[i]);
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
struct Attending {
    const mln_cuda_persist &p;
    AttendCommon &common;
    Common &products;
    Layers layers;
    int thread, warp, lane, group;
    const float4 *row; /* that a norm is of */
    Place place;       /* of the round */
    float2 angles[2];  /* cosine and sine of pairs lane and lane + 32 */
    Part part;

    __device__ Attending(const mln_cuda_persist &persist, const unsigned char *dynamic,
                         AttendCommon &all, Common &beside)
        : p(persist), common(all), products(beside), layers(persist, dynamic),
          thread(threadIdx.x % kAttendThreads), warp(thread / 32), lane(thread % 32),
          group(persist.heads / persist.kv_heads),
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
        at.kv_heads = p.kv_heads;
        at.head_dim = D;
        return split_of<1>(at, p.row, which, unit % p.kv_heads, unit / p.kv_heads);
    }

    /* Those that are in the cache before this token; zeros when there is no such unit. */
    __device__ void load_part(int layer, int position, int unit) {
        bool wanted = unit < p.kv_heads * (position / kSplit + 1);
        unit = wanted ? unit : 0;
        int count = wanted ? min(kSplit, position - unit / p.kv_heads * kSplit) : 0;
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
                all = all && is_there(words[i / 4][i % 4]);
            return all;
        });
#pragma unroll
        for (int i = 0; i < 4 * HEADS; i++)
            x[i / 4][i % 4] = __uint_as_float(words[i / 4][i % 4]);
    }

    /* to[D] = rotate(norm(x)), as prepare_head() does it */
    __device__ void prepare(__half *to, const float (&x)[4], const float *norms) {
        float squares = 0.0f;
#pragma unroll
        for (int i = 0; i < 4; i++)
            squares = fmaf(x[i], x[i], squares);
        float factor = 1.0f / sqrtf(warp_sum(squares) / (float)D + p.eps);
#pragma unroll
        for (int i = 0; i < 2; i++) {
            float c = angles[i].x, s = angles[i].y;
            const float *norm = norms + lane + 32 * i;
            float a = x[i] * factor * norm[0], b = x[i + 2] * factor * norm[D / 2];
            to[lane + 32 * i] = Cached<1>::put(a * c - b * s);
            to[lane + 32 * i + D / 2] = Cached<1>::put(b * c + a * s);
        }
    }

    /* Key and value of the token itself. */
    __device__ void prepare_own(int layer, int unit, int at, const float *qkv) {
        float x[2][4];
        take_heads<2>(x, qkv, (p.heads + unit % p.kv_heads) * D, p.kv_heads * D);
        prepare(common.own[0], x[0], common.norms[1]);
        __half *key = cached(layer, 0, unit) + at * D, *value = cached(layer, 1, unit) + at * D;
#pragma unroll
        for (int i = 0; i < 4; i++) {
            int d = lane + 32 * i;
            common.own[1][d] = value[d] = Cached<1>::put(x[1][i]);
            key[d] = common.own[0][d]; /* this lane's own */
        }
    }

    /* A lane's eight neighbours of a query: of the only split the result. */
    __device__ void post_result(const Result &result, int query, int split, int splits, int round) {
        bool only = splits == 1;
        Turn turn = only ? place.of(p.attended) : turn_of_few(p.partial, round, 1);
        int d = 32 * warp + 8 * (lane % 4);
        int64_t split_at = ((int64_t)query * p.max_splits + split) * kSplitWords;
        int64_t to = only ? query * D + d : split_at + d;
        float sum = result.sum[0], values[8];
#pragma unroll
        for (int n = 0; n < 8; n++)
            values[n] = result.out[n % 4][n / 4];
        if (only)
#pragma unroll
            for (int n = 0; n < 8; n++)
                values[n] /= sum;
#pragma unroll
        for (int n = 0; n < 8; n += 4)
            turn.post_four(to + n, values[n], values[n + 1], values[n + 2], values[n + 3]);
        if (!only && warp == 0 && lane % 4 == 0)
            turn.post_two(split_at + D, result.most[0], sum);
    }

    __device__ void attend_unit(int layer, int position, int unit, int round) {
        int head = unit % p.kv_heads, split = unit / p.kv_heads;
        int count = min(kSplit, position + 1 - split * kSplit);
        bool mine = position / kSplit == split;
        const float *qkv = place.of(p.qkv).now;
        for (int h = warp; h < group; h += kAttendThreads / 32) {
            float x[1][4];
            take_heads<1>(x, qkv, (head * group + h) * D, 0);
            prepare(common.queries[h], x[0], common.norms[0]);
        }
        if (mine && warp == kAttendThreads / 32 - 1)
            prepare_own(layer, unit, count - 1, qkv);
        AttendSync()();
        if (mine)
            part.replace(common.own[0], common.own[1], count - 1);
        int g = lane / 4, q = lane % 4;
        Queries queries = {load_row(common.queries[g], q, true), Row{}, {count, count}};
        Result result = attend(
            common.exchange, queries, part, [] {}, AttendSync());
        if (g < group)
            post_result(result, head * group + g, split, position / kSplit + 1, round);
    }

    /* A unit's part of putting a kv head's splits together. */
    __device__ void combine_unit(int unit, int splits, int round) {
        int head = unit % p.kv_heads;
        const float *partial = turn_of_few(p.partial, round, 1).now;
        Turn attended = place.of(p.attended);
        for (int i = unit / p.kv_heads * D + thread; i < group * D; i += splits * D) {
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
        int splits = position / kSplit + 1, units = p.kv_heads * splits;
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
        if (unit < units)
            attend_unit(layer, position, unit, round);
        bool more = unit + (int)gridDim.x < units;
        if (!more && splits > 1)
            combine_units(units, splits, round);
        return more;
    }

    /* Unit after unit of layer after layer of token after token, the next part always on its way.
     */
    __device__ __forceinline__ void decode() {
        int round = -1, layer = -1, position = p.row.position - 1, unit = blockIdx.x;
#pragma unroll 1
        while (true) {
            if (layer >= 0 && do_unit(layer, position, unit, round)) {
                unit += gridDim.x;
            } else {
                int last = layer;
                unit = blockIdx.x;
                order_words();
                if (layer == p.num_layers - 1)
                    TokenSync().arrive();
                round++;
                place.next(p.rounds);
                layer = round % p.num_layers;
                position += layer == 0;
                bool more = position < p.row.position + p.steps;
                if (more && layer == 0)
                    set_angles(position);
                if (more)
                    ask_norms(layer);
                if (warp == kHelper)
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
