/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <stdbool.h>

#include "base/rope.h"
#include "model/harness.h"

static const double pi = 3.14159265358979323846;

static void plain(void **state) {
    (void)state;
    const int32_t dims[] = {2, 10, 64, 128};
    const double thetas[] = {1e4, 1e6, 5e6};
    float found[64];
    for (int d = 0; d < 4; d++)
        for (int t = 0; t < 3; t++) {
            myelin_rope_config rope = {.theta = thetas[t], .attention_factor = 1};
            mln_rope_inv_freq(found, &rope, dims[d]);
            for (int i = 0; i < dims[d] / 2; i++) {
                double expected = pow(thetas[t], -2.0 * i / dims[d]);
                assert_true(fabs((double)found[i] / expected - 1) < 2e-6);
            }
        }
}

/* The ramp of YaRN's section 3.2 in double precision. */
static double yarn(const myelin_rope_config *rope, int dim, int i) {
    double context = (double)rope->original_max_position_embeddings;
    double bounds[2] = {rope->beta_fast, rope->beta_slow};
    for (int b = 0; b < 2; b++)
        bounds[b] = dim * log(context / (bounds[b] * 2 * pi)) / (2 * log(rope->theta));
    if (rope->truncate) {
        bounds[0] = floor(bounds[0]);
        bounds[1] = ceil(bounds[1]);
    }
    double low = fmax(bounds[0], 0), high = fmin(bounds[1], dim - 1);
    high = low == high ? high + 0.001 : high;
    double slowed = fmin(fmax((i - low) / (high - low), 0), 1);
    double plain_frequency = pow(rope->theta, -2.0 * i / dim);
    return plain_frequency * (1 - slowed) + plain_frequency / rope->factor * slowed;
}

static void check_yarn(myelin_rope_config rope, int32_t dim) {
    float found[64];
    int plain_count = 0, slowed_count = 0;
    rope.type = MYELIN_ROPE_YARN;
    mln_rope_inv_freq(found, &rope, dim);
    for (int i = 0; i < dim / 2; i++) {
        double expected = yarn(&rope, dim, i), unchanged = pow(rope.theta, -2.0 * i / dim);
        assert_true(fabs((double)found[i] / expected - 1) < 3e-6);
        plain_count += fabs((double)found[i] / unchanged - 1) < 3e-6;
        slowed_count += fabs((double)found[i] * rope.factor / unchanged - 1) < 3e-6;
    }
    assert_true(plain_count > 0 && slowed_count > 0); /* both ends of the ramp are there */
}

static void yarn_frequencies(void **state) {
    (void)state;
    /* As Qwen3's model card has it, and the fixture yarn-bf16. */
    myelin_rope_config rope = {.truncate = 1,
                               .theta = 1e6,
                               .factor = 4,
                               .beta_fast = 32,
                               .beta_slow = 1,
                               .attention_factor = 1,
                               .original_max_position_embeddings = 32768};
    check_yarn(rope, 128);
    rope.truncate = 0;
    check_yarn(rope, 128);
    rope.original_max_position_embeddings = 64;
    rope.truncate = 1;
    check_yarn(rope, 64);
    rope.factor = 7.5;
    rope.beta_fast = 16;
    rope.beta_slow = 2;
    rope.theta = 1e4;
    rope.original_max_position_embeddings = 4096;
    check_yarn(rope, 80);
}

static void angles(void **state) {
    (void)state;
    myelin_rope_config rope = {.theta = 1e6, .attention_factor = 1.25};
    float inv_freq[8], c[8], s[8];
    mln_rope_inv_freq(inv_freq, &rope, 16);
    const int32_t positions[] = {0, 1, 300, 40000};
    for (int p = 0; p < 4; p++) {
        mln_rope_angles(c, s, inv_freq, &rope, 16, positions[p]);
        for (int i = 0; i < 8; i++) {
            double angle = (double)((float)positions[p] * inv_freq[i]);
            assert_true(fabs((double)c[i] - 1.25 * cos(angle)) < 1e-6);
            assert_true(fabs((double)s[i] - 1.25 * sin(angle)) < 1e-6);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(plain), cmocka_unit_test(yarn_frequencies),
                                       cmocka_unit_test(angles)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
