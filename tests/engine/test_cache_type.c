/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Types of the cache: what they take, that they change results and by how little, and that with
 * each of them sessions, batches and servings give the same text.
 */
#include <math.h>
#include <semaphore.h>

#include "engine/support.h"
#include "support/temp_directory.h"

enum { TYPES = MYELIN_CACHE_INT8 + 1, IDS = 150, NEW_TOKENS = 20 };

static char *directory;
static myelin_error error;
static int32_t ids[IDS];

static myelin_status open_type(myelin_model **model, int type, const char *plugin,
                               myelin_fusion fusion) {
    myelin_model_options options;
    myelin_model_options_init(&options);
    options.device = MYELIN_DEVICE_CPU;
    options.threads = 2;
    options.cache_type = (myelin_cache_type)type;
    options.plugin = plugin;
    options.fusion = fusion;
    return myelin_model_open(model, directory, &options, &error);
}

static int set_up(void **state) {
    uint32_t seed = 3;
    (void)state;
    directory = make_tiny_directory();
    for (int i = 0; i < IDS; i++)
        ids[i] = (int32_t)next_random(&seed, 6000);
    return 0;
}

static int tear_down(void **state) {
    (void)state;
    temp_directory_remove(directory);
    return 0;
}

/* --- a serving --- */

typedef struct outcome {
    myelin_result result;
    sem_t ended;
} outcome;

static bool keep(void *user, void *tag, myelin_result *result, const myelin_error *reason) {
    outcome *o = user;
    (void)tag;
    (void)reason;
    if (result) {
        o->result = *result;
        *result = (myelin_result){0};
    }
    sem_post(&o->ended);
    return true;
}

static myelin_result serve(myelin_serving *serving, const myelin_request *request) {
    outcome o = {0};
    myelin_submission submission;
    myelin_submission_init(&submission);
    submission.request = request;
    submission.done = keep;
    submission.user = &o;
    sem_init(&o.ended, 0, 0);
    assert_ok(myelin_serving_submit(serving, &submission, NULL, &error), error);
    while (sem_wait(&o.ended) != 0)
        ;
    sem_destroy(&o.ended);
    return o.result;
}

/* Twice, the second time from pages that are there already; bytes of its memory. */
static uint64_t check_serving(myelin_model *model, const myelin_generation_options *options,
                              const myelin_result *expected) {
    myelin_serving *serving;
    myelin_request request = {.prompt_ids = ids, .num_prompt_ids = IDS, .options = options};
    assert_ok(myelin_serving_start(&serving, model, NULL, &error), error);
    for (int i = 0; i < 2; i++) {
        myelin_result found = serve(serving, &request);
        assert_same_result(&found, expected);
        assert_true((found.cached_tokens >= 128) == (i == 1));
        myelin_result_clear(&found);
    }
    myelin_serving_stats stats = {.size = sizeof stats};
    myelin_serving_get_stats(serving, &stats);
    myelin_serving_free(serving);
    return stats.kv_bytes;
}

/* The same after other tokens were generated, forgotten, and the prompt taken up in the middle. */
static void check_session(myelin_model *model, const myelin_generation_options *options,
                          const myelin_result *expected) {
    myelin_session *session = session_with(model, 300, ids, IDS / 2);
    myelin_result found;
    assert_ok(myelin_session_generate(session, NULL, NULL, options, NULL, &error), error);
    myelin_session_truncate(session, IDS / 2);
    assert_ok(myelin_session_append(session, ids + IDS / 2, IDS - IDS / 2, &error), error);
    assert_ok(myelin_session_generate(session, NULL, NULL, options, &found, &error), error);
    assert_same_result(&found, expected);
    myelin_result_clear(&found);
    myelin_session_close(session);
}

static void check_type(int type, myelin_fusion fusion, uint64_t bytes[2]) {
    myelin_model *model;
    myelin_result expected;
    myelin_generation_options options = options_for(NEW_TOKENS, 7);
    options.logprobs = true;
    assert_ok(open_type(&model, type, NULL, fusion), error);
    run_ids(model, ids, IDS, &options, &expected);
    check_session(model, &options, &expected);
    bytes[0] = myelin_model_session_bytes(model, 2000);
    bytes[1] = check_serving(model, &options, &expected);
    myelin_result_clear(&expected);
    myelin_model_close(model);
}

static void same_results_in_less_memory(void **state) {
    (void)state;
    uint64_t bytes[TYPES][2];
    for (int type = 0; type < TYPES; type++)
        check_type(type, MYELIN_FUSION_AUTO, bytes[type]);
    for (int i = 0; i < 2; i++) {
        assert_true(bytes[MYELIN_CACHE_F16][i] < bytes[MYELIN_CACHE_F32][i]);
        assert_true(bytes[MYELIN_CACHE_INT8][i] < bytes[MYELIN_CACHE_F16][i]);
    }
    /* codes of 16 dimensions and a scale of 4 bytes, against 32 and 64 bytes */
    assert_int_equal(bytes[MYELIN_CACHE_F16][1] * 2, bytes[MYELIN_CACHE_F32][1]);
    assert_int_equal(bytes[MYELIN_CACHE_INT8][1] * 32, bytes[MYELIN_CACHE_F16][1] * 20);
}

static void the_composed_path_rounds_too(void **state) {
    (void)state;
    uint64_t bytes[2];
    for (int type = 0; type < TYPES; type++)
        check_type(type, MYELIN_FUSION_COMPOSED, bytes);
}

/* Mean difference of the log-probabilities of the ids from those with a cache of floats. */
static double error_of(int type, const float *exact, float *found) {
    myelin_model *model;
    double sum = 0;
    assert_ok(open_type(&model, type, NULL, MYELIN_FUSION_AUTO), error);
    assert_ok(myelin_score(model, ids, IDS, found, 0, NULL, NULL, &error), error);
    for (int i = 0; i < IDS - 1; i++)
        sum += fabs((double)found[i] - (double)exact[i]);
    myelin_model_close(model);
    return sum / (IDS - 1);
}

static void errors_are_small_and_there(void **state) {
    (void)state;
    float exact[IDS] = {0}, found[IDS] = {0};
    (void)error_of(MYELIN_CACHE_F32, found, exact);
    double f16 = error_of(MYELIN_CACHE_F16, exact, found);
    double int8 = error_of(MYELIN_CACHE_INT8, exact, found);
    print_message("mean difference of log-probabilities: f16 %.2e, int8 %.2e\n", f16, int8);
    assert_true(f16 > 0 && int8 > f16);
    assert_true(f16 < 1e-3 && int8 < 3e-2);
}

static void who_lacks_a_type_is_refused(void **state) {
    (void)state;
    myelin_model *model;
    assert_int_equal(open_type(&model, MYELIN_CACHE_INT8, MYELIN_TEST_PLUGIN, MYELIN_FUSION_AUTO),
                     MYELIN_ERROR_UNSUPPORTED);
    assert_null(model);
    assert_non_null(strstr(error.message, "a cache of keys and values in int8 is not offered; "
                                          "expected one of: auto"));
    assert_ok(open_type(&model, MYELIN_CACHE_AUTO, MYELIN_TEST_PLUGIN, MYELIN_FUSION_AUTO), error);
    myelin_model_close(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_results_in_less_memory),
        cmocka_unit_test(the_composed_path_rounds_too),
        cmocka_unit_test(errors_are_small_and_there),
        cmocka_unit_test(who_lacks_a_type_is_refused),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
