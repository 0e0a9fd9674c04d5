/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The eight warps of a block of persist.cu that multiply, for a model of known shape: one straight
 * piece of code for each product of a layer, and no word that is asked for later than it could be.
 *
 * Nobody waits for the largest of a product's activations. What brings them to binary16 is the
 * power of two of the token before, with some room. A power of two changes no bits while nothing is
 * too large for binary16 or subnormal there; whether that is so is known with the parts of the
 * rows. If it is not, the product is made again with the power of two that Products would take.
 */
#ifndef MLN_CUDA_PERSIST_CHAIN_CUH
#define MLN_CUDA_PERSIST_CHAIN_CUH

#include <cuda_fp16.h>
#include <math.h>
#include <stdint.h>

#include "persist_products.cuh"
#include "persist_shape.cuh"

namespace {

/* The largest of the token before would come to lie near 2^12: it may grow to eight times itself
 * before it is too large. */
constexpr float kRoom = 0.25f, kLargestHalf = 65504.0f;
/* With such a power of two, or with the one that Products would take, which is up to four times
 * smaller, nothing from here on is subnormal. */
constexpr float kLeastSure = 1.0f / 4096;

/* In the order of absolute values, 0 above all. */
__device__ uint32_t smallness(float x) {
    return 2 * __float_as_uint(x) - 1;
}

__device__ float squares_of(float4 v) {
    float squares = fmaf(v.x, v.x, 0.0f);
    squares = fmaf(v.y, v.y, squares);
    squares = fmaf(v.z, v.z, squares);
    return fmaf(v.w, v.w, squares);
}

__device__ float most_of_eight(float4 a, float4 b) {
    return fmaxf(fmaxf(fmaxf(a.x, a.y), fmaxf(a.z, a.w)), fmaxf(fmaxf(b.x, b.y), fmaxf(b.z, b.w)));
}

struct Chain : Products<MLN_TILE_Q4> {
    typedef SmallShape S;
    static constexpr int CODE = MLN_TILE_Q4;
    static constexpr int SET_BYTES = sizeof(Common::parts) / 2;
    static constexpr int TILE_BYTES = SET_BYTES / kTogether;
    static constexpr int OWN = S::WIDE / MLN_UNIT_COLUMNS / kParts * kRowUnit;
    float *now, *before;      /* words of this round, and of the one before */
    unsigned char *own, *put; /* this warp's activations, and where the lane puts its own */
    const mln_persist_layer *at;
    int shares[4];      /* of a layer's products */
    int put_at, sum_at; /* in what the block shares, where parts go and where they come from */
    float undo[4];      /* the power of two of the row that this thread will finish */

    __device__ Chain(const mln_cuda_persist &persist, unsigned char *dynamic, Common &all)
        : Products(persist, dynamic, all), at(layers.all) {
        own = shared + p.at_row + warp * OWN;
        put = own + lane / kUnitQuads * kRowUnit + mln_single_offset(4 * (lane % kUnitQuads));
        now = words() + (p.rounds - 1) * S::ROUND;
        before = now - S::ROUND;
        put_at = bytes_to(&common.parts[0][0][warp][lane / 4]);
        sum_at = bytes_to(&common.parts[0][threadIdx.x / MLN_TILE_ROWS % kTogether][0]
                                       [threadIdx.x % MLN_TILE_ROWS]);
        for (int i = threadIdx.x; i < kMostKnownLayers * 4; i += kProductThreads)
            common.ups[i / 4][i % 4] = 0.0f;
        ProductSync()();
    }

    __device__ int bytes_to(const float *part) const {
        return (int)(reinterpret_cast<const char *>(part) -
                     reinterpret_cast<const char *>(&common));
    }

    __device__ float *part_at(int bytes) const {
        return reinterpret_cast<float *>(reinterpret_cast<char *>(&common) + bytes);
    }

    /* On to the other set of parts, and of what warps tell each other with them. */
    __device__ __forceinline__ void turn() {
        int bytes = parity ? -SET_BYTES : SET_BYTES;
        put_at += bytes;
        sum_at += bytes;
        parity ^= 1;
    }

    /* --- ahead of its time --- */

    /* A product's share, and the power of two of this thread's row, which comes from far away. */
    template <int KIND> __device__ __forceinline__ void ask_row(const mln_persist_layer *of) {
        int share = of->first[KIND];
        shares[KIND] = share;
        if (warp < Link<KIND>::FINISHERS) {
            int slot = threadIdx.x % MLN_TILE_ROWS;
            int t = !Link<KIND>::NORM ? 0 : threadIdx.x / MLN_TILE_ROWS;
            int tile = (share & 0xffff) + (t < share >> 16 ? t : 0) * (int)gridDim.x;
            tile = share >> 16 ? tile : 0;
            undo[KIND] = __ldg(of->row_scales[KIND] + tile * MLN_TILE_ROWS + slot);
        }
    }

    /* The norm's weights of this lane's quad. */
    __device__ void ask_weights(const float *from) const {
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(
                         shared_address(norm_at() + threadIdx.x)),
                     "l"(from + 4 * threadIdx.x)
                     : "memory");
        asm volatile("cp.async.commit_group;" ::: "memory");
    }

    /* Units of a slot; a word of all that is loaded. */
    template <int COUNT>
    __device__ __forceinline__ uint32_t load_units(Unit<CODE> (&units)[COUNT],
                                                   const unsigned char *from) const {
        uint32_t loaded = 0;
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            units[i].template load<PlainLoad>(from + i * Unit<CODE>::BYTES, lane);
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            loaded ^= word_of_all(units[i]);
        return loaded;
    }

    /* The slot goes back when that is there. */
    __device__ __forceinline__ void leave_slot(uint32_t loaded) {
        await_word(loaded);
        __syncwarp();
        give_back();
    }

    /* All of a product's weights of this warp, as mma() wants them. Tiles that the block does not
     * have are what was in the slot before; no row is made of them. */
    template <int COUNT> __device__ __forceinline__ void hold_all(uint32_t (&a)[COUNT][4][4]) {
        Unit<CODE> units[COUNT];
        const unsigned char *from = slot_at(ring.slot);
        ring.await_full();
        leave_slot(load_units(units, from));
#pragma unroll
        for (int i = 0; i < COUNT; i++)
#pragma unroll
            for (int step = 0; step < 4; step++)
                fragment<CODE>(a[i][step], units[i], step);
    }

    template <int N>
    __device__ __forceinline__ void look_all(uint4 (&found)[N], const float *from) const {
#pragma unroll
        for (int u = 0; u < N; u++)
            found[u] = look_four(from + 128 * u);
    }

    /* Without a jump. */
    template <int N> __device__ __forceinline__ static bool all_there(const uint4 (&found)[N]) {
        bool all = true;
#pragma unroll
        for (int u = 0; u < N; u++)
            all = all & (found[u].x != kEmpty) & (found[u].y != kEmpty) & (found[u].z != kEmpty) &
                  (found[u].w != kEmpty);
        return all;
    }

    /* --- activations --- */

    /* The powers of two that Products takes: all warps wait for each other. */
    __device__ __forceinline__ void agree(float most, float *up, float *down) {
        most = warp_most(most);
        if (lane == 0)
            common.mosts[parity][warp] = most;
        ProductSync()();
        const float4 *mosts = reinterpret_cast<const float4 *>(common.mosts[parity]);
        powers_for(most_of_eight(mosts[0], mosts[1]), up, down);
    }

    /* To this warp's shared memory as binary16; the least of them by smallness(). */
    template <int N>
    __device__ __forceinline__ uint32_t put_all(const float4 (&v)[N], float up) const {
        uint32_t least = ~0u;
#pragma unroll
        for (int u = 0; u < N; u++) {
            float4 s = make_float4(v[u].x * up, v[u].y * up, v[u].z * up, v[u].w * up);
            least = min(least, min(min(smallness(s.x), smallness(s.y)),
                                   min(smallness(s.z), smallness(s.w))));
            put_halves(put + 2 * u * kRowUnit, halves_of(s, 1.0f));
        }
        __syncwarp();
        return least;
    }

    /* The sums of this warp's units. While tensor cores are at work it tells the largest of its
     * activations, and adds up squares of them as warp_sum() does. */
    template <int KIND>
    __device__ __forceinline__ void
    add_all(float (&c)[Link<KIND>::TILES][4],
            const uint32_t (&a)[Link<KIND>::TILES * Link<KIND>::UNITS][4][4], float most,
            float &squares) {
        typedef Link<KIND> L;
#pragma unroll
        for (int t = 0; t < L::TILES; t++)
            c[t][0] = c[t][1] = c[t][2] = c[t][3] = 0.0f;
#pragma unroll
        for (int u = 0; u < L::UNITS; u++) {
            Column column(own + u * kRowUnit + lane * 16);
#pragma unroll
            for (int step = 0; step < 4; step++) {
#pragma unroll
                for (int t = 0; t < L::TILES; t++)
                    column.multiply(c[t], a[t * L::UNITS + u][step], step);
                if (L::NORM && 4 * u + step < 5)
                    squares += __shfl_xor_sync(~0u, squares, 16 >> (4 * u + step));
            }
            if (u == 0) {
                float told = warp_most(most);
                if (lane == 0)
                    common.told[parity][warp] = told;
            }
        }
    }

    template <int TILES> __device__ __forceinline__ void put_parts(const float (&c)[TILES][4]) {
#pragma unroll
        for (int t = 0; t < TILES; t++)
            if (lane % 4 == 0) {
                float *to = part_at(put_at) + t * (TILE_BYTES / 4);
                to[0] = c[t][0];
                to[8] = c[t][2];
            }
    }

    /* One product of the block: its words are looked at once before its weights are made ready, and
     * meanwhile() is done when that is. */
    template <int KIND, typename Meanwhile>
    __device__ __forceinline__ void link(int layer, Meanwhile meanwhile) {
        typedef Link<KIND> L;
        const float *from = (KIND == MLN_PERSIST_QKV ? before : now) + L::FROM +
                            4 * (warp * L::UNITS * kUnitQuads + lane);
        uint4 found[L::QUADS];
        if (KIND == MLN_PERSIST_QKV && layer == 0)
            found[0] = reinterpret_cast<const uint4 *>(embedded())[threadIdx.x];
        else
            look_all(found, from);
        float old = 0.0f;
        if (!L::NORM && warp < L::FINISHERS)
            old = embedded()[(shares[KIND] & 0xffff) * MLN_TILE_ROWS + threadIdx.x % MLN_TILE_ROWS];
        uint32_t a[L::TILES * L::UNITS][4][4];
        hold_all(a);
        meanwhile();
        if (L::NORM)
            asm volatile("cp.async.wait_all;" ::: "memory");
        float4 v[L::QUADS];
        float squares = 0.0f;
        take_words<L::QUADS, L::NORM>(v, found, from, squares);
        float up = common.ups[layer][KIND], down, sum, factor = 1.0f, most = most_of(v);
        float c[L::TILES][4];
#pragma unroll 1
        while (true) {
            bool sure = up == 0.0f;
            float of_warp = squares;
            if (sure)
                agree(most, &up, &down);
            else
                down = __uint_as_float(0x7f000000u - __float_as_uint(up));
            uint32_t least = put_all(v, up);
            add_all<KIND>(c, a, least < smallness(kLeastSure) ? INFINITY : most, of_warp);
            put_parts(c);
            if (L::NORM && lane == 0)
                common.squares[parity][warp] = of_warp;
            PartSync()();
            const float4 *all = reinterpret_cast<const float4 *>(common.told[parity]);
            float4 x = all[0], y = all[1];
            sum = 0.0f;
            if (warp < L::FINISHERS) {
                sum = sum_of_parts<KIND>();
                if (L::NORM)
                    factor = factor_of(common.squares[parity], (float)S::HIDDEN, p.eps);
                asm volatile("" : "+f"(sum), "+f"(factor));
            }
            float largest = most_of_eight(x, y);
            if (sure || largest * up < kLargestHalf)
                break;
            up = 0.0f;
        }
        if (warp < L::FINISHERS)
            finish_rows<KIND>(L::NORM ? down * factor : down, old, sum);
        if (threadIdx.x == 32 * (kParts - 1))
            keep_power(layer, KIND);
        turn();
        settle(put_at);
        settle(sum_at);
    }

    /* For the next token; one thread, for which nobody waits. */
    __device__ __forceinline__ void keep_power(int layer, int kind) {
        float most = 0.0f, up, down;
#pragma unroll
        for (int w = 0; w < kParts; w++)
            most = fmaxf(most, isinf(common.told[parity][w]) ? 0.0f : common.told[parity][w]);
        powers_for(most, &up, &down);
        common.ups[layer][kind] = up * kRoom;
    }

    /* This lane's words of the activations, times the norm's weights. */
    template <int N, bool NORM>
    __device__ __forceinline__ void take_words(float4 (&v)[N], uint4 (&found)[N], const float *from,
                                               float &squares) {
        float4 n = NORM ? norm_at()[threadIdx.x] : make_float4(1.0f, 1.0f, 1.0f, 1.0f);
        if (!all_there(found))
            await(lost_of(p), [&] {
                look_all(found, from);
                return all_there(found);
            });
        if (NORM)
            reinterpret_cast<uint4 *>(embedded())[threadIdx.x] = found[0];
#pragma unroll
        for (int u = 0; u < N; u++) {
            v[u] = make_float4(__uint_as_float(found[u].x), __uint_as_float(found[u].y),
                               __uint_as_float(found[u].z), __uint_as_float(found[u].w));
            if (NORM)
                squares = squares_of(v[u]);
            if (NORM)
                v[u] = make_float4(v[u].x * n.x, v[u].y * n.y, v[u].z * n.z, v[u].w * n.w);
        }
    }

    /* Those of a row, in order. */
    template <int KIND> __device__ __forceinline__ float sum_of_parts() const {
        /* threads for which there is no row look at the first tile's, too */
        int tile = Link<KIND>::TILES == 1 ? threadIdx.x / MLN_TILE_ROWS : 0;
        const float *from = part_at(sum_at - tile * TILE_BYTES);
        float sum = 0.0f;
#pragma unroll
        for (int w = 0; w < kParts; w++)
            sum += from[w * (MLN_TILE_ROWS + 1)];
        return sum;
    }

    /* This thread's row, if it has one; `old` is what it is added to. */
    template <int KIND>
    __device__ __forceinline__ void finish_rows(float down, float old, float sum) {
        typedef Link<KIND> L;
        int t = !L::NORM ? 0 : threadIdx.x / MLN_TILE_ROWS, slot = threadIdx.x % MLN_TILE_ROWS;
        int tile = (shares[KIND] & 0xffff) + t * (int)gridDim.x;
        bool mine = t < shares[KIND] >> 16;
        sum *= undo[KIND];
        float y = sum * down;
        int to = tile * MLN_TILE_ROWS + slot;
        if (KIND == MLN_PERSIST_GATED) {
            float z = __shfl_xor_sync(~0u, y, 8);
            to = tile * 8 + slot;
            mine = mine && slot < 8;
            y = silu(y) * z;
        } else if (!L::NORM) {
            y = old + y;
            mine = threadIdx.x / MLN_TILE_ROWS < 1; /* the only tile */
        }
        if (mine) {
            put_word(now + (L::TO + to), as_word(y));
            put_word(before + (L::TO + to), kEmpty);
        }
    }

    /* A block has no more than a tile of o and of down, and half of the blocks have none. */
    __device__ __forceinline__ void do_layer(int layer, int round) {
        before = now;
        now = now == words() + (p.rounds - 1) * S::ROUND ? words() : now + S::ROUND;
        if (threadIdx.x == 0) {
            __threadfence_block();
            common.round = round;
        }
        link<MLN_PERSIST_QKV>(layer, [] {});
        auto ask_more = [&] {
            ask_weights(at->norms[1]);
            ask_row<MLN_PERSIST_GATED>(at);
            ask_row<MLN_PERSIST_DOWN>(at);
        };
        if (shares[MLN_PERSIST_O] >> 16)
            link<MLN_PERSIST_O>(layer, ask_more);
        else
            ask_more();
        link<MLN_PERSIST_GATED>(layer, [] {});
        at++;
        auto ask_next = [&] {
            ask_weights(at->norms[0]);
            at = layer + 1 == p.num_layers ? layers.all : at;
            ask_row<MLN_PERSIST_QKV>(at);
            ask_row<MLN_PERSIST_O>(at);
        };
        if (shares[MLN_PERSIST_DOWN] >> 16)
            link<MLN_PERSIST_DOWN>(layer, ask_next);
        else
            ask_next();
    }

    /* --- the head --- */

    /* Two tiles, decoded as they are multiplied. */
    __device__ __forceinline__ void add_pair(float (&c)[2][4], const Unit<CODE> (&units)[4],
                                             const Column (&x)[2]) {
#pragma unroll
        for (int u = 0; u < 2; u++)
#pragma unroll
            for (int step = 0; step < 4; step++)
#pragma unroll
                for (int t = 0; t < 2; t++) {
                    uint32_t a[4];
                    fragment<CODE>(a, units[2 * t + u], step);
                    x[u].multiply(c[t], a, step);
                }
    }

    __device__ void put_head(int set, int t, const float (&c)[4]) {
        if (lane % 4 == 0) {
            float *to = &common.parts[set][t][warp][lane / 4];
            to[0] = c[0];
            to[8] = c[2];
        }
    }

    /* The last layer's output is the head's activations. */
    __device__ __forceinline__ void stage_head() {
        const float *from = now + S::OUT + 4 * threadIdx.x;
        uint4 found[1];
        look_all(found, from);
        float4 v[1];
        float up, down, squares = 0.0f;
        take_words<1, true>(v, found, from, squares);
        agree(most_of(v), &up, &down);
        put_halves(put, halves_of(v[0], up));
        __syncwarp();
        squares = warp_sum(squares);
        if (lane == 0)
            common.squares[parity][warp] = squares;
        if (threadIdx.x == 0)
            common.head_set = parity;
        turn();
        if (threadIdx.x == 0)
            common.down = down;
    }

    /* Four tiles a slot: two are multiplied, two are on their way. */
    __device__ __forceinline__ void run_head() {
        Share share = share_of(layers, MLN_PERSIST_HEAD, p.num_layers);
        asm volatile("cp.async.wait_all;" ::: "memory");
        if (share.count == 0)
            return;
        stage_head();
        const Column x[2] = {Column(own + lane * 16), Column(own + kRowUnit + lane * 16)};
        int groups = head_groups(share);
        Unit<CODE> first[4], second[4];
        ring.await_full();
        load_units(first, slot_at(ring.slot));
#pragma unroll 1
        for (int g = 0; g < groups; g++) {
            float c[2][4] = {}, d[2][4] = {};
            uint32_t loaded = load_units(second, slot_at(ring.slot) + 4 * Unit<CODE>::BYTES);
            add_pair(c, first, x);
            leave_slot(loaded);
            if (g + 1 < groups) {
                ring.await_full();
                load_units(first, slot_at(ring.slot));
            }
            add_pair(d, second, x);
            if (g >= 2)
                HeadSync::await(HeadSync::EMPTY, g & 1);
            put_head(g & 1, 0, c[0]);
            put_head(g & 1, 1, c[1]);
            put_head(g & 1, 2, d[0]);
            put_head(g & 1, 3, d[1]);
            HeadSync::arrive(HeadSync::FULL, g & 1);
        }
    }

    __device__ __forceinline__ void decode() {
        ask_weights(layers.all[0].norms[0]);
        ask_row<MLN_PERSIST_QKV>(at);
        ask_row<MLN_PERSIST_O>(at);
#pragma unroll 1
        for (int step = 0; step < p.steps; step++) {
            embed();
#pragma unroll 1
            for (int layer = 0; layer < p.num_layers; layer++)
                do_layer(layer, step * p.num_layers + layer);
            run_head();
            ask_weights(layers.all[0].norms[0]);
            TokenSync()();
            agree_on_best(step);
            if (blockIdx.x == 0 && threadIdx.x == 0)
                p.out_ids[step] = id;
        }
        asm volatile("cp.async.wait_all;" ::: "memory");
    }
};

} // namespace

#endif
