/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The native plug-in against the composed one: the fixtures, the demo model and small checkpoints
 * of odd shapes and all kinds of weights, with one set of kernels and at every rung.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/harness.h"
#include "native/native.h"
#include "support/checkpoint_builder.h"
#include "support/temp_directory.h"
#include "tensor/ops.h"

static const myelin_plugin *tested;
static const char *set;

/* What two ways of computing the same differ by. */
typedef struct difference {
    double mean, largest; /* of |log-probability| over all tokens */
    int others, flips;    /* greedy tokens that differ, and those though the gap exceeds 0.1 */
} difference;

static difference compare(const float *expected, const float *found, int32_t count, int32_t vocab) {
    difference d = {0};
    float *a = malloc((size_t)vocab * sizeof *a), *b = malloc((size_t)vocab * sizeof *b);
    for (int32_t t = 0; t < count; t++) {
        mln_log_softmax(a, expected + (int64_t)t * vocab, vocab);
        mln_log_softmax(b, found + (int64_t)t * vocab, vocab);
        for (int32_t i = 0; i < vocab; i++) {
            double apart = fabs((double)a[i] - (double)b[i]);
            d.mean += apart / ((double)vocab * count);
            d.largest = apart > d.largest ? apart : d.largest;
        }
        int32_t best = mln_argmax(a, vocab), other = mln_argmax(b, vocab);
        d.others += best != other;
        d.flips += best != other && a[best] - a[other] > 0.1f;
    }
    free(a);
    free(b);
    return d;
}

/* Of activations rounded to bfloat16: yarn-bf16 comes to 0.057, tied-bf16 to 0.035, demo to 0.015.
 */
#define ROUNDED_MEAN 0.07

/* Of activations of a byte, times codes: 0.013 to 0.017 with the models built here. */
#define BYTES_MEAN 0.03

static void check_model(const char *name, const char *directory, int32_t dtype, int32_t fusion,
                        int32_t count, double mean) {
    if (!harness_can_spread(tested, directory, dtype)) {
        printf("%-12.12s %-24s cannot be shared by the devices\n", set, name);
        return;
    }
    harness oracle = harness_open(directory, 2, dtype);
    harness native = harness_open_with(tested, fusion, directory, 2, dtype);
    int32_t *ids = random_ids(count, oracle.vocab, 7);
    float *expected = harness_logits(&oracle, ids, count);
    float *found = harness_logits(&native, ids, count);
    difference d = compare(expected, found, count, oracle.vocab);
    printf("%-12.12s %-24s rung %d: mean %.2e, largest %.2e, other tokens %d of %d, flips %d\n",
           set, name, fusion, d.mean, d.largest, d.others, count, d.flips);
    if (harness_activations == MYELIN_ACTIVATIONS_BF16)
        mean = ROUNDED_MEAN;
    if (harness_activations == MYELIN_ACTIVATIONS_INT8 &&
        oracle.checkpoint->config.model.quantization_bits != 0)
        mean = BYTES_MEAN;
    if (!(d.mean <= mean) || d.flips > 0)
        fail_msg("%s: mean difference %g (at most %g), %d greedy tokens differ", name, d.mean, mean,
                 d.flips);
    free(ids);
    free(expected);
    free(found);
    harness_close(&oracle);
    harness_close(&native);
}

/* Bounds: 1e-3 in single precision; 1e-2 where activations or the cache are in 16 bits. */
static void fixtures(void **state) {
    (void)state;
    static const char data[] = MYELIN_TEST_DATA "/models/";
    static const struct {
        const char *name;
        int32_t dtype;
        double mean;
    } cases[] = {{"sharded-f32", MYELIN_DTYPE_AUTO, 1e-3}, {"tied-bf16", MYELIN_DTYPE_AUTO, 1e-2},
                 {"untied-f16", MYELIN_DTYPE_AUTO, 1e-2},  {"yarn-bf16", MYELIN_DTYPE_AUTO, 1e-2},
                 {"tied-bf16", MYELIN_DTYPE_F32, 1e-3},    {"tied-bf16", MYELIN_DTYPE_F16, 1e-2}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char directory[4096];
        snprintf(directory, sizeof directory, "%s%s", data, cases[i].name);
        check_model(cases[i].name, directory, cases[i].dtype, MYELIN_FUSION_AUTO, 300,
                    cases[i].mean);
    }
}

static void demo(void **state) {
    (void)state;
    check_model("demo", MYELIN_DEMO_MODEL, MYELIN_DTYPE_AUTO, MYELIN_FUSION_AUTO, 64, 1e-2);
    check_model("demo in f32", MYELIN_DEMO_MODEL, MYELIN_DTYPE_F32, MYELIN_FUSION_AUTO, 64, 1e-3);
}

static void rungs(void **state) {
    (void)state;
    for (int32_t rung = MYELIN_FUSION_KV_ATTENTION; rung <= MYELIN_FUSION_CHUNK; rung++)
        check_model("yarn-bf16", MYELIN_TEST_DATA "/models/yarn-bf16", MYELIN_DTYPE_AUTO, rung, 40,
                    1e-2);
}

/* Each type that the plug-in offers against the oracle with the same one. */
static void caches(void **state) {
    (void)state;
    uint32_t offered = MYELIN_PLUGIN_REACHES(tested, cache_types) ? tested->cache_types : 0;
    if (offered == 0)
        skip();
    static const char *const names[] = {"auto", "f32", "f16", "int8"};
    const char *const models[] = {MYELIN_DEMO_MODEL, MYELIN_TEST_DATA "/models/yarn-bf16"};
    for (size_t m = 0; m < sizeof models / sizeof *models; m++)
        for (int32_t type = MYELIN_CACHE_F32; type <= MYELIN_CACHE_INT8; type++) {
            if (!(offered & 1u << type))
                continue;
            char name[64];
            snprintf(name, sizeof name, "%s, cache %s", m == 0 ? "demo" : "yarn-bf16", names[type]);
            harness_cache_type = type;
            check_model(name, models[m], MYELIN_DTYPE_F32, MYELIN_FUSION_AUTO, 64,
                        type == MYELIN_CACHE_INT8 ? 1e-2 : 1e-3);
        }
    harness_cache_type = MYELIN_CACHE_AUTO;
}

/* Shapes no tile divides, heads in many ratios, every kind of weight. */
static void odd_shapes(void **state) {
    (void)state;
    static const checkpoint_spec specs[] = {
        {.vocab = 83,
         .hidden = 50,
         .intermediate = 70,
         .layers = 2,
         .heads = 6,
         .kv_heads = 2,
         .head_dim = 10,
         .tie = true,
         .dtype = "BF16",
         .shards = 1,
         .seed = 1},
        {.vocab = 83,
         .hidden = 51,
         .intermediate = 33,
         .layers = 1,
         .heads = 15,
         .kv_heads = 1,
         .head_dim = 18,
         .dtype = "F16",
         .shards = 1,
         .seed = 2},
        {.vocab = 7,
         .hidden = 35,
         .intermediate = 97,
         .layers = 2,
         .heads = 3,
         .kv_heads = 3,
         .head_dim = 34,
         .dtype = "mixed",
         .shards = 1,
         .seed = 3},
        {.vocab = 64,
         .hidden = 63,
         .intermediate = 31,
         .layers = 2,
         .heads = 26,
         .kv_heads = 2,
         .head_dim = 6,
         .tie = true,
         .dtype = "F32",
         .shards = 1,
         .seed = 4},
        {.vocab = 90,
         .hidden = 128,
         .intermediate = 256,
         .layers = 2,
         .heads = 8,
         .kv_heads = 2,
         .head_dim = 32,
         .tie = true,
         .dtype = "BF16",
         .bits = 4,
         .group_size = 64,
         .shards = 1,
         .seed = 5},
        {.vocab = 90,
         .hidden = 96,
         .intermediate = 160,
         .layers = 2,
         .heads = 4,
         .kv_heads = 4,
         .head_dim = 24,
         .dtype = "F16",
         .bits = 4,
         .group_size = 32,
         .shards = 1,
         .seed = 6},
        {.vocab = 40,
         .hidden = 128,
         .intermediate = 384,
         .layers = 1,
         .heads = 4,
         .kv_heads = 1,
         .head_dim = 64,
         .dtype = "F32",
         .bits = 8,
         .group_size = 128,
         .shards = 1,
         .seed = 7},
        {.vocab = 40,
         .hidden = 64,
         .intermediate = 64,
         .layers = 2,
         .heads = 2,
         .kv_heads = 1,
         .head_dim = 64,
         .tie = true,
         .dtype = "BF16",
         .bits = 8,
         .group_size = 64,
         .dense_embedding = true,
         .shards = 1,
         .seed = 8},
        /* the head size of the published models, in each of their ratios */
        {.vocab = 90,
         .hidden = 64,
         .intermediate = 96,
         .layers = 2,
         .heads = 4,
         .kv_heads = 2,
         .head_dim = 128,
         .tie = true,
         .dtype = "BF16",
         .shards = 1,
         .seed = 9},
        {.vocab = 90,
         .hidden = 64,
         .intermediate = 96,
         .layers = 2,
         .heads = 8,
         .kv_heads = 2,
         .head_dim = 128,
         .tie = true,
         .dtype = "BF16",
         .bits = 4,
         .group_size = 32,
         .shards = 1,
         .seed = 10},
        {.vocab = 90,
         .hidden = 64,
         .intermediate = 96,
         .layers = 1,
         .heads = 5,
         .kv_heads = 1,
         .head_dim = 128,
         .dtype = "F16",
         .shards = 1,
         .seed = 11},
        {.vocab = 90,
         .hidden = 64,
         .intermediate = 96,
         .layers = 1,
         .heads = 8,
         .kv_heads = 1,
         .head_dim = 128,
         .dtype = "BF16",
         .shards = 1,
         .seed = 12},
        /* what several devices can share, the vocabulary unequally */
        {.vocab = 83,
         .hidden = 63,
         .intermediate = 100,
         .layers = 2,
         .heads = 8,
         .kv_heads = 4,
         .head_dim = 128,
         .dtype = "BF16",
         .shards = 1,
         .seed = 13},
        {.vocab = 120,
         .hidden = 96,
         .intermediate = 256,
         .layers = 2,
         .heads = 4,
         .kv_heads = 2,
         .head_dim = 64,
         .dtype = "F16",
         .bits = 8,
         .group_size = 32,
         .shards = 1,
         .seed = 14},
    };
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        char *directory = builder_write_spec(&specs[i]), name[64];
        snprintf(name, sizeof name, "%s-%d-%d", specs[i].dtype, specs[i].bits, specs[i].hidden);
        check_model(name, directory, MYELIN_DTYPE_AUTO, MYELIN_FUSION_AUTO, 150, 1e-2);
        temp_directory_remove(directory);
    }
}

/* usage: test_native_oracle [KERNELS|PLUGIN[:N]], the best of this processor when not named */
int main(int argc, char **argv) {
    set = argc > 1 ? argv[1] : "best";
    tested = argc > 1 ? harness_plugin(set) : mln_native_plugin();
    if (!tested)
        return 77; /* this processor has no such kernels */
    const struct CMUnitTest tests[] = {cmocka_unit_test(fixtures), cmocka_unit_test(demo),
                                       cmocka_unit_test(rungs), cmocka_unit_test(caches),
                                       cmocka_unit_test(odd_shapes)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
