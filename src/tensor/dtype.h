/* SPDX-License-Identifier: Apache-2.0 */
/* Element types: sizes, names, conversion to and from float32. */
#ifndef MLN_TENSOR_DTYPE_H
#define MLN_TENSOR_DTYPE_H

#include <stddef.h>
#include <stdint.h>

#include "myelin/tensor.h"

/* Bytes of one element of F32, F16 or BF16; 0 for the others. */
size_t mln_dtype_size(int32_t dtype);
/* "f32", "f16", "bf16", "affine", "auto". */
const char *mln_dtype_name(int32_t dtype);

/* dst[i] = src[i] as float32, exactly; src is `dtype` (F32, F16 or BF16), aligned to its size. */
void mln_to_f32(float *dst, const void *src, int32_t dtype, size_t count);
/* dst[i] = src[i] rounded to nearest even; NaN stays NaN, too large becomes infinite. */
void mln_from_f32(void *dst, int32_t dtype, const float *src, size_t count);

/*
 * Columns [column, column + count) of row `row` of a matrix (dense or AFFINE) as float32. For
 * AFFINE each value is scale * q + bias, computed in float32, and column and count are multiples of
 * group_size.
 */
void mln_row_to_f32(float *out, const myelin_tensor *matrix, int64_t row, int64_t column,
                    int64_t count);

#endif
