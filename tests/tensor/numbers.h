/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of the tensor room share: random numbers, a host, tensors to compute with. */
#ifndef TESTS_TENSOR_NUMBERS_H
#define TESTS_TENSOR_NUMBERS_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka wants the four above */
#include <cmocka.h>

#include "base/pool.h"
#include "myelin/plugin.h"

/* Heap memory that must be there; freed with free(). */
void *room(size_t count, size_t size);

/* floats in [-1, 1), the same for the same seed */
float *random_floats(size_t count, uint64_t seed);

/* A host with a pool of so many threads behind it. */
myelin_host host_make(int32_t threads);
void host_free(myelin_host *host);

/*
 * A random matrix of any dtype, and what it means, computed from the formats' descriptions alone
 * with nothing of the library. Rows of a dense one are `stride` elements apart.
 */
typedef struct matrix {
    myelin_tensor tensor;
    double *values; /* [rows, columns] */
} matrix;

matrix dense_matrix(int32_t dtype, int64_t rows, int64_t columns, int64_t stride, uint64_t seed);
matrix affine_matrix(int32_t bits, int32_t group_size, int32_t scale_dtype, int64_t rows,
                     int64_t columns, uint64_t seed);
void matrix_free(matrix *m);

/* The value of a half and of a bfloat16, by their definitions. */
double half_value(uint16_t half);
double brain_value(uint16_t brain);

/* Fails unless a and b are the same to the last bit. */
void assert_same(const float *a, const float *b, size_t count);
void assert_close(double expected, double found, double tolerance);

#endif
