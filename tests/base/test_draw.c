/* SPDX-License-Identifier: Apache-2.0 */
/* The arithmetic of draws against the C library in extended precision, and at its ends. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

/* cmocka needs the headers above */
#include <cmocka.h>

#include "base/draw.h"

static double spread(uint32_t i, double low, double high) {
    return low + (high - low) * mln_uniform(11, 0, i);
}

static void exponentials(void **state) {
    (void)state;
    double worst = 0;
    for (uint32_t i = 0; i < 200000; i++) {
        double x = i % 2 ? spread(i, -708, 0) : spread(i, -1, 0);
        long double exact = expl((long double)x);
        double off = (double)fabsl((mln_draw_exp(x) - exact) / exact);
        worst = off > worst ? off : worst;
    }
    assert_true(worst < 0x1p-51);
    assert_true(mln_draw_exp(0) == 1 && mln_draw_exp(-0.0) == 1);
    assert_true(mln_draw_exp(-708.1) == 0 && mln_draw_exp(-INFINITY) == 0);
    assert_true(mln_draw_exp(NAN) == 0);
    assert_true(mln_draw_exp(-708) > 0);
}

static void logarithms(void **state) {
    (void)state;
    double worst = 0;
    for (uint32_t i = 0; i < 200000; i++) {
        double x = spread(i, 0, 1);
        if (i % 4 == 1)
            x = 1 - x * 0x1p-30; /* near its zero */
        if (i % 4 == 2)
            x = ldexp(x, (int)(i % 1000) - 500);
        if (i % 4 == 3)
            x = 1 + x;
        long double exact = logl((long double)x);
        double off = (double)fabsl((mln_draw_log(x) - exact) / exact);
        worst = off > worst ? off : worst;
    }
    assert_true(worst < 0x1p-50);
    assert_true(mln_draw_log(1) == 0);
}

/* The random number is inside (0, 1) and a key is finite, whatever the bits. */
static void ends_of_the_uniform(void **state) {
    (void)state;
    const uint64_t most = (UINT64_C(1) << 53) - 1;
    const uint64_t bits[] = {0, 1, 2, most / 2, most - 2, most - 1, most};
    double before = 0;
    for (size_t i = 0; i < sizeof bits / sizeof *bits; i++) {
        double u = mln_uniform_of(bits[i]);
        double noise = -mln_draw_log(-mln_draw_log(u));
        assert_true(u > 0 && u < 1 && u >= before);
        assert_true(noise > -3.7 && noise < MLN_DRAW_MOST_NOISE);
        before = u;
    }
}

static void masses(void **state) {
    (void)state;
    const uint64_t one = UINT64_C(1) << MLN_DRAW_MASS_BITS;
    assert_true(mln_draw_mass(0) == one);
    assert_true(mln_draw_mass(-INFINITY) == 0 && mln_draw_mass(NAN) == 0);
    assert_true(mln_draw_mass(-28) == 0); /* and nothing is cut that would have counted */
    assert_true(mln_draw_mass(-27) == 1);
    uint64_t before = one;
    for (double x = 0; x > -30; x -= 0.01) {
        uint64_t mass = mln_draw_mass(x);
        assert_true(mass <= before);
        assert_true(fabs((double)mass / (double)one - exp(x)) < 0x1p-38);
        before = mass;
    }
    assert_true(mln_draw_lacks(one / 2 - 1, one, 0.5));
    assert_false(mln_draw_lacks(one / 2, one, 0.5));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(exponentials),
        cmocka_unit_test(logarithms),
        cmocka_unit_test(ends_of_the_uniform),
        cmocka_unit_test(masses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
