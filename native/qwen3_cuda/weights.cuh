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

__device__ inline float half_of(unsigned bits) {
    return __half2float(__ushort_as_half((unsigned short)bits));
}

/* A packed weight. */
__device__ inline float packed_at(const mln_cuda_matrix &m, int64_t row, int64_t column) {
    int64_t tile = row / MLN_TILE_ROWS;
    int slot = (int)(row % MLN_TILE_ROWS);
    int at = (int)(column / MLN_UNIT_COLUMNS), c = (int)(column % MLN_UNIT_COLUMNS);
    int split = mln_split_of(m.units, at);
    const uint32_t *list = m.escapes + (tile * MLN_TILE_SPLITS + split) * m.escape_room;
    uint32_t place = mln_escape(at - mln_split_begin(m.units, split), slot, c, 0) >> 16;
    for (int i = 0; i < m.escape_room && list[i] != MLN_NO_ESCAPE; i++)
        if (list[i] >> 16 == place)
            return half_of(list[i] & 0xffffu) * m.row_scales[row];
    const unsigned char *unit = m.data + (tile * m.units + at) * mln_unit_bytes(MLN_TILE_PACKED);
    uint32_t w[3], index = (uint32_t)c % 32 / 8;
    for (int i = 0; i < 3; i++)
        w[i] = *reinterpret_cast<const uint32_t *>(unit +
                                                   mln_packed_offset(slot, c / 32, c % 8 / 2, i));
    uint32_t fields = index == 3 ? mln_unpack_last(w[0], w[1], w[2]) : w[index] & MLN_PACKED_FIELDS;
    uint32_t lift = m.lifts[tile * 8 + slot % 8] >> slot / 8 * 16;
    return half_of(fields >> c % 2 * 16 & 0xffffu) * half_of(lift & 0xffffu) * m.row_scales[row];
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
    return (ldexpf(__half2float(scale[0]), -MLN_CODE_SHIFT) * (float)q + __half2float(scale[1])) *
           undo;
}

__device__ inline float weight_at(const mln_cuda_matrix &m, int64_t row, int64_t column) {
    if (m.tile_code == MLN_TILE_PACKED)
        return packed_at(m, row, column);
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
