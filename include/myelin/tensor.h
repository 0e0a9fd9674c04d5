/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The tensor contract: how a tensor lies in memory. Everything that computes (the composed
 * operations and every native plug-in) is handed tensors in this form and relies on nothing else.
 * docs/TENSORS.md draws the layouts.
 */
#ifndef MYELIN_TENSOR_H
#define MYELIN_TENSOR_H

#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Element types, little-endian in memory and in files. Values are part of the ABI. */
typedef enum myelin_dtype {
    MYELIN_DTYPE_AUTO = 0,  /* in options: as the checkpoint has it. Never in a tensor. */
    MYELIN_DTYPE_F32 = 1,   /* IEEE 754 binary32 */
    MYELIN_DTYPE_F16 = 2,   /* IEEE 754 binary16 */
    MYELIN_DTYPE_BF16 = 3,  /* the upper 16 bits of a binary32 */
    MYELIN_DTYPE_AFFINE = 4 /* MLX affine-quantised, see below */
} myelin_dtype;

enum { MYELIN_TENSOR_MAX_RANK = 4, MYELIN_TENSOR_ALIGNMENT = 64 };

/*
 * One tensor: a view, it owns nothing. Plain data, copied freely; valid while what it points into
 * is. shape[0] is the outermost dimension; stride[] counts elements, not bytes, so that element
 * (i, j) of a matrix is at data + (i * stride[0] + j * stride[1]) * element size. Weights are dense
 * and row-major (stride[rank-1] is 1) and begin on a MYELIN_TENSOR_ALIGNMENT boundary.
 *
 * MYELIN_DTYPE_AFFINE (MLX's published "affine" mode) is always a matrix [rows, columns]:
 *   data    uint32_t [rows, columns * bits / 32]; each word holds 32 / bits values, the lowest
 *           bits first; `bits` is 4 or 8
 *   scales, biases   [rows, columns / group_size] of scale_dtype (F32, F16 or BF16); group_size is
 *           32, 64 or 128 and divides columns
 *   value(r, c) = scale(r, c / group_size) * q(r, c) + bias(r, c / group_size)
 * For it stride[] describes the logical matrix and is informative only.
 */
typedef struct myelin_tensor {
    int32_t dtype; /* a myelin_dtype */
    int32_t rank;  /* 0 to MYELIN_TENSOR_MAX_RANK */
    int64_t shape[MYELIN_TENSOR_MAX_RANK];
    int64_t stride[MYELIN_TENSOR_MAX_RANK];
    void *data;          /* NULL in a description of weights not read yet */
    int32_t bits;        /* AFFINE only, else 0 */
    int32_t group_size;  /* AFFINE only, else 0 */
    int32_t scale_dtype; /* AFFINE only, else 0 */
    int32_t reserved;    /* 0 */
    void *scales;        /* AFFINE only, else NULL */
    void *biases;        /* AFFINE only, else NULL */
} myelin_tensor;

#ifdef __cplusplus
}
#endif
#endif
