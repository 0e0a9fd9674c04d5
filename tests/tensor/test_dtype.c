/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tensor/dtype.h"
#include "tensor/numbers.h"

enum { ALL = 65536 };

static void sizes_and_names(void **state) {
    (void)state;
    assert_int_equal(mln_dtype_size(MYELIN_DTYPE_F32), 4);
    assert_int_equal(mln_dtype_size(MYELIN_DTYPE_F16), 2);
    assert_int_equal(mln_dtype_size(MYELIN_DTYPE_BF16), 2);
    assert_int_equal(mln_dtype_size(MYELIN_DTYPE_AFFINE), 0);
    assert_int_equal(mln_dtype_size(77), 0);
    assert_string_equal(mln_dtype_name(MYELIN_DTYPE_BF16), "bf16");
    assert_string_equal(mln_dtype_name(77), "unknown");
}

/* All 65536 values of a 16-bit type, out and back. `infinity`: the bits of its infinity. */
static void check_all(int32_t dtype, double (*value)(uint16_t), uint16_t infinity) {
    uint16_t *in = room(ALL, sizeof *in), *back = room(ALL, sizeof *back);
    float *wide = room(ALL, sizeof *wide);
    for (int i = 0; i < ALL; i++)
        in[i] = (uint16_t)i;
    mln_to_f32(wide, in, dtype, ALL);
    mln_from_f32(back, dtype, wide, ALL);
    for (int i = 0; i < ALL; i++) {
        double expected = value((uint16_t)i);
        if (isnan(expected)) {
            assert_true(isnan(wide[i]));
            assert_true((back[i] & 0x7fff) > infinity);
        } else {
            assert_true((double)wide[i] == expected);
            assert_true(!signbit(wide[i]) == !(i & 0x8000));
            assert_int_equal(back[i], i);
        }
    }
    free(in);
    free(back);
    free(wide);
}

static void every_half(void **state) {
    (void)state;
    check_all(MYELIN_DTYPE_F16, half_value, 0x7c00);
}

static void every_brain(void **state) {
    (void)state;
    check_all(MYELIN_DTYPE_BF16, brain_value, 0x7f80);
}

static uint16_t narrow(int32_t dtype, float value) {
    /* In the middle of others, so that the vector part of the loop does it. */
    float in[32];
    uint16_t out[32];
    for (int i = 0; i < 32; i++)
        in[i] = i == 5 ? value : 1;
    mln_from_f32(out, dtype, in, 32);
    uint16_t alone;
    mln_from_f32(&alone, dtype, &value, 1);
    assert_int_equal(out[5], alone);
    return alone;
}

/*
 * Between every value and the next: the middle goes to the even one, all else to the nearer. The
 * value after the largest is what would come next if infinity were not there.
 */
static void check_rounding(int32_t dtype, double (*value)(uint16_t), uint16_t infinity) {
    for (uint16_t low = 0; low < infinity; low++) {
        uint16_t high = (uint16_t)(low + 1);
        double below = value(low);
        double above = high < infinity ? value(high) : below + (below - value((uint16_t)(low - 1)));
        float middle = (float)((below + above) / 2);
        uint16_t even = low & 1 ? high : low;
        for (int sign = 0; sign < 2; sign++) {
            uint16_t bit = sign ? 0x8000 : 0;
            float s = sign ? -1 : 1;
            assert_int_equal(narrow(dtype, s * middle), even | bit);
            assert_int_equal(narrow(dtype, s * nextafterf(middle, 0)), low | bit);
            assert_int_equal(narrow(dtype, s * nextafterf(middle, INFINITY)), high | bit);
        }
    }
    assert_int_equal(narrow(dtype, INFINITY), infinity);
    assert_int_equal(narrow(dtype, -INFINITY), infinity | 0x8000);
    assert_int_equal(narrow(dtype, 3.4e38f), dtype == MYELIN_DTYPE_F16 ? 0x7c00 : 0x7f80);
    assert_int_equal(narrow(dtype, -0.0f), 0x8000);
}

static void rounding_to_half(void **state) {
    (void)state;
    check_rounding(MYELIN_DTYPE_F16, half_value, 0x7c00);
}

static void rounding_to_brain(void **state) {
    (void)state;
    check_rounding(MYELIN_DTYPE_BF16, brain_value, 0x7f80);
}

/* NaNs whose payload lies in the bits that are cut off must not become infinities. */
static void small_nans(void **state) {
    (void)state;
    const uint32_t patterns[] = {0x7f800001, 0xff800001, 0x7fffffff, 0xffffffff, 0x7fbfffff};
    for (size_t i = 0; i < sizeof patterns / sizeof *patterns; i++) {
        float nan;
        memcpy(&nan, &patterns[i], sizeof nan);
        assert_true(isnan(half_value(narrow(MYELIN_DTYPE_F16, nan))));
        assert_true(isnan(brain_value(narrow(MYELIN_DTYPE_BF16, nan))));
    }
}

static void affine_rows(void **state) {
    (void)state;
    const int32_t dtypes[] = {MYELIN_DTYPE_F32, MYELIN_DTYPE_F16, MYELIN_DTYPE_BF16};
    for (int32_t bits = 4; bits <= 8; bits += 4)
        for (int32_t group = 32; group <= 128; group *= 2)
            for (int d = 0; d < 3; d++) {
                int64_t rows = 3, columns = 3 * group;
                matrix m = affine_matrix(bits, group, dtypes[d], rows, columns, 7);
                float *found = room((size_t)columns, sizeof *found);
                for (int64_t r = 0; r < rows; r++) {
                    mln_row_to_f32(found, &m.tensor, r, 0, columns);
                    for (int64_t c = 0; c < columns; c++) {
                        /* scale * q and the sum are each rounded once. */
                        double expected = m.values[r * columns + c];
                        double ulps = 1.2e-7 * (fabs(expected) + 2);
                        assert_close(expected, (double)found[c], ulps);
                    }
                    float part[128];
                    mln_row_to_f32(part, &m.tensor, r, group, group);
                    assert_same(part, found + group, (size_t)group);
                }
                free(found);
                matrix_free(&m);
            }
}

static void strided_rows(void **state) {
    (void)state;
    const int32_t dtypes[] = {MYELIN_DTYPE_F32, MYELIN_DTYPE_F16, MYELIN_DTYPE_BF16};
    for (int d = 0; d < 3; d++) {
        matrix m = dense_matrix(dtypes[d], 4, 37, 41, 9);
        float found[37];
        for (int64_t r = 0; r < 4; r++) {
            mln_row_to_f32(found, &m.tensor, r, 5, 32);
            for (int c = 0; c < 32; c++)
                assert_true((double)found[c] == m.values[r * 37 + 5 + c]);
        }
        matrix_free(&m);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_and_names),   cmocka_unit_test(every_half),
        cmocka_unit_test(every_brain),       cmocka_unit_test(rounding_to_half),
        cmocka_unit_test(rounding_to_brain), cmocka_unit_test(small_nans),
        cmocka_unit_test(affine_rows),       cmocka_unit_test(strided_rows),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
