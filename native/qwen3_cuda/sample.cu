/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Draws from rows of logits, each the token src/generate/sampler.c draws from them, to the last
 * bit. What is added up are counts and masses in fixed point, so threads may add in any order; all
 * else is the arithmetic of base/draw.h or compares.
 *
 * A candidate is a 64-bit word that grows with its rank: the logit over the temperature as an
 * integer of the same order, then the id, the lowest first. What top_k and top_p keep is all words
 * from some least one on.
 *
 * With a small top_k, whatever is kept is at least the k-th largest of the chunks' peaks: few
 * logits are, and they are ranked in shared memory. Other settings, and logits that are alike by
 * the thousand, find the least word digit by digit in passes over the whole row.
 */
#include "sample_ops.cuh"

namespace {

constexpr int kThreads = 1024, kWarps = kThreads / 32;
constexpr int kChunk = MLN_SAMPLE_CHUNK;
constexpr int kMostPeaks = 2048; /* chunks of a row whose peaks are ranked */
constexpr int kRanked = MLN_SAMPLE_RANKED;

struct shared_memory {
    union {
        float peaks[kMostPeaks];
        uint64_t sorted[kRanked];
        struct {
            unsigned long long masses[256];
            unsigned counts[256];
        };
    };
    uint64_t found[kRanked];
    unsigned long long sums[kWarps];
    mln_cuda_key best[kWarps];
    float values[kWarps];
    int32_t ids[kWarps];
    int num_found;
    float least_peak;
    uint64_t word;
};

/* What a block knows of its row. */
struct row_view {
    const float *logits; /* [vocab] */
    const float *peaks;  /* [chunks] */
    int32_t vocab, chunks;
    float temperature;
    float peak; /* of logits over the temperature */
    myelin_draw draw;
    uint32_t position;
};

/* --- over a block; every thread gets the result --- */

__device__ unsigned long long sum_of(unsigned long long x, shared_memory &m) {
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2)
        x += __shfl_xor_sync(~0u, x, offset);
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        m.sums[threadIdx.x / 32] = x;
    __syncthreads();
    x = 0;
    for (int i = 0; i < kWarps; i++)
        x += m.sums[i];
    return x;
}

/* The sum of the threads before this one; *total of all. */
__device__ unsigned long long sum_before(unsigned long long x, unsigned long long *total,
                                         shared_memory &m) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    unsigned long long sum = x;
#pragma unroll
    for (int offset = 1; offset < 32; offset *= 2) {
        unsigned long long y = __shfl_up_sync(~0u, sum, offset);
        sum += lane >= offset ? y : 0;
    }
    __syncthreads();
    if (lane == 31)
        m.sums[warp] = sum;
    __syncthreads();
    unsigned long long before = 0, all = 0;
    for (int i = 0; i < kWarps; i++) {
        before += i < warp ? m.sums[i] : 0;
        all += m.sums[i];
    }
    *total = all;
    return before + sum - x;
}

__device__ int32_t best_of(mln_cuda_key mine, shared_memory &m) {
    mine = better_of_warp(mine);
    if (threadIdx.x % 32 == 0)
        m.best[threadIdx.x / 32] = mine;
    __syncthreads();
    for (int i = 0; i < kWarps; i++)
        mine = better(mine, m.best[i]);
    return mine.id;
}

__device__ int32_t least_id(int32_t id, shared_memory &m) {
    id = __reduce_min_sync(~0u, id);
    __syncthreads();
    if (threadIdx.x % 32 == 0)
        m.ids[threadIdx.x / 32] = id;
    __syncthreads();
    for (int i = 0; i < kWarps; i++)
        id = min(id, m.ids[i]);
    return id;
}

/* --- the largest logit --- */

/* The largest of the row, and the first chunk that has it. */
__device__ float find_peak(const row_view &row, int32_t *chunk, shared_memory &m) {
    float peak = kLeast;
    for (int i = threadIdx.x; i < row.chunks; i += kThreads)
        peak = fmaxf(peak, row.peaks[i]);
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2)
        peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, offset));
    if (threadIdx.x % 32 == 0)
        m.values[threadIdx.x / 32] = peak;
    __syncthreads();
    for (int i = 0; i < kWarps; i++)
        peak = fmaxf(peak, m.values[i]);
    int32_t first = INT32_MAX;
    for (int i = threadIdx.x; i < row.chunks; i += kThreads)
        if (row.peaks[i] == peak)
            first = min(first, i);
    *chunk = least_id(first, m);
    return peak;
}

/* The argmax as mln_argmax() takes it: NaNs are passed over, 0 when there is nothing else. */
__device__ int32_t argmax_of(const row_view &row, float peak, int32_t chunk, shared_memory &m) {
    int32_t first = INT32_MAX;
    int32_t begin = peak > kLeast ? chunk * kChunk : 0;
    int32_t end = peak > kLeast ? min(begin + kChunk, row.vocab) : row.vocab;
    for (int32_t id = begin + threadIdx.x; id < end; id += kThreads)
        if (row.logits[id] == peak)
            first = min(first, id);
    first = least_id(first, m);
    return first == INT32_MAX ? 0 : first;
}

/* --- a small top_k --- */

/* The top_k-th largest of the peaks, or -infinity when there are fewer. */
__device__ float least_peak(const row_view &row, shared_memory &m) {
    if (threadIdx.x == 0)
        m.least_peak = kLeast;
    for (int i = threadIdx.x; i < row.chunks; i += kThreads)
        m.peaks[i] = row.peaks[i];
    __syncthreads();
    for (int i = threadIdx.x; i < row.chunks; i += kThreads) {
        float mine = m.peaks[i];
        int above = 0, equal = 0;
        for (int j = 0; j < row.chunks; j++) {
            above += m.peaks[j] > mine;
            equal += m.peaks[j] == mine;
        }
        if (above < row.draw.top_k && above + equal >= row.draw.top_k)
            m.least_peak = mine; /* the same from every thread */
    }
    __syncthreads();
    return m.least_peak;
}

/* Candidates of at least `least`, in any order; the number of them, of which kRanked are kept. */
__device__ int find(const row_view &row, float least, shared_memory &m) {
    if (threadIdx.x == 0)
        m.num_found = 0;
    __syncthreads();
    for (int c = threadIdx.x / 32; c < row.chunks; c += kWarps) {
        if (!(m.peaks[c] / row.temperature >= least))
            continue;
        for (int i = threadIdx.x % 32; i < kChunk; i += 32) {
            int32_t id = c * kChunk + i;
            float x = id < row.vocab ? row.logits[id] : kLeast;
            float z = x / row.temperature;
            if (!(x > kLeast && z >= least))
                continue;
            int at = atomicAdd(&m.num_found, 1);
            if (at < kRanked)
                m.found[at] = word_of(z, id);
        }
    }
    __syncthreads();
    return m.num_found;
}

/* Best first. All words differ, so that ranks are places. */
__device__ void rank(int count, shared_memory &m) {
    int t = threadIdx.x;
    if (t < count) {
        uint64_t mine = m.found[t];
        int place = 0;
        for (int i = 0; i < count; i++)
            place += m.found[i] > mine;
        m.sorted[place] = mine;
    }
    __syncthreads();
}

/* The draw from ranked candidates that hold all that top_k keeps. */
__device__ int32_t draw_ranked(const row_view &row, int count, shared_memory &m) {
    int t = threadIdx.x;
    uint64_t mine = t < count ? m.sorted[t] : 0;
    uint64_t last = m.sorted[min(row.draw.top_k, count) - 1];
    bool kept = t < count && mine >> 32 >= last >> 32; /* equals stay */
    float z = logit_of(mine);
    double below = (double)z - (double)row.peak;
    if (row.draw.top_p < 1) {
        unsigned long long total, mass = kept ? mln_draw_mass(below) : 0;
        mass = sum_before(mass, &total, m);
        kept = kept && mln_draw_lacks(mass, total, row.draw.top_p);
    }
    if (row.draw.min_p > 0)
        kept = kept && mln_draw_exp(below) >= row.draw.min_p;
    mln_cuda_key best = no_key();
    if (kept)
        best = {mln_draw_key(z, row.draw.seed, row.position, (uint32_t)id_of(mine)), id_of(mine)};
    return best_of(best, m);
}

/* --- any settings: passes over the row --- */

template <typename F> __device__ inline void each_candidate(const row_view &row, F f) {
    for (int32_t id = threadIdx.x; id < row.vocab; id += kThreads) {
        float x = row.logits[id];
        if (x > kLeast)
            f(x / row.temperature, id);
    }
}

__device__ void clear_digits(shared_memory &m) {
    __syncthreads();
    for (int i = threadIdx.x; i < 256; i += kThreads) {
        m.masses[i] = 0;
        m.counts[i] = 0;
    }
    __syncthreads();
}

/* Adds to a digit what a thread has gathered for it; runs of one digit are added at once. */
struct gatherer {
    shared_memory &m;
    int digit = -1;
    unsigned count = 0;
    unsigned long long mass = 0;
    __device__ void flush() {
        if (count > 0)
            atomicAdd(&m.counts[digit], count);
        if (mass > 0)
            atomicAdd(&m.masses[digit], mass);
        count = 0;
        mass = 0;
    }
    __device__ void add(int to, unsigned long long more) {
        if (to != digit)
            flush();
        digit = to;
        count++;
        mass += more;
    }
};

/* The least word of the top_k largest logits and their equals; 0 when there are no more. */
__device__ uint64_t least_of_top_k(const row_view &row, shared_memory &m) {
    uint64_t prefix = 0;
    unsigned wanted = (unsigned)row.draw.top_k;
    for (int shift = 56; shift >= 32; shift -= 8) {
        clear_digits(m);
        gatherer to = {m};
        each_candidate(row, [&](float z, int32_t id) {
            uint64_t word = word_of(z, id);
            if (shift == 56 || word >> (shift + 8) == prefix >> (shift + 8))
                to.add((int)(word >> shift & 255), 0);
        });
        to.flush();
        __syncthreads();
        int digit = 255;
        while (digit >= 0 && m.counts[digit] < wanted)
            wanted -= m.counts[digit--];
        if (digit < 0)
            return 0;
        prefix |= (uint64_t)digit << shift;
    }
    return prefix;
}

/* The least word of those from `least` on whose better ones together lack top_p of all. */
__device__ uint64_t least_of_top_p(const row_view &row, uint64_t least, shared_memory &m) {
    unsigned long long total = 0, above = 0;
    each_candidate(row, [&](float z, int32_t id) {
        if (word_of(z, id) >= least)
            total += mln_draw_mass((double)z - (double)row.peak);
    });
    total = sum_of(total, m);
    uint64_t prefix = 0;
    for (int shift = 56; shift >= 0; shift -= 8) {
        clear_digits(m);
        gatherer to = {m};
        each_candidate(row, [&](float z, int32_t id) {
            uint64_t word = word_of(z, id);
            if (word >= least && (shift == 56 || word >> (shift + 8) == prefix >> (shift + 8)))
                to.add((int)(word >> shift & 255), mln_draw_mass((double)z - (double)row.peak));
        });
        to.flush();
        __syncthreads();
        /* The last word that is kept has the lowest digit whose first word is kept. */
        int digit = 0;
        unsigned long long before = above;
        for (int d = 255; d >= 0 && mln_draw_lacks(before, total, row.draw.top_p); d--) {
            if (m.counts[d] > 0) {
                digit = d;
                above = before;
            }
            before += m.masses[d];
        }
        prefix |= (uint64_t)digit << shift;
    }
    return prefix;
}

__device__ int32_t draw_from_all(const row_view &row, shared_memory &m) {
    uint64_t least = 0;
    if (row.draw.top_k > 0)
        least = least_of_top_k(row, m);
    if (row.draw.top_p < 1)
        least = least_of_top_p(row, least, m);
    mln_cuda_key best = no_key();
    each_candidate(row, [&](float z, int32_t id) {
        if ((double)z + MLN_DRAW_MOST_NOISE < best.key || word_of(z, id) < least)
            return;
        if (row.draw.min_p > 0 && !(mln_draw_exp((double)z - (double)row.peak) >= row.draw.min_p))
            return;
        mln_cuda_key mine = {mln_draw_key(z, row.draw.seed, row.position, (uint32_t)id), id};
        best = better(best, mine);
    });
    return best_of(best, m);
}

/* --- kernels --- */

/* The largest of each chunk, a warp each; NaNs are passed over. */
__global__ void peaks_kernel(const float *logits, int32_t vocab, int32_t chunks, float *peaks) {
    int32_t chunk = (int32_t)(blockIdx.x * (blockDim.x / 32) + threadIdx.x / 32);
    if (chunk >= chunks)
        return;
    const float *row = logits + (int64_t)blockIdx.y * vocab;
    float peak = kLeast;
#pragma unroll
    for (int i = 0; i < kChunk; i += 32) {
        int32_t id = chunk * kChunk + i + threadIdx.x % 32;
        peak = fmaxf(peak, id < vocab ? row[id] : kLeast);
    }
#pragma unroll
    for (int offset = 16; offset > 0; offset /= 2)
        peak = fmaxf(peak, __shfl_xor_sync(~0u, peak, offset));
    if (threadIdx.x % 32 == 0)
        peaks[(int64_t)blockIdx.y * chunks + chunk] = peak;
}

/*
 * The draw from what blocks have found of a row that is drawn from all tokens: their best keys, and
 * candidates of which some are beyond top_p. Below 0 when these were too many.
 */
__device__ int32_t draw_from_shares(const row_view &row, const mln_cuda_sample &p,
                                    shared_memory &m) {
    int t = threadIdx.x, count = 0, shares = mln_cuda_sample_shares(p.vocab);
    const mln_cuda_key *keys = p.keys + (int64_t)blockIdx.x * shares;
    mln_cuda_key best = no_key();
    for (int i = t; i < shares; i += kThreads)
        best = better(best, keys[i]);
    if (row.draw.top_p < 1) {
        mln_cuda_wide *wide = p.wide + blockIdx.x;
        count = (int)wide->undecided;
        __syncthreads();
        if (t == 0)
            wide->undecided = 0;
        if (count > kRanked)
            return -1;
        if (t < count)
            m.found[t] = wide->words[t];
        __syncthreads();
        rank(count, m);
        uint64_t word = t < count ? m.sorted[t] : 0;
        float z = logit_of(word);
        double below = (double)z - (double)row.peak;
        unsigned long long total, mass = t < count ? mln_draw_mass(below) : 0;
        mass = wide->before + sum_before(mass, &total, m);
        bool kept = t < count && mln_draw_lacks(mass, wide->total, row.draw.top_p) &&
                    (row.draw.min_p <= 0 || mln_draw_exp(below) >= row.draw.min_p);
        if (kept)
            best =
                better(best, {mln_draw_key(z, row.draw.seed, row.position, (uint32_t)id_of(word)),
                              id_of(word)});
    }
    return best_of(best, m);
}

__device__ int32_t choose(row_view &row, const mln_cuda_sample &p, shared_memory &m) {
    int32_t chunk;
    float peak = find_peak(row, &chunk, m);
    row.peak = peak / row.temperature;
    if (!row.draw.sampled || !isfinite(row.peak))
        return argmax_of(row, peak, chunk, m);
    if (p.wide && mln_cuda_draws_from_all(&row.draw)) {
        int32_t id = draw_from_shares(row, p, m);
        if (id >= 0)
            return id;
    } else if (row.draw.top_k > 0 && row.draw.top_k <= kRanked && row.chunks <= kMostPeaks) {
        float least = least_peak(row, m);
        int count = find(row, least / row.temperature, m);
        if (count <= kRanked) {
            rank(count, m);
            return draw_ranked(row, count, m);
        }
    }
    return draw_from_all(row, m);
}

__global__ void __launch_bounds__(kThreads) draw_kernel(mln_cuda_sample p) {
    __shared__ shared_memory m;
    mln_cuda_row *to = &p.rows[blockIdx.x];
    row_view row;
    row.logits = p.logits + (int64_t)blockIdx.x * p.vocab;
    row.peaks = p.peaks + (int64_t)blockIdx.x * p.chunks;
    row.vocab = p.vocab;
    row.chunks = p.chunks;
    row.draw = p.draws[blockIdx.x];
    row.position = (uint32_t)to->position + 1;
    row.temperature = row.draw.sampled ? (float)row.draw.temperature : 1.0f;
    int32_t id = choose(row, p, m);
    if (threadIdx.x == 0) {
        p.out_ids[(p.first + (int64_t)blockIdx.x) * *p.steps + to->step] = id;
        to->id = id;
        to->position++;
        to->step++;
    }
}

} // namespace

extern "C" cudaError_t mln_cuda_sample_launch(const mln_cuda_sample *p, cudaStream_t stream) {
    constexpr int warps = 8;
    dim3 grid((unsigned)((p->chunks + warps - 1) / warps), (unsigned)p->count);
    peaks_kernel<<<grid, warps * 32, 0, stream>>>(p->logits, p->vocab, p->chunks, p->peaks);
    cudaError_t error = p->wide ? mln_cuda_sample_wide_launch(p, stream) : cudaSuccess;
    if (error != cudaSuccess)
        return error;
    draw_kernel<<<(unsigned)p->count, kThreads, 0, stream>>>(*p);
    return cudaGetLastError();
}
