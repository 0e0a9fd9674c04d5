/* SPDX-License-Identifier: Apache-2.0 */
/* The composed pass against the formulas in double precision, on shapes that are multiples of
 * nothing and on quantised weights. */
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "model/harness.h"
#include "model/reference.h"
#include "support/temp_directory.h"

enum { TOKENS = 41 };

static harness open_built(built_checkpoint *built, int32_t threads) {
    char *directory = temp_directory_make();
    builder_write(built, directory);
    harness h = harness_open(directory, threads, MYELIN_DTYPE_AUTO);
    temp_directory_remove(directory); /* the files are open, and the weights are read */
    return h;
}

static void check_spec(const checkpoint_spec *spec, double tolerance) {
    built_checkpoint *built = builder_make(spec);
    harness h = open_built(built, 2);
    int32_t *ids = random_ids(TOKENS, h.vocab, 5);
    float *found = harness_logits(&h, ids, TOKENS);
    double *expected = reference_logits(built, ids, TOKENS);
    double largest = 0;
    for (int i = 0; i < TOKENS * h.vocab; i++) {
        double difference = fabs(expected[i] - (double)found[i]);
        if (!(difference <= tolerance))
            fail_msg("token %d, id %d: expected %g, found %g", i / h.vocab, i % h.vocab,
                     expected[i], (double)found[i]);
        largest = difference > largest ? difference : largest;
    }
    print_message("largest difference of a logit %.2g\n", largest);
    free(ids);
    free(found);
    free(expected);
    harness_close(&h);
    builder_free(built);
}

static checkpoint_spec odd_spec(void) {
    checkpoint_spec spec = checkpoint_spec_default();
    spec.vocab = 131;
    spec.hidden = 60;
    spec.intermediate = 37;
    spec.layers = 3;
    spec.heads = 6;
    spec.kv_heads = 3;
    spec.head_dim = 10;
    spec.tie = false;
    return spec;
}

static void odd_shapes(void **state) {
    (void)state;
    checkpoint_spec spec = odd_spec();
    check_spec(&spec, 1e-4);
}

static void mixed_dtypes(void **state) {
    (void)state;
    checkpoint_spec spec = odd_spec();
    spec.dtype = "mixed";
    spec.shards = 3;
    check_spec(&spec, 1e-4);
}

static void one_head_each_way(void **state) {
    (void)state;
    checkpoint_spec spec = checkpoint_spec_default();
    spec.heads = spec.kv_heads = 1;
    spec.head_dim = 2;
    spec.hidden = 1;
    spec.intermediate = 1;
    spec.layers = 1;
    spec.vocab = 2;
    check_spec(&spec, 1e-4);
    spec = checkpoint_spec_default();
    spec.heads = 5;
    spec.kv_heads = 1;
    spec.head_dim = 34; /* heads * head_dim is not hidden_size */
    spec.hidden = 530;  /* more than one stretch of columns */
    check_spec(&spec, 2e-4);
}

static const char *const scale_dtypes[] = {"F32", "F16", "BF16"};

static checkpoint_spec quantised_spec(int bits, int group_size, const char *dtype) {
    checkpoint_spec spec = checkpoint_spec_default();
    spec.hidden = 2 * group_size;
    spec.intermediate = 3 * group_size;
    spec.heads = 4;
    spec.head_dim = group_size;
    spec.bits = bits;
    spec.group_size = group_size;
    spec.dtype = dtype;
    spec.tie = bits == 4;
    spec.dense_embedding = group_size == 64;
    return spec;
}

static void quantised_weights(void **state) {
    (void)state;
    for (int bits = 4; bits <= 8; bits += 4)
        for (int group = 32; group <= 128; group *= 2) {
            checkpoint_spec spec = quantised_spec(bits, group, "F16");
            check_spec(&spec, 3e-4);
        }
}

/* The same model with every weight dequantised and stored as float32. */
static built_checkpoint *dequantise(built_checkpoint *quantised) {
    checkpoint_spec spec = quantised->spec;
    spec.bits = spec.group_size = 0;
    spec.dtype = "F32";
    built_checkpoint *dense = builder_make(&spec);
    for (size_t i = 0; i < dense->count; i++) {
        char module[BUILDER_NAME];
        snprintf(module, sizeof module, "%s", dense->tensors[i].name);
        module[strlen(module) - strlen(".weight")] = '\0';
        float *values = builder_values(quantised, module);
        memcpy(dense->tensors[i].bytes, values, dense->tensors[i].size);
        free(values);
    }
    return dense;
}

static void quantised_equals_dequantised(void **state) {
    (void)state;
    for (int bits = 4; bits <= 8; bits += 4)
        for (int group = 32; group <= 128; group *= 2)
            for (int d = 0; d < 3; d++) {
                checkpoint_spec spec = quantised_spec(bits, group, scale_dtypes[d]);
                built_checkpoint *built[2];
                built[0] = builder_make(&spec);
                built[1] = dequantise(built[0]);
                float *logits[2];
                int32_t *ids = random_ids(TOKENS, spec.vocab, 6);
                for (int i = 0; i < 2; i++) {
                    harness h = open_built(built[i], 2);
                    logits[i] = harness_logits(&h, ids, TOKENS);
                    harness_close(&h);
                }
                assert_same_floats(logits[0], logits[1], TOKENS * (size_t)spec.vocab);
                for (int i = 0; i < 2; i++) {
                    free(logits[i]);
                    builder_free(built[i]);
                }
                free(ids);
            }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(odd_shapes),
        cmocka_unit_test(mixed_dtypes),
        cmocka_unit_test(one_head_each_way),
        cmocka_unit_test(quantised_weights),
        cmocka_unit_test(quantised_equals_dequantised),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
