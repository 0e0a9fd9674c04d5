/* SPDX-License-Identifier: Apache-2.0 */
/* What options do to the choice of tokens, and the log-probabilities that come with them. */
#include <math.h>

#include "engine/support.h"
#include "support/temp_directory.h"

static const char story[] = "Once upon a time, there was a little";
static char *directory;
static myelin_model *demo, *tiny;
static myelin_error error;

static int open_model(void **state) {
    (void)state;
    demo = open_demo(0);
    directory = make_tiny_directory();
    tiny = open_tiny(directory);
    return 0;
}

static int close_model(void **state) {
    (void)state;
    myelin_model_close(demo);
    myelin_model_close(tiny);
    temp_directory_remove(directory);
    return 0;
}

static void run(myelin_model *model, const myelin_generation_options *options, myelin_result *r) {
    assert_ok(myelin_run(model, story, options, r, &error), error);
}

static bool same_tokens(const myelin_result *a, const myelin_result *b) {
    return a->num_tokens == b->num_tokens &&
           memcmp(a->token_ids, b->token_ids, a->num_tokens * sizeof(int32_t)) == 0;
}

/* Runs with both and tells whether the tokens were the same. */
static bool agree(const myelin_generation_options *one, const myelin_generation_options *other) {
    myelin_result a, b;
    run(tiny, one, &a);
    run(tiny, other, &b);
    bool same = same_tokens(&a, &b);
    myelin_result_clear(&a);
    myelin_result_clear(&b);
    return same;
}

static void test_seeds(void **state) {
    (void)state;
    myelin_generation_options one = options_for(30, 1), again = options_for(30, 1);
    myelin_generation_options other = options_for(30, 2);
    assert_true(agree(&one, &again));
    assert_false(agree(&one, &other));
    other.seed = UINT64_C(1) << 32 | 1; /* the upper half counts too */
    assert_false(agree(&one, &other));
}

static void test_what_equals_greedy(void **state) {
    (void)state;
    myelin_generation_options greedy = options_for(30, 0), sampled = options_for(30, 5);
    assert_false(agree(&greedy, &sampled));
    sampled.top_k = 1;
    assert_true(agree(&greedy, &sampled));
    sampled.top_k = 0;
    sampled.top_p = 1e-9;
    assert_true(agree(&greedy, &sampled));
    sampled.top_p = 1;
    sampled.min_p = 1;
    assert_true(agree(&greedy, &sampled));
    sampled.min_p = 0;
    for (double temperature = 1e-4; temperature > 0; temperature *= 1e-40) {
        sampled.temperature = temperature;
        assert_true(agree(&greedy, &sampled));
    }
}

static void test_sampler_options_matter(void **state) {
    (void)state;
    myelin_generation_options plain = options_for(40, 3), changed = plain;
    changed.temperature = 2;
    assert_false(agree(&plain, &changed));
    changed = plain;
    changed.top_k = 2;
    assert_false(agree(&plain, &changed));
    changed = plain;
    changed.top_p = 0.3;
    assert_false(agree(&plain, &changed));
    changed = plain;
    changed.min_p = 0.5;
    assert_false(agree(&plain, &changed));
}

/* Whether no token of the output is among those before it (of the output, or of all). */
static bool repeats(const myelin_result *r, const int32_t *prompt, size_t count) {
    for (size_t i = 0; i < r->num_tokens; i++) {
        for (size_t k = 0; k < i; k++)
            if (r->token_ids[k] == r->token_ids[i])
                return true;
        for (size_t k = 0; k < count; k++)
            if (prompt[k] == r->token_ids[i])
                return true;
    }
    return false;
}

static void test_penalties(void **state) {
    (void)state;
    int32_t *prompt;
    size_t count;
    assert_ok(myelin_tokenize(myelin_model_tokenizer(demo), story, strlen(story), true, &prompt,
                              &count, &error),
              error);
    myelin_generation_options options = options_for(60, 0);
    myelin_result r;
    run(demo, &options, &r);
    assert_true(repeats(&r, NULL, 0)); /* a story without penalties has "the" twice */
    assert_true(repeats(&r, prompt, count));
    myelin_result_clear(&r);
    options.presence_penalty = 1000;
    run(demo, &options, &r);
    assert_false(repeats(&r, NULL, 0));
    myelin_result_clear(&r);
    options.presence_penalty = 0;
    options.frequency_penalty = 1000;
    run(demo, &options, &r);
    assert_false(repeats(&r, NULL, 0));
    myelin_result_clear(&r);
    options.frequency_penalty = 0;
    options.repetition_penalty = 1000;
    run(demo, &options, &r);
    assert_false(repeats(&r, prompt, count));
    myelin_result_clear(&r);
    myelin_free(prompt);
}

static void test_logit_bias(void **state) {
    (void)state;
    myelin_generation_options options = options_for(20, 0);
    myelin_result plain, r;
    run(demo, &options, &plain);
    myelin_logit_bias ban[20];
    for (size_t i = 0; i < 20; i++)
        ban[i] = (myelin_logit_bias){plain.token_ids[i], -INFINITY};
    options.logit_bias = ban;
    options.num_logit_bias = 20;
    for (uint64_t seed = 0; seed < 3; seed++) {
        options.sampler = seed ? MYELIN_SAMPLER_SAMPLED : MYELIN_SAMPLER_GREEDY;
        options.seed = seed;
        run(demo, &options, &r);
        for (size_t i = 0; i < r.num_tokens; i++)
            for (size_t k = 0; k < 20; k++)
                assert_int_not_equal(r.token_ids[i], ban[k].id);
        myelin_result_clear(&r);
    }
    /* A token the tokenizer does not know: rows of the vocabulary may be padding. No text. */
    myelin_logit_bias force = {6399, 1000};
    options.logit_bias = &force;
    options.num_logit_bias = 1;
    piece_log *log = calloc(1, sizeof *log);
    assert_ok(myelin_stream(demo, story, log_piece, log, &options, &r, &error), error);
    assert_int_equal(r.num_tokens, 20);
    assert_int_equal(r.token_ids[19], 6399);
    assert_string_equal(r.text, "");
    assert_log_is_result(log, &r);
    myelin_result_clear(&r);
    myelin_result_clear(&plain);
    free(log);
}

static void check_logprobs(uint64_t seed) {
    enum { TOP = 5, TOKENS = 25 };
    myelin_generation_options options = options_for(TOKENS, seed), plain = options;
    options.logprobs = true;
    options.top_logprobs = TOP;
    if (seed) /* log-probabilities are those before any treatment */
        options.temperature = plain.temperature = 3;
    myelin_result r;
    run(demo, &options, &r);
    myelin_result without;
    run(demo, &plain, &without);
    assert_true(same_tokens(&r, &without));
    myelin_result_clear(&without);
    assert_int_equal(r.num_tokens, TOKENS);
    assert_int_equal(r.num_top, TOP);
    myelin_session *session = session_with(demo, 200, NULL, 0);
    assert_ok(myelin_session_append_text(session, story, strlen(story), true, &error), error);
    assert_ok(myelin_session_append(session, r.token_ids, TOKENS, &error), error);
    size_t count;
    const int32_t *ids = myelin_session_tokens(session, &count);
    float *scored = calloc(count, sizeof *scored);
    assert_ok(myelin_score(demo, ids, count, scored, 0, NULL, NULL, &error), error);
    assert_memory_equal(scored + count - 1 - TOKENS, r.logprobs, TOKENS * sizeof *scored);
    for (size_t i = 0; i < TOKENS; i += 6) {
        int32_t top_ids[TOP];
        float top_logprobs[TOP];
        assert_ok(
            myelin_score(demo, ids, count - TOKENS + i, scored, TOP, top_ids, top_logprobs, &error),
            error);
        assert_memory_equal(top_ids, r.top_ids + i * TOP, sizeof top_ids);
        assert_memory_equal(top_logprobs, r.top_logprobs + i * TOP, sizeof top_logprobs);
        if (!seed)
            assert_int_equal(top_ids[0], r.token_ids[i]);
    }
    free(scored);
    myelin_session_close(session);
    myelin_result_clear(&r);
}

static void test_logprobs(void **state) {
    (void)state;
    check_logprobs(0);
    check_logprobs(9);
    myelin_generation_options options = options_for(3, 0);
    myelin_result r;
    options.logprobs = true;
    run(demo, &options, &r);
    assert_non_null(r.logprobs);
    assert_null(r.top_ids);
    assert_null(r.top_logprobs);
    assert_int_equal(r.num_top, 0);
    myelin_result_clear(&r);
    options.logprobs = false;
    run(demo, &options, &r);
    assert_null(r.logprobs);
    myelin_result_clear(&r);
}

/* What pieces hand over of them; `done` tokens were handed over before. */
typedef struct handed {
    const myelin_result *whole;
    size_t done;
} handed;

static bool compare_piece(void *user, const myelin_piece *piece) {
    handed *h = user;
    size_t top = (size_t)h->whole->num_top;
    assert_int_equal(piece->num_top, h->whole->num_top);
    if (piece->num_tokens) {
        assert_memory_equal(piece->logprobs, h->whole->logprobs + h->done,
                            piece->num_tokens * sizeof *piece->logprobs);
        assert_memory_equal(piece->top_ids, h->whole->top_ids + h->done * top,
                            piece->num_tokens * top * sizeof *piece->top_ids);
        assert_memory_equal(piece->top_logprobs, h->whole->top_logprobs + h->done * top,
                            piece->num_tokens * top * sizeof *piece->top_logprobs);
    }
    h->done += piece->num_tokens;
    return true;
}

static void test_logprobs_in_pieces(void **state) {
    (void)state;
    myelin_generation_options options = options_for(20, 5);
    myelin_result whole;
    options.logprobs = true;
    options.top_logprobs = 3;
    options.sync_tokens = 4;
    run(demo, &options, &whole);
    handed h = {.whole = &whole};
    assert_ok(myelin_stream(demo, story, compare_piece, &h, &options, NULL, &error), error);
    assert_int_equal(h.done, whole.num_tokens);
    myelin_result_clear(&whole);
}

/* The bytes of the tokens put together are the text. */
static void test_token_bytes(void **state) {
    (void)state;
    const myelin_tokenizer *tokenizer = myelin_model_tokenizer(demo);
    myelin_generation_options options = options_for(30, 0);
    myelin_result r;
    const char *bytes;
    size_t length, at = 0;
    bool special;
    run(demo, &options, &r);
    for (size_t i = 0; i < r.num_tokens; i++) {
        assert_true(myelin_token_bytes(tokenizer, r.token_ids[i], &bytes, &length, &special));
        if (special)
            continue;
        assert_true(at + length <= r.text_length);
        assert_memory_equal(r.text + at, bytes, length);
        at += length;
    }
    assert_int_equal(at, r.text_length);
    assert_true(myelin_token_bytes(tokenizer, 6258, &bytes, &length, &special) && special);
    assert_memory_equal(bytes, "<|im_end|>", length);
    assert_true(myelin_token_bytes(tokenizer, 0, &bytes, &length, NULL));
    int32_t size = myelin_tokenizer_size(tokenizer);
    assert_false(myelin_token_bytes(tokenizer, size, &bytes, &length, &special));
    assert_false(myelin_token_bytes(tokenizer, -1, &bytes, &length, &special));
    myelin_result_clear(&r);
}

static void test_score_refusals(void **state) {
    (void)state;
    int32_t ids[2] = {5, 6400}, top_id;
    float logprob, top_logprob;
    assert_int_equal(myelin_score(demo, ids, 0, &logprob, 0, NULL, NULL, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_int_equal(myelin_score(demo, ids, 2, &logprob, 0, NULL, NULL, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "token id 6400 at index 1: expected 0 to 6399"));
    assert_int_equal(myelin_score(demo, ids, 1, NULL, -1, NULL, NULL, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_int_equal(myelin_score(demo, ids, 1, NULL, 6401, NULL, NULL, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_ok(myelin_score(demo, ids, 1, NULL, 1, &top_id, &top_logprob, &error), error);
    assert_true(top_id >= 0 && top_logprob < 0);
}

static void test_any_number_of_threads(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 2; seed++) {
        myelin_generation_options options = options_for(12, seed);
        myelin_result expected, found;
        options.logprobs = true;
        options.top_logprobs = 64;
        run(demo, &options, &expected);
        for (int32_t threads = 1; threads <= 5; threads += 2) {
            myelin_model *model = open_demo(threads);
            run(model, &options, &found);
            assert_same_result(&expected, &found);
            myelin_result_clear(&found);
            myelin_model_close(model);
        }
        myelin_result_clear(&expected);
    }
}

static void test_options_from_the_model(void **state) {
    (void)state;
    myelin_generation_options options, defaults;
    myelin_generation_options_init(&defaults);
    myelin_generation_options_from_model(&options, demo);
    assert_int_equal(options.sampler, MYELIN_SAMPLER_SAMPLED);
    assert_true(fabs(options.temperature - 0.6) < 1e-12);
    assert_int_equal(options.top_k, 20);
    assert_true(fabs(options.top_p - 0.95) < 1e-12);
    options.sampler = defaults.sampler;
    options.temperature = defaults.temperature;
    options.top_k = defaults.top_k;
    options.top_p = defaults.top_p;
    assert_memory_equal(&options, &defaults, sizeof options);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_seeds),
        cmocka_unit_test(test_what_equals_greedy),
        cmocka_unit_test(test_sampler_options_matter),
        cmocka_unit_test(test_penalties),
        cmocka_unit_test(test_logit_bias),
        cmocka_unit_test(test_logprobs),
        cmocka_unit_test(test_logprobs_in_pieces),
        cmocka_unit_test(test_token_bytes),
        cmocka_unit_test(test_score_refusals),
        cmocka_unit_test(test_any_number_of_threads),
        cmocka_unit_test(test_options_from_the_model),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
