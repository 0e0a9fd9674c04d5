/* SPDX-License-Identifier: Apache-2.0 */
/* Rows of weights as they are read, into tiles. */
#include <cuda_fp16.h>
#include <math.h>
#include <stdint.h>

#include "cuda_kernels.h"
#include "device.cuh"
#include "myelin/tensor.h"
#include "tiles.h"

namespace {

constexpr int kThreads = 256;

__device__ float widen(const void *values, int dtype, int64_t index) {
    if (dtype == MYELIN_DTYPE_BF16)
        return __uint_as_float((uint32_t) static_cast<const uint16_t *>(values)[index] << 16);
    if (dtype == MYELIN_DTYPE_F16)
        return __half2float(static_cast<const __half *>(values)[index]);
    return static_cast<const float *>(values)[index];
}

/* The largest of the block's values, in every thread. */
__device__ float block_max(float mine) {
    __shared__ float most[kThreads / 32];
    mine = warp_max(mine);
    if (threadIdx.x % 32 == 0)
        most[threadIdx.x / 32] = mine;
    __syncthreads();
    for (int i = 0; i < kThreads / 32; i++)
        mine = fmaxf(mine, most[i]);
    return mine;
}

/* The power of two that brings `most` to 2^14 or a little more; 0 for what it cannot help. */
__device__ int exponent_for(float most) {
    return most > 0.0f && most < INFINITY ? 14 - ilogbf(most) : 0;
}

/* Where row i of a matrix lies: its tile, and its slot there. */
struct Home {
    int64_t tile;
    int slot;
};

__device__ Home home_of(const mln_cuda_matrix &m, int64_t row, int half) {
    if (m.paired)
        return Home{row / 8, (int)(row % 8) + 8 * half};
    return Home{row / MLN_TILE_ROWS, (int)(row % MLN_TILE_ROWS)};
}

/* A row a block. */
__global__ void __launch_bounds__(kThreads) repack_kernel(mln_cuda_repack p) {
    const mln_cuda_matrix &m = p.to;
    int columns = (int)m.columns, code = m.tile_code;
    Home home = home_of(m, p.first + blockIdx.x, p.half);
    int unit_bytes = mln_unit_bytes(code);
    unsigned char *to = m.data + home.tile * m.units * unit_bytes;
    const unsigned char *from = p.data + (int64_t)blockIdx.x * m.pitch;
    bool dense = code == MLN_TILE_DENSE;
    int dtype = m.kind == MLN_CUDA_BF16 ? MYELIN_DTYPE_BF16 : MYELIN_DTYPE_F16;
    int groups = dense ? 0 : columns / m.group;
    int64_t first = (int64_t)blockIdx.x * groups; /* scale and bias of this row */
    float most = 0.0f;
    for (int c = threadIdx.x; dense && c < columns; c += kThreads)
        most = fmaxf(most, fabsf(widen(from, dtype, c)));
    float largest_code = m.kind == MLN_CUDA_Q4 ? 15.0f : 255.0f;
    for (int i = threadIdx.x; i < groups; i += kThreads) {
        float scale = fabsf(widen(p.scales, m.scale_dtype, first + i));
        float largest = scale * largest_code + fabsf(widen(p.biases, m.scale_dtype, first + i));
        most = fmaxf(most, fmaxf(largest, ldexpf(scale, MLN_CODE_SHIFT)));
    }
    int exponent = exponent_for(block_max(most));
    if (threadIdx.x == 0)
        m.row_scales[home.tile * MLN_TILE_ROWS + home.slot] = ldexpf(1.0f, -exponent);
    for (int c = threadIdx.x; dense && c < columns; c += kThreads) {
        __half value = __float2half_rn(ldexpf(widen(from, dtype, c), exponent));
        *reinterpret_cast<__half *>(to + c / MLN_UNIT_COLUMNS * unit_bytes +
                                    mln_tile_offset(code, home.slot, c % MLN_UNIT_COLUMNS)) = value;
    }
    if (dense)
        return;
    for (int c = threadIdx.x; c < columns; c += kThreads) {
        unsigned char *at = to + c / MLN_UNIT_COLUMNS * unit_bytes +
                            mln_tile_offset(code, home.slot, c % MLN_UNIT_COLUMNS);
        if (m.kind == MLN_CUDA_Q8)
            *at = from[c];
        else if (c % 16 < 8) /* with its neighbour eight columns on; groups are longer */
            *at = (unsigned char)((from[c / 2] >> c % 2 * 4 & 15) |
                                  (from[c / 2 + 4] >> c % 2 * 4 & 15) << 4);
    }
    int sets = mln_tile_sets(code), span = MLN_UNIT_COLUMNS / sets;
    for (int i = threadIdx.x; i * span < columns; i += kThreads) {
        int64_t group = first + i * span / m.group;
        __half *pair = reinterpret_cast<__half *>(to + i / sets * unit_bytes +
                                                  mln_tile_scale_offset(code, home.slot, i % sets));
        pair[0] = __float2half_rn(
            ldexpf(widen(p.scales, m.scale_dtype, group), exponent + MLN_CODE_SHIFT));
        pair[1] = __float2half_rn(ldexpf(widen(p.biases, m.scale_dtype, group), exponent));
    }
}

/* --- packed --- */

/* Adds an escape to its part's list. */
__device__ void add_escape(const mln_cuda_repack &p, const Home &home, int c, unsigned half) {
    const mln_cuda_matrix &m = p.to;
    int unit = c / MLN_UNIT_COLUMNS, split = mln_split_of(m.units, unit);
    uint32_t *list = m.escapes + (home.tile * MLN_TILE_SPLITS + split) * m.escape_room;
    uint32_t escape =
        mln_escape(unit - mln_split_begin(m.units, split), home.slot, c % MLN_UNIT_COLUMNS, half);
    for (int i = 0; i < m.escape_room; i++)
        if (atomicCAS(list + i, MLN_NO_ESCAPE, escape) == MLN_NO_ESCAPE)
            return;
    *p.full = 1;
}

/* The lift with which the fewest numbers are escapes, of how many have each exponent: the upper
 * lanes of a warp. With exponent 0 half of the numbers can be said, then a quarter. */
__device__ int best_lift(const int *exponents) {
    int lift = threadIdx.x, said = 0;
    for (int i = 1; lift < MLN_PACKED_LIFTS && i <= MLN_PACKED_EXPONENTS; i++)
        said += 4 * exponents[lift + i];
    if (lift < MLN_PACKED_LIFTS)
        said += 2 * exponents[lift] + (lift > 0 ? exponents[lift - 1] : 0) + 1;
    return (int)(__reduce_max_sync(~0u, (uint32_t)(said << 5 | lift)) & 31);
}

/* A row of bfloat16 a block: the numbers of repack_kernel(), packed. */
__global__ void __launch_bounds__(kThreads) pack_kernel(mln_cuda_repack p) {
    __shared__ int exponents[32], chosen;
    const mln_cuda_matrix &m = p.to;
    int columns = (int)m.columns;
    Home home = home_of(m, p.first + blockIdx.x, p.half);
    const unsigned char *from = p.data + (int64_t)blockIdx.x * m.pitch;
    if (threadIdx.x < 32)
        exponents[threadIdx.x] = 0;
    float most = 0.0f;
    for (int c = threadIdx.x; c < columns; c += kThreads)
        most = fmaxf(most, fabsf(widen(from, MYELIN_DTYPE_BF16, c)));
    int exponent = exponent_for(block_max(most));
    auto half_at = [&](int c) -> unsigned {
        if (c >= columns)
            return 0;
        return __half_as_ushort(
            __float2half_rn(ldexpf(widen(from, MYELIN_DTYPE_BF16, c), exponent)));
    };
    for (int c = threadIdx.x; c < columns; c += kThreads) {
        unsigned half = half_at(c);
        if (half & 0x7fffu)
            atomicAdd(exponents + (half >> 10 & 31), 1);
    }
    __syncthreads();
    if (threadIdx.x < 32) {
        int lift = best_lift(exponents);
        if (threadIdx.x == 0)
            chosen = lift;
    }
    __syncthreads();
    int lift = chosen;
    if (threadIdx.x == 0) {
        m.row_scales[home.tile * MLN_TILE_ROWS + home.slot] = ldexpf(1.0f, -exponent);
        reinterpret_cast<uint16_t *>(m.lifts)[(home.tile * 8 + home.slot % 8) * 2 + home.slot / 8] =
            (uint16_t)((15 + lift) << 10);
    }
    unsigned char *to = m.data + home.tile * m.units * mln_unit_bytes(MLN_TILE_PACKED);
    for (int i = threadIdx.x; i < m.units * 8; i += kThreads) {
        int unit = i / 8, half = i / 4 % 2, q = i % 4;
        uint32_t registers[4], words[3];
        for (int r = 0; r < 4; r++) {
            registers[r] = 0;
            for (int odd = 0; odd < 2; odd++) {
                int c = unit * MLN_UNIT_COLUMNS + half * 32 + r * 8 + 2 * q + odd;
                unsigned bits = half_at(c);
                int field = mln_pack_half(bits, lift);
                if (field < 0)
                    add_escape(p, home, c, bits);
                else
                    registers[r] |= (uint32_t)field << 16 * odd;
            }
        }
        mln_pack_words(words, registers);
        unsigned char *at = to + unit * mln_unit_bytes(MLN_TILE_PACKED);
        for (int k = 0; k < 3; k++)
            *reinterpret_cast<uint32_t *>(at + mln_packed_offset(home.slot, half, q, k)) = words[k];
    }
}

} // namespace

extern "C" cudaError_t mln_cuda_repack_launch(const mln_cuda_repack *p, cudaStream_t stream) {
    if (p->to.tile_code == MLN_TILE_PACKED)
        pack_kernel<<<(unsigned)p->count, kThreads, 0, stream>>>(*p);
    else
        repack_kernel<<<(unsigned)p->count, kThreads, 0, stream>>>(*p);
    return cudaGetLastError();
}
