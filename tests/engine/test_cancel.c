/* SPDX-License-Identifier: Apache-2.0 */
/* Stopping from a callback: what was handed over is the result, and the session goes on from it. */
#include "engine/support.h"
#include "support/temp_directory.h"

enum { PROMPT = 900, TOKENS = 40 };

static char *directory;
static myelin_model *tiny;
static myelin_error error;
static int32_t prompt[PROMPT];

static int open_model(void **state) {
    (void)state;
    uint32_t random = 8;
    directory = make_tiny_directory();
    tiny = open_tiny(directory);
    for (int i = 0; i < PROMPT; i++)
        prompt[i] = (int32_t)next_random(&random, 6200);
    return 0;
}

static int close_model(void **state) {
    (void)state;
    myelin_model_close(tiny);
    temp_directory_remove(directory);
    return 0;
}

/* Cancels after `stop_at` pieces, then lets the session go on: together as in one go. */
static void check_emit(myelin_generation_options options, size_t stop_at,
                       const myelin_result *plain) {
    piece_log *log = calloc(1, sizeof *log);
    myelin_result first, rest;
    myelin_session *session = session_with(tiny, 200, prompt, 10);
    log->stop_at = stop_at;
    assert_ok(myelin_session_generate(session, log_piece, log, &options, &first, &error), error);
    assert_int_equal(log->num_pieces, stop_at);
    assert_int_equal(first.finish_reason, MYELIN_FINISH_CANCELLED);
    assert_log_is_result(log, &first);
    assert_true(first.num_tokens < plain->num_tokens);
    assert_memory_equal(first.token_ids, plain->token_ids, first.num_tokens * sizeof(int32_t));
    assert_memory_equal(first.text, plain->text, first.text_length);
    assert_int_equal(strlen(first.text), first.text_length);
    options.max_new_tokens -= (int32_t)first.num_tokens;
    assert_ok(myelin_session_generate(session, NULL, NULL, &options, &rest, &error), error);
    assert_int_equal(rest.cached_tokens, 10 + first.num_tokens - 1);
    assert_int_equal(first.num_tokens + rest.num_tokens, plain->num_tokens);
    assert_memory_equal(rest.token_ids, plain->token_ids + first.num_tokens,
                        rest.num_tokens * sizeof(int32_t));
    myelin_result_clear(&first);
    myelin_result_clear(&rest);
    myelin_session_close(session);
    free(log);
}

static void test_by_emit(void **state) {
    (void)state;
    static const char *const stops[] = {"never found", " never", "e never"};
    static const int32_t none[1];
    myelin_generation_options options = options_for(TOKENS, 6);
    myelin_result plain;
    options.stop_ids = none;
    options.stop_strings = stops; /* so that text is held back */
    options.num_stop_strings = COUNT(stops);
    run_ids(tiny, prompt, 10, &options, &plain);
    assert_int_equal(plain.num_tokens, TOKENS);
    for (int mode = 0; mode < 4; mode++) {
        options.sync = mode < 2 ? MYELIN_SYNC_TOKEN : MYELIN_SYNC_CHUNK;
        options.sync_tokens = 7;
        options.stream_mode = mode % 2 ? MYELIN_STREAM_STABLE : MYELIN_STREAM_TOKEN;
        for (size_t stop_at = 1; stop_at < (mode < 2 ? TOKENS : 6); stop_at += mode < 2 ? 3 : 1)
            check_emit(options, stop_at, &plain);
    }
    myelin_result_clear(&plain);
}

static void test_by_emit_at_the_last_piece(void **state) {
    (void)state;
    myelin_generation_options options = options_for(10, 6);
    options.sync = MYELIN_SYNC_END;
    piece_log *log = calloc(1, sizeof *log);
    myelin_result result;
    myelin_session *session = session_with(tiny, 200, prompt, 10);
    log->stop_at = 1;
    assert_ok(myelin_session_generate(session, log_piece, log, &options, &result, &error), error);
    assert_int_equal(result.finish_reason, MYELIN_FINISH_LENGTH); /* it was over already */
    assert_log_is_result(log, &result);
    myelin_result_clear(&result);
    myelin_session_close(session);
    free(log);
}

/* Says yes at the n-th time it is asked. */
typedef struct countdown {
    size_t asked;
    size_t yes_at;
} countdown;

static bool count_down(void *user) {
    countdown *c = user;
    return ++c->asked >= c->yes_at;
}

static void test_while_the_prompt_is_read(void **state) {
    (void)state;
    myelin_generation_options options = options_for(TOKENS, 0);
    myelin_result plain, cancelled, after;
    run_ids(tiny, prompt, PROMPT, &options, &plain);
    for (size_t yes_at = 1; yes_at < 9; yes_at += 3) {
        countdown c = {.yes_at = yes_at};
        piece_log *log = calloc(1, sizeof *log);
        options.cancelled = count_down;
        options.cancel_user = &c;
        myelin_session *session = session_with(tiny, 1000, prompt, PROMPT);
        assert_ok(myelin_session_generate(session, log_piece, log, &options, &cancelled, &error),
                  error);
        assert_int_equal(c.asked, yes_at); /* asked before each step, and not again */
        assert_int_equal(cancelled.finish_reason, MYELIN_FINISH_CANCELLED);
        assert_int_equal(cancelled.num_tokens, 0);
        assert_string_equal(cancelled.text, "");
        assert_int_equal(log->num_pieces, 0);
        /* What was read need not be read again. */
        options.cancelled = NULL;
        assert_ok(myelin_session_generate(session, NULL, NULL, &options, &after, &error), error);
        assert_true(yes_at == 1 ? after.cached_tokens == 0 : after.cached_tokens >= 100);
        assert_true(after.cached_tokens < PROMPT);
        assert_same_result(&after, &plain);
        myelin_result_clear(&after);
        myelin_result_clear(&cancelled);
        myelin_session_close(session);
        free(log);
    }
    myelin_result_clear(&plain);
}

static void test_by_the_option_midway(void **state) {
    (void)state;
    static const char story[] = "Once upon a time";
    myelin_generation_options options = options_for(TOKENS, 6);
    myelin_result plain, cancelled;
    assert_ok(myelin_run(tiny, story, &options, &plain, &error), error);
    for (int sync = MYELIN_SYNC_CHUNK; sync <= MYELIN_SYNC_END; sync++) {
        countdown c = {.yes_at = 21};
        piece_log *log = calloc(1, sizeof *log);
        options.sync = (myelin_sync)sync;
        options.cancelled = count_down;
        options.cancel_user = &c;
        assert_ok(myelin_stream(tiny, story, log_piece, log, &options, &cancelled, &error), error);
        assert_int_equal(cancelled.finish_reason, MYELIN_FINISH_CANCELLED);
        assert_int_equal(cancelled.num_tokens, 20);
        assert_memory_equal(cancelled.token_ids, plain.token_ids, 20 * sizeof(int32_t));
        assert_log_is_result(log, &cancelled);
        myelin_result_clear(&cancelled);
        free(log);
    }
    myelin_result_clear(&plain);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_by_emit),
        cmocka_unit_test(test_by_emit_at_the_last_piece),
        cmocka_unit_test(test_while_the_prompt_is_read),
        cmocka_unit_test(test_by_the_option_midway),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
