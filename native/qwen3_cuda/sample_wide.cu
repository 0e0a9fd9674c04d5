/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Rows that are drawn from all tokens (no top_k), shared by many blocks. Where top_p ends is found
 * in two steps: masses are added up by how far a logit is below the largest, first in bins of 1/64
 * and then, of the bin in which top_p of the mass is reached, in bins of 2^-17. Sums are integers,
 * so that blocks may add in any order; the block that ends last looks for the bin. What is better
 * than that bin is kept, and each block finds the best key of its part; the few candidates in the
 * bin are ranked by sample.cu.
 */
#include "sample_ops.cuh"

namespace {

constexpr int kThreads = 256, kWarps = kThreads / 32;
constexpr int kShare = MLN_SAMPLE_SHARE, kBins = MLN_SAMPLE_BINS, kOwn = kBins / kThreads;
constexpr double kCoarse = 64, kReach = 28; /* further below, nothing has a mass */
static_assert(kCoarse * kReach <= kBins, "a bin for all that has a mass");

/* A block's part of a row. */
struct share {
    const float *logits; /* [vocab] of the row */
    int32_t first, end;  /* ids */
    float temperature;
    float peak; /* of the row, over the temperature */
    myelin_draw draw;
    mln_cuda_wide *wide;
};

/* False when the row is drawn another way; the same for all threads. */
__device__ bool open_share(share &s, const mln_cuda_sample &p) {
    __shared__ float peaks[kWarps];
    s.draw = p.draws[blockIdx.y];
    if (!mln_cuda_draws_from_all(&s.draw))
        return false;
    float peak = kLeast;
    for (int i = threadIdx.x; i < p.chunks; i += kThreads)
        peak = fmaxf(peak, p.peaks[(int64_t)blockIdx.y * p.chunks + i]);
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2)
        peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, offset));
    if (threadIdx.x % 32 == 0)
        peaks[threadIdx.x / 32] = peak;
    __syncthreads();
    for (int i = 0; i < kWarps; i++)
        peak = fmaxf(peak, peaks[i]);
    s.temperature = (float)s.draw.temperature;
    s.peak = peak / s.temperature;
    s.logits = p.logits + (int64_t)blockIdx.y * p.vocab;
    s.first = blockIdx.x * kShare;
    s.end = min(s.first + kShare, p.vocab);
    s.wide = p.wide + blockIdx.y;
    return isfinite(s.peak);
}

template <typename F> __device__ inline void each_candidate(const share &s, F f) {
    for (int32_t id = s.first + threadIdx.x; id < s.end; id += kThreads) {
        float x = s.logits[id];
        if (x > kLeast)
            f(x / s.temperature, id);
    }
}

/* Bins grow as logits fall; kBins and more for what is out of reach. */
__device__ inline int coarse_bin(const share &s, float z) {
    double below = (double)s.peak - (double)z;
    return below < kReach ? (int)(below * kCoarse) : kBins;
}

/* Of a candidate in that coarse bin. */
__device__ inline int fine_bin(const share &s, float z, int coarse) {
    return (int)((((double)s.peak - (double)z) * kCoarse - coarse) * kBins);
}

/* The sum of the threads before this one; *total of all. */
__device__ uint64_t sum_before(uint64_t x, uint64_t *total) {
    __shared__ unsigned long long sums[kWarps];
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    unsigned long long sum = x, before = 0, all = 0;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
        unsigned long long y = __shfl_up_sync(~0u, sum, offset);
        sum += lane >= offset ? y : 0;
    }
    if (lane == 31)
        sums[warp] = sum;
    __syncthreads();
    for (int i = 0; i < kWarps; i++) {
        before += i < warp ? sums[i] : 0;
        all += sums[i];
    }
    *total = all;
    return before + sum - x;
}

/*
 * By one block, when all have added: the bin whose first candidate is kept though with all of it
 * top_p is reached. There is one: all bins together do not lack. Bins are zeros again.
 */
__device__ void find_bin(const share &s, int step) {
    uint64_t own[kOwn], sum = 0, total;
    for (int i = 0; i < kOwn; i++) {
        own[i] = __ldcg((unsigned long long *)s.wide->masses + threadIdx.x * kOwn + i);
        s.wide->masses[threadIdx.x * kOwn + i] = 0;
        sum += own[i];
    }
    uint64_t before = step == 0 ? 0 : s.wide->before;
    before += sum_before(sum, &total); /* and all have read wide->before */
    if (step == 1)
        total = s.wide->total; /* not of this bin alone */
    for (int i = 0; i < kOwn; i++) {
        if (own[i] > 0 && mln_draw_lacks(before, total, s.draw.top_p) &&
            !mln_draw_lacks(before + own[i], total, s.draw.top_p)) {
            s.wide->bin[step] = threadIdx.x * kOwn + i;
            s.wide->before = before;
        }
        before += own[i];
    }
    if (threadIdx.x == 0 && step == 0)
        s.wide->total = total;
    if (threadIdx.x == 0)
        s.wide->arrived = 0;
}

/* Adds up masses by the bin, coarse in step 0, fine in step 1; grid [shares, rows]. */
__global__ void __launch_bounds__(kThreads) bins_kernel(mln_cuda_sample p, int step) {
    __shared__ bool last;
    share s;
    if (p.draws[blockIdx.y].top_p >= 1 || !open_share(s, p))
        return;
    int wanted = step == 1 ? s.wide->bin[0] : 0, bin = -1;
    unsigned long long mass = 0; /* of one bin: neighbours are often alike */
    auto flush = [&]() {
        if (mass > 0)
            atomicAdd((unsigned long long *)s.wide->masses + bin, mass);
        mass = 0;
    };
    each_candidate(s, [&](float z, int32_t) {
        int to = coarse_bin(s, z);
        if (to >= kBins || (step == 1 && to != wanted))
            return;
        to = step == 1 ? fine_bin(s, z, wanted) : to;
        if (to != bin)
            flush();
        bin = to;
        mass += mln_draw_mass((double)z - (double)s.peak);
    });
    flush();
    __threadfence();
    __syncthreads();
    if (threadIdx.x == 0)
        last = atomicAdd(&s.wide->arrived, 1u) == gridDim.x - 1;
    __syncthreads();
    if (!last)
        return;
    __threadfence();
    find_bin(s, step);
}

/* The best key of each share, and what of it has to be ranked; grid [shares, rows]. */
__global__ void __launch_bounds__(kThreads) keys_kernel(mln_cuda_sample p) {
    __shared__ mln_cuda_key all[kWarps];
    share s;
    if (!open_share(s, p))
        return;
    uint32_t position = (uint32_t)p.rows[blockIdx.y].position + 1;
    bool cut = s.draw.top_p < 1;
    int coarse = cut ? s.wide->bin[0] : 0, fine = cut ? s.wide->bin[1] : 0;
    mln_cuda_key best = no_key();
    each_candidate(s, [&](float z, int32_t id) {
        int bin = cut ? coarse_bin(s, z) : -1;
        if (bin > coarse)
            return;
        if (cut && bin == coarse) {
            bin = fine_bin(s, z, coarse);
            if (bin > fine)
                return;
            if (bin == fine) {
                uint32_t at = atomicAdd(&s.wide->undecided, 1u);
                if (at < MLN_SAMPLE_RANKED)
                    s.wide->words[at] = word_of(z, id);
                return;
            }
        }
        if ((double)z + MLN_DRAW_MOST_NOISE < best.key)
            return;
        if (s.draw.min_p > 0 && !(mln_draw_exp((double)z - (double)s.peak) >= s.draw.min_p))
            return;
        best = better(best, {mln_draw_key(z, s.draw.seed, position, (uint32_t)id), id});
    });
    best = better_of_warp(best);
    if (threadIdx.x % 32 == 0)
        all[threadIdx.x / 32] = best;
    __syncthreads();
    if (threadIdx.x > 0)
        return;
    for (int i = 1; i < kWarps; i++)
        best = better(best, all[i]);
    p.keys[(int64_t)blockIdx.y * gridDim.x + blockIdx.x] = best;
}

} // namespace

extern "C" cudaError_t mln_cuda_sample_wide_launch(const mln_cuda_sample *p, cudaStream_t stream) {
    dim3 grid((unsigned)mln_cuda_sample_shares(p->vocab), (unsigned)p->count);
    for (int step = 0; step < 2; step++)
        bins_kernel<<<grid, kThreads, 0, stream>>>(*p, step);
    keys_kernel<<<grid, kThreads, 0, stream>>>(*p);
    return cudaGetLastError();
}
