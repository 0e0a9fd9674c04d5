/* SPDX-License-Identifier: Apache-2.0 */
/* A single weight, wherever it lies: of use for embeddings. */
#ifndef MLN_CUDA_WEIGHTS_CUH
#define MLN_CUDA_WEIGHTS_CUH

#include <cuda_fp16.h>
#include <stdint.h>

#include "cuda_kernels.h"
#include "myelin/tensor.h"
#include "tiles.h"

__device__ inline float scale_at(const void *scales, int dtype, int64_t index) {
    if (dtype == MYELIN_DTYPE_BF16)
        return __uint_as_float((uint32_t) static_cast<const uint16_t *>(scales)[index] << 16);
    if (dtype == MYELIN_DTYPE_F16)
        return __half2float(static_cast<const __half *>(scales)[index]);
    return static_cast<const float *>(scales)[index];
}

/* A weight that lies in tiles of 16 rows of one matrix. */
__device__ inline float tiled_at(const mln_cuda_matrix &m, int64_t row, int64_t column) {
    int code = m.tile_code, slot = (int)(row % MLN_TILE_ROWS), c = (int)(column % MLN_UNIT_COLUMNS);
    const unsigned char *unit =
        m.data + (row / MLN_TILE_ROWS * m.units + column / MLN_UNIT_COLUMNS) * mln_unit_bytes(code);
    const unsigned char *at = unit + mln_tile_offset(code, slot, c);
    float undo = m.row_scales[row];
    if (code == MLN_TILE_DENSE)
        return __half2float(*reinterpret_cast<const __half *>(at)) * undo;
    const __half *scale = reinterpret_cast<const __half *>(
        unit + mln_tile_scale_offset(code, slot, mln_tile_sets(code) == 2 ? c / 32 : 0));
    int q = m.kind == MLN_CUDA_Q8 ? *at : *at >> c % 16 / 8 * 4 & 15;
    return (__half2float(scale[0]) * (float)q + __half2float(scale[1])) * undo;
}

__device__ inline float weight_at(const mln_cuda_matrix &m, int64_t row, int64_t column) {
    if (m.tile_code != MLN_TILE_NONE)
        return tiled_at(m, row, column);
    const unsigned char *w = m.data + row * m.pitch;
    if (m.kind == MLN_CUDA_F32)
        return reinterpret_cast<const float *>(w)[column];
    int64_t at = row * (m.columns / m.group) + column / m.group;
    float code =
        m.kind == MLN_CUDA_Q4 ? (float)(w[column / 2] >> (column % 2 * 4) & 15) : (float)w[column];
    return scale_at(m.scales, m.scale_dtype, at) * code + scale_at(m.biases, m.scale_dtype, at);
}

#endif
