/* SPDX-License-Identifier: Apache-2.0 */
/* Projections: rows of activations times rows of weights, for one token or a few at once. */
#include <cuda_bf16.h>
#include <cuda_fp16.h>
#include <stdint.h>

#include "cuda_kernels.h"
#include "device.cuh"
#include "epilogue.cuh"
#include "stage.cuh"
#include "weights.cuh"

namespace {

constexpr int kWarps = MLN_CUDA_WARPS;
constexpr int kMultiprocessors = 132; /* of an H100 or H200: how work is cut, not what it gives */
constexpr int64_t kManyRows = 16384;
constexpr int kManyWarps = 8;        /* of a block for several tokens */
constexpr int64_t kMaxBlocks = 2112; /* two waves of eight blocks on 132 multiprocessors */

/* 16 bytes of weights, read once: they must not push what is reused out of the caches. */
__device__ uint4 load_weights(const unsigned char *from) {
    uint4 v;
    asm volatile("ld.global.nc.L1::no_allocate.L2::128B.v4.u32 {%0, %1, %2, %3}, [%4];"
                 : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w)
                 : "l"(from));
    return v;
}

/* The same when other blocks read them too. */
__device__ uint4 load_shared_weights(const unsigned char *from) {
    return __ldg(reinterpret_cast<const uint4 *>(from));
}

/*
 * How 16 bytes become numbers. VALUES of them; dot() adds their products with x, which lies in
 * shared memory as [VALUES / 4][vectors] of four, so that neighbouring lanes read neighbours.
 */
template <int KIND> struct Codec;

template <> struct Codec<MLN_CUDA_F32> {
    static constexpr int VALUES = 4;
    __device__ static float dot(float acc, uint4 w, const float4 *x, int) {
        float4 a = x[0];
        acc = fmaf(__uint_as_float(w.x), a.x, acc);
        acc = fmaf(__uint_as_float(w.y), a.y, acc);
        acc = fmaf(__uint_as_float(w.z), a.z, acc);
        return fmaf(__uint_as_float(w.w), a.w, acc);
    }
};

/* Codes: dot() gives the sum of code * x alone, exact codes; the caller applies scale and bias. */
template <> struct Codec<MLN_CUDA_Q4> {
    static constexpr int VALUES = 32;
    /* A nibble where it lies in the mantissa: 2^(23 - shift) + code, less 2^(23 - shift). */
    __device__ static float code(uint32_t w, int shift) {
        uint32_t whole = (uint32_t)(127 + 23 - shift) << 23;
        return __uint_as_float(whole | (w & 15u << shift)) - __uint_as_float(whole);
    }
    __device__ static float dot(uint4 w, const float4 *x, int stride) {
        const uint32_t words[4] = {w.x, w.y, w.z, w.w};
        float sum[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float acc = 0.0f;
            float4 a = x[2 * i * stride], b = x[(2 * i + 1) * stride];
            acc = fmaf(code(words[i], 0), a.x, acc);
            acc = fmaf(code(words[i], 4), a.y, acc);
            acc = fmaf(code(words[i], 8), a.z, acc);
            acc = fmaf(code(words[i], 12), a.w, acc);
            acc = fmaf(code(words[i], 16), b.x, acc);
            uint32_t upper = words[i] >> 16;
            acc = fmaf(code(upper, 4), b.y, acc);
            acc = fmaf(code(upper, 8), b.z, acc);
            acc = fmaf(code(upper, 12), b.w, acc);
            sum[i] = acc;
        }
        return (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }
};

template <> struct Codec<MLN_CUDA_Q8> {
    static constexpr int VALUES = 16;
    __device__ static float code(uint32_t w, int byte) {
        return __uint_as_float(__byte_perm(w, 0x4b000000u, 0x7440u | byte)) - 8388608.0f;
    }
    __device__ static float dot(uint4 w, const float4 *x, int stride) {
        const uint32_t words[4] = {w.x, w.y, w.z, w.w};
        float sum[4];
#pragma unroll
        for (int i = 0; i < 4; i++) {
            float acc = 0.0f;
            float4 a = x[i * stride];
            acc = fmaf(code(words[i], 0), a.x, acc);
            acc = fmaf(code(words[i], 1), a.y, acc);
            acc = fmaf(code(words[i], 2), a.z, acc);
            acc = fmaf(code(words[i], 3), a.w, acc);
            sum[i] = acc;
        }
        return (sum[0] + sum[1]) + (sum[2] + sum[3]);
    }
};

/* Whether the weights are codes, with a scale and a bias for each group. */
template <int KIND> constexpr bool kCode = KIND == MLN_CUDA_Q4 || KIND == MLN_CUDA_Q8;

/* The codec's dot product of either kind; the branch not taken is never compiled. */
template <int KIND> __device__ float code_dot(uint4 w, const float4 *x, int stride) {
    if constexpr (kCode<KIND>)
        return Codec<KIND>::dot(w, x, stride);
    return 0.0f;
}

template <int KIND> __device__ float plain_dot(float acc, uint4 w, const float4 *x, int stride) {
    if constexpr (!kCode<KIND>)
        return Codec<KIND>::dot(acc, w, x, stride);
    return acc;
}

/*
 * The block's tokens of x, times the norm's weights, in shared memory as the codec reads them; of
 * codes also the sum of each vector's x, at sums[token][vector]. factors[token] is what the dot
 * products are multiplied by in the end: 1, or 1 / sqrt(mean(x^2) + eps).
 */
template <int KIND, int T, int WARPS, int BATCH>
__device__ void stage(float4 *shared, float *sums, float factors[T], const mln_cuda_linear &p,
                      int first, int tokens, int vectors) {
    constexpr int QUADS = Codec<KIND>::VALUES / 4, TEAM = 128, TEAMS = WARPS / 4;
    __shared__ float warp_sums[T][4];
    int columns = (int)p.weight.columns, quads = vectors * QUADS;
    int member = threadIdx.x % TEAM; /* 128 threads take a token, however many there are */
#pragma unroll
    for (int t = threadIdx.x / TEAM; t < T; t += TEAMS) {
        if (t >= tokens)
            break;
        int64_t row = p.order ? p.order[first + t] : first + t;
        const float *x = p.x + row * p.x_stride;
        float4 *to = shared + (int64_t)t * quads;
        float squares = 0.0f;
        for (int base = member; base < quads; base += BATCH * TEAM) {
            float4 v[BATCH], n[BATCH];
#pragma unroll
            for (int u = 0; u < BATCH; u++)
                if (base + u * TEAM < quads) {
                    v[u] = load_quad(x, base + u * TEAM, columns);
                    if (p.norm)
                        n[u] = load_quad(p.norm, base + u * TEAM, columns);
                }
#pragma unroll
            for (int u = 0; u < BATCH; u++) {
                int i = base + u * TEAM;
                if (i >= quads)
                    break;
                if (p.norm) {
                    squares = fmaf(v[u].x, v[u].x, squares);
                    squares = fmaf(v[u].y, v[u].y, squares);
                    squares = fmaf(v[u].z, v[u].z, squares);
                    squares = fmaf(v[u].w, v[u].w, squares);
                    v[u] = make_float4(v[u].x * n[u].x, v[u].y * n[u].y, v[u].z * n[u].z,
                                       v[u].w * n[u].w);
                }
                to[i % QUADS * vectors + i / QUADS] = v[u];
            }
        }
        if (p.norm) {
            squares = warp_sum(squares);
            if (threadIdx.x % 32 == 0)
                warp_sums[t][member / 32] = squares;
        }
    }
    __syncthreads();
#pragma unroll
    for (int t = 0; t < T; t++) {
        float sum = 0.0f;
        if (p.norm && t < tokens)
            sum = ((warp_sums[t][0] + warp_sums[t][1]) + warp_sums[t][2]) + warp_sums[t][3];
        factors[t] = p.norm && t < tokens ? 1.0f / sqrtf(sum / (float)columns + p.eps) : 1.0f;
    }
    if (kCode<KIND>) {
        for (int i = threadIdx.x; i < tokens * vectors; i += WARPS * 32) {
            int t = i / vectors, v = i % vectors;
            float sum = 0.0f;
            for (int j = 0; j < QUADS; j++) {
                float4 a = shared[(int64_t)t * quads + j * vectors + v];
                sum += (a.x + a.y) + (a.z + a.w);
            }
            sums[i] = sum;
        }
        __syncthreads();
    }
}

/* --- several tokens --- */

/* Adds to acc[R][T] the products of vector v of R rows with T tokens. */
template <int KIND, int T, int R>
__device__ void add_vector(float acc[R][T], const uint4 w[R], const mln_cuda_matrix &m, int64_t row,
                           int v, const float4 *shared, const float *sums, int vectors) {
    constexpr int QUADS = Codec<KIND>::VALUES / 4;
    float scale[R], bias[R];
    if (kCode<KIND>) {
        int64_t groups = m.columns / m.group;
#pragma unroll
        for (int r = 0; r < R; r++) {
            int64_t last = row + r < m.rows ? row + r : m.rows - 1;
            int64_t at = last * groups + v * Codec<KIND>::VALUES / m.group;
            scale[r] = scale_at(m.scales, m.scale_dtype, at);
            bias[r] = scale_at(m.biases, m.scale_dtype, at);
        }
    }
#pragma unroll
    for (int t = 0; t < T; t++) {
        const float4 *x = shared + (int64_t)t * vectors * QUADS + v;
#pragma unroll
        for (int r = 0; r < R; r++) {
            if (kCode<KIND>) {
                float dot = code_dot<KIND>(w[r], x, vectors);
                acc[r][t] = fmaf(scale[r], dot, acc[r][t]);
                acc[r][t] = fmaf(bias[r], sums[t * vectors + v], acc[r][t]);
            } else {
                acc[r][t] = plain_dot<KIND>(acc[r][t], w[r], x, vectors);
            }
        }
    }
}

/* acc[R][T] = this lane's share of R rows' products, the next vectors always under way. */
template <int KIND, int T, int R>
__device__ void dots(float acc[R][T], const mln_cuda_matrix &m, int64_t row, const float4 *shared,
                     const float *sums, int vectors) {
    int lane = threadIdx.x % 32;
    uint4 w[R], next[R];
#pragma unroll
    for (int r = 0; r < R; r++) {
#pragma unroll
        for (int t = 0; t < T; t++)
            acc[r][t] = 0.0f;
        next[r] = make_uint4(0, 0, 0, 0);
        if (lane < vectors && row + r < m.rows)
            next[r] = load_shared_weights(m.data + (row + r) * m.pitch + 16 * (int64_t)lane);
    }
    for (int v = lane; v < vectors; v += 32) {
#pragma unroll
        for (int r = 0; r < R; r++) {
            w[r] = next[r];
            if (v + 32 < vectors && row + r < m.rows)
                next[r] =
                    load_shared_weights(m.data + (row + r) * m.pitch + 16 * (int64_t)(v + 32));
        }
        add_vector<KIND, T, R>(acc, w, m, row, v, shared, sums, vectors);
    }
}

/*
 * R rows a warp, T tokens a block. Blocks of the same rows and all tokens run side by side, so that
 * the weights come from memory once.
 */
template <int KIND, int T, int R>
__global__ void __launch_bounds__(kManyWarps * 32) linear_kernel(mln_cuda_linear p) {
    extern __shared__ float4 shared[];
    constexpr int QUADS = Codec<KIND>::VALUES / 4;
    int vectors = (int)(p.weight.pitch / 16);
    float *sums = reinterpret_cast<float *>(shared + (int64_t)T * vectors * QUADS);
    int first = blockIdx.x * T, tokens = min(T, p.tokens - first);
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int64_t row = ((int64_t)blockIdx.y * kManyWarps + warp) * R;
    bool gated = p.epilogue == MLN_CUDA_GATED;
    dependency_wait();
    float factors[T];
    stage<KIND, T, kManyWarps, 4>(shared, sums, factors, p, first, tokens, vectors);
    dependency_launch();
    float acc[R][T], up[R][T];
    dots<KIND, T, R>(acc, p.weight, row, shared, sums, vectors);
    if (gated)
        dots<KIND, T, R>(up, p.second, row, shared, sums, vectors);
    __shared__ mln_cuda_best bests[T][kManyWarps];
#pragma unroll
    for (int t = 0; t < T; t++) {
        mln_cuda_best best = {0.0f, INT32_MAX};
#pragma unroll
        for (int r = 0; r < R; r++) {
            bool valid = row + r < p.weight.rows && t < tokens;
            float y = warp_sum(acc[r][t]) * factors[t];
            float z = gated ? warp_sum(up[r][t]) * factors[t] : 0.0f;
            float *out = p.out + (int64_t)(first + t) * p.out_stride + row + r;
            if (p.epilogue == MLN_CUDA_ARGMAX) {
                if (valid && y == y)
                    best = better(best, mln_cuda_best{y, (int32_t)(row + r)});
                continue;
            }
            if (!valid || lane != 0)
                continue;
            if (p.epilogue == MLN_CUDA_STORE)
                *out = y;
            else if (p.epilogue == MLN_CUDA_ADD)
                *out = *out + y;
            else
                *out = y / (1.0f + expf(-y)) * (gated ? z : *out);
        }
        if (lane == 0)
            bests[t][warp] = best;
    }
    if (p.epilogue == MLN_CUDA_ARGMAX) {
        __syncthreads();
        if (threadIdx.x < tokens) {
            mln_cuda_best best = bests[threadIdx.x][0];
            for (int i = 1; i < kManyWarps; i++)
                best = better(best, bests[threadIdx.x][i]);
            p.best[(int64_t)(first + threadIdx.x) * gridDim.y + blockIdx.y] = best;
        }
    }
}

/* --- one token --- */

/* Vectors of a row, and what scales them, on their way before anything is waited for. */
template <int KIND, int A> struct Ahead {
    uint4 w[A];
    float scale[A], bias[A];
};

template <int KIND, int A>
__device__ void fetch(Ahead<KIND, A> &to, const mln_cuda_matrix &m, int64_t row, int base,
                      int vectors) {
    int lane = threadIdx.x % 32;
    int64_t groups = kCode<KIND> ? m.columns / m.group : 0;
#pragma unroll
    for (int u = 0; u < A; u++) {
        int v = base + 32 * u + lane;
        if (v < vectors) {
            to.w[u] = load_weights(m.data + row * m.pitch + 16 * (int64_t)v);
            if (kCode<KIND>) {
                int64_t at = row * groups + v * Codec<KIND>::VALUES / m.group;
                to.scale[u] = scale_at(m.scales, m.scale_dtype, at);
                to.bias[u] = scale_at(m.biases, m.scale_dtype, at);
            }
        }
    }
}

/* As row_dots() adds them up. */
template <int KIND, int A>
__device__ float consume(float acc, const Ahead<KIND, A> &from, int base, const float4 *shared,
                         const float *sums, int vectors) {
    int lane = threadIdx.x % 32;
#pragma unroll
    for (int u = 0; u < A; u++) {
        int v = base + 32 * u + lane;
        if (v >= vectors)
            continue;
        if (kCode<KIND>) {
            float dot = code_dot<KIND>(from.w[u], shared + v, vectors);
            acc = fmaf(from.scale[u], dot, acc);
            acc = fmaf(from.bias[u], sums[v], acc);
        } else {
            acc = plain_dot<KIND>(acc, from.w[u], shared + v, vectors);
        }
    }
    return acc;
}

template <int KIND, int A>
__device__ float finish_row(Ahead<KIND, A> &ahead, const mln_cuda_matrix &m, int64_t row,
                            const float4 *shared, const float *sums, int vectors) {
    float acc = consume<KIND, A>(0.0f, ahead, 0, shared, sums, vectors);
    for (int base = 32 * A; base < vectors; base += 32 * A) {
        fetch<KIND, A>(ahead, m, row, base, vectors);
        acc = consume<KIND, A>(acc, ahead, base, shared, sums, vectors);
    }
    return warp_sum(acc);
}

/* Blocks that must fit a multiprocessor at once, given the vectors a lane has under way. */
template <int VECTORS, bool CODE>
constexpr int kOneBlocks = VECTORS <= 4            ? (CODE ? 7 : 8)
                           : VECTORS <= 8 && !CODE ? 6
                                                   : 4;

/*
 * R rows of each of P matrices (2: gate and up) a warp, A vectors of each a lane: so many that a
 * launch of one wave has all its weights under way before the kernel before it has ended.
 */
template <int KIND, int A, int R, int P>
__global__ void __launch_bounds__(kWarps * 32, kOneBlocks<A * R * P, kCode<KIND>>)
    one_kernel(mln_cuda_linear p) {
    extern __shared__ float4 shared[];
    int vectors = (int)(p.weight.pitch / 16);
    float *sums = reinterpret_cast<float *>(shared + (int64_t)vectors * (Codec<KIND>::VALUES / 4));
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
    int64_t step = (int64_t)gridDim.y * kWarps * R;
    int64_t row = ((int64_t)blockIdx.y * kWarps + warp) * R;
    Ahead<KIND, A> ahead[R][P];
    auto fetch_rows = [&](int64_t from) {
#pragma unroll
        for (int r = 0; r < R; r++)
            if (from + r < p.weight.rows) {
                fetch<KIND, A>(ahead[r][0], p.weight, from + r, 0, vectors);
                if (P == 2)
                    fetch<KIND, A>(ahead[r][P - 1], p.second, from + r, 0, vectors);
            }
    };
    dependency_launch();
    fetch_rows(row);
    dependency_wait();
    float factor[1];
    stage<KIND, 1, kWarps, A <= 4 ? 2 : 4>(shared, sums, factor, p, 0, 1, vectors);
    mln_cuda_best best = {0.0f, INT32_MAX};
    for (;;) {
#pragma unroll
        for (int r = 0; r < R; r++) {
            if (row + r >= p.weight.rows)
                continue;
            float y = finish_row<KIND, A>(ahead[r][0], p.weight, row + r, shared, sums, vectors);
            y *= factor[0];
            float z = 0.0f;
            if (P == 2)
                z = finish_row<KIND, A>(ahead[r][P - 1], p.second, row + r, shared, sums, vectors) *
                    factor[0];
            if (p.epilogue == MLN_CUDA_ARGMAX) {
                if (y == y)
                    best = better(best, mln_cuda_best{y, (int32_t)(row + r)});
            } else if (lane == 0) {
                float *out = p.out + row + r;
                if (p.epilogue == MLN_CUDA_STORE)
                    *out = y;
                else if (p.epilogue == MLN_CUDA_ADD)
                    *out = *out + y;
                else
                    *out = y / (1.0f + expf(-y)) * (P == 2 ? z : *out);
            }
        }
        row += step;
        if (row >= p.weight.rows)
            break;
        fetch_rows(row);
    }
    if (p.epilogue == MLN_CUDA_ARGMAX) {
        __shared__ mln_cuda_best bests[kWarps];
        if (lane == 0)
            bests[warp] = best;
        __syncthreads();
        if (threadIdx.x == 0) {
            for (int i = 1; i < kWarps; i++)
                best = better(best, bests[i]);
            p.best[blockIdx.y] = best;
        }
    }
}

/* Shared memory of a block with T tokens. */
size_t shared_bytes(const mln_cuda_matrix &m, int tokens) {
    size_t vectors = (size_t)(m.pitch / 16);
    size_t values = m.kind == MLN_CUDA_F32  ? 4
                    : m.kind == MLN_CUDA_Q4 ? 32
                    : m.kind == MLN_CUDA_Q8 ? 16
                                            : 8;
    bool code = m.kind == MLN_CUDA_Q4 || m.kind == MLN_CUDA_Q8;
    return (size_t)tokens * vectors * (values * sizeof(float) + (code ? sizeof(float) : 0));
}

cudaError_t launch_grid(void (*kernel)(mln_cuda_linear), dim3 grid, int warps, size_t shared,
                        const mln_cuda_linear &p, cudaStream_t stream) {
    return launch_kernel(kernel, grid, (unsigned)warps * 32, shared, p.wait != 0, p, stream);
}

/* Rows a warp takes when there are several tokens: four, when enough blocks are left. */
int rows_of_many(const mln_cuda_matrix &m, int tokens) {
    int64_t blocks = (m.rows + 4 * kManyWarps - 1) / (4 * kManyWarps) * ((tokens + 7) / 8);
    return blocks >= kMultiprocessors ? 4 : 1;
}

template <int KIND, int T> cudaError_t launch(const mln_cuda_linear &p, cudaStream_t stream) {
    int rows = rows_of_many(p.weight, p.tokens);
    dim3 grid((unsigned)((p.tokens + T - 1) / T),
              (unsigned)((p.weight.rows + rows * kManyWarps - 1) / (rows * kManyWarps)));
    size_t shared = shared_bytes(p.weight, T);
    if (rows == 4)
        return launch_grid(linear_kernel<KIND, T, 4>, grid, kManyWarps, shared, p, stream);
    return launch_grid(linear_kernel<KIND, T, 1>, grid, kManyWarps, shared, p, stream);
}

/* Blocks of one_kernel: at most two waves, the rest of the rows in turns. */
unsigned one_blocks(const mln_cuda_matrix &m, int rows_a_warp) {
    int64_t blocks = (m.rows + kWarps * rows_a_warp - 1) / (kWarps * rows_a_warp);
    return (unsigned)(blocks < kMaxBlocks ? blocks : kMaxBlocks);
}

template <int KIND, int A, int R>
cudaError_t launch_one(const mln_cuda_linear &p, cudaStream_t stream) {
    dim3 grid(1, one_blocks(p.weight, R));
    size_t shared = shared_bytes(p.weight, 1);
    if (p.epilogue == MLN_CUDA_GATED)
        return launch_grid(one_kernel<KIND, A, R, 2>, grid, kWarps, shared, p, stream);
    return launch_grid(one_kernel<KIND, A, R, 1>, grid, kWarps, shared, p, stream);
}

/* How many rows a warp takes at once follows from how many vectors a lane has of each. */
int rows_a_warp(const mln_cuda_matrix &m) {
    int64_t each = (m.pitch / 16 + 31) / 32;
    if (each > 2)
        return 1;
    if (each == 2)
        return 2;
    return m.rows > kManyRows ? 4 : 1; /* short rows: few warps for a head, many for the rest */
}

template <int KIND> cudaError_t launch_kind(const mln_cuda_linear &p, cudaStream_t stream) {
    if (p.tokens >= 8 && shared_bytes(p.weight, 8) <= MLN_CUDA_MAX_SMEM)
        return launch<KIND, 8>(p, stream);
    if (p.tokens >= 4 && shared_bytes(p.weight, 4) <= MLN_CUDA_MAX_SMEM)
        return launch<KIND, 4>(p, stream);
    if (p.tokens >= 2)
        return launch<KIND, 2>(p, stream);
    int64_t each = (p.weight.pitch / 16 + 31) / 32;
    if (each <= 1)
        return rows_a_warp(p.weight) == 4 ? launch_one<KIND, 1, 4>(p, stream)
                                          : launch_one<KIND, 1, 1>(p, stream);
    if (each <= 2)
        return launch_one<KIND, 2, 2>(p, stream);
    if (each <= 4)
        return launch_one<KIND, 4, 1>(p, stream);
    if (p.epilogue == MLN_CUDA_GATED || each <= 8)
        return launch_one<KIND, 8, 1>(p, stream);
    dim3 grid(1, one_blocks(p.weight, 1));
    size_t shared = shared_bytes(p.weight, 1);
    if (each <= 12)
        return launch_grid(one_kernel<KIND, 12, 1, 1>, grid, kWarps, shared, p, stream);
    return launch_grid(one_kernel<KIND, 16, 1, 1>, grid, kWarps, shared, p, stream);
}

template <int KIND> cudaError_t allow_shared() {
    const void *kernels[] = {
        (const void *)linear_kernel<KIND, 2, 1>,  (const void *)linear_kernel<KIND, 2, 4>,
        (const void *)linear_kernel<KIND, 4, 1>,  (const void *)linear_kernel<KIND, 4, 4>,
        (const void *)linear_kernel<KIND, 8, 1>,  (const void *)linear_kernel<KIND, 8, 4>,
        (const void *)one_kernel<KIND, 1, 1, 1>,  (const void *)one_kernel<KIND, 1, 1, 2>,
        (const void *)one_kernel<KIND, 1, 4, 1>,  (const void *)one_kernel<KIND, 1, 4, 2>,
        (const void *)one_kernel<KIND, 2, 2, 1>,  (const void *)one_kernel<KIND, 2, 2, 2>,
        (const void *)one_kernel<KIND, 4, 1, 1>,  (const void *)one_kernel<KIND, 4, 1, 2>,
        (const void *)one_kernel<KIND, 8, 1, 1>,  (const void *)one_kernel<KIND, 8, 1, 2>,
        (const void *)one_kernel<KIND, 12, 1, 1>, (const void *)one_kernel<KIND, 16, 1, 1>};
    for (const void *kernel : kernels) {
        cudaError_t error = cudaFuncSetAttribute(
            kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, MLN_CUDA_MAX_SMEM);
        if (error != cudaSuccess)
            return error;
    }
    return cudaSuccess;
}

/* --- the embedding, and the greedy pick --- */

__global__ void embed_kernel(float *out, mln_cuda_matrix m, const mln_cuda_row *rows) {
    int64_t id = rows[blockIdx.x].id;
    for (int64_t c = threadIdx.x; c < m.columns; c += blockDim.x)
        out[blockIdx.x * m.columns + c] = weight_at(m, id, c);
}

__global__ void norm_kernel(float *x, const float *weight, int columns, float eps) {
    __shared__ float sums[32];
    float squares = 0.0f;
    for (int i = threadIdx.x; i < columns; i += blockDim.x)
        squares = fmaf(x[i], x[i], squares);
    squares = warp_sum(squares);
    if (threadIdx.x % 32 == 0)
        sums[threadIdx.x / 32] = squares;
    __syncthreads();
    squares = 0.0f;
    for (unsigned i = 0; i < blockDim.x / 32; i++)
        squares += sums[i];
    float factor = 1.0f / sqrtf(squares / (float)columns + eps);
    for (int i = threadIdx.x; i < columns; i += blockDim.x)
        x[i] = x[i] * factor * weight[i];
}

__global__ void pick_kernel(const mln_cuda_best *best, int32_t blocks, mln_cuda_row *rows,
                            int32_t *out_ids, const int32_t *steps) {
    __shared__ mln_cuda_best all[32];
    mln_cuda_best mine = {0.0f, INT32_MAX};
    for (int32_t i = threadIdx.x; i < blocks; i += blockDim.x)
        mine = better(mine, best[(int64_t)blockIdx.x * blocks + i]);
    for (int offset = 16; offset > 0; offset /= 2) {
        mln_cuda_best theirs = {__shfl_xor_sync(~0u, mine.value, offset),
                                __shfl_xor_sync(~0u, mine.id, offset)};
        mine = better(mine, theirs);
    }
    if (threadIdx.x % 32 == 0)
        all[threadIdx.x / 32] = mine;
    __syncthreads();
    if (threadIdx.x == 0) {
        for (unsigned i = 1; i < blockDim.x / 32; i++)
            mine = better(mine, all[i]);
        mln_cuda_row *row = &rows[blockIdx.x];
        int32_t id = mine.id == INT32_MAX ? 0 : mine.id;
        out_ids[(int64_t)blockIdx.x * *steps + row->step] = id;
        row->id = id;
        row->position++;
        row->step++;
    }
}

} // namespace

extern "C" int32_t mln_cuda_argmax_blocks(const mln_cuda_matrix *weight, int32_t tokens) {
    if (weight->tile_code != MLN_TILE_NONE)
        return mln_cuda_tiled_argmax_blocks(weight, tokens);
    if (tokens == 1)
        return (int32_t)one_blocks(*weight, rows_a_warp(*weight));
    int rows = rows_of_many(*weight, tokens) * kManyWarps;
    return (int32_t)((weight->rows + rows - 1) / rows);
}

extern "C" cudaError_t mln_cuda_linear_launch(const mln_cuda_linear *p, cudaStream_t stream) {
    if (p->weight.tile_code != MLN_TILE_NONE)
        return mln_cuda_tiled_launch(p, stream);
    switch (p->weight.kind) {
    case MLN_CUDA_F32:
        return launch_kind<MLN_CUDA_F32>(*p, stream);
    case MLN_CUDA_Q4:
        return launch_kind<MLN_CUDA_Q4>(*p, stream);
    default:
        return launch_kind<MLN_CUDA_Q8>(*p, stream);
    }
}

extern "C" cudaError_t mln_cuda_embed_launch(float *out, const mln_cuda_matrix *weight,
                                             const mln_cuda_row *rows, int32_t tokens,
                                             cudaStream_t stream) {
    embed_kernel<<<(unsigned)tokens, 256, 0, stream>>>(out, *weight, rows);
    return cudaGetLastError();
}

extern "C" cudaError_t mln_cuda_norm_launch(float *x, const float *weight, int32_t columns,
                                            float eps, cudaStream_t stream) {
    norm_kernel<<<1, 1024, 0, stream>>>(x, weight, columns, eps);
    return cudaGetLastError();
}

extern "C" cudaError_t mln_cuda_pick_launch(const mln_cuda_best *best, int32_t blocks,
                                            mln_cuda_row *rows, int32_t *out_ids,
                                            const int32_t *steps, int32_t tokens,
                                            cudaStream_t stream) {
    pick_kernel<<<(unsigned)tokens, 1024, 0, stream>>>(best, blocks, rows, out_ids, steps);
    return cudaGetLastError();
}

extern "C" cudaError_t mln_cuda_prepare_device(void) {
    cudaError_t error = mln_cuda_prepare_tiles();
    if (error == cudaSuccess)
        error = mln_cuda_prepare_pieces();
    if (error == cudaSuccess)
        error = mln_cuda_prepare_singles();
    if (error == cudaSuccess)
        error = allow_shared<MLN_CUDA_F32>();
    if (error == cudaSuccess)
        error = allow_shared<MLN_CUDA_Q4>();
    return error == cudaSuccess ? allow_shared<MLN_CUDA_Q8>() : error;
}
