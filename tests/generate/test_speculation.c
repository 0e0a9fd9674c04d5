/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Drafted tokens change how many steps a text takes and never which text it is: the composed
 * plug-in with drafts against itself without. Beside the model as it is one that counts in a
 * circle, whose drafts are right, and one that leaves the circle now and then.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "generate/sequence.h"
#include "model/composed.h"
#include "support/checkpoint_builder.h"
#include "support/temp_directory.h"

enum { VOCAB = 80, MAX_LEN = 200, TOKENS = 90, PROMPT = 30, CIRCLE = 10 };

static char *directory;
static mln_checkpoint *checkpoint;
static mln_model *plain, *circling, *straying;
static myelin_plugin circle, stray;
static int num_passes;

/* Makes the successor in the circle by far the likeliest, unless the position is one to stray at.
 */
static myelin_status bent(myelin_plugin_context *context, const myelin_span *spans,
                          int32_t num_spans, int32_t every, myelin_error_buffer *error) {
    int32_t begin[8];
    for (int32_t i = 0; i < num_spans; i++)
        begin[i] = mln_composed_plugin()->sequence_length(spans[i].sequence);
    myelin_status status = mln_composed_plugin()->forward(context, spans, num_spans, error);
    num_passes++;
    for (int32_t i = 0; status == MYELIN_OK && i < num_spans; i++)
        for (int32_t j = 0; j < spans[i].num_logits; j++) {
            int32_t at = spans[i].count - spans[i].num_logits + j;
            if (every == 0 || (begin[i] + at) % every != 0)
                spans[i].logits[j * VOCAB + (spans[i].ids[at] + 1) % CIRCLE] += 1000.0f;
        }
    return status;
}

static myelin_status forward_circle(myelin_plugin_context *context, const myelin_span *spans,
                                    int32_t num_spans, myelin_error_buffer *error) {
    return bent(context, spans, num_spans, 0, error);
}

static myelin_status forward_stray(myelin_plugin_context *context, const myelin_span *spans,
                                   int32_t num_spans, myelin_error_buffer *error) {
    return bent(context, spans, num_spans, 13, error);
}

static int open_models(void **state) {
    (void)state;
    checkpoint_spec spec = checkpoint_spec_default();
    directory = builder_write_spec(&spec);
    circle = stray = *mln_composed_plugin();
    circle.forward = forward_circle;
    stray.forward = forward_stray;
    const myelin_plugin *const plugins[] = {mln_composed_plugin(), &circle, &stray};
    mln_model **const models[] = {&plain, &circling, &straying};
    if (mln_checkpoint_open(&checkpoint, directory, NULL) != MYELIN_OK)
        return 1;
    for (int i = 0; i < 3; i++) {
        mln_model_options options = {.plugin = plugins[i], .threads = 2};
        if (mln_model_load(models[i], checkpoint, &options, NULL) != MYELIN_OK)
            return 1;
    }
    return 0;
}

static int close_models(void **state) {
    (void)state;
    mln_model_free(plain);
    mln_model_free(circling);
    mln_model_free(straying);
    mln_checkpoint_free(checkpoint);
    temp_directory_remove(directory);
    return 0;
}

static mln_generation greedy(int32_t max_new_tokens) {
    return (mln_generation){.sampling = {.temperature = 1, .top_p = 1, .repetition_penalty = 1},
                            .max_new_tokens = max_new_tokens,
                            .max_chunk = 31};
}

/* A prompt in which every three tokens stand twice. */
static mln_sequence *begin(const mln_model *model, int32_t seed, int32_t max_len,
                           const mln_generation *g) {
    int32_t ids[PROMPT];
    mln_sequence *s = NULL;
    for (int32_t i = 0; i < PROMPT; i++)
        ids[i] = (seed + i % (PROMPT / 2)) % CIRCLE;
    assert_int_equal(mln_sequence_create(&s, model, max_len, NULL), MYELIN_OK);
    assert_int_equal(mln_sequence_append(s, ids, PROMPT, NULL), MYELIN_OK);
    assert_int_equal(mln_sequence_begin(s, g, NULL), MYELIN_OK);
    return s;
}

/* Steps all to their ends, each step giving each at most one token. */
static void run(const mln_model *model, mln_sequence **s, int32_t count, bool drafts) {
    mln_decoder *d = NULL;
    assert_int_equal(mln_decoder_create(&d, model, count, MAX_LEN, NULL), MYELIN_OK);
    if (drafts)
        assert_int_equal(mln_decoder_allow_drafts(d, MLN_LOOKUP_MOST, NULL), MYELIN_OK);
    for (bool more = true; more;) {
        int32_t before[8];
        more = false;
        for (int32_t i = 0; i < count; i++)
            before[i] = s[i]->num_generated;
        assert_int_equal(mln_decoder_step(d, s, count, NULL), MYELIN_OK);
        for (int32_t i = 0; i < count; i++) {
            assert_int_equal(s[i]->num_generated, before[i] + s[i]->fresh);
            more = more || s[i]->phase == MLN_READING || s[i]->phase == MLN_GENERATING;
        }
    }
    mln_decoder_free(d);
}

static void assert_same(const mln_sequence *a, const mln_sequence *b) {
    assert_int_equal(a->phase, b->phase);
    assert_int_equal(a->count, b->count);
    assert_memory_equal(a->ids, b->ids, (size_t)a->count * sizeof *a->ids);
    assert_int_equal(mln_sequence_cached(a), mln_sequence_cached(b));
}

static void check(const mln_model *model, mln_generation g, int32_t seed, int32_t max_len) {
    mln_sequence *a = begin(model, seed, max_len, &g);
    g.speculate = true;
    mln_sequence *b = begin(model, seed, max_len, &g);
    run(model, &a, 1, false);
    num_passes = 0;
    run(model, &b, 1, true);
    assert_same(a, b);
    mln_sequence_free(a);
    mln_sequence_free(b);
}

static void drafts_give_the_same_tokens(void **state) {
    (void)state;
    const mln_bias bias = {3, 5.0f};
    const mln_model *models[] = {plain, circling, straying};
    for (int32_t seed = 0; seed < 4; seed++)
        for (int i = 0; i < 3; i++) {
            mln_generation g = greedy(TOKENS);
            check(models[i], g, seed, MAX_LEN);
            for (int32_t max_len = PROMPT; max_len < PROMPT + 40; max_len += 7)
                check(models[i], g, seed, max_len); /* the cache fills up within a draft */
            g.sampling.bias = &bias;
            g.sampling.num_bias = 1;
            check(models[i], g, seed, MAX_LEN);
            g.sampling.sampled = true;
            g.sampling.temperature = 0.7;
            g.sampling.seed = (uint64_t)seed;
            check(models[i], g, seed, MAX_LEN);
        }
}

static void right_drafts_save_passes(void **state) {
    (void)state;
    check(circling, greedy(TOKENS), 0, MAX_LEN);
    assert_in_range(num_passes, 1, TOKENS / 6);
    check(straying, greedy(TOKENS), 0, MAX_LEN);
    assert_in_range(num_passes, 1, TOKENS / 2);
}

/* Where a token depends on those before it through penalties, or more than it is wanted. */
static void others_are_not_drafted(void **state) {
    (void)state;
    mln_generation kinds[4];
    for (int i = 0; i < 4; i++)
        kinds[i] = greedy(TOKENS);
    kinds[0].sampling.repetition_penalty = 1.1;
    kinds[1].sampling.presence_penalty = 0.5;
    kinds[2].sampling.frequency_penalty = 0.5;
    kinds[3].want_logprobs = true;
    for (int i = 0; i < 4; i++) {
        check(circling, kinds[i], 0, MAX_LEN);
        assert_int_equal(num_passes, TOKENS);
    }
}

static void a_stop_within_a_draft_ends_there(void **state) {
    (void)state;
    static const int32_t stop = 7;
    mln_generation g = greedy(TOKENS);
    g.stop_ids = &stop;
    g.num_stop_ids = 1;
    for (int32_t seed = 0; seed < CIRCLE; seed++)
        check(circling, g, seed, MAX_LEN);
}

static void sequences_together_equal_solo_runs(void **state) {
    (void)state;
    enum { COUNT = 4 };
    mln_sequence *all[COUNT], *solo;
    mln_generation g[COUNT];
    for (int32_t i = 0; i < COUNT; i++) {
        g[i] = greedy(20 + 9 * i);
        g[i].speculate = i != 1;
        all[i] = begin(straying, i, MAX_LEN, &g[i]);
    }
    run(straying, all, COUNT, true);
    for (int32_t i = 0; i < COUNT; i++) {
        solo = begin(straying, i, MAX_LEN, &g[i]);
        run(straying, &solo, 1, false);
        assert_same(all[i], solo);
        mln_sequence_free(solo);
        mln_sequence_free(all[i]);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(drafts_give_the_same_tokens),
        cmocka_unit_test(right_drafts_save_passes),
        cmocka_unit_test(others_are_not_drafted),
        cmocka_unit_test(a_stop_within_a_draft_ends_there),
        cmocka_unit_test(sequences_together_equal_solo_runs),
    };
    return cmocka_run_group_tests(tests, open_models, close_models);
}
