/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Stop strings everywhere in a text: it ends exactly before the first, and no piece ever shows a
 * beginning of it. Random tokens of the tiny model: many bytes that are no text, and borders in the
 * middle of characters.
 */
#include "base/utf8.h"
#include "engine/support.h"
#include "support/temp_directory.h"

enum { TOKENS = 60, STOP_SIZE = 64 };

static const int32_t prompt[] = {70, 71, 72}, no_ids[1];
static char *directory;
static myelin_model *tiny, *demo;
static myelin_error error;

static int open_models(void **state) {
    (void)state;
    directory = make_tiny_directory();
    tiny = open_tiny(directory);
    demo = open_demo(0);
    return 0;
}

static int close_models(void **state) {
    (void)state;
    myelin_model_close(tiny);
    myelin_model_close(demo);
    temp_directory_remove(directory);
    return 0;
}

/* How many of the tokens must be read until the text holds `stop`. */
static size_t tokens_until(const myelin_result *plain, const char *stop) {
    for (size_t n = 1; n <= plain->num_tokens; n++) {
        char *text;
        size_t length;
        assert_ok(myelin_detokenize(myelin_model_tokenizer(tiny), plain->token_ids, n, true, &text,
                                    &length, &error),
                  error);
        bool found = memmem(text, length, stop, strlen(stop)) != NULL;
        myelin_free(text);
        if (found)
            return n;
    }
    fail_msg("the text does not hold the stop string");
    return 0;
}

/* Runs with `stop` among other strings and compares with what came without. */
static void check_stop(myelin_model *model, myelin_generation_options options,
                       const myelin_result *plain, const char *stop) {
    const char *const stops[] = {"<never>", stop, "\xF0\x9F\x98\x80\xF0\x9F\x98\x80"};
    const char *hit = memmem(plain->text, plain->text_length, stop, strlen(stop));
    size_t at = (size_t)(hit - plain->text);
    options.stop_strings = stops;
    options.num_stop_strings = COUNT(stops);
    for (int mode = 0; mode < 3; mode++) {
        options.sync = (myelin_sync)(mode % 3);
        options.sync_tokens = 4;
        options.stream_mode = mode == 2 ? MYELIN_STREAM_STABLE : MYELIN_STREAM_TOKEN;
        piece_log *log = calloc(1, sizeof *log);
        myelin_result result;
        myelin_session *session = session_with(model, 2 * TOKENS, prompt, COUNT(prompt));
        assert_ok(myelin_session_generate(session, log_piece, log, &options, &result, &error),
                  error);
        assert_int_equal(result.finish_reason, MYELIN_FINISH_STOP);
        assert_int_equal(result.text_length, at);
        assert_memory_equal(result.text, plain->text, at);
        assert_int_equal(result.text[at], '\0');
        assert_log_is_result(log, &result); /* nothing beyond was ever shown */
        size_t count = tokens_until(plain, stop), held;
        assert_int_equal(result.num_tokens, count);
        assert_memory_equal(result.token_ids, plain->token_ids, count * sizeof(int32_t));
        /* The session keeps the tokens that spell the stop string. */
        const int32_t *ids = myelin_session_tokens(session, &held);
        assert_int_equal(held, COUNT(prompt) + count);
        assert_memory_equal(ids + COUNT(prompt), plain->token_ids, count * sizeof(int32_t));
        myelin_session_close(session);
        myelin_result_clear(&result);
        free(log);
    }
}

/* Every few bytes of the text, a stop string of 1 to 12 bytes, of whole characters. */
static void check_positions(myelin_model *model, const myelin_generation_options *options,
                            size_t step) {
    myelin_result plain;
    run_ids(model, prompt, COUNT(prompt), options, &plain);
    assert_int_equal(plain.num_tokens, TOKENS);
    uint32_t random = 5;
    int checked = 0;
    for (size_t begin = 0; begin < plain.text_length; begin += step) {
        char stop[STOP_SIZE] = "";
        size_t end = begin + 1 + next_random(&random, 12), from = begin;
        while (from > 0 && ((unsigned char)plain.text[from] & 0xC0) == 0x80)
            from--;
        end = end < plain.text_length ? end : plain.text_length;
        while (end < plain.text_length && ((unsigned char)plain.text[end] & 0xC0) == 0x80)
            end++;
        memcpy(stop, plain.text + from, end - from);
        if (strlen(stop) < end - from)
            continue; /* a NUL in the text */
        check_stop(model, *options, &plain, stop);
        checked++;
    }
    assert_true(checked > 6);
    myelin_result_clear(&plain);
}

static void test_everywhere_in_random_text(void **state) {
    (void)state;
    myelin_generation_options options = options_for(TOKENS, 3);
    options.stop_ids = no_ids; /* all tokens of the vocabulary may come */
    check_positions(tiny, &options, 13);
}

static void test_everywhere_in_a_story(void **state) {
    (void)state;
    myelin_generation_options options = options_for(TOKENS, 0);
    options.stop_ids = no_ids;
    check_positions(demo, &options, 29);
}

static void test_never_found(void **state) {
    (void)state;
    static const char *const stops[] = {"never to be found", "~~~~"};
    myelin_generation_options options = options_for(TOKENS, 0);
    myelin_result plain, same;
    piece_log *log = calloc(1, sizeof *log);
    run_ids(demo, prompt, COUNT(prompt), &options, &plain);
    options.stop_strings = stops;
    options.num_stop_strings = COUNT(stops);
    myelin_session *session = session_with(demo, 2 * TOKENS, prompt, COUNT(prompt));
    assert_ok(myelin_session_generate(session, log_piece, log, &options, &same, &error), error);
    assert_same_result(&plain, &same);
    assert_log_is_result(log, &same);
    myelin_session_close(session);
    myelin_result_clear(&plain);
    myelin_result_clear(&same);
    free(log);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_everywhere_in_random_text),
        cmocka_unit_test(test_everywhere_in_a_story),
        cmocka_unit_test(test_never_found),
    };
    return cmocka_run_group_tests(tests, open_models, close_models);
}
