/* SPDX-License-Identifier: Apache-2.0 */
/* What several devices have of a result, put together. */
#include <stdint.h>

#include "cuda_kernels.h"
#include "device.cuh"
#include "epilogue.cuh"
#include "tiles.h"

namespace {

constexpr int kThreads = 256;

/* residual[i] += parts[0][i] + parts[1][i] + ..., the ranks in order. */
__global__ void __launch_bounds__(kThreads)
    add_parts_kernel(float *residual, const float *parts, int64_t count, int ranks) {
    dependency_launch();
    int64_t i = (int64_t)blockIdx.x * kThreads + threadIdx.x;
    if (i >= count)
        return;
    float sum = parts[i];
    for (int r = 1; r < ranks; r++)
        sum += parts[r * count + i];
    residual[i] += sum;
}

/* --- words: a float, and the tag that says of which exchange it is --- */

constexpr uint64_t kPatience = 10000000000; /* ns that a device waits for another */
constexpr int kLooks = 1024;                /* in vain, between two looks at the clock */
constexpr uint32_t kLastTag = 0xfffffffe;

__device__ void post(uint64_t *to, float value, uint32_t tag) {
    uint64_t word = (uint64_t)tag << 32 | __float_as_uint(value);
    asm volatile("st.relaxed.sys.global.b64 [%0], %1;" ::"l"(to), "l"(word) : "memory");
}

__device__ float receive(const uint64_t *at, uint32_t tag, volatile int32_t *stop) {
    uint64_t word, since = 0, now;
    for (int looks = 1;; looks++) {
        asm volatile("ld.relaxed.sys.global.b64 %0, [%1];" : "=l"(word) : "l"(at) : "memory");
        if ((uint32_t)(word >> 32) == tag)
            return __uint_as_float((uint32_t)word);
        if (looks % kLooks != 0)
            continue;
        asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
        since = since ? since : now;
        if (now - since > kPatience)
            *stop = 1;
        if (*stop)
            return 0.0f;
    }
}

/*
 * Inboxes are used in turns: whoever writes to one again has what its owner sent after reading it.
 */
__global__ void __launch_bounds__(kThreads) exchange_kernel(mln_cuda_exchange p) {
    dependency_launch();
    dependency_wait();
    uint32_t turn = __ldcg(p.state), tag = turn + 1;
    int64_t first = (int64_t)(turn % 2) * p.ranks * p.room;
    int64_t i = (int64_t)blockIdx.x * kThreads + threadIdx.x;
    if (i < p.count) {
        float mine = __ldcg(p.part + i), sum = 0.0f;
        for (int r = 0; r < p.ranks; r++)
            if (r != p.rank)
                post(p.inboxes[r] + first + p.rank * p.room + i, mine, tag);
        for (int r = 0; r < p.ranks; r++) {
            float part = mine;
            if (r != p.rank)
                part = receive(p.inboxes[p.rank] + first + r * p.room + i, tag, p.stop);
            sum = r == 0 ? part : sum + part;
        }
        p.residual[i] = __ldcg(p.residual + i) + sum;
    }
    __syncthreads();
    if (threadIdx.x == 0 && atomicAdd(p.state + 1, 1u) == gridDim.x - 1) {
        p.state[1] = 0;
        p.state[0] = turn == kLastTag ? 1 : turn + 1; /* as odd as it would have been; never 0 */
    }
}

/* to[token] = the best of best[token, blocks], as a token of the whole vocabulary. */
__global__ void __launch_bounds__(kThreads)
    own_best_kernel(mln_cuda_best *to, const mln_cuda_best *best, int blocks, int first_id) {
    __shared__ mln_cuda_best all[kThreads / 32];
    mln_cuda_best mine = {0.0f, INT32_MAX};
    for (int i = threadIdx.x; i < blocks; i += kThreads)
        mine = better(mine, best[(int64_t)blockIdx.x * blocks + i]);
    for (int offset = 16; offset > 0; offset /= 2)
        mine = better_of_lanes(mine, offset, ~0u);
    if (threadIdx.x % 32 == 0)
        all[threadIdx.x / 32] = mine;
    __syncthreads();
    if (threadIdx.x > 0)
        return;
    for (int i = 1; i < kThreads / 32; i++)
        mine = better(mine, all[i]);
    if (mine.id != INT32_MAX)
        mine.id += first_id;
    to[blockIdx.x] = mine;
}

/* to[token, rank] = from[rank, token] */
__global__ void __launch_bounds__(kThreads)
    by_token_kernel(mln_cuda_best *to, const mln_cuda_best *from, int tokens, int ranks) {
    int i = blockIdx.x * kThreads + threadIdx.x;
    if (i < tokens * ranks)
        to[i] = from[i % ranks * tokens + i / ranks];
}

/* logits[token, id] = parts[rank, token, id less the rank's first]; grid [ids, tokens] */
__global__ void __launch_bounds__(kThreads)
    place_logits_kernel(float *logits, const float *parts, int vocab, int most, int ranks) {
    int id = blockIdx.x * kThreads + threadIdx.x, token = blockIdx.y, rank = 0;
    if (id >= vocab)
        return;
    while (rank + 1 < ranks && mln_tile_first_row(vocab, rank + 1, ranks) <= id)
        rank++;
    int64_t row = (int64_t)rank * gridDim.y + token;
    logits[(int64_t)token * vocab + id] =
        parts[row * most + id - mln_tile_first_row(vocab, rank, ranks)];
}

} // namespace

extern "C" cudaError_t mln_cuda_add_parts_launch(float *residual, const float *parts, int64_t count,
                                                 int32_t ranks, cudaStream_t stream) {
    unsigned blocks = (unsigned)((count + kThreads - 1) / kThreads);
    add_parts_kernel<<<blocks, kThreads, 0, stream>>>(residual, parts, count, ranks);
    return cudaGetLastError();
}

extern "C" cudaError_t mln_cuda_own_best_launch(mln_cuda_best *to, const mln_cuda_best *best,
                                                int32_t blocks, int32_t first_id, int32_t tokens,
                                                cudaStream_t stream) {
    own_best_kernel<<<(unsigned)tokens, kThreads, 0, stream>>>(to, best, blocks, first_id);
    return cudaGetLastError();
}

extern "C" cudaError_t mln_cuda_by_token_launch(mln_cuda_best *to, const mln_cuda_best *from,
                                                int32_t tokens, int32_t ranks,
                                                cudaStream_t stream) {
    unsigned blocks = (unsigned)((tokens * ranks + kThreads - 1) / kThreads);
    by_token_kernel<<<blocks, kThreads, 0, stream>>>(to, from, tokens, ranks);
    return cudaGetLastError();
}

extern "C" cudaError_t mln_cuda_place_logits_launch(float *logits, const float *parts,
                                                    int32_t tokens, int32_t vocab, int32_t most,
                                                    int32_t ranks, cudaStream_t stream) {
    dim3 grid((unsigned)((vocab + kThreads - 1) / kThreads), (unsigned)tokens);
    place_logits_kernel<<<grid, kThreads, 0, stream>>>(logits, parts, vocab, most, ranks);
    return cudaGetLastError();
}

extern "C" cudaError_t mln_cuda_exchange_launch(const mln_cuda_exchange *p, cudaStream_t stream) {
    dim3 grid((unsigned)((p->count + kThreads - 1) / kThreads));
    return launch_kernel(exchange_kernel, grid, kThreads, 0, p->early != 0, *p, stream);
}
