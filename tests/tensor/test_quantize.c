/* SPDX-License-Identifier: Apache-2.0 */
/* The affine form: how far it may be from the numbers, what it keeps exactly, what it refuses. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* cmocka needs the headers above */
#include <cmocka.h>

#include "tensor/quantize.h"

enum { COLUMNS = 256 };

static uint32_t codes[COLUMNS];
static float scales[COLUMNS], biases[COLUMNS];

static float value(int64_t i, int32_t bits, int32_t group) {
    int32_t per_word = 32 / bits;
    uint32_t code = codes[i / per_word] >> i % per_word * bits & ((1u << bits) - 1);
    return scales[i / group] * (float)code + biases[i / group];
}

static void quantize(const float *row, int32_t bits, int32_t group) {
    int64_t bad = -1;
    assert_true(mln_quantize_row(row, COLUMNS, bits, group, codes, scales, biases, &bad));
}

static uint32_t next_random(uint32_t *state) {
    return *state = *state * 1664525u + 1013904223u;
}

/*
 * Stretching a scale moves it by less than half a step in a whole number of steps, so no number is
 * farther than one step of the plain spread away; the end farther from zero is exact.
 */
static void numbers_are_near(void **state) {
    (void)state;
    uint32_t random = 1;
    for (int round = 0; round < 300; round++) {
        float row[COLUMNS], offset = (float)(round % 7 - 3) * 0.4f;
        for (int i = 0; i < COLUMNS; i++)
            row[i] = ((float)(next_random(&random) >> 8) / (float)(1 << 24) - 0.5f) *
                         ldexpf(1, round % 40 - 20) +
                     offset;
        for (int32_t bits = 4; bits <= 8; bits += 4) {
            for (int32_t group = 32; group <= 128; group *= 2) {
                quantize(row, bits, group);
                for (int first = 0; first < COLUMNS; first += group) {
                    float low = row[first], high = row[first];
                    for (int i = first; i < first + group; i++) {
                        low = fminf(low, row[i]);
                        high = fmaxf(high, row[i]);
                    }
                    float step = (high - low) / (float)((1 << bits) - 1);
                    float slack = 1e-5f * fmaxf(fabsf(low), fabsf(high)) + 1e-7f;
                    for (int i = first; i < first + group; i++)
                        assert_true(fabsf(value(i, bits, group) - row[i]) <= step + slack);
                    float edge = fabsf(low) > fabsf(high) ? low : high;
                    if (biases[first / group] != 0)
                        assert_true(biases[first / group] == edge);
                }
            }
        }
    }
}

static void zero_stays_zero(void **state) {
    (void)state;
    uint32_t random = 3;
    float row[COLUMNS];
    for (int i = 0; i < COLUMNS; i++)
        row[i] = i % 5 ? (float)(next_random(&random) >> 8) / (float)(1 << 24) - 0.3f : 0;
    quantize(row, 4, 64);
    for (int i = 0; i < COLUMNS; i += 5)
        assert_true(fabsf(value(i, 4, 64)) < 1e-6f);
}

static void constant_groups(void **state) {
    (void)state;
    static const float constants[] = {0, 1, -1, 0.37f, -123.25f, 1e-30f, 1e-45f, -3e38f, 3e38f};
    for (size_t c = 0; c < sizeof constants / sizeof *constants; c++) {
        float row[COLUMNS];
        for (int i = 0; i < COLUMNS; i++)
            row[i] = constants[c];
        quantize(row, 4, 32);
        for (int i = 0; i < COLUMNS; i++)
            assert_true(fabsf(value(i, 4, 32) - constants[c]) <=
                        1e-6f * fabsf(constants[c]) + 1e-7f);
    }
}

static void what_is_not_finite_is_found(void **state) {
    (void)state;
    const float bad_ones[] = {NAN, INFINITY, -INFINITY};
    for (int64_t at = 0; at < COLUMNS; at += 17) {
        float row[COLUMNS] = {0};
        int64_t bad = -1;
        row[at] = bad_ones[at % 3];
        assert_false(mln_quantize_row(row, COLUMNS, 4, 64, codes, scales, biases, &bad));
        assert_int_equal(bad, at);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(numbers_are_near),
        cmocka_unit_test(zero_stays_zero),
        cmocka_unit_test(constant_groups),
        cmocka_unit_test(what_is_not_finite_is_found),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
