/* SPDX-License-Identifier: Apache-2.0 */
/* Dense numbers to MLX's affine form (see myelin/tensor.h). */
#ifndef MLN_TENSOR_QUANTIZE_H
#define MLN_TENSOR_QUANTIZE_H

#include <stdbool.h>
#include <stdint.h>

/*
 * Quantises `columns` numbers, a multiple of group_size, as mlx.core.quantize does in its "affine"
 * mode: a group's scale spreads its range over the 2^bits - 1 steps and then is stretched so that
 * the end of the range that is farther from zero is a whole number of steps away from zero; zero is
 * then exact, and so is that end, the bias. Codes are packed lowest bits first. Scales and biases
 * are the float32 values the codes were made with; rounding them to 16 bits comes after, as there.
 *
 * False when a number is not finite; *bad is its index.
 */
bool mln_quantize_row(const float *row, int64_t columns, int32_t bits, int32_t group_size,
                      uint32_t *packed, float *scales, float *biases, int64_t *bad);

#endif
