/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/numbers.h"
#include "tensor/ops.h"

static void embedding(void **state) {
    (void)state;
    matrix m = dense_matrix(MYELIN_DTYPE_BF16, 11, 37, 37, 4);
    const int32_t ids[] = {10, 0, 3, 3};
    float out[4 * 37];
    mln_embedding(out, &m.tensor, ids, 4);
    for (int t = 0; t < 4; t++)
        for (int c = 0; c < 37; c++)
            assert_true((double)out[t * 37 + c] == m.values[ids[t] * 37 + c]);
    matrix_free(&m);
}

static void rms_norm(void **state) {
    (void)state;
    const int32_t dtypes[] = {MYELIN_DTYPE_F32, MYELIN_DTYPE_F16, MYELIN_DTYPE_BF16};
    const int64_t widths[] = {1, 2, 10, 64, 255, 256, 257, 700};
    enum { ROWS = 3 };
    for (int d = 0; d < 3; d++)
        for (size_t w = 0; w < sizeof widths / sizeof *widths; w++) {
            int64_t n = widths[w];
            matrix weight = dense_matrix(dtypes[d], 1, n, n, w);
            weight.tensor.rank = 1;
            weight.tensor.shape[0] = n;
            float *x = random_floats((size_t)(ROWS * n), w + 9);
            float *out = room((size_t)(ROWS * n), sizeof *out);
            mln_rms_norm(out, x, &weight.tensor, ROWS, n, 1e-6);
            for (int64_t r = 0; r < ROWS; r++) {
                double sum = 0;
                for (int64_t i = 0; i < n; i++)
                    sum += (double)x[r * n + i] * (double)x[r * n + i];
                double scale = 1 / sqrt(sum / (double)n + 1e-6);
                for (int64_t i = 0; i < n; i++)
                    assert_close((double)x[r * n + i] * scale * weight.values[i],
                                 (double)out[r * n + i], 3e-6);
            }
            mln_rms_norm(x, x, &weight.tensor, ROWS, n, 1e-6); /* in place */
            assert_same(out, x, (size_t)(ROWS * n));
            free(x);
            free(out);
            matrix_free(&weight);
        }
}

static void rms_norm_of_zeros_is_zero(void **state) {
    (void)state;
    matrix weight = dense_matrix(MYELIN_DTYPE_F32, 1, 8, 8, 1);
    weight.tensor.shape[0] = 8;
    float x[8] = {0};
    mln_rms_norm(x, x, &weight.tensor, 1, 8, 1e-6);
    for (int i = 0; i < 8; i++)
        assert_true(x[i] == 0);
    matrix_free(&weight);
}

static void rope(void **state) {
    (void)state;
    enum { TOKENS = 3, HEADS = 5, D = 14 };
    float *x = random_floats(TOKENS * HEADS * D, 3), c[TOKENS * D / 2], s[TOKENS * D / 2];
    float *before = room(TOKENS * HEADS * D, sizeof *before);
    memcpy(before, x, TOKENS * HEADS * D * sizeof *x);
    for (int i = 0; i < TOKENS * D / 2; i++) {
        c[i] = cosf((float)i);
        s[i] = sinf((float)i);
    }
    mln_rope(x, c, s, TOKENS, HEADS, D);
    for (int t = 0; t < TOKENS; t++)
        for (int h = 0; h < HEADS; h++)
            for (int i = 0; i < D / 2; i++) {
                int at = (t * HEADS + h) * D + i;
                double a = (double)before[at], b = (double)before[at + D / 2];
                double angle = t * D / 2 + i;
                assert_close(a * cos(angle) - b * sin(angle), (double)x[at], 1e-6);
                assert_close(b * cos(angle) + a * sin(angle), (double)x[at + D / 2], 1e-6);
            }
    free(x);
    free(before);
}

static void silu_and_add(void **state) {
    (void)state;
    float gate[] = {0, 1, -1, 30, -30, 100, -100, 3e38f, -3e38f};
    enum { COUNT = sizeof gate / sizeof *gate };
    float before[COUNT], up[COUNT];
    memcpy(before, gate, sizeof gate);
    for (int i = 0; i < COUNT; i++)
        up[i] = 0.5f;
    mln_silu_mul(gate, up, COUNT);
    for (int i = 0; i < COUNT; i++) {
        double x = (double)before[i], expected = 0.5 * x / (1 + exp(-x));
        assert_close(expected, (double)gate[i], fabs(expected) * 1e-6 + 1e-12);
    }
    mln_add_to(up, before, 3);
    assert_true(up[0] == 0.5f && up[1] == 1.5f && up[2] == -0.5f && up[3] == 0.5f);
}

static void log_softmax(void **state) {
    (void)state;
    enum { COUNT = 1001 };
    float *x = random_floats(COUNT, 8), out[COUNT];
    for (int i = 0; i < COUNT; i++)
        x[i] = x[i] * 20 + 1000; /* exp(1000) is infinite */
    mln_log_softmax(out, x, COUNT);
    double sum = 0;
    for (int i = 0; i < COUNT; i++) {
        sum += exp((double)out[i]);
        assert_close((double)x[i] - (double)x[0], (double)out[i] - (double)out[0], 1e-5);
    }
    assert_close(1, sum, 1e-5);
    mln_log_softmax(x, x, COUNT);
    assert_same(x, out, COUNT);
    free(x);
}

static void argmax(void **state) {
    (void)state;
    const float a[] = {1, 5, 3, 5}, b[] = {NAN, -INFINITY, NAN}, c[] = {NAN, NAN};
    const float d[] = {-2, NAN, -1, NAN}, e[] = {INFINITY, NAN, INFINITY};
    assert_int_equal(mln_argmax(a, 4), 1);
    assert_int_equal(mln_argmax(a, 1), 0);
    assert_int_equal(mln_argmax(b, 3), 1);
    assert_int_equal(mln_argmax(c, 2), 0);
    assert_int_equal(mln_argmax(d, 4), 2);
    assert_int_equal(mln_argmax(e, 3), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embedding),
        cmocka_unit_test(rms_norm),
        cmocka_unit_test(rms_norm_of_zeros_is_zero),
        cmocka_unit_test(rope),
        cmocka_unit_test(silu_and_add),
        cmocka_unit_test(log_softmax),
        cmocka_unit_test(argmax),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
