/* SPDX-License-Identifier: Apache-2.0 */
/* Made-up checkpoints: published sizes, the same bytes in any order of reading, sane numbers. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

/* cmocka needs the headers above */
#include <cmocka.h>

#include "base/memory.h"
#include "checkpoint/checkpoint.h"

static myelin_error error;

static mln_checkpoint *open_shape(const char *shape, int32_t bits, int32_t group_size) {
    mln_checkpoint *checkpoint;
    mln_synthetic_spec spec = {shape, bits, group_size};
    if (mln_synthetic_open(&checkpoint, &spec, &error) != MYELIN_OK)
        fail_msg("%s", error.message);
    return checkpoint;
}

static uint64_t parameters(const mln_checkpoint *c) {
    uint64_t count = 0;
    for (size_t i = 0; i < c->num_weights; i++) {
        const myelin_tensor *t = &c->weights[i].tensor;
        count += (uint64_t)t->shape[0] * (t->rank > 1 ? (uint64_t)t->shape[1] : 1);
    }
    return count;
}

/* The published models' numbers of parameters, as their safetensors index files add up. */
static void sizes_are_the_published_ones(void **state) {
    (void)state;
    static const struct {
        const char *name;
        uint64_t parameters;
    } shapes[] = {{"qwen3-0.6b", 596049920},   {"qwen3-1.7b", 1720574976},
                  {"qwen3-4b", 4022468096},    {"qwen3-8b", 8190735360},
                  {"qwen3-14b", 14768307200u}, {"qwen3-32b", 32762123264u}};
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++) {
        mln_checkpoint *c = open_shape(shapes[i].name, 0, 0);
        assert_int_equal(parameters(c), shapes[i].parameters);
        mln_checkpoint_free(c);
    }
}

static float value_of(uint16_t bf16) {
    uint32_t bits = (uint32_t)bf16 << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static void read_part(const mln_checkpoint *c, const mln_weight *w, int part, uint64_t offset,
                      void *dst, uint64_t length) {
    if (mln_checkpoint_read(c, w, part, offset, dst, length, &error) != MYELIN_OK)
        fail_msg("%s", error.message);
}

enum { COUNT = 1 << 16 };

static void check_moments(const uint16_t *values, double mean, double deviation) {
    double sum = 0, squares = 0;
    for (int i = 0; i < COUNT; i++) {
        double x = (double)value_of(values[i]);
        assert_true(isfinite(x));
        sum += x;
        squares += x * x;
    }
    double found = sum / COUNT;
    assert_true(fabs(found - mean) < 0.05 * deviation);
    assert_true(fabs(sqrt(squares / COUNT - found * found) - deviation) < 0.05 * deviation);
}

static void matrices_are_normal(void **state) {
    (void)state;
    mln_checkpoint *c = open_shape("qwen3-0.6b", 0, 0);
    const mln_weight *w = mln_checkpoint_find(c, "model.layers.3.mlp.up_proj.weight");
    const mln_weight *other = mln_checkpoint_find(c, "model.layers.4.mlp.up_proj.weight");
    uint16_t *values = malloc(2 * COUNT * sizeof *values);
    assert_non_null(values);
    assert_non_null(w);
    read_part(c, w, 0, 0, values, COUNT * sizeof *values);
    check_moments(values, 0, 0.02);
    read_part(c, other, 0, 0, values + COUNT, COUNT * sizeof *values);
    assert_memory_not_equal(values, values + COUNT, COUNT * sizeof *values);
    free(values);
    mln_checkpoint_free(c);
}

static void any_order_reads_the_same(void **state) {
    (void)state;
    static unsigned char whole[1 << 16], part[1 << 16];
    mln_checkpoint *c = open_shape("qwen3-0.6b", 8, 64), *again = open_shape("qwen3-0.6b", 8, 64);
    const mln_weight *w = mln_checkpoint_find(c, "model.layers.0.mlp.down_proj.weight");
    const mln_weight *same = mln_checkpoint_find(again, "model.layers.0.mlp.down_proj.weight");
    for (int p = 0; p < 3; p++) {
        read_part(c, w, p, 0, whole, sizeof whole);
        for (uint64_t at = 0, n = 1; at < sizeof whole; at += n, n = n * 3 + 1) {
            uint64_t length = sizeof whole - at < n ? sizeof whole - at : n;
            read_part(again, same, p, at, part + at, length);
        }
        assert_memory_equal(whole, part, sizeof whole);
    }
    myelin_status status = mln_checkpoint_read(c, w, 0, w->source[0]->size, part, 1, &error);
    assert_int_equal(status, MYELIN_ERROR_ARGUMENT);
    mln_checkpoint_free(again);
    mln_checkpoint_free(c);
}

/* scale * q + bias has the deviation of the dense form, around zero. */
static void quantised_values_are_centred(void **state) {
    (void)state;
    for (int32_t bits = 4; bits <= 8; bits += 4) {
        mln_checkpoint *c = open_shape("qwen3-0.6b", bits, 64);
        const mln_weight *w = mln_checkpoint_find(c, "model.layers.3.mlp.up_proj.weight");
        assert_int_equal(w->tensor.dtype, MYELIN_DTYPE_AFFINE);
        static uint32_t words[4096]; /* of at most 512 groups */
        static uint16_t scales[512], biases[512];
        double sum = 0, squares = 0;
        int count = 0, per_word = 32 / bits;
        read_part(c, w, 0, 0, words, sizeof words);
        read_part(c, w, 1, 0, scales, sizeof scales);
        read_part(c, w, 2, 0, biases, sizeof biases);
        for (int g = 0; g < 512; g++)
            assert_true(value_of(biases[g]) == -value_of(scales[g]) * (float)(1 << (bits - 1)));
        for (int i = 0; i < (int)(sizeof words / sizeof *words); i++)
            for (int k = 0; k < per_word; k++, count++) {
                int group = (i * per_word + k) / 64;
                uint32_t q = words[i] >> k * bits & ((1u << bits) - 1);
                double x = (double)(value_of(scales[group]) * (float)q + value_of(biases[group]));
                sum += x;
                squares += x * x;
            }
        double half_step = 0.5 * 0.02 * sqrt(12) / (double)(1 << bits); /* codes are 0 to 2^n - 1 */
        assert_true(fabs(sum / count + half_step) < 0.0005);
        assert_true(fabs(sqrt(squares / count) - 0.02) < 0.001);
        mln_checkpoint_free(c);
    }
}

static void bad_specs_are_named(void **state) {
    (void)state;
    static const struct {
        mln_synthetic_spec spec;
        const char *expected;
    } cases[] = {{{"qwen3-1b", 0, 0}, "expected qwen3-0.6b"},
                 {{"qwen3-8b", 5, 64}, "bits: expected 0 (dense), 4 or 8, found 5"},
                 {{"qwen3-8b", 4, 16}, "group_size: expected 32, 64 or 128, found 16"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mln_checkpoint *c;
        assert_int_equal(mln_synthetic_open(&c, &cases[i].spec, &error), MYELIN_ERROR_ARGUMENT);
        assert_null(c);
        assert_non_null(strstr(error.message, cases[i].expected));
    }
}

static void failing_memory_is_an_error(void **state) {
    (void)state;
    mln_synthetic_spec spec = {"qwen3-0.6b", 4, 64};
    for (uint64_t n = 1;; n += 7) {
        mln_checkpoint *c;
        mln_fail_allocation(n, true);
        myelin_status status = mln_synthetic_open(&c, &spec, NULL);
        mln_fail_allocation(0, false);
        if (status == MYELIN_OK) {
            mln_checkpoint_free(c);
            break;
        }
        assert_int_equal(status, MYELIN_ERROR_MEMORY);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_the_published_ones),
        cmocka_unit_test(matrices_are_normal),
        cmocka_unit_test(any_order_reads_the_same),
        cmocka_unit_test(quantised_values_are_centred),
        cmocka_unit_test(bad_specs_are_named),
        cmocka_unit_test(failing_memory_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
