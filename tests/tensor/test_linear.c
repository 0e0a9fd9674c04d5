/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/dtype.h"
#include "tensor/numbers.h"
#include "tensor/ops.h"

static const int32_t dense[] = {MYELIN_DTYPE_F32, MYELIN_DTYPE_F16, MYELIN_DTYPE_BF16};

/* The documented order: 16 lanes, then the tree. */
static float dot_by_the_book(const float *a, const float *b, int64_t count) {
    float lane[MLN_DOT_LANES] = {0};
    for (int64_t i = 0; i < count; i++)
        lane[i % MLN_DOT_LANES] += a[i] * b[i];
    for (int width = MLN_DOT_LANES / 2; width > 0; width /= 2)
        for (int l = 0; l < width; l++)
            lane[l] += lane[l + width];
    return lane[0];
}

static void dot_order(void **state) {
    (void)state;
    for (int64_t count = 0; count < 200; count++) {
        float *a = random_floats((size_t)count, 1), *b = random_floats((size_t)count, 2);
        float expected = dot_by_the_book(a, b, count), found = mln_dot(a, b, count);
        assert_same(&expected, &found, 1);
        free(a);
        free(b);
    }
}

/* Every output is the documented dot product of a row of x and the converted row of the weight. */
static void check_linear(const myelin_host *host, const matrix *m, int64_t tokens) {
    int64_t n = m->tensor.shape[0], k = m->tensor.shape[1];
    float *x = random_floats((size_t)(tokens * k), 3);
    float *out = room((size_t)(tokens * n), sizeof *out);
    float *row = room((size_t)k, sizeof *row);
    mln_linear(host, out, x, &m->tensor, tokens);
    for (int64_t r = 0; r < n; r++) {
        mln_row_to_f32(row, &m->tensor, r, 0, k);
        for (int64_t t = 0; t < tokens; t++) {
            float expected = dot_by_the_book(x + t * k, row, k);
            assert_same(&expected, &out[t * n + r], 1);
            double exact = 0;
            for (int64_t i = 0; i < k; i++)
                exact += (double)x[t * k + i] * m->values[r * k + i];
            assert_close(exact, (double)out[t * n + r], 1e-6 * (double)(k + 10));
        }
    }
    free(x);
    free(out);
    free(row);
}

static void dense_weights(void **state) {
    (void)state;
    const int64_t widths[] = {1, 2, 15, 16, 17, 37, 100, 511, 512, 513, 1040};
    const int64_t tokens[] = {1, 2, 3, 4, 7, 48, 49, 100};
    myelin_host host = host_make(2);
    for (int d = 0; d < 3; d++)
        for (size_t w = 0; w < sizeof widths / sizeof *widths; w++)
            for (size_t t = 0; t < sizeof tokens / sizeof *tokens; t++) {
                int64_t rows = (int64_t)(w * 8 + t) % 23 + 1;
                matrix m = dense_matrix(dense[d], rows, widths[w], widths[w] + (int64_t)t % 3, w);
                check_linear(&host, &m, tokens[t]);
                matrix_free(&m);
            }
    host_free(&host);
}

static void affine_weights(void **state) {
    (void)state;
    myelin_host host = host_make(2);
    for (int32_t bits = 4; bits <= 8; bits += 4)
        for (int32_t group = 32; group <= 128; group *= 2)
            for (int d = 0; d < 3; d++)
                for (int64_t tokens = 1; tokens < 6; tokens += 4) {
                    matrix m = affine_matrix(bits, group, dense[d], 13, 9 * group, 5);
                    check_linear(&host, &m, tokens);
                    matrix_free(&m);
                }
    host_free(&host);
}

/* Large enough that it is cut into many pieces. */
static void same_with_any_threads_and_rows(void **state) {
    (void)state;
    enum { N = 700, K = 530, TOKENS = 61 };
    const int32_t threads[] = {1, 2, 5};
    for (int d = 0; d < 4; d++) {
        matrix m = d < 3 ? dense_matrix(dense[d], N, K, K, 11)
                         : affine_matrix(4, 64, MYELIN_DTYPE_BF16, N, 576, 11);
        int64_t k = m.tensor.shape[1];
        float *x = random_floats((size_t)(TOKENS * k), 12);
        float *expected = room(TOKENS * N, sizeof *expected);
        float *found = room(TOKENS * N, sizeof *found);
        for (int i = 0; i < 3; i++) {
            myelin_host host = host_make(threads[i]);
            mln_linear(&host, i ? found : expected, x, &m.tensor, TOKENS);
            if (i)
                assert_same(expected, found, TOKENS * N);
            memset(found, 0, TOKENS * N * sizeof *found);
            for (int64_t t = 0; t < TOKENS; t++)
                mln_linear(&host, found + t * N, x + t * k, &m.tensor, 1);
            assert_same(expected, found, TOKENS * N);
            host_free(&host);
        }
        free(x);
        free(expected);
        free(found);
        matrix_free(&m);
    }
}

/* A NaN or an infinity in one row of x or of the weight stays there. */
static void special_values(void **state) {
    (void)state;
    enum { N = 20, K = 35, TOKENS = 5 };
    myelin_host host = host_make(2);
    matrix m = dense_matrix(MYELIN_DTYPE_F32, N, K, K, 1);
    float *x = random_floats(TOKENS * K, 2), out[TOKENS * N];
    ((float *)m.tensor.data)[7 * K + 3] = NAN;
    x[2 * K + 34] = INFINITY;
    mln_linear(&host, out, x, &m.tensor, TOKENS);
    for (int t = 0; t < TOKENS; t++)
        for (int n = 0; n < N; n++) {
            assert_int_equal(!!isnan(out[t * N + n]), n == 7);
            if (n != 7)
                assert_int_equal(!!isinf(out[t * N + n]), t == 2);
        }
    free(x);
    matrix_free(&m);
    host_free(&host);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(dot_order),      cmocka_unit_test(dense_weights),
        cmocka_unit_test(affine_weights), cmocka_unit_test(same_with_any_threads_and_rows),
        cmocka_unit_test(special_values),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
