/* SPDX-License-Identifier: Apache-2.0 */
/* The demo model speaks: reference tokens, every way of handing them over, and where it ends. */
#include <jansson.h>
#include <stdio.h>

#include "engine/support.h"

enum { EVERY = 25, MOST_IDS = 1024, MODES = 7 };

static myelin_model *demo;
static myelin_error error;

static int open_model(void **state) {
    (void)state;
    demo = open_demo(0);
    return 0;
}

static int close_model(void **state) {
    (void)state;
    myelin_model_close(demo);
    return 0;
}

static size_t ids_of(const json_t *array, int32_t ids[MOST_IDS]) {
    size_t count = json_array_size(array);
    assert_true(count > 0 && count <= MOST_IDS);
    for (size_t i = 0; i < count; i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(array, i));
    return count;
}

/* Tokens up to the first whose choice was too close to be the same in every arithmetic. */
static size_t decided(const json_t *line) {
    const json_t *gaps = json_object_get(line, "gaps");
    size_t count = 0;
    while (count < json_array_size(gaps) && json_number_value(json_array_get(gaps, count)) > 1e-3)
        count++;
    return count;
}

/* A line of eval.jsonl: prompt_ids and reference greedy output; `complete`: it ended by itself. */
static void check_line(const json_t *line) {
    int32_t prompt[MOST_IDS], expected[MOST_IDS];
    size_t count = ids_of(json_object_get(line, "prompt_ids"), prompt);
    size_t outputs = ids_of(json_object_get(line, "output_ids"), expected);
    myelin_generation_options options = options_for(64, 0);
    myelin_result by_ids, by_text;
    run_ids(demo, prompt, count, &options, &by_ids);
    options.max_new_tokens = 8;
    assert_ok(myelin_run(demo, json_string_value(json_object_get(line, "prompt")), &options,
                         &by_text, &error),
              error);
    assert_int_equal(by_text.input_tokens, count);
    assert_true(by_text.num_tokens == 8 || by_text.num_tokens == by_ids.num_tokens);
    assert_memory_equal(by_text.token_ids, by_ids.token_ids, by_text.num_tokens * sizeof *prompt);
    assert_int_equal(by_ids.input_tokens, count);
    assert_int_equal(by_ids.cached_tokens, 0);
    size_t sure = decided(line) < outputs ? decided(line) : outputs;
    assert_true(by_ids.num_tokens >= sure);
    assert_memory_equal(by_ids.token_ids, expected, sure * sizeof *expected);
    if (sure == outputs) {
        bool complete = json_is_true(json_object_get(line, "complete"));
        const char *output = json_string_value(json_object_get(line, "output"));
        size_t length = complete ? strlen(output) : by_ids.text_length;
        assert_int_equal(by_ids.num_tokens, outputs);
        assert_int_equal(by_ids.finish_reason,
                         complete ? MYELIN_FINISH_STOP : MYELIN_FINISH_LENGTH);
        assert_int_equal(by_ids.text_length, length);
        assert_memory_equal(by_ids.text, output, length);
    }
    myelin_result_clear(&by_ids);
    myelin_result_clear(&by_text);
}

static void test_reference_tokens(void **state) {
    (void)state;
    FILE *file = fopen(MYELIN_DEMO_MODEL "/eval.jsonl", "r");
    char *text = NULL;
    size_t size = 0;
    int number = 0, checked = 0;
    assert_non_null(file);
    for (; getline(&text, &size, file) > 0; number++) {
        if (number % EVERY)
            continue;
        json_t *line = json_loads(text, 0, NULL);
        assert_non_null(line);
        check_line(line);
        json_decref(line);
        checked++;
    }
    assert_int_equal(checked, 12);
    free(text);
    fclose(file);
}

static const char story[] = "Once upon a time, there was a little";

/* How many tokens the pieces must hold, given the sync; the last takes what is left. */
static void check_piece_sizes(const piece_log *log, const myelin_generation_options *o) {
    size_t chunk = o->sync == MYELIN_SYNC_TOKEN ? 1
                   : o->sync == MYELIN_SYNC_END ? SIZE_MAX
                   : o->sync_tokens             ? (size_t)o->sync_tokens
                                                : 31;
    size_t first = o->sync == MYELIN_SYNC_END ? SIZE_MAX : 1;
    assert_true(log->num_pieces > 0);
    for (size_t i = 0; i + 1 < log->num_pieces; i++)
        assert_int_equal(log->piece_tokens[i], i == 0 ? first : chunk);
    assert_true(log->piece_tokens[log->num_pieces - 1] <= (log->num_pieces == 1 ? first : chunk));
    if (o->sync != MYELIN_SYNC_END && o->stream_mode == MYELIN_STREAM_STABLE)
        for (size_t i = 1; i + 1 < log->num_pieces; i++)
            assert_non_null(strchr(" \n", log->text[log->piece_end[i]]));
}

static void check_mode(const myelin_generation_options *options, const myelin_result *expected) {
    myelin_result result;
    piece_log *log = calloc(1, sizeof *log);
    assert_ok(myelin_stream(demo, story, log_piece, log, options, &result, &error), error);
    assert_same_result(&result, expected);
    assert_log_is_result(log, &result);
    check_piece_sizes(log, options);
    myelin_result_clear(&result);
    free(log);
}

static void test_modes_give_the_same(void **state) {
    (void)state;
    static const struct {
        myelin_sync sync;
        int32_t tokens;
    } modes[MODES] = {{MYELIN_SYNC_TOKEN, 0},   {MYELIN_SYNC_END, 0},   {MYELIN_SYNC_CHUNK, 0},
                      {MYELIN_SYNC_CHUNK, 1},   {MYELIN_SYNC_CHUNK, 2}, {MYELIN_SYNC_CHUNK, 7},
                      {MYELIN_SYNC_CHUNK, 1000}};
    for (uint64_t seed = 0; seed < 2; seed++) {
        myelin_generation_options options = options_for(36, seed);
        options.temperature = 0.8;
        myelin_result plain;
        assert_ok(myelin_run(demo, story, &options, &plain, &error), error);
        assert_int_equal(plain.num_tokens, 36);
        assert_int_equal(plain.text_length, strlen(plain.text));
        for (int i = 0; i < 2 * MODES; i += seed ? 5 : 1) {
            options.sync = modes[i / 2].sync;
            options.sync_tokens = modes[i / 2].tokens;
            options.stream_mode = i % 2 ? MYELIN_STREAM_STABLE : MYELIN_STREAM_TOKEN;
            check_mode(&options, &plain);
        }
        myelin_result_clear(&plain);
    }
}

static void test_default_chunk_is_all_of_few_tokens(void **state) {
    (void)state;
    myelin_generation_options options = options_for(5, 0);
    piece_log *log = calloc(1, sizeof *log);
    assert_ok(myelin_stream(demo, story, log_piece, log, &options, NULL, &error), error);
    assert_int_equal(log->num_tokens, 5);
    assert_int_equal(log->num_pieces, 2);
    assert_int_equal(log->piece_tokens[0], 1);
    assert_int_equal(log->piece_tokens[1], 4);
    free(log);
}

static void test_stop_token(void **state) {
    (void)state;
    myelin_generation_options options = options_for(30, 0);
    myelin_result plain, stopped;
    assert_ok(myelin_run(demo, story, &options, &plain, &error), error);
    for (size_t at = 0; at < plain.num_tokens; at += 5) {
        size_t first = 0, length;
        while (plain.token_ids[first] != plain.token_ids[at])
            first++;
        char *text;
        options.stop_ids = &plain.token_ids[at];
        options.num_stop_ids = 1;
        piece_log *log = calloc(1, sizeof *log);
        assert_ok(myelin_stream(demo, story, log_piece, log, &options, &stopped, &error), error);
        assert_int_equal(stopped.finish_reason, MYELIN_FINISH_STOP);
        assert_int_equal(stopped.num_tokens, first + 1);
        assert_memory_equal(stopped.token_ids, plain.token_ids,
                            stopped.num_tokens * sizeof(int32_t));
        assert_ok(myelin_detokenize(myelin_model_tokenizer(demo), plain.token_ids, first, true,
                                    &text, &length, &error),
                  error);
        assert_string_equal(stopped.text, text);
        assert_log_is_result(log, &stopped);
        free(log);
        myelin_free(text);
        myelin_result_clear(&stopped);
    }
    myelin_result_clear(&plain);
}

static void test_no_stop_ids_at_all(void **state) {
    (void)state;
    static const int32_t prompt[] = {6257, 288, 198,  446, 1696, 296,  5026, 350,  30,
                                     6258, 198, 6257, 300, 198,  6280, 270,  6281, 270};
    int32_t none;
    myelin_generation_options options = options_for(20, 0);
    myelin_result stopped, going_on;
    run_ids(demo, prompt, COUNT(prompt), &options, &stopped);
    assert_int_equal(stopped.finish_reason, MYELIN_FINISH_STOP);
    assert_int_equal(stopped.token_ids[stopped.num_tokens - 1], 6258);
    assert_string_equal(stopped.text, "Yemen is in Asia.");
    options.stop_ids = &none;
    run_ids(demo, prompt, COUNT(prompt), &options, &going_on);
    assert_int_equal(going_on.num_tokens, 20);
    assert_int_equal(going_on.finish_reason, MYELIN_FINISH_LENGTH);
    assert_memory_equal(going_on.token_ids, stopped.token_ids,
                        stopped.num_tokens * sizeof(int32_t));
    myelin_result_clear(&stopped);
    myelin_result_clear(&going_on);
}

static void test_length(void **state) {
    (void)state;
    myelin_generation_options options = options_for(12, 0);
    myelin_result whole, cut;
    assert_ok(myelin_run(demo, story, &options, &whole, &error), error);
    assert_int_equal(whole.num_tokens, 12);
    assert_int_equal(whole.finish_reason, MYELIN_FINISH_LENGTH);
    int32_t prompt = whole.input_tokens;
    for (int32_t spare = 0; spare < 13; spare += spare < 2 || spare > 9 ? 1 : 4) {
        /* The last token chosen needs no place in the cache. */
        options.max_len = prompt + spare;
        assert_ok(myelin_run(demo, story, &options, &cut, &error), error);
        assert_int_equal(cut.num_tokens, spare < 11 ? spare + 1 : 12);
        assert_int_equal(cut.finish_reason, MYELIN_FINISH_LENGTH);
        assert_memory_equal(cut.token_ids, whole.token_ids, cut.num_tokens * sizeof(int32_t));
        assert_memory_equal(cut.text, whole.text, cut.text_length);
        myelin_result_clear(&cut);
    }
    options.max_len = 2048;
    for (int32_t tokens = 1; tokens < 4; tokens++) {
        options.max_new_tokens = tokens;
        assert_ok(myelin_run(demo, story, &options, &cut, &error), error);
        assert_int_equal(cut.num_tokens, tokens);
        myelin_result_clear(&cut);
    }
    options.max_len = prompt - 1;
    assert_int_equal(myelin_run(demo, story, &options, &cut, &error), MYELIN_ERROR_CACHE_FULL);
    assert_non_null(strstr(error.message, "max_len"));
    assert_null(cut.text);
    assert_null(cut.token_ids);
    options.max_len = 2048;
    options.max_new_tokens = INT32_MAX;
    options.stop_ids = &whole.token_ids[3];
    options.num_stop_ids = 1;
    assert_ok(myelin_run(demo, story, &options, &cut, &error), error);
    assert_int_equal(cut.finish_reason, MYELIN_FINISH_STOP);
    myelin_result_clear(&cut);
    myelin_result_clear(&whole);
}

static void test_bad_prompts(void **state) {
    (void)state;
    static const char *const bad[] = {"", "a\xFFz", "\xED\xA0\x80"};
    for (size_t i = 0; i < COUNT(bad); i++) {
        myelin_result result;
        memset(&result, 0xAB, sizeof result);
        memset(&error, 0, sizeof error);
        assert_int_equal(myelin_run(demo, bad[i], NULL, &result, &error), MYELIN_ERROR_ARGUMENT);
        assert_int_equal(error.status, MYELIN_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, i ? "UTF-8" : "empty"));
        assert_null(result.text);
        assert_null(result.token_ids);
        assert_int_equal(result.num_tokens, 0);
        myelin_result_clear(&result);
        assert_int_equal(myelin_run(demo, bad[i], NULL, NULL, NULL), MYELIN_ERROR_ARGUMENT);
    }
}

static void test_timing_and_summary(void **state) {
    (void)state;
    myelin_generation_options options = options_for(20, 0);
    myelin_result r;
    assert_ok(myelin_run(demo, story, &options, &r, &error), error);
    assert_true(r.prefill_ms > 0 && r.per_token_ms > 0);
    assert_true(r.total_ms >= r.prefill_ms + 19 * r.per_token_ms - 1e-6);
    myelin_result_clear(&r);
    options.max_new_tokens = 1;
    assert_ok(myelin_run(demo, story, &options, &r, &error), error);
    assert_true(r.per_token_ms >= 0 && r.per_token_ms <= 0);
    myelin_result_clear(&r);
    myelin_result_clear(&r);
    assert_string_equal(myelin_finish_reason_text(MYELIN_FINISH_STOP), "stop");
    assert_string_equal(myelin_finish_reason_text(MYELIN_FINISH_LENGTH), "length");
    assert_string_equal(myelin_finish_reason_text(MYELIN_FINISH_CANCELLED), "cancelled");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_reference_tokens),
        cmocka_unit_test(test_modes_give_the_same),
        cmocka_unit_test(test_default_chunk_is_all_of_few_tokens),
        cmocka_unit_test(test_stop_token),
        cmocka_unit_test(test_no_stop_ids_at_all),
        cmocka_unit_test(test_length),
        cmocka_unit_test(test_bad_prompts),
        cmocka_unit_test(test_timing_and_summary),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
