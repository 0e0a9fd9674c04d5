/* SPDX-License-Identifier: Apache-2.0 */
/* Every option: its default, what lies outside its range, and headers of other versions. */
#include <math.h>

#include "engine/support.h"
#include "support/temp_directory.h"

static char *directory;
static myelin_model *tiny;
static myelin_error error;

static int open_model(void **state) {
    (void)state;
    directory = make_tiny_directory();
    tiny = open_tiny(directory);
    return 0;
}

static int close_model(void **state) {
    (void)state;
    myelin_model_close(tiny);
    temp_directory_remove(directory);
    return 0;
}

static myelin_status run(const myelin_generation_options *options) {
    myelin_result result;
    memset(&error, 0, sizeof error);
    myelin_status status = myelin_run(tiny, "a b c", options, &result, &error);
    assert_true((status == MYELIN_OK) == (result.token_ids != NULL));
    myelin_result_clear(&result);
    return status;
}

static void test_defaults(void **state) {
    (void)state;
    myelin_generation_options o;
    memset(&o, 0xEE, sizeof o);
    myelin_generation_options_init(&o);
    assert_int_equal(o.size, sizeof o);
    assert_int_equal(o.max_new_tokens, 100);
    assert_int_equal(o.max_len, 2048);
    assert_int_equal(o.sampler, MYELIN_SAMPLER_GREEDY);
    assert_true(o.temperature == 1 && o.top_p == 1 && o.min_p == 0 && o.repetition_penalty == 1);
    assert_true(o.presence_penalty == 0 && o.frequency_penalty == 0);
    assert_true(o.top_k == 0 && o.num_logit_bias == 0 && o.seed == 0 && o.num_stop_strings == 0);
    assert_true(!o.stop_ids && o.num_stop_ids == 0 && o.sync == MYELIN_SYNC_CHUNK);
    assert_true(o.sync_tokens == 0 && o.stream_mode == MYELIN_STREAM_TOKEN);
    assert_true(!o.logprobs && o.top_logprobs == 0 && o.parse_special && !o.cancelled);
    assert_int_equal(run(NULL), MYELIN_OK);
    assert_int_equal(run(&o), MYELIN_OK);
}

/* One option given a value, by the name the message must have. */
typedef enum kind { INT32, REAL } kind;
typedef struct range {
    const char *name;
    size_t offset;
    kind kind;
    double good[4]; /* ends of the range and what is between; NAN: no more */
    double bad[6];
} range;

#define FIELD(name) #name, offsetof(myelin_generation_options, name)
#define NONE        ((double)NAN)
#define NAN_ITSELF  (-1234567.0) /* stands for NaN among the bad */

static const double infinity = (double)INFINITY;

static void set(myelin_generation_options *o, const range *r, double value) {
    void *field = (char *)o + r->offset;
    if (r->kind == INT32)
        *(int32_t *)field = (int32_t)value;
    else
        *(double *)field = value;
}

static void test_ranges(void **state) {
    (void)state;
    const double most = INT32_MAX, least = INT32_MIN;
    const range ranges[] = {
        {FIELD(max_new_tokens), INT32, {1, 5, NONE}, {0, -1, least, NONE}},
        {FIELD(max_len), INT32, {8, 1 << 28, NONE}, {0, -1, least, (1 << 28) + 1, most, NONE}},
        {FIELD(sampler), INT32, {0, 1, NONE}, {-1, 2, NONE}},
        {FIELD(temperature), REAL, {1e-300, 1e6, NONE}, {0, -1, 1e7, infinity, NAN_ITSELF, NONE}},
        {FIELD(top_k), INT32, {0, 1, most, NONE}, {-1, least, NONE}},
        {FIELD(top_p), REAL, {1e-300, 1, NONE}, {0, -0.5, 1.0001, infinity, NAN_ITSELF, NONE}},
        {FIELD(min_p), REAL, {0, 1, NONE}, {-1e-9, 1.0001, infinity, NAN_ITSELF, NONE}},
        {FIELD(repetition_penalty), REAL, {1e-9, 1e6, NONE}, {0, -1, infinity, NAN_ITSELF, NONE}},
        {FIELD(presence_penalty), REAL, {-2, 1e6, NONE}, {infinity, -infinity, NAN_ITSELF, NONE}},
        {FIELD(frequency_penalty), REAL, {-2, 1e6, NONE}, {infinity, -infinity, NAN_ITSELF, NONE}},
        {FIELD(sync), INT32, {0, 1, 2, NONE}, {-1, 3, NONE}},
        {FIELD(sync_tokens), INT32, {0, 1, most, NONE}, {-1, least, NONE}},
        {FIELD(stream_mode), INT32, {0, 1, NONE}, {-1, 2, NONE}},
        {FIELD(top_logprobs), INT32, {0, 64, NONE}, {-1, 65, most, NONE}},
    };
    for (size_t i = 0; i < COUNT(ranges); i++) {
        const range *r = &ranges[i];
        for (size_t k = 0; k < COUNT(r->good) && !isnan(r->good[k]); k++) {
            myelin_generation_options o = options_for(3, 1);
            set(&o, r, r->good[k]);
            if (run(&o) != MYELIN_OK)
                fail_msg("%s = %g: %s", r->name, r->good[k], error.message);
        }
        for (size_t k = 0; k < COUNT(r->bad) && !isnan(r->bad[k]); k++) {
            myelin_generation_options o = options_for(3, 1);
            set(&o, r, r->bad[k] == NAN_ITSELF ? (double)NAN : r->bad[k]);
            if (run(&o) != MYELIN_ERROR_ARGUMENT || !strstr(error.message, r->name))
                fail_msg("%s = %g: status %d, %s", r->name, r->bad[k], (int)error.status,
                         error.message);
            assert_non_null(strstr(error.message, "expected"));
        }
    }
}

static void test_logit_bias(void **state) {
    (void)state;
    static const myelin_logit_bias bad[] = {{-1, 0},         {6282, 0},     {INT32_MAX, 1},
                                            {3, (float)NAN}, {3, INFINITY}, {3, 1e7f}};
    static const myelin_logit_bias good[] = {{0, 0}, {6281, -INFINITY}, {5, 1e6f}, {5, -1e6f}};
    myelin_generation_options o = options_for(3, 0);
    for (size_t i = 0; i < COUNT(bad); i++) {
        o.logit_bias = &bad[i];
        o.num_logit_bias = 1;
        assert_int_equal(run(&o), MYELIN_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, "logit_bias"));
    }
    o.logit_bias = good;
    o.num_logit_bias = COUNT(good);
    assert_int_equal(run(&o), MYELIN_OK);
    o.logit_bias = NULL;
    assert_int_equal(run(&o), MYELIN_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "logit_bias: expected an array of 4, found NULL"));
}

static void test_stops(void **state) {
    (void)state;
    const char *strings[MYELIN_MAX_STOP_STRINGS + 1];
    int32_t ids[MYELIN_MAX_STOP_IDS + 1];
    for (size_t i = 0; i < COUNT(strings); i++)
        strings[i] = "~~~";
    for (size_t i = 0; i < COUNT(ids); i++)
        ids[i] = (int32_t)i + 100;
    myelin_generation_options o = options_for(3, 0);
    o.stop_strings = strings;
    o.num_stop_strings = MYELIN_MAX_STOP_STRINGS;
    o.stop_ids = ids;
    o.num_stop_ids = MYELIN_MAX_STOP_IDS;
    assert_int_equal(run(&o), MYELIN_OK);
    o.num_stop_strings++;
    assert_int_equal(run(&o), MYELIN_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "stop strings: expected 0 to 64, found 65"));
    o.num_stop_strings = SIZE_MAX;
    assert_int_equal(run(&o), MYELIN_ERROR_ARGUMENT);
    o.num_stop_strings = 3;
    o.num_stop_ids++;
    assert_int_equal(run(&o), MYELIN_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "stop ids: expected 0 to 64, found 65"));
    o.num_stop_ids = 2;
    ids[1] = -1;
    assert_int_equal(run(&o), MYELIN_ERROR_ARGUMENT);
    ids[1] = INT32_MAX; /* no such token: never met */
    assert_int_equal(run(&o), MYELIN_OK);
    static const char *const bad[] = {"", NULL, "a\xFF"};
    for (size_t i = 0; i < COUNT(bad); i++) {
        strings[2] = bad[i];
        assert_int_equal(run(&o), MYELIN_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, "stop string 2 is"));
    }
    o.stop_strings = NULL;
    assert_int_equal(run(&o), MYELIN_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "stop_strings: expected an array of 3, found NULL"));
}

static void test_sizes(void **state) {
    (void)state;
    myelin_generation_options o = options_for(3, 0);
    static const size_t bad[] = {0, sizeof o + 1, SIZE_MAX};
    for (size_t i = 0; i < COUNT(bad); i++) {
        o.size = bad[i];
        assert_int_equal(run(&o), MYELIN_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, "myelin_generation_options_init"));
    }
    /* An older header ended earlier: what it lacks has its default, and is not looked at. */
    o = options_for(3, 0);
    o.size = offsetof(myelin_generation_options, logprobs);
    o.top_logprobs = -7;
    o.logprobs = true;
    myelin_result result;
    assert_ok(myelin_run(tiny, "a b c", &o, &result, &error), error);
    assert_int_equal(result.num_tokens, 3);
    assert_null(result.logprobs);
    myelin_result_clear(&result);
}

static void test_model_options(void **state) {
    (void)state;
    static const struct {
        size_t offset;
        int32_t value;
        const char *words;
    } bad[] = {
        {offsetof(myelin_model_options, threads), -1, "threads: expected 0 to 1024, found -1"},
        {offsetof(myelin_model_options, threads), 1025, "threads"},
        {offsetof(myelin_model_options, dtype), MYELIN_DTYPE_AFFINE, "dtype"},
        {offsetof(myelin_model_options, dtype), -1, "dtype"},
        {offsetof(myelin_model_options, fusion), 8, "fusion"},
        {offsetof(myelin_model_options, fusion), -1, "fusion"},
        {offsetof(myelin_model_options, pack), 3, "pack: expected 0 to 2, found 3"},
        {offsetof(myelin_model_options, pack), -1, "pack"},
        {offsetof(myelin_model_options, activations), 5, "activations: expected 0 to 4, found 5"},
        {offsetof(myelin_model_options, activations), -1, "activations"},
        {offsetof(myelin_model_options, cache_type), 4, "cache_type: expected 0 to 3, found 4"},
        {offsetof(myelin_model_options, cache_type), -1, "cache_type"},
        {offsetof(myelin_model_options, tensor_parallel), 65,
         "tensor_parallel: expected 0 to 64, found 65"},
        {offsetof(myelin_model_options, tensor_parallel), -1, "tensor_parallel"},
        {offsetof(myelin_model_options, device), 3, "device"},
        {offsetof(myelin_model_options, device), -1, "device"},
    };
    myelin_model_options o;
    myelin_model *model;
    for (size_t i = 0; i < COUNT(bad); i++) {
        myelin_model_options_init(&o);
        *(int32_t *)(void *)((char *)&o + bad[i].offset) = bad[i].value;
        assert_int_equal(myelin_model_open(&model, directory, &o, &error), MYELIN_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, bad[i].words));
        assert_null(model);
    }
    static const size_t bad_size[] = {0, sizeof o + 1};
    for (size_t i = 0; i < COUNT(bad_size); i++) {
        myelin_model_options_init(&o);
        o.size = bad_size[i];
        assert_int_equal(myelin_model_open(&model, directory, &o, &error), MYELIN_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, "myelin_model_options_init"));
    }
    o.size = offsetof(myelin_model_options, threads);
    o.threads = -5;
    assert_ok(myelin_model_open(&model, directory, &o, &error), error);
    myelin_model_close(model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),   cmocka_unit_test(test_ranges),
        cmocka_unit_test(test_logit_bias), cmocka_unit_test(test_stops),
        cmocka_unit_test(test_sizes),      cmocka_unit_test(test_model_options),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
