/* SPDX-License-Identifier: Apache-2.0 */
#include "tensor/numbers.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

void *room(size_t count, size_t size) {
    void *memory = calloc(count ? count : 1, size);
    assert_non_null(memory);
    return memory;
}

static uint64_t next(uint64_t *state) {
    *state = *state * 6364136223846793005u + 1442695040888963407u;
    return *state >> 33;
}

float *random_floats(size_t count, uint64_t seed) {
    float *out = room(count, sizeof *out);
    for (size_t i = 0; i < count; i++)
        out[i] = (float)((double)next(&seed) / (double)(1u << 30) - 1);
    return out;
}

static void parallel_for(void *self, int64_t count, myelin_task task, void *context) {
    mln_pool_run(self, count, task, context);
}

myelin_host host_make(int32_t threads) {
    mln_pool *pool;
    assert_int_equal(mln_pool_create(&pool, threads, NULL), MYELIN_OK);
    return (myelin_host){.struct_size = sizeof(myelin_host),
                         .num_threads = threads,
                         .self = pool,
                         .parallel_for = parallel_for};
}

void host_free(myelin_host *host) {
    mln_pool_free(host->self);
}

double half_value(uint16_t half) {
    double sign = half & 0x8000 ? -1 : 1;
    int exponent = (half >> 10) & 31, fraction = half & 1023;
    if (exponent == 31)
        return fraction ? (double)NAN : sign * (double)INFINITY;
    return exponent ? sign * ldexp(1024 + fraction, exponent - 25) : sign * ldexp(fraction, -24);
}

double brain_value(uint16_t brain) {
    double sign = brain & 0x8000 ? -1 : 1;
    int exponent = (brain >> 7) & 255, fraction = brain & 127;
    if (exponent == 255)
        return fraction ? (double)NAN : sign * (double)INFINITY;
    return exponent ? sign * ldexp(128 + fraction, exponent - 134) : sign * ldexp(fraction, -133);
}

/* A random element of about the given size: its bits go to bytes[index], its value is returned. */
static double put(void *bytes, size_t index, int32_t dtype, uint64_t *state, double size) {
    double sign = next(state) & 1 ? -1 : 1;
    if (dtype == MYELIN_DTYPE_F32) {
        float value = (float)(sign * size * (double)next(state) / (double)(1u << 31));
        ((float *)bytes)[index] = value;
        return (double)value;
    }
    /* An exponent from log2(size) - 6 on and any fraction. */
    int fraction_bits = dtype == MYELIN_DTYPE_F16 ? 10 : 7;
    int bias = dtype == MYELIN_DTYPE_F16 ? 15 : 127;
    int exponent = (int)floor(log2(size)) - 6 + (int)(next(state) % 7) + bias;
    uint64_t bits = (uint64_t)(exponent > 0 ? exponent : 0) << fraction_bits;
    bits |= next(state) & ((1u << fraction_bits) - 1);
    bits |= sign < 0 ? 0x8000 : 0;
    ((uint16_t *)bytes)[index] = (uint16_t)bits;
    return dtype == MYELIN_DTYPE_F16 ? half_value((uint16_t)bits) : brain_value((uint16_t)bits);
}

matrix dense_matrix(int32_t dtype, int64_t rows, int64_t columns, int64_t stride, uint64_t seed) {
    matrix m = {
        .tensor = {.dtype = dtype, .rank = 2, .shape = {rows, columns}, .stride = {stride, 1}}};
    m.tensor.data = room((size_t)(rows * stride), 4);
    memset(m.tensor.data, 0xff, (size_t)(rows * stride) * 4); /* NaN in what lies between */
    m.values = room((size_t)(rows * columns), sizeof *m.values);
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < columns; c++)
            m.values[r * columns + c] =
                put(m.tensor.data, (size_t)(r * stride + c), dtype, &seed, 1);
    return m;
}

matrix affine_matrix(int32_t bits, int32_t group_size, int32_t scale_dtype, int64_t rows,
                     int64_t columns, uint64_t seed) {
    matrix m = {.tensor = {.dtype = MYELIN_DTYPE_AFFINE,
                           .rank = 2,
                           .shape = {rows, columns},
                           .stride = {columns, 1},
                           .bits = bits,
                           .group_size = group_size,
                           .scale_dtype = scale_dtype}};
    int64_t groups = columns / group_size, per_word = 32 / bits;
    uint32_t *words = m.tensor.data = room((size_t)(rows * columns / per_word), 4);
    m.tensor.scales = room((size_t)(rows * groups), 4);
    m.tensor.biases = room((size_t)(rows * groups), 4);
    m.values = room((size_t)(rows * columns), sizeof *m.values);
    for (int64_t g = 0; g < rows * groups; g++) {
        double scale = put(m.tensor.scales, (size_t)g, scale_dtype, &seed, 0.1);
        double bias = put(m.tensor.biases, (size_t)g, scale_dtype, &seed, 1);
        for (int64_t i = g * group_size; i < (g + 1) * group_size; i++) {
            uint32_t q = (uint32_t)next(&seed) & ((1u << bits) - 1);
            words[i / per_word] |= q << (bits * (i % per_word));
            m.values[i] = scale * q + bias;
        }
    }
    return m;
}

void matrix_free(matrix *m) {
    free(m->tensor.data);
    free(m->tensor.scales);
    free(m->tensor.biases);
    free(m->values);
}

void assert_same(const float *a, const float *b, size_t count) {
    for (size_t i = 0; i < count; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0)
            fail_msg("element %zu of %zu: %.9g and %.9g", i, count, (double)a[i], (double)b[i]);
}

void assert_close(double expected, double found, double tolerance) {
    if (!(fabs(expected - found) <= tolerance))
        fail_msg("expected %.9g, found %.9g", expected, found);
}
