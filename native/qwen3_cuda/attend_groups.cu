/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention by the piece, as attend_pieces.cu has it, with products of a warp group: keys and
 * values are read where they lie in shared memory, once for 64 queries. The sums are the same to
 * the last bit, as far as wgmma adds 16 products as mma does in whatever order they come, which
 * wgmma_check.cu looks at.
 */
#include <cuda_fp16.h>
#include <stdint.h>

#include "attend_lines.cuh"
#include "pieces.h"
#include "stage.cuh"
#include "wgmma.cuh"

namespace {

constexpr int kStages = 3, kThreads = 32 * kWarps, kBlocks = 2;
constexpr int kHalf = kSide / 2;              /* bytes: 64 columns of a side */
constexpr int kBytes = 1024 + MLN_GROUP_ROOM; /* sides lie at multiples of 1024 */
static_assert(kStages * 2 * kSide == MLN_GROUP_ROOM, "as the host knows");
constexpr int kStep = kThreads / kChunks; /* rows between those a thread copies */

/* BYTES 8 or 16, or zeros. */
template <int BYTES> __device__ void copy_some(uint32_t to, const __half *from, bool there) {
    if constexpr (BYTES == 16)
        asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from),
                     "r"(there ? 16 : 0)
                     : "memory");
    else
        asm volatile("cp.async.ca.shared.global [%0], [%1], 8, %2;" ::"r"(to), "l"(from),
                     "r"(there ? 8 : 0)
                     : "memory");
}

/*
 * A side is two halves of 64 columns, 128 bytes a row, vectors swizzled as wgmma_descriptor() wants
 * them. Of the keys each 32 columns 8 q + 4 h + i (i < 4) lie as 16 h + 4 q + i, so that 16
 * neighbours are what score() takes for one product.
 */
struct Copier {
    uint32_t keys[2], values; /* where a thread's vector of row threadIdx.x / kChunks goes */

    __device__ Copier() {
        int vector = (int)threadIdx.x % kChunks, row = (int)threadIdx.x / kChunks;
        auto at = [&](int chunk) {
            return (uint32_t)(chunk / 8 * kHalf + row * 128 + (chunk % 8 ^ row % 8) * 16);
        };
        static_assert(kStep == 8, "rows of a thread are swizzled alike");
        values = at(vector);
        for (int h = 0; h < 2; h++)
            keys[h] = at(vector / 4 * 4 + 2 * h + vector % 4 / 2) + vector % 2 * 8;
    }

    /* Vectors of keys and values; rows from `count` on are zeros: nothing is known of what is
     * there. */
    template <bool WHOLE>
    __device__ void copy(uint32_t to, const __half *from_keys, const __half *from_values,
                         int count) const {
        int first = (int)threadIdx.x / kChunks;
        int offset = first * D + (int)threadIdx.x % kChunks * 8;
        uint32_t low = to + keys[0], high = to + keys[1], whole = to + kSide + values;
        const __half *key = from_keys + offset, *value = from_values + offset;
#pragma unroll
        for (int j = 0; j < kSplit; j += kStep) {
            bool there = WHOLE || first + j < count;
            copy_some<8>(low + j * 128, there ? key + j * D : from_keys, there);
            copy_some<8>(high + j * 128, there ? key + j * D + 4 : from_keys, there);
            copy_some<16>(whole + j * 128, there ? value + j * D : from_values, there);
        }
    }
};

/* A warp group's queries as operands of the products with keys. */
struct Operands {
    uint32_t a[D / 16][4];

    __device__ Operands(const Lines &lines, const mln_cuda_attention &p) {
        int q = (int)threadIdx.x % 4, first = q / 2 * 8 + q % 2 * 2;
#pragma unroll
        for (int t = 0; t < D / 16; t++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const __half *from = query_of(lines, p, i % 2) + t / 2 * 32 + t % 2 * 4 + first;
                a[t][i] =
                    lines.there[i % 2] ? *reinterpret_cast<const uint32_t *>(from + i / 2 * 16) : 0;
            }
    }
};

/* A split's weights, and what the others, and products with these, are to be multiplied by. */
struct Weighed {
    uint32_t a[4][4];
    float before[2], now[2];
};

/*
 * Registers of products: computed before here, not used before here. The compiler knows nothing of
 * products that are under way, and would move what has to do with them in between.
 */
template <int N> __device__ void settle(float (&x)[N]) {
#pragma unroll
    for (int i = 0; i < N; i++)
        asm volatile("" : "+f"(x[i])::"memory");
}

template <int N, int M> __device__ void settle(float (&x)[N][M]) {
#pragma unroll
    for (int i = 0; i < N; i++)
        settle(x[i]);
}

__device__ void settle(uint32_t (&x)[4][4]) {
#pragma unroll
    for (int i = 0; i < 16; i++)
        asm volatile("" : "+r"(x[i / 4][i % 4]));
}

__device__ void begin_scores(float (&c)[kSplit / 8][4], const Operands &queries, uint32_t keys) {
    wgmma_fence();
#pragma unroll
    for (int t = 0; t < D / 16; t++)
        wgmma<kSplit>(reinterpret_cast<float(&)[kSplit / 2]>(c), queries.a[t],
                      wgmma_descriptor(keys + t / 4 * kHalf + t % 4 * 32), t > 0);
    wgmma_commit();
}

/* sums[half] are of 64 columns of the values. */
__device__ void begin_values(float (&sums)[2][kSplit / 2], const Weighed &weighed,
                             uint32_t values) {
    wgmma_fence();
#pragma unroll
    for (int s = 0; s < kSplit / 16; s++)
#pragma unroll
        for (int half = 0; half < 2; half++)
            wgmma_across(sums[half], weighed.a[s],
                         wgmma_descriptor(values + half * kHalf + s * 16 * 128), s > 0);
    wgmma_commit();
}

/* Products with values, which have ended, join what was seen before. */
__device__ void end_values(Lines &lines, float (&sums)[2][kSplit / 2], const Weighed &weighed) {
    settle(sums);
#pragma unroll
    for (int n = 0; n < kChunks; n++)
#pragma unroll
        for (int e = 0; e < 4; e++)
            lines.out[n][e] = fmaf(sums[n / 8][n % 8 * 4 + e], weighed.now[e / 2],
                                   lines.out[n][e] * weighed.before[e / 2]);
}

/*
 * A piece's rows to where a product wants them, by the block that ends last of its kv heads': a row
 * a warp, as many at a time as there is room for.
 */
template <bool WGMMA>
__device__ void convert_rows(unsigned char *shared, const mln_cuda_attention &p, int2 piece) {
    int columns = p.heads * D, quads = columns / 4, units = columns / MLN_UNIT_COLUMNS;
    int warps = min(kWarps, MLN_GROUP_ROOM / (columns * 4)), warp = (int)threadIdx.x / 32;
    int lane = (int)threadIdx.x % 32;
    float4 *wide = reinterpret_cast<float4 *>(shared) + warp * quads;
    uint32_t to = (uint32_t)__cvta_generic_to_shared(wide);
    if (warp >= warps)
        return;
    for (int t = warp; t < piece.y; t += warps) {
        int token = piece.x + t;
        const float4 *x = reinterpret_cast<const float4 *>(p.attended + (int64_t)token * columns);
        for (int i = lane; i < quads; i += 32) /* a lane's are for itself alone */
            asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(to + 16 * i), "l"(x + i)
                         : "memory");
        asm volatile("cp.async.wait_all;" ::: "memory");
        float most = 0.0f;
        for (int i = lane; i < quads; i += 32)
            most = fmaxf(most, largest_of(wide[i]));
        float up, down;
        powers_for(warp_most(most), &up, &down);
        Fragments<WGMMA> fragments(p.fragments, token, units);
        for (int i = lane; i < quads; i += 32)
            fragments.put_quad(4 * i, wide[i], up);
        if (lane == 0)
            p.factors[token] = down;
    }
}

/* grid [kv_heads, pieces] */
__global__ void __launch_bounds__(kThreads, kBlocks) groups_kernel(mln_cuda_attention p) {
    extern __shared__ unsigned char shared[];
    uint32_t shared_base = (uint32_t)__cvta_generic_to_shared(shared);
    uint32_t base = (shared_base + 1023) / 1024 * 1024;
    auto stage = [&](int split) { return base + split % kStages * 2 * kSide; };
    Copier copier;
    dependency_launch();
    dependency_wait();
    int head = blockIdx.x;
    Piece piece(p);
    auto copy = [&](int split) {
        uint32_t to = stage(split);
        int count = piece.length - split * kSplit;
        const __half *keys = split_of<1>(p, piece.row, 0, head, split);
        const __half *values = split_of<1>(p, piece.row, 1, head, split);
        if (count >= kSplit)
            copier.copy<true>(to, keys, values, count);
        else
            copier.copy<false>(to, keys, values, count);
    };
    copy(0);
    Lines lines;
    begin_lines(lines, p, piece.tokens);
    Operands queries(lines, p);
    float c[kSplit / 8][4], sums[2][kSplit / 2];
    Weighed weighed;
    auto begin = [&](int split) {
        asm volatile("cp.async.wait_all;\n"
                     "fence.proxy.async.shared::cta;" /* products read what was copied */ ::
                         : "memory");
        __syncthreads(); /* nobody needs the split before the last */
        if (split + 1 < piece.splits)
            copy(split + 1);
        begin_scores(c, queries, stage(split));
    };
    begin(0);
    wgmma_wait<0>();
    settle(c);
    weigh(lines, c, weighed.before, weighed.now);
    pack_weights(weighed.a, c);
    settle(weighed.a);
    for (int split = 1; split < piece.splits; split++) {
        float before[2], now[2];
        begin(split);
        begin_values(sums, weighed, stage(split - 1) + kSide);
        wgmma_wait<1>(); /* the scores */
        settle(c);
        weigh(lines, c, before, now);
        wgmma_wait<0>();
        end_values(lines, sums, weighed);
        settle(c);
        pack_weights(weighed.a, c); /* not before: products were reading them */
        settle(weighed.a);
        for (int half = 0; half < 2; half++) {
            weighed.before[half] = before[half];
            weighed.now[half] = now[half];
        }
    }
    begin_values(sums, weighed, stage(piece.splits - 1) + kSide);
    wgmma_wait<0>();
    end_values(lines, sums, weighed);
    end_lines(lines, p);
    if (p.form == MLN_CUDA_FORM_NONE ||
        !ends_last(p.done + piece.tokens.x * p.kv_heads, p.kv_heads))
        return;
    unsigned char *room = shared + (base - shared_base); /* nobody reads keys or values any more */
    if (p.form == MLN_CUDA_FORM_WGMMA)
        convert_rows<true>(room, p, piece.tokens);
    else
        convert_rows<false>(room, p, piece.tokens);
}

} // namespace

extern "C" cudaError_t mln_cuda_prepare_groups(void) {
    return cudaFuncSetAttribute(groups_kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
}

extern "C" cudaError_t mln_cuda_attend_groups_launch(const mln_cuda_attention *p,
                                                     cudaStream_t stream) {
    return launch_kernel(groups_kernel, dim3((unsigned)p->kv_heads, (unsigned)p->num_pieces),
                         kThreads, kBytes, p->early != 0, *p, stream);
}
