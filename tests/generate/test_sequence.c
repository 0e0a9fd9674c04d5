/* SPDX-License-Identifier: Apache-2.0 */
/* Sequences and steps: together or alone, at once or in turns, every token and logit is the same.
 */
#include <math.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "base/memory.h"
#include "generate/score.h"
#include "generate/sequence.h"
#include "model/composed.h"
#include "support/checkpoint_builder.h"
#include "support/temp_directory.h"

enum { VOCAB = 80, LONGEST = 512 };

static struct {
    char *directory;
    mln_checkpoint *checkpoint;
    mln_model *model;
} fixture;

static int open_model(void **state) {
    (void)state;
    checkpoint_spec spec = checkpoint_spec_default();
    fixture.directory = builder_write_spec(&spec);
    mln_model_options options = {.plugin = mln_composed_plugin(), .threads = 2};
    return mln_checkpoint_open(&fixture.checkpoint, fixture.directory, NULL) ||
           mln_model_load(&fixture.model, fixture.checkpoint, &options, NULL);
}

static int close_model(void **state) {
    (void)state;
    mln_model_free(fixture.model);
    mln_checkpoint_free(fixture.checkpoint);
    temp_directory_remove(fixture.directory);
    return 0;
}

static uint32_t next_random(uint32_t *state) {
    return *state = *state * 1664525u + 1013904223u;
}

static void make_prompt(int32_t *ids, int32_t count, uint32_t seed) {
    for (int32_t i = 0; i < count; i++)
        ids[i] = (int32_t)((next_random(&seed) >> 8) % VOCAB);
}

static mln_generation greedy(int32_t max_new_tokens) {
    return (mln_generation){.sampling = {.temperature = 1, .top_p = 1, .repetition_penalty = 1},
                            .max_new_tokens = max_new_tokens,
                            .want_logprobs = true};
}

/* A generation of kind i: greedy, sampled, penalised in turn. */
static mln_generation kind_of(uint32_t i, int32_t max_new_tokens) {
    mln_generation g = greedy(max_new_tokens);
    g.sampling.sampled = i % 3 != 0;
    g.sampling.seed = i;
    if (i % 3 == 2) {
        g.sampling.top_k = 30;
        g.sampling.repetition_penalty = 1.3;
        g.sampling.frequency_penalty = 0.4;
    }
    return g;
}

/* What a sequence produced: its tokens, and a digest of all logits behind each. */
typedef struct trace {
    int32_t count;
    int32_t ids[LONGEST];
    uint64_t digest[LONGEST];
    mln_phase phase;
} trace;

static uint64_t digest_of(const float *values, size_t count) {
    uint64_t hash = UINT64_C(0xcbf29ce484222325);
    const unsigned char *bytes = (const unsigned char *)values;
    for (size_t i = 0; i < count * sizeof *values; i++)
        hash = (hash ^ bytes[i]) * UINT64_C(0x100000001b3);
    return hash;
}

/* Notes the token of the last step, if there was one. */
static void note(trace *t, const mln_sequence *s) {
    t->phase = s->phase;
    if (s->num_generated == t->count)
        return;
    assert_int_equal(s->num_generated, t->count + 1);
    assert_true(t->count < LONGEST);
    t->ids[t->count] = s->ids[s->count - 1];
    t->digest[t->count++] = digest_of(s->logprobs, VOCAB);
}

static bool running(const mln_sequence *s) {
    return s->phase == MLN_READING || s->phase == MLN_GENERATING;
}

static mln_sequence *make_sequence(const int32_t *ids, int32_t count, int32_t max_len) {
    mln_sequence *s = NULL;
    assert_int_equal(mln_sequence_create(&s, fixture.model, max_len, NULL), MYELIN_OK);
    assert_int_equal(mln_sequence_append(s, ids, (size_t)count, NULL), MYELIN_OK);
    return s;
}

/* Runs one sequence that has begun, alone, to its end. */
static void finish(trace *t, mln_sequence *s) {
    mln_decoder *d = NULL;
    assert_int_equal(mln_decoder_create(&d, fixture.model, 1, s->max_len, NULL), MYELIN_OK);
    *t = (trace){0};
    while (running(s)) {
        assert_int_equal(mln_decoder_step(d, &s, 1, NULL), MYELIN_OK);
        note(t, s);
    }
    mln_decoder_free(d);
}

static void run_solo(trace *t, const int32_t *ids, int32_t count, const mln_generation *g,
                     int32_t max_len) {
    mln_sequence *s = make_sequence(ids, count, max_len);
    assert_int_equal(mln_sequence_begin(s, g, NULL), MYELIN_OK);
    finish(t, s);
    mln_sequence_free(s);
}

static void assert_same(const trace *a, const trace *b) {
    assert_int_equal(a->count, b->count);
    assert_int_equal(a->phase, b->phase);
    for (int32_t i = 0; i < a->count; i++) {
        assert_int_equal(a->ids[i], b->ids[i]);
        assert_true(a->digest[i] == b->digest[i]);
    }
}

/*
 * Runs `count` sequences with prompts of lengths[i % 6] in steps of at most `room` sequences, the
 * i-th joining at step i * delay, and compares each with its solo run.
 */
static void check_together(int32_t count, int32_t room, int32_t delay, int32_t max_new_tokens,
                           const int32_t lengths[6]) {
    enum { MAX_LEN = 360 };
    mln_sequence **s = calloc((size_t)count, sizeof *s);
    trace *together = calloc((size_t)count, sizeof *together), *solo = calloc(1, sizeof *solo);
    mln_generation *g = calloc((size_t)count, sizeof *g);
    int32_t ids[LONGEST], left = count;
    mln_decoder *d = NULL;
    assert_int_equal(mln_decoder_create(&d, fixture.model, room, MAX_LEN, NULL), MYELIN_OK);
    for (int32_t step = 0; left > 0; step++) {
        for (int32_t i = 0; i < count; i++) {
            if (s[i] || step < i * delay || together[i].count > 0)
                continue;
            make_prompt(ids, lengths[i % 6], (uint32_t)i);
            g[i] = kind_of((uint32_t)i, max_new_tokens);
            s[i] = make_sequence(ids, lengths[i % 6], MAX_LEN);
            assert_int_equal(mln_sequence_begin(s[i], &g[i], NULL), MYELIN_OK);
        }
        assert_int_equal(mln_decoder_step(d, s, count, NULL), MYELIN_OK);
        for (int32_t i = 0; i < count; i++) {
            if (!s[i])
                continue;
            note(&together[i], s[i]);
            if (running(s[i]))
                continue;
            mln_sequence_free(s[i]);
            s[i] = NULL;
            left--;
        }
    }
    for (int32_t i = 0; i < count; i++) {
        make_prompt(ids, lengths[i % 6], (uint32_t)i);
        run_solo(solo, ids, lengths[i % 6], &g[i], MAX_LEN);
        assert_int_equal(solo->count, max_new_tokens);
        assert_same(&together[i], solo);
    }
    mln_decoder_free(d);
    free(g);
    free(solo);
    free(together);
    free(s);
}

static const int32_t mixed_lengths[6] = {
    1, 5, MLN_STEP_TOKENS - 1, MLN_STEP_TOKENS, MLN_STEP_TOKENS + 1, 300};

static void test_together_equals_solo(void **state) {
    (void)state;
    check_together(6, 6, 0, 20, mixed_lengths);
}

static void test_joining_in_turns(void **state) {
    (void)state;
    check_together(9, 9, 3, 12, mixed_lengths);
}

static void test_more_sequences_than_the_decoder_has_room_for(void **state) {
    (void)state;
    check_together(7, 2, 0, 9, mixed_lengths);
}

static void test_more_sequences_than_tokens_of_a_step(void **state) {
    (void)state;
    check_together(MLN_STEP_TOKENS + 9, MLN_STEP_TOKENS + 9, 0, 4, (int32_t[]){1, 2, 3, 1, 2, 40});
}

static void test_running_sequences_never_wait_for_a_prompt(void **state) {
    (void)state;
    int32_t ids[LONGEST];
    make_prompt(ids, 400, 7);
    mln_sequence *s[2] = {make_sequence(ids, 400, 500), make_sequence(ids, 3, 500)};
    mln_generation g = greedy(50);
    mln_decoder *d = NULL;
    assert_int_equal(mln_decoder_create(&d, fixture.model, 2, 500, NULL), MYELIN_OK);
    assert_int_equal(mln_sequence_begin(s[0], &g, NULL), MYELIN_OK);
    assert_int_equal(mln_sequence_begin(s[1], &g, NULL), MYELIN_OK);
    for (int32_t step = 1; s[0]->phase == MLN_READING; step++) {
        assert_int_equal(mln_decoder_step(d, s, 2, NULL), MYELIN_OK);
        assert_true(step < 10);
        /* The short one's prompt may wait for a step; from then on it is never behind. */
        assert_true(s[1]->num_generated >= step - 2);
    }
    mln_decoder_free(d);
    mln_sequence_free(s[0]);
    mln_sequence_free(s[1]);
}

static void test_idle_sequences_are_passed_over(void **state) {
    (void)state;
    int32_t ids[3] = {5, 6, 7};
    mln_sequence *idle = make_sequence(ids, 3, 20), *s = make_sequence(ids, 3, 20);
    mln_sequence *all[3] = {NULL, idle, s};
    mln_generation g = greedy(2);
    mln_decoder *d = NULL;
    assert_int_equal(mln_decoder_create(&d, fixture.model, 1, 20, NULL), MYELIN_OK);
    assert_int_equal(mln_decoder_step(d, all, 3, NULL), MYELIN_OK);
    assert_int_equal(s->count, 3);
    assert_int_equal(mln_sequence_begin(s, &g, NULL), MYELIN_OK);
    for (int i = 0; i < 5; i++)
        assert_int_equal(mln_decoder_step(d, all, 3, NULL), MYELIN_OK);
    assert_int_equal(s->count, 5);
    assert_int_equal(s->phase, MLN_EXHAUSTED);
    assert_int_equal(idle->count, 3);
    assert_int_equal(mln_sequence_cached(idle), 0);
    mln_decoder_free(d);
    mln_sequence_free(idle);
    mln_sequence_free(s);
}

/* Truncates after a generation, appends other tokens, continues: as if all were new. */
static void check_continuation(int32_t keep, int32_t extra) {
    int32_t ids[LONGEST], more[LONGEST];
    make_prompt(ids, 150, 11);
    make_prompt(more, extra, 12);
    mln_generation first = kind_of(2, 10), second = kind_of(5, 15);
    mln_sequence *s = make_sequence(ids, 150, 480);
    trace *fresh = calloc(1, sizeof *fresh), *continued = calloc(1, sizeof *continued);
    assert_int_equal(mln_sequence_begin(s, &first, NULL), MYELIN_OK);
    finish(fresh, s);
    assert_int_equal(s->count, 160);
    assert_int_equal(mln_sequence_cached(s), 159);
    mln_sequence_truncate(s, keep);
    assert_int_equal(mln_sequence_cached(s), keep < 159 ? keep : 159);
    assert_int_equal(mln_sequence_append(s, more, (size_t)extra, NULL), MYELIN_OK);
    int32_t count = s->count;
    assert_int_equal(count, (keep < 160 ? keep : 160) + extra);
    memcpy(ids, s->ids, (size_t)count * sizeof *ids);
    run_solo(fresh, ids, count, &second, 480);
    assert_int_equal(mln_sequence_begin(s, &second, NULL), MYELIN_OK);
    assert_true(mln_sequence_cached(s) >= (keep < 159 ? keep : 159) - 1);
    finish(continued, s);
    assert_same(fresh, continued);
    mln_sequence_free(s);
    free(fresh);
    free(continued);
}

static void test_continuing_equals_a_fresh_run(void **state) {
    (void)state;
    static const int32_t keep[] = {1, 2, 149, 150, 151, 158, 159, 160, 1000};
    static const int32_t extra[] = {0, 1, 2, 130, 300};
    for (size_t k = 0; k < sizeof keep / sizeof *keep; k++)
        for (size_t e = 0; e < sizeof extra / sizeof *extra; e++)
            check_continuation(keep[k], extra[e]);
    check_continuation(0, 4);
}

static void test_beginning_again_midway_equals_a_fresh_run(void **state) {
    (void)state;
    int32_t ids[LONGEST];
    make_prompt(ids, 200, 21);
    mln_generation g = greedy(8);
    mln_sequence *s = make_sequence(ids, 200, 300);
    mln_decoder *d = NULL;
    trace *fresh = calloc(1, sizeof *fresh), *again = calloc(1, sizeof *again);
    assert_int_equal(mln_decoder_create(&d, fixture.model, 1, 300, NULL), MYELIN_OK);
    run_solo(fresh, ids, 200, &g, 300);
    /* Given up while the prompt was being read, then after two tokens. */
    for (int32_t steps = 1; steps <= 3; steps += 2) {
        mln_sequence_truncate(s, 200);
        assert_int_equal(mln_sequence_begin(s, &g, NULL), MYELIN_OK);
        for (int32_t i = 0; i < steps; i++)
            assert_int_equal(mln_decoder_step(d, &s, 1, NULL), MYELIN_OK);
    }
    mln_sequence_truncate(s, 200);
    assert_int_equal(mln_sequence_begin(s, &g, NULL), MYELIN_OK);
    assert_int_equal(mln_sequence_cached(s), 199);
    finish(again, s);
    assert_same(fresh, again);
    mln_decoder_free(d);
    mln_sequence_free(s);
    free(fresh);
    free(again);
}

static void test_full_cache(void **state) {
    (void)state;
    int32_t ids[LONGEST];
    make_prompt(ids, 30, 3);
    mln_generation g = greedy(100);
    trace *t = calloc(1, sizeof *t), *roomy = calloc(1, sizeof *roomy);
    run_solo(roomy, ids, 30, &g, 200);
    /* The last token chosen needs no place in the cache: room for k more makes k + 1 tokens. */
    for (int32_t spare = 0; spare < 4; spare++) {
        mln_sequence *s = make_sequence(ids, 30, 30 + spare);
        assert_int_equal(mln_sequence_begin(s, &g, NULL), MYELIN_OK);
        finish(t, s);
        assert_int_equal(t->phase, MLN_EXHAUSTED);
        assert_int_equal(t->count, spare + 1);
        assert_memory_equal(t->ids, roomy->ids, (size_t)t->count * sizeof *t->ids);
        assert_int_equal(s->count, s->max_len + 1);
        assert_int_equal(mln_sequence_begin(s, &g, NULL), MYELIN_ERROR_CACHE_FULL);
        assert_int_equal(mln_sequence_append(s, ids, 1, NULL), MYELIN_ERROR_CACHE_FULL);
        assert_int_equal(mln_sequence_append(s, ids, 0, NULL), MYELIN_OK);
        assert_int_equal(s->count, s->max_len + 1);
        mln_sequence_truncate(s, s->max_len);
        assert_int_equal(mln_sequence_begin(s, &g, NULL), MYELIN_OK);
        int32_t last = t->ids[t->count - 1];
        finish(t, s);
        assert_int_equal(t->count, 1);
        assert_int_equal(t->ids[0], last);
        mln_sequence_free(s);
    }
    free(t);
    free(roomy);
}

static void test_refusals_change_nothing(void **state) {
    (void)state;
    mln_sequence *s = NULL;
    mln_generation g = greedy(3);
    myelin_error error = {0};
    int32_t ids[3] = {1, 2, 3};
    assert_int_equal(mln_sequence_create(&s, fixture.model, 5, NULL), MYELIN_OK);
    assert_int_equal(mln_sequence_begin(s, &g, &error), MYELIN_ERROR_ARGUMENT);
    assert_non_null(strstr(error.message, "empty"));
    assert_int_equal(mln_sequence_append(s, ids, 3, NULL), MYELIN_OK);
    static const int32_t bad[] = {-1, INT32_MIN, VOCAB, INT32_MAX};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        int32_t pair[2] = {4, bad[i]};
        assert_int_equal(mln_sequence_append(s, pair, 2, &error), MYELIN_ERROR_ARGUMENT);
        assert_non_null(strstr(error.message, "at index 1: expected 0 to 79"));
        assert_int_equal(s->count, 3);
    }
    assert_int_equal(mln_sequence_append(s, ids, 3, &error), MYELIN_ERROR_CACHE_FULL);
    assert_non_null(strstr(error.message, "3 tokens do not fit: the KV cache holds 5, 3 are"));
    assert_int_equal(s->count, 3);
    mln_sequence_free(s);
    mln_sequence_free(NULL);
    mln_decoder_free(NULL);
}

static void test_stop_ids(void **state) {
    (void)state;
    int32_t ids[LONGEST];
    make_prompt(ids, 20, 5);
    mln_generation g = greedy(40);
    trace *whole = calloc(1, sizeof *whole), *t = calloc(1, sizeof *t);
    run_solo(whole, ids, 20, &g, 100);
    for (int32_t at = 0; at < 40; at += 3) {
        int32_t first = 0, stops[2] = {VOCAB + 5, whole->ids[at]};
        while (whole->ids[first] != stops[1])
            first++;
        g.stop_ids = stops;
        g.num_stop_ids = 2;
        run_solo(t, ids, 20, &g, 100);
        assert_int_equal(t->phase, MLN_STOPPED);
        assert_int_equal(t->count, first + 1);
        assert_memory_equal(t->digest, whole->digest, (size_t)t->count * sizeof *t->digest);
    }
    free(whole);
    free(t);
}

static void test_reserve(void **state) {
    (void)state;
    int32_t ids[LONGEST];
    make_prompt(ids, 60, 9);
    mln_generation g = greedy(5);
    mln_sequence *s = make_sequence(ids, 60, 100);
    mln_decoder *d = NULL;
    trace *solo = calloc(1, sizeof *solo), *t = calloc(1, sizeof *t);
    run_solo(solo, ids, 60, &g, 100);
    assert_int_equal(mln_decoder_create(&d, fixture.model, 1, 10, NULL), MYELIN_OK);
    assert_int_equal(mln_decoder_reserve(d, 10, NULL), MYELIN_OK);
    assert_int_equal(mln_decoder_reserve(d, 1, NULL), MYELIN_OK);
    assert_int_equal(d->max_len, 10);
    myelin_plugin_context *before = d->context;
    mln_fail_allocation(1, true);
    assert_int_equal(mln_decoder_reserve(d, 100, NULL), MYELIN_ERROR_MEMORY);
    mln_fail_allocation(0, false);
    assert_ptr_equal(d->context, before);
    assert_int_equal(d->max_len, 10);
    assert_int_equal(mln_decoder_reserve(d, 100, NULL), MYELIN_OK);
    assert_int_equal(mln_sequence_begin(s, &g, NULL), MYELIN_OK);
    while (running(s)) {
        assert_int_equal(mln_decoder_step(d, &s, 1, NULL), MYELIN_OK);
        note(t, s);
    }
    assert_same(t, solo);
    mln_decoder_free(d);
    mln_sequence_free(s);
    free(solo);
    free(t);
}

static void test_steps_allocate_nothing(void **state) {
    (void)state;
    int32_t ids[LONGEST];
    make_prompt(ids, 200, 9);
    mln_sequence *s = make_sequence(ids, 200, 300);
    mln_generation g = kind_of(2, 50);
    mln_decoder *d = NULL;
    assert_int_equal(mln_decoder_create(&d, fixture.model, 1, 300, NULL), MYELIN_OK);
    mln_fail_allocation(0, false);
    assert_int_equal(mln_sequence_begin(s, &g, NULL), MYELIN_OK);
    while (running(s))
        assert_int_equal(mln_decoder_step(d, &s, 1, NULL), MYELIN_OK);
    assert_int_equal(mln_fail_allocation(0, false), 0);
    assert_int_equal(s->num_generated, 50);
    mln_decoder_free(d);
    mln_sequence_free(s);
}

/* ---- the most likely tokens ---- */

static const float *sorted_values;

static int by_value_then_id(const void *left, const void *right) {
    int32_t a = *(const int32_t *)left, b = *(const int32_t *)right;
    float x = sorted_values[a], y = sorted_values[b];
    return x > y ? -1 : x < y ? 1 : a < b ? -1 : a > b;
}

static void check_top_of(const float *values, int32_t vocab, int32_t count) {
    int32_t order[VOCAB], valid = 0, ids[VOCAB];
    float logprobs[VOCAB];
    for (int32_t i = 0; i < vocab; i++)
        if (!isnan(values[i]))
            order[valid++] = i;
    sorted_values = values;
    qsort(order, (size_t)valid, sizeof *order, by_value_then_id);
    mln_top top = {count, ids, logprobs};
    mln_top_of(values, vocab, &top);
    assert_int_equal(top.count, count < valid ? count : valid);
    for (int32_t i = 0; i < top.count; i++) {
        assert_int_equal(ids[i], order[i]);
        assert_true(logprobs[i] == values[order[i]]);
    }
}

static void test_top_of_against_a_sort(void **state) {
    (void)state;
    uint32_t random = 17;
    for (int round = 0; round < 600; round++) {
        float values[VOCAB];
        int32_t vocab = 1 + (int32_t)((next_random(&random) >> 8) % VOCAB);
        uint32_t levels = 1 + (next_random(&random) >> 8) % 40; /* few levels: many ties */
        for (int32_t i = 0; i < vocab; i++) {
            uint32_t level = (next_random(&random) >> 8) % levels;
            values[i] = level == 3 ? -INFINITY : level == 5 ? NAN : -(float)level / 4;
        }
        for (int32_t count = 0; count <= vocab; count += 1 + count / 2)
            check_top_of(values, vocab, count);
        check_top_of(values, vocab, vocab);
    }
}

/* ---- scoring ---- */

static void test_score_equals_stepwise(void **state) {
    (void)state;
    static const int32_t counts[] = {1, 2, 31, 32, 33, 64, 65, 140};
    enum { MOST = 140 };
    int32_t ids[MOST], top_ids[20], found_ids[20];
    float stepwise[MOST], logprobs[MOST], top_logprobs[20], found_logprobs[20];
    make_prompt(ids, MOST, 33);
    for (size_t c = 0; c < sizeof counts / sizeof *counts; c++) {
        int32_t count = counts[c];
        mln_top top = {20, top_ids, top_logprobs}, found = {20, found_ids, found_logprobs};
        assert_int_equal(mln_score(fixture.model, ids, count, logprobs, &found, NULL), MYELIN_OK);
        for (int32_t i = 1; i <= count; i++) {
            mln_generation g = greedy(1);
            mln_sequence *s = make_sequence(ids, i, i);
            trace t;
            assert_int_equal(mln_sequence_begin(s, &g, NULL), MYELIN_OK);
            finish(&t, s);
            if (i < count)
                stepwise[i - 1] = s->logprobs[ids[i]];
            else
                mln_top_of(s->logprobs, VOCAB, &top);
            mln_sequence_free(s);
        }
        if (count > 1)
            assert_memory_equal(logprobs, stepwise, (size_t)(count - 1) * sizeof *logprobs);
        assert_int_equal(found.count, 20);
        assert_memory_equal(found_ids, top_ids, sizeof top_ids);
        assert_memory_equal(found_logprobs, top_logprobs, sizeof top_logprobs);
    }
    mln_top none = {0};
    assert_int_equal(mln_score(fixture.model, ids, 40, logprobs, &none, NULL), MYELIN_OK);
    assert_memory_equal(logprobs, stepwise, 39 * sizeof *logprobs);
    ids[5] = VOCAB;
    assert_int_equal(mln_score(fixture.model, ids, 40, logprobs, &none, NULL),
                     MYELIN_ERROR_ARGUMENT);
}

/* ---- out of memory ---- */

/* Fails each allocation of `make` in turn until none is left to fail. */
static void walk(myelin_status (*make)(void)) {
    uint64_t n = 0;
    for (myelin_status status = MYELIN_ERROR_MEMORY; status != MYELIN_OK;) {
        mln_fail_allocation(++n, false);
        status = make();
        mln_fail_allocation(0, false);
        assert_true(status == MYELIN_OK || status == MYELIN_ERROR_MEMORY);
        assert_true(n < 100);
    }
    assert_true(n > 2);
}

static myelin_status make_a_sequence(void) {
    mln_sequence *s = NULL;
    myelin_status status = mln_sequence_create(&s, fixture.model, 40, NULL);
    assert_true((status == MYELIN_OK) == (s != NULL));
    mln_sequence_free(s);
    return status;
}

static myelin_status make_a_decoder(void) {
    mln_decoder *d = NULL;
    myelin_status status = mln_decoder_create(&d, fixture.model, 3, 40, NULL);
    assert_true((status == MYELIN_OK) == (d != NULL));
    mln_decoder_free(d);
    return status;
}

static myelin_status make_a_score(void) {
    int32_t ids[3] = {3, 4, 5}, top_id;
    float logprobs[2], top_logprob;
    mln_top top = {1, &top_id, &top_logprob};
    return mln_score(fixture.model, ids, 3, logprobs, &top, NULL);
}

static void test_out_of_memory(void **state) {
    (void)state;
    walk(make_a_sequence);
    walk(make_a_decoder);
    walk(make_a_score);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_together_equals_solo),
        cmocka_unit_test(test_joining_in_turns),
        cmocka_unit_test(test_more_sequences_than_the_decoder_has_room_for),
        cmocka_unit_test(test_more_sequences_than_tokens_of_a_step),
        cmocka_unit_test(test_running_sequences_never_wait_for_a_prompt),
        cmocka_unit_test(test_idle_sequences_are_passed_over),
        cmocka_unit_test(test_continuing_equals_a_fresh_run),
        cmocka_unit_test(test_beginning_again_midway_equals_a_fresh_run),
        cmocka_unit_test(test_full_cache),
        cmocka_unit_test(test_refusals_change_nothing),
        cmocka_unit_test(test_stop_ids),
        cmocka_unit_test(test_reserve),
        cmocka_unit_test(test_steps_allocate_nothing),
        cmocka_unit_test(test_top_of_against_a_sort),
        cmocka_unit_test(test_score_equals_stepwise),
        cmocka_unit_test(test_out_of_memory),
    };
    return cmocka_run_group_tests(tests, open_model, close_model);
}
