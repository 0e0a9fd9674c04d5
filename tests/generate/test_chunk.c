/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chunked decoding changes when tokens are made and never which: the composed plug-in, offered as
 * one that decodes in chunks, against itself token by token.
 */
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <setjmp.h>
/* cmocka needs the headers above */
#include <cmocka.h>

#include "base/memory.h"
#include "generate/sequence.h"
#include "model/composed.h"
#include "support/checkpoint_builder.h"
#include "support/drawing_plugin.h"
#include "support/temp_directory.h"

enum { VOCAB = 80, MAX_LEN = 200, TOKENS = 70, PROMPT = 9 };

static char *directory;
static mln_checkpoint *checkpoint;
static mln_model *plain, *chunked, *drawn;
static myelin_plugin counting;
static int num_calls, longest_call;

static myelin_status counted(myelin_plugin_context *context,
                             myelin_plugin_sequence *const *sequences, const int32_t *ids,
                             int32_t num_sequences, int32_t steps, int32_t *out_ids,
                             myelin_error_buffer *error) {
    num_calls++;
    longest_call = steps > longest_call ? steps : longest_call;
    return mln_composed_plugin()->decode_greedy(context, sequences, ids, num_sequences, steps,
                                                out_ids, error);
}

static int open_models(void **state) {
    (void)state;
    checkpoint_spec spec = checkpoint_spec_default();
    directory = builder_write_spec(&spec);
    counting = *mln_composed_plugin();
    counting.max_fusion = MYELIN_FUSION_CHUNK;
    counting.decode_greedy = counted;
    mln_model_options slow = {.plugin = mln_composed_plugin(), .threads = 2};
    mln_model_options fast = {.plugin = &counting, .threads = 2};
    mln_model_options draws = {.plugin = drawing_plugin(VOCAB), .threads = 2};
    return mln_checkpoint_open(&checkpoint, directory, NULL) ||
           mln_model_load(&plain, checkpoint, &slow, NULL) ||
           mln_model_load(&chunked, checkpoint, &fast, NULL) ||
           mln_model_load(&drawn, checkpoint, &draws, NULL);
}

static int close_models(void **state) {
    (void)state;
    mln_model_free(plain);
    mln_model_free(chunked);
    mln_model_free(drawn);
    mln_checkpoint_free(checkpoint);
    temp_directory_remove(directory);
    return 0;
}

static mln_generation greedy(int32_t max_new_tokens, int32_t max_chunk) {
    return (mln_generation){.sampling = {.temperature = 1, .top_p = 1, .repetition_penalty = 1},
                            .max_new_tokens = max_new_tokens,
                            .max_chunk = max_chunk};
}

static mln_sequence *begin(const mln_model *model, int32_t seed, int32_t max_len,
                           const mln_generation *g) {
    int32_t ids[PROMPT];
    mln_sequence *s = NULL;
    for (int32_t i = 0; i < PROMPT; i++)
        ids[i] = (seed * 31 + i * 17 + i * i) % VOCAB;
    assert_int_equal(mln_sequence_create(&s, model, max_len, NULL), MYELIN_OK);
    assert_int_equal(mln_sequence_append(s, ids, PROMPT, NULL), MYELIN_OK);
    assert_int_equal(mln_sequence_begin(s, g, NULL), MYELIN_OK);
    return s;
}

static bool running(const mln_sequence *s) {
    return s->phase == MLN_READING || s->phase == MLN_GENERATING;
}

/* Steps all to their ends, or until `most` tokens are there of the first. */
static void run(const mln_model *model, mln_sequence **s, int32_t count, int32_t most) {
    mln_decoder *d = NULL;
    assert_int_equal(mln_decoder_create(&d, model, count, MAX_LEN, NULL), MYELIN_OK);
    for (bool more = true; more && s[0]->num_generated < most;) {
        int32_t before[8];
        more = false;
        for (int32_t i = 0; i < count; i++)
            before[i] = s[i]->num_generated;
        assert_int_equal(mln_decoder_step(d, s, count, NULL), MYELIN_OK);
        for (int32_t i = 0; i < count; i++) {
            assert_int_equal(s[i]->num_generated, before[i] + s[i]->fresh);
            more = more || running(s[i]);
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

static void check_one(const mln_generation *g, int32_t max_len) {
    mln_sequence *a = begin(plain, 1, max_len, g), *b = begin(chunked, 1, max_len, g);
    run(plain, &a, 1, INT32_MAX);
    run(chunked, &b, 1, INT32_MAX);
    assert_same(a, b);
    mln_sequence_free(a);
    mln_sequence_free(b);
}

static void any_chunk_gives_the_same_tokens(void **state) {
    (void)state;
    static const int32_t chunks[] = {0, 1, 2, 7, 31, MLN_MAX_CHUNK, 1000};
    for (size_t i = 0; i < sizeof chunks / sizeof *chunks; i++) {
        mln_generation g = greedy(TOKENS, chunks[i]);
        num_calls = longest_call = 0;
        check_one(&g, MAX_LEN);
        int length = chunks[i] < 1 ? 1 : chunks[i] > MLN_MAX_CHUNK ? MLN_MAX_CHUNK : chunks[i];
        assert_int_equal(longest_call, length);
        assert_int_equal(num_calls, (TOKENS - 1 + length - 1) / length);
        for (int32_t max_len = PROMPT; max_len < PROMPT + 40; max_len += 3)
            check_one(&g, max_len); /* the cache fills up within a chunk */
    }
}

static void a_stop_within_a_chunk_ends_there(void **state) {
    (void)state;
    mln_generation g = greedy(TOKENS, 31);
    mln_sequence *whole = begin(plain, 1, MAX_LEN, &g);
    run(plain, &whole, 1, INT32_MAX);
    for (int32_t at = 0; at < 40; at += 3) {
        g.stop_ids = &whole->ids[PROMPT + at];
        g.num_stop_ids = 1;
        check_one(&g, MAX_LEN);
    }
    mln_sequence_free(whole);
}

/* Logits, penalties, bias and sampling are the host's business. */
static void only_plain_argmaxes_are_chunked(void **state) {
    (void)state;
    const mln_bias bias = {3, 1.0f};
    mln_generation kinds[5];
    for (int i = 0; i < 5; i++)
        kinds[i] = greedy(20, 31);
    kinds[0].sampling.sampled = true;
    kinds[1].sampling.repetition_penalty = 1.2;
    kinds[2].sampling.frequency_penalty = 0.5;
    kinds[3].sampling.bias = &bias;
    kinds[3].sampling.num_bias = 1;
    kinds[4].want_logprobs = true;
    num_calls = 0;
    for (int i = 0; i < 5; i++)
        check_one(&kinds[i], MAX_LEN);
    assert_int_equal(num_calls, 0);
}

/* Ends and frees them; the i-th began from seed i. */
static void assert_like_solo_runs(const mln_model *model, mln_sequence **all,
                                  const mln_generation *g, int32_t count) {
    run(model, all, count, INT32_MAX);
    for (int32_t i = 0; i < count; i++) {
        mln_sequence *solo = begin(plain, i, MAX_LEN, &g[i]);
        run(plain, &solo, 1, INT32_MAX);
        assert_same(all[i], solo);
        mln_sequence_free(solo);
        mln_sequence_free(all[i]);
    }
}

static void sequences_together_equal_solo_runs(void **state) {
    (void)state;
    enum { COUNT = 5 };
    static const int32_t chunks[COUNT] = {31, 5, 31, 1, 12};
    for (int round = 0; round < 2; round++) { /* all alike, then one that is sampled among them */
        mln_sequence *all[COUNT];
        mln_generation g[COUNT];
        for (int32_t i = 0; i < COUNT; i++) {
            g[i] = greedy(20 + 9 * i, chunks[i]);
            g[i].sampling.sampled = round == 1 && i == 2;
            all[i] = begin(chunked, i, MAX_LEN, &g[i]);
        }
        assert_like_solo_runs(chunked, all, g, COUNT);
    }
}

/* Whatever is done to a sequence within a chunk forgets what was made beyond the tokens taken. */
static void interfering_within_a_chunk(void **state) {
    (void)state;
    static const int32_t forced[] = {11, 12, 13};
    const int32_t more[] = {4, 5};
    for (int32_t stop = 2; stop < 40; stop += 5) {
        for (int what = 0; what < 4; what++) {
            mln_generation g = greedy(TOKENS, 31);
            mln_sequence *s[2] = {begin(plain, 3, MAX_LEN, &g), begin(chunked, 3, MAX_LEN, &g)};
            for (int i = 0; i < 2; i++) {
                const mln_model *model = i ? chunked : plain;
                run(model, &s[i], 1, stop);
                if (what == 0)
                    mln_sequence_force(s[i], forced, 3);
                if (what == 1)
                    mln_sequence_truncate(s[i], PROMPT + stop / 2);
                if (what == 2)
                    assert_int_equal(mln_sequence_append(s[i], more, 2, NULL), MYELIN_OK);
                if (what > 0)
                    assert_int_equal(mln_sequence_begin(s[i], &g, NULL), MYELIN_OK);
                run(model, &s[i], 1, INT32_MAX);
            }
            assert_same(s[0], s[1]);
            mln_sequence_free(s[0]);
            mln_sequence_free(s[1]);
        }
    }
}

/* --- decode_sample() --- */

static mln_generation sampled(uint32_t i, int32_t max_chunk) {
    static const double temperatures[] = {0.6, 1, 1.5, 0.2}, top_ps[] = {1, 0.95, 0.4};
    mln_generation g = greedy(TOKENS, max_chunk);
    g.sampling.sampled = i % 7 != 6;
    g.sampling.temperature = temperatures[i % 4];
    g.sampling.top_k = (int32_t)(i * 7 % 30);
    g.sampling.top_p = top_ps[i % 3];
    g.sampling.min_p = i % 7 == 3 ? 0.1 : 0;
    g.sampling.seed = UINT64_C(0x9E3779B97F4A7C15) * (i + 1);
    return g;
}

static void draws_in_any_chunk_are_the_hosts(void **state) {
    (void)state;
    static const int32_t chunks[] = {1, 2, 7, 31, 1000};
    (void)drawing_plugin(VOCAB);
    for (uint32_t i = 0; i < 40; i++) {
        mln_generation g = sampled(i, chunks[i % 5]);
        mln_sequence *a = begin(plain, 1, MAX_LEN, &g), *b = begin(drawn, 1, MAX_LEN, &g);
        int before = drawing_plugin_calls().count;
        run(plain, &a, 1, INT32_MAX);
        run(drawn, &b, 1, INT32_MAX);
        assert_same(a, b);
        int length = chunks[i % 5] > MLN_MAX_CHUNK ? MLN_MAX_CHUNK : chunks[i % 5];
        int calls = g.sampling.sampled ? (TOKENS - 1 + length - 1) / length : 0;
        assert_int_equal(drawing_plugin_calls().count, before + calls);
        /* A stop within a chunk ends there. */
        g.stop_ids = &a->ids[PROMPT + 9];
        g.num_stop_ids = 1;
        mln_sequence *c = begin(plain, 1, MAX_LEN, &g), *d = begin(drawn, 1, MAX_LEN, &g);
        run(plain, &c, 1, INT32_MAX);
        run(drawn, &d, 1, INT32_MAX);
        assert_same(c, d);
        mln_sequence_free(a);
        mln_sequence_free(b);
        mln_sequence_free(c);
        mln_sequence_free(d);
    }
    assert_int_equal(drawing_plugin_calls().longest, MLN_MAX_CHUNK);
}

/* What needs the logits on the host, or what was said before, keeps all of a step there. */
static void what_needs_the_host_is_not_drawn_elsewhere(void **state) {
    (void)state;
    enum { KINDS = 6 };
    const mln_bias bias = {3, 1.0f};
    mln_generation kinds[KINDS];
    for (int i = 0; i < KINDS; i++)
        kinds[i] = sampled(1, 31);
    kinds[0].sampling.repetition_penalty = 1.2;
    kinds[1].sampling.frequency_penalty = 0.5;
    kinds[2].sampling.presence_penalty = 0.5;
    kinds[3].sampling.bias = &bias;
    kinds[3].sampling.num_bias = 1;
    kinds[4].want_logprobs = true;
    const uint32_t mask[(VOCAB + 31) / 32] = {0xf0f0f0f0, 0x12345678, 0xffff};
    (void)drawing_plugin(VOCAB);
    for (int i = 0; i < KINDS; i++) {
        mln_sequence *s[2] = {begin(plain, 2, MAX_LEN, &kinds[i]),
                              begin(drawn, 2, MAX_LEN, &kinds[i])};
        for (int k = 0; k < 2; k++) {
            mln_decoder *d = NULL;
            const mln_model *model = k ? drawn : plain;
            assert_int_equal(mln_decoder_create(&d, model, 1, MAX_LEN, NULL), MYELIN_OK);
            while (running(s[k])) {
                if (i == 5)
                    mln_sequence_allow(s[k], mask);
                assert_int_equal(mln_decoder_step(d, &s[k], 1, NULL), MYELIN_OK);
            }
            mln_decoder_free(d);
        }
        assert_same(s[0], s[1]);
        mln_sequence_free(s[0]);
        mln_sequence_free(s[1]);
    }
    assert_int_equal(drawing_plugin_calls().count, 0);
}

static void draws_together_equal_solo_runs(void **state) {
    (void)state;
    enum { COUNT = 6 };
    (void)drawing_plugin(VOCAB);
    for (uint32_t round = 0; round < 4; round++) {
        mln_sequence *all[COUNT];
        mln_generation g[COUNT];
        for (int32_t i = 0; i < COUNT; i++) { /* some greedy; in the last round one for the host */
            g[i] = sampled((uint32_t)i + 7 * round, 5 + 6 * i);
            g[i].max_new_tokens = 10 + 9 * i;
            if (round == 3 && i == 2)
                g[i].sampling.presence_penalty = 1;
            all[i] = begin(drawn, i, MAX_LEN, &g[i]);
        }
        assert_like_solo_runs(drawn, all, g, COUNT);
    }
    assert_true(drawing_plugin_calls().count > 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_chunk_gives_the_same_tokens),
        cmocka_unit_test(a_stop_within_a_chunk_ends_there),
        cmocka_unit_test(only_plain_argmaxes_are_chunked),
        cmocka_unit_test(sequences_together_equal_solo_runs),
        cmocka_unit_test(interfering_within_a_chunk),
        cmocka_unit_test(draws_in_any_chunk_are_the_hosts),
        cmocka_unit_test(what_needs_the_host_is_not_drawn_elsewhere),
        cmocka_unit_test(draws_together_equal_solo_runs),
    };
    return cmocka_run_group_tests(tests, open_models, close_models);
}
