/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions: a second generation continues the first, as if all had been read at once. */
#include "engine/support.h"
#include "support/temp_directory.h"

enum { MOST = 600 };

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

static void make_ids(int32_t *ids, size_t count, uint32_t seed) {
    for (size_t i = 0; i < count; i++)
        ids[i] = (int32_t)next_random(&seed, 6200);
}

static myelin_generation_options with_logprobs(int32_t max_new_tokens, uint64_t seed) {
    myelin_generation_options options = options_for(max_new_tokens, seed);
    options.logprobs = true;
    options.top_logprobs = 3;
    options.repetition_penalty = 1.2;
    options.frequency_penalty = 0.3;
    return options;
}

static void generate(myelin_session *session, const myelin_generation_options *options,
                     myelin_result *result) {
    assert_ok(myelin_session_generate(session, NULL, NULL, options, result, &error), error);
}

/*
 * Generates on the session, which holds `cached` tokens in its cache, and on a fresh one that holds
 * the same; returns how many tokens the session then holds.
 */
static size_t check_as_fresh(myelin_session *session, int32_t cached, uint64_t seed) {
    myelin_generation_options options = with_logprobs(12, seed);
    myelin_result found, expected;
    size_t before, after;
    const int32_t *ids = myelin_session_tokens(session, &before);
    int32_t copy[MOST];
    assert_true(before <= MOST);
    memcpy(copy, ids, before * sizeof *copy);
    generate(session, &options, &found);
    run_ids(tiny, copy, before, &options, &expected);
    assert_same_result(&found, &expected);
    assert_int_equal(found.input_tokens, before);
    assert_int_equal(found.cached_tokens, cached);
    assert_int_equal(expected.cached_tokens, 0);
    ids = myelin_session_tokens(session, &after);
    assert_int_equal(after, before + found.num_tokens);
    assert_memory_equal(ids, copy, before * sizeof *copy);
    assert_memory_equal(ids + before, found.token_ids, found.num_tokens * sizeof *ids);
    myelin_result_clear(&found);
    myelin_result_clear(&expected);
    return after;
}

static void test_continuing(void **state) {
    (void)state;
    int32_t ids[MOST];
    make_ids(ids, 200, 1);
    myelin_session *session = session_with(tiny, 500, ids, 200);
    size_t held = check_as_fresh(session, 0, 1);
    /* The last token generated was never read. */
    held = check_as_fresh(session, (int32_t)held - 1, 2);
    assert_ok(myelin_session_append(session, ids, 150, &error), error);
    held = check_as_fresh(session, (int32_t)held - 1, 3);
    assert_ok(myelin_session_append_text(session, "Then the dog said", 17, true, &error), error);
    check_as_fresh(session, (int32_t)held - 1, 0);
    myelin_session_close(session);
}

static void test_truncating(void **state) {
    (void)state;
    int32_t ids[MOST];
    make_ids(ids, 100, 2);
    static const int32_t keep[] = {1, 50, 99, 100, 101, 111, 112, 113, 5000};
    for (size_t i = 0; i < COUNT(keep); i++) {
        myelin_session *session = session_with(tiny, 300, ids, 100);
        int32_t held = (int32_t)check_as_fresh(session, 0, 1);
        assert_int_equal(held, 112);
        myelin_session_truncate(session, (size_t)keep[i]);
        size_t count;
        myelin_session_tokens(session, &count);
        assert_int_equal(count, keep[i] < held ? keep[i] : held);
        /* All but the last of what is left need not be read; its logits are wanted. */
        check_as_fresh(session, (int32_t)count - 1, 4);
        myelin_session_truncate(session, SIZE_MAX);
        myelin_session_truncate(session, 0);
        myelin_session_tokens(session, &count);
        assert_int_equal(count, 0);
        assert_ok(myelin_session_append(session, ids + 20, 30, &error), error);
        check_as_fresh(session, 0, 5);
        myelin_session_close(session);
    }
}

static void test_setting(void **state) {
    (void)state;
    int32_t ids[MOST], other[MOST];
    make_ids(ids, 150, 3);
    static const size_t common[] = {0, 1, 77, 149, 150};
    static const size_t extra[] = {0, 1, 140};
    for (size_t c = 0; c < COUNT(common); c++) {
        for (size_t e = 0; e < COUNT(extra); e++) {
            size_t count = common[c] + extra[e];
            if (count == 0)
                continue;
            memcpy(other, ids, sizeof ids);
            make_ids(other + common[c], extra[e], 99);
            myelin_session *session = session_with(tiny, 400, ids, 150);
            check_as_fresh(session, 0, 6);
            assert_ok(myelin_session_set(session, other, count, &error), error);
            int32_t cached = (int32_t)(extra[e] ? common[c] : common[c] - 1);
            check_as_fresh(session, cached, 7);
            myelin_session_close(session);
        }
    }
}

static void test_refusals_change_nothing(void **state) {
    (void)state;
    int32_t ids[MOST], bad[3];
    size_t count;
    make_ids(ids, 53, 4); /* one more than the session holds */
    myelin_session *session = session_with(tiny, 52, ids, 40);
    memcpy(bad, ids, sizeof bad);
    bad[2] = 6282;
    assert_int_equal(myelin_session_set(session, bad, 3, &error), MYELIN_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "token id 6282 at index 2: expected 0 to 6281"));
    assert_int_equal(myelin_session_append(session, bad, 3, &error), MYELIN_ERROR_ARGUMENT);
    assert_int_equal(myelin_session_append(session, ids, 13, &error), MYELIN_ERROR_CACHE_FULL);
    assert_int_equal(myelin_session_set(session, ids, 53, &error), MYELIN_ERROR_CACHE_FULL);
    assert_int_equal(myelin_session_append_text(session, "\xFF", 1, true, &error),
                     MYELIN_ERROR_ARGUMENT);
    const int32_t *held = myelin_session_tokens(session, &count);
    assert_int_equal(count, 40);
    assert_memory_equal(held, ids, 40 * sizeof *ids);
    check_as_fresh(session, 0, 8);
    myelin_session_close(session);
    assert_int_equal(myelin_session_open(&session, tiny, 0, &error), MYELIN_ERROR_ARGUMENT);
    assert_null(session);
    assert_int_equal(myelin_session_open(&session, tiny, -5, &error), MYELIN_ERROR_ARGUMENT);
    assert_int_equal(myelin_session_open(&session, tiny, INT32_MAX, &error), MYELIN_ERROR_ARGUMENT);
    myelin_session_close(NULL);
}

static void test_capacity(void **state) {
    (void)state;
    int32_t ids[MOST];
    myelin_generation_options options = with_logprobs(50, 0);
    myelin_result roomy, full, more;
    make_ids(ids, 30, 5);
    run_ids(tiny, ids, 30, &options, &roomy);
    myelin_session *session = session_with(tiny, 40, ids, 30);
    generate(session, &options, &full);
    assert_int_equal(full.finish_reason, MYELIN_FINISH_LENGTH);
    assert_int_equal(full.num_tokens, 11); /* the last one is not in the cache */
    assert_memory_equal(full.token_ids, roomy.token_ids, 11 * sizeof(int32_t));
    assert_memory_equal(full.logprobs, roomy.logprobs, 11 * sizeof(float));
    assert_int_equal(myelin_session_generate(session, NULL, NULL, &options, &more, &error),
                     MYELIN_ERROR_CACHE_FULL);
    assert_null(more.token_ids);
    assert_int_equal(myelin_session_append(session, ids, 1, &error), MYELIN_ERROR_CACHE_FULL);
    myelin_session_truncate(session, 40);
    generate(session, &options, &more); /* a prompt as long as the cache: one token */
    assert_int_equal(more.num_tokens, 1);
    assert_int_equal(more.token_ids[0], full.token_ids[10]);
    assert_int_equal(more.cached_tokens, 39);
    myelin_session_truncate(session, 0);
    assert_int_equal(myelin_session_generate(session, NULL, NULL, &options, NULL, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "empty"));
    myelin_session_close(session);
    myelin_result_clear(&roomy);
    myelin_result_clear(&full);
    myelin_result_clear(&more);
}

static void test_stop_token_stays(void **state) {
    (void)state;
    int32_t ids[MOST];
    size_t count;
    make_ids(ids, 20, 6);
    myelin_generation_options options = options_for(30, 4);
    myelin_result plain, stopped;
    run_ids(tiny, ids, 20, &options, &plain);
    options.stop_ids = &plain.token_ids[9];
    options.num_stop_ids = 1;
    myelin_session *session = session_with(tiny, 200, ids, 20);
    generate(session, &options, &stopped);
    assert_int_equal(stopped.finish_reason, MYELIN_FINISH_STOP);
    const int32_t *held = myelin_session_tokens(session, &count);
    assert_int_equal(count, 20 + stopped.num_tokens);
    assert_int_equal(held[count - 1], plain.token_ids[9]);
    check_as_fresh(session, (int32_t)count - 1, 5);
    myelin_session_close(session);
    myelin_result_clear(&plain);
    myelin_result_clear(&stopped);
}

static void test_append_text(void **state) {
    (void)state;
    static const char text[] = "<|im_start|>a\0b";
    for (int special = 0; special < 2; special++) {
        int32_t *ids;
        size_t count, held_count;
        assert_ok(myelin_tokenize(myelin_model_tokenizer(tiny), text, sizeof text - 1, special,
                                  &ids, &count, &error),
                  error);
        myelin_session *session = session_with(tiny, 50, NULL, 0);
        assert_ok(myelin_session_append_text(session, text, sizeof text - 1, special, &error),
                  error);
        const int32_t *held = myelin_session_tokens(session, &held_count);
        assert_int_equal(held_count, count);
        assert_memory_equal(held, ids, count * sizeof *ids);
        assert_int_equal(held[0] == 6257, special);
        assert_ok(myelin_session_append_text(session, "", 0, true, &error), error);
        myelin_session_tokens(session, &held_count);
        assert_int_equal(held_count, count);
        myelin_session_close(session);
        myelin_free(ids);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_continuing),  cmocka_unit_test(test_truncating),
        cmocka_unit_test(test_setting),     cmocka_unit_test(test_refusals_change_nothing),
        cmocka_unit_test(test_capacity),    cmocka_unit_test(test_stop_token_stays),
        cmocka_unit_test(test_append_text),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
