/* SPDX-License-Identifier: Apache-2.0 */
/* Embeddings against the formulas in double precision, and what is refused. */
#include <math.h>

#include "engine/support.h"
#include "model/reference.h"
#include "support/checkpoint_builder.h"
#include "support/temp_directory.h"

enum { TOKENS = 150, HIDDEN = 64, VOCAB = 80 }; /* more than one call of the plug-in */

static int32_t ids[TOKENS];

static int make_ids(void **state) {
    (void)state;
    uint32_t seed = 5;
    for (int i = 0; i < TOKENS; i++)
        ids[i] = (int32_t)next_random(&seed, VOCAB);
    return 0;
}

/* As Qwen3-Embedding is published: tied, no lm_head, names without "model.". */
static checkpoint_spec published(const char *dtype) {
    checkpoint_spec spec = checkpoint_spec_default();
    spec.dtype = dtype;
    spec.no_prefix = true;
    return spec;
}

static myelin_model *open_built(built_checkpoint *built, myelin_fusion fusion, int32_t threads,
                                const char *plugin) {
    char *directory = temp_directory_make();
    builder_write(built, directory);
    myelin_model_options options;
    myelin_model_options_init(&options);
    options.fusion = fusion;
    options.threads = threads;
    options.plugin = plugin;
    myelin_model *model = NULL;
    myelin_error error = {0};
    assert_ok(myelin_model_open(&model, directory, &options, &error), error);
    temp_directory_remove(directory); /* the weights are read */
    return model;
}

/* How far an embedding is from the formulas'. */
static double distance(const float *found, const double *hidden) {
    double squares = 0, apart = 0, length = 0;
    for (int i = 0; i < HIDDEN; i++)
        squares += hidden[i] * hidden[i];
    for (int i = 0; i < HIDDEN; i++) {
        double d = (double)found[i] - hidden[i] / sqrt(squares);
        apart += d * d;
        length += (double)found[i] * (double)found[i];
    }
    assert_true(fabs(sqrt(length) - 1) < 1e-6);
    return sqrt(apart);
}

static void against_the_formulas(void **state) {
    (void)state;
    static const struct {
        const char *dtype;
        int bits;
        bool prefix;
        myelin_fusion fusion;
        double most;
    } cases[] = {{"BF16", 0, false, MYELIN_FUSION_COMPOSED, 1e-5},
                 {"F32", 0, true, MYELIN_FUSION_COMPOSED, 1e-5},
                 {"F32", 0, false, MYELIN_FUSION_AUTO, 1e-5},
                 {"BF16", 0, false, MYELIN_FUSION_AUTO, 1e-2},
                 {"F16", 0, true, MYELIN_FUSION_AUTO, 1e-2},
                 {"BF16", 8, false, MYELIN_FUSION_AUTO, 2e-2}};
    const int counts[] = {1, 17, TOKENS};
    for (size_t i = 0; i < COUNT(cases); i++) {
        checkpoint_spec spec = published(cases[i].dtype);
        spec.no_prefix = !cases[i].prefix;
        spec.bits = cases[i].bits;
        spec.group_size = 32;
        built_checkpoint *built = builder_make(&spec);
        double *hidden = reference_hidden(built, ids, TOKENS);
        myelin_model *model = open_built(built, cases[i].fusion, 2, NULL);
        for (size_t c = 0; c < COUNT(counts); c++) {
            float found[HIDDEN];
            myelin_error error = {0};
            assert_ok(myelin_embed(model, ids, (size_t)counts[c], found, &error), error);
            double apart = distance(found, hidden + (counts[c] - 1) * HIDDEN);
            print_message("%s, rung %d, %d tokens: %.2g apart\n", cases[i].dtype,
                          (int)cases[i].fusion, counts[c], apart);
            assert_true(apart <= cases[i].most);
        }
        myelin_model_close(model);
        free(hidden);
        builder_free(built);
    }
}

static void any_threads(void **state) {
    (void)state;
    checkpoint_spec spec = published("BF16");
    built_checkpoint *built = builder_make(&spec);
    float found[2][HIDDEN];
    for (int i = 0; i < 2; i++) {
        myelin_model *model = open_built(built, MYELIN_FUSION_AUTO, 1 + 2 * i, NULL);
        myelin_error error = {0};
        assert_ok(myelin_embed(model, ids, TOKENS, found[i], &error), error);
        myelin_model_close(model);
    }
    assert_memory_equal(found[0], found[1], sizeof found[0]);
    builder_free(built);
}

static void refusals(void **state) {
    (void)state;
    checkpoint_spec spec = published("F32");
    built_checkpoint *built = builder_make(&spec);
    myelin_model *model = open_built(built, MYELIN_FUSION_AUTO, 1, NULL);
    float found[HIDDEN];
    myelin_error error = {0};
    assert_int_equal(myelin_embed(model, ids, 0, found, &error), MYELIN_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "number of ids: expected 1 to"));
    assert_int_equal(myelin_embed(model, ids, SIZE_MAX, found, &error), MYELIN_ERROR_ARGUMENT);
    assert_int_equal(myelin_embed(model, (const int32_t[]){3, VOCAB}, 2, found, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_int_equal(myelin_embed(model, (const int32_t[]){-1}, 1, found, NULL),
                     MYELIN_ERROR_ARGUMENT);
    myelin_model_close(model);
    /* one whose final norm gives nothing but zeros */
    built_tensor *norm = builder_find(built, "norm.weight");
    memset(norm->bytes, 0, norm->size);
    model = open_built(built, MYELIN_FUSION_AUTO, 1, NULL);
    assert_int_equal(myelin_embed(model, ids, 5, found, &error), MYELIN_ERROR_FORMAT);
    assert_non_null(strstr(error.message, "the hidden state's length is 0"));
    myelin_model_close(model);
    builder_free(built);
}

/* The plug-in that gives token 7 always has no hidden state. */
static void plugin_without(void **state) {
    (void)state;
    checkpoint_spec spec = published("F32");
    built_checkpoint *built = builder_make(&spec);
    myelin_model *model = open_built(built, MYELIN_FUSION_AUTO, 1, MYELIN_TEST_PLUGIN);
    float found[HIDDEN];
    myelin_error error = {0};
    assert_int_equal(myelin_embed(model, ids, 5, found, &error), MYELIN_ERROR_UNSUPPORTED);
    assert_non_null(strstr(error.message, "sevens: the plug-in makes no embeddings"));
    myelin_model_close(model);
    builder_free(built);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(against_the_formulas),
        cmocka_unit_test(any_threads),
        cmocka_unit_test(refusals),
        cmocka_unit_test(plugin_without),
    };
    return cmocka_run_group_tests(tests, make_ids, NULL);
}
