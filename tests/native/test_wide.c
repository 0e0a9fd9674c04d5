/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Wide layers, many sequences and long ones, for which work is cut otherwise: the bits of one token
 * at a time, of one sequence alone, of a prompt.
 */
#include <stdlib.h>
#include <string.h>

#include "model/harness.h"
#include "native/native.h"
#include "support/checkpoint_builder.h"
#include "support/temp_directory.h"

enum { TOKENS = 100, SEQUENCES = 40, STEPS = 6, MAX_LEN = 128 };

static const myelin_plugin *tested;

/* Layers and a vocabulary of many rows, in bfloat16 or codes. */
static harness open_wide(char **directory, int32_t vocab, int32_t bits) {
    checkpoint_spec spec = checkpoint_spec_default();
    spec.vocab = vocab;
    spec.hidden = 64;
    spec.intermediate = 7168;
    spec.layers = 1;
    spec.heads = 4;
    spec.kv_heads = 2;
    spec.head_dim = 128;
    spec.dtype = "BF16";
    spec.bits = bits;
    spec.group_size = 64;
    *directory = builder_write_spec(&spec);
    return harness_open_with(tested, MYELIN_FUSION_AUTO, *directory, 2, MYELIN_DTYPE_AUTO);
}

static void close_wide(harness *h, char *directory) {
    harness_close(h);
    temp_directory_remove(directory);
}

/* The same logits[tokens] when they are read so many at a time; found has room for them. */
static void check_chunk(harness *h, const int32_t *ids, int32_t tokens, int32_t max_len,
                        int32_t chunk, const float *expected, float *found) {
    myelin_plugin_context *context = harness_context(h, tokens, max_len);
    myelin_plugin_sequence *sequence = harness_sequence(h, tokens);
    harness_append(h, context, sequence, ids, tokens, chunk, found);
    assert_same_floats(expected, found, (size_t)tokens * (size_t)h->vocab);
    tested->free_sequence(sequence);
    tested->free_context(context);
}

static void check_chunks(int32_t bits) {
    char *directory;
    harness h = open_wide(&directory, 90, bits);
    int32_t *ids = random_ids(TOKENS, h.vocab, 3);
    float *expected = harness_logits(&h, ids, TOKENS);
    float *found = malloc((size_t)TOKENS * (size_t)h.vocab * sizeof *found);
    const int32_t chunks[] = {1, 5, 12, 30, 64};
    for (int i = 0; i < 5; i++)
        check_chunk(&h, ids, TOKENS, MAX_LEN, chunks[i], expected, found);
    free(found);
    free(expected);
    free(ids);
    close_wide(&h, directory);
}

static void chunks_of_dense(void **state) {
    (void)state;
    check_chunks(0);
}

static void chunks_of_4_bits(void **state) {
    (void)state;
    check_chunks(4);
}

/* Prompts whose products a GPU cuts into its largest blocks. */
static const struct {
    int32_t hidden, intermediate, heads, kv_heads, tokens;
} prompts[] = {
    {512, 7168, 4, 2, 190}, /* gate_proj and up_proj in blocks of 192 tokens */
    {256, 2048, 32, 8, 250},
};

static void prompts_in_large_blocks(void **state) {
    (void)state;
    for (int i = 0; i < 2; i++) {
        checkpoint_spec spec = checkpoint_spec_default();
        spec.hidden = prompts[i].hidden;
        spec.intermediate = prompts[i].intermediate;
        spec.layers = 2;
        spec.heads = prompts[i].heads;
        spec.kv_heads = prompts[i].kv_heads;
        spec.head_dim = 128;
        spec.dtype = "BF16";
        char *directory = builder_write_spec(&spec);
        harness h = harness_open_with(tested, MYELIN_FUSION_AUTO, directory, 2, MYELIN_DTYPE_AUTO);
        int32_t tokens = prompts[i].tokens;
        size_t count = (size_t)tokens * (size_t)h.vocab;
        int32_t *ids = random_ids(tokens, h.vocab, 6);
        float *expected = harness_logits(&h, ids, tokens), *found = malloc(count * sizeof *found);
        check_chunk(&h, ids, tokens, tokens, 30, expected, found);
        free(found);
        free(expected);
        free(ids);
        close_wide(&h, directory);
    }
}

/* A long sequence and a short one, a token each in a call: splits of both are shared out. */
static void long_contexts(void **state) {
    enum { LONG = 1300, LAST = 6 };
    (void)state;
    char *directory;
    harness h = open_wide(&directory, 90, 0);
    const myelin_plugin *plugin = h.plugin;
    size_t vocab = (size_t)h.vocab;
    int32_t *ids = random_ids(LONG, h.vocab, 4);
    float *expected = harness_logits(&h, ids, LONG);
    float *found = malloc(2 * vocab * sizeof *found);
    myelin_plugin_context *context = harness_context(&h, 64, LONG);
    myelin_span spans[2];
    const int32_t starts[] = {LONG - LAST, 250};
    for (int i = 0; i < 2; i++) {
        spans[i] = (myelin_span){.sequence = harness_sequence(&h, LONG),
                                 .count = 1,
                                 .num_logits = 1,
                                 .logits = found + (size_t)i * vocab};
        harness_append(&h, context, spans[i].sequence, ids, starts[i], 64, NULL);
    }
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    for (int32_t t = 0; t < LAST; t++) {
        for (int i = 0; i < 2; i++)
            spans[i].ids = ids + starts[i] + t;
        assert_int_equal(plugin->forward(context, spans, t < LAST / 2 ? 1 : 2, &error), MYELIN_OK);
        assert_same_floats(expected + (size_t)(starts[0] + t) * vocab, found, vocab);
        if (t == LAST / 2 - 1) /* the short one catches up */
            harness_append(&h, context, spans[1].sequence, ids + starts[1], LAST / 2, 1, NULL);
        if (t >= LAST / 2)
            assert_same_floats(expected + (size_t)(starts[1] + t) * vocab, found + vocab, vocab);
    }
    for (int i = 0; i < 2; i++)
        plugin->free_sequence(spans[i].sequence);
    plugin->free_context(context);
    free(found);
    free(expected);
    free(ids);
    close_wide(&h, directory);
}

static void decode(const harness *h, myelin_plugin_context *context,
                   myelin_plugin_sequence **sequences, const int32_t *ids, int32_t count,
                   int32_t *found) {
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    for (int32_t i = 0; i < count; i++)
        h->plugin->truncate_sequence(sequences[i], 0);
    if (h->plugin->decode_greedy(context, sequences, ids, count, STEPS, found, &error) != MYELIN_OK)
        fail_msg("%s", text);
}

static void check_greedy(int32_t vocab) {
    char *directory;
    harness h = open_wide(&directory, vocab, 0);
    int32_t *ids = random_ids(SEQUENCES, h.vocab, 5), alone[STEPS], together[SEQUENCES * STEPS];
    myelin_plugin_context *context = harness_context(&h, SEQUENCES, MAX_LEN);
    myelin_plugin_sequence *sequences[SEQUENCES];
    for (int32_t i = 0; i < SEQUENCES; i++)
        sequences[i] = harness_sequence(&h, STEPS);
    decode(&h, context, sequences, ids, SEQUENCES, together);
    for (int32_t i = 0; i < SEQUENCES; i++) {
        decode(&h, context, sequences + i, ids + i, 1, alone);
        assert_memory_equal(together + i * STEPS, alone, sizeof alone);
    }
    for (int32_t i = 0; i < SEQUENCES; i++)
        tested->free_sequence(sequences[i]);
    tested->free_context(context);
    free(ids);
    close_wide(&h, directory);
}

static void greedy(void **state) {
    (void)state;
    if (!tested->decode_greedy)
        skip();
    check_greedy(90);
    check_greedy(30000);
}

/* --- a token each of sequences of different lengths --- */

enum { LONGEST = 200, PAGES_EACH = 4, AFTER = 3 };

/* Around the ends of pages, and anything. */
static int32_t length_of(int32_t i) {
    static const int32_t ends[] = {1, 62, 63, 64, 65, 126, 127, 128, 129};
    return i < 9 ? ends[i] : 1 + 37 * i % (LONGEST - AFTER);
}

static harness open_many_heads(char **directory) {
    checkpoint_spec spec = checkpoint_spec_default();
    spec.hidden = 64;
    spec.intermediate = 128;
    spec.layers = 2;
    spec.heads = 16;
    spec.kv_heads = 8;
    spec.head_dim = 128;
    spec.dtype = "BF16";
    *directory = builder_write_spec(&spec);
    return harness_open_with(tested, MYELIN_FUSION_AUTO, *directory, 2, MYELIN_DTYPE_AUTO);
}

/* With a pool, one whose pages lie apart and in falling order. */
static myelin_plugin_sequence *make_one(const harness *h, myelin_plugin_pool *pool, int32_t i) {
    if (!pool)
        return harness_sequence(h, LONGEST);
    myelin_plugin_sequence *sequence = harness_paged_sequence(h, pool, LONGEST);
    int32_t pages[PAGES_EACH];
    for (int32_t k = 0; k < PAGES_EACH; k++)
        pages[k] = (PAGES_EACH - 1 - k) * SEQUENCES + i;
    tested->set_pages(sequence, pages, PAGES_EACH, 0);
    return sequence;
}

static void check_steps(const harness *h, myelin_plugin_pool *pool) {
    myelin_plugin_context *context = harness_context(h, SEQUENCES, MAX_LEN + LONGEST);
    myelin_plugin_sequence *sequences[SEQUENCES];
    int32_t *ids[SEQUENCES];
    size_t row = (size_t)h->vocab;
    float *expected[SEQUENCES], *found = malloc(SEQUENCES * row * sizeof *found);
    for (int32_t i = 0; i < SEQUENCES; i++) {
        int32_t length = length_of(i);
        ids[i] = random_ids(length + AFTER, h->vocab, 11 + (uint32_t)i);
        expected[i] = harness_logits(h, ids[i], length + AFTER);
        sequences[i] = make_one(h, pool, i);
        harness_append(h, context, sequences[i], ids[i], length, SEQUENCES, NULL);
    }
    for (int32_t step = 0; step < AFTER; step++) {
        myelin_span spans[SEQUENCES];
        char text[256] = "";
        myelin_error_buffer error = {text, sizeof text};
        for (int32_t i = 0; i < SEQUENCES; i++)
            spans[i] = (myelin_span){.sequence = sequences[i],
                                     .ids = ids[i] + length_of(i) + step,
                                     .count = 1,
                                     .num_logits = 1,
                                     .logits = found + (size_t)i * row};
        if (tested->forward(context, spans, SEQUENCES, &error) != MYELIN_OK)
            fail_msg("%s", text);
        for (int32_t i = 0; i < SEQUENCES; i++)
            assert_same_floats(expected[i] + (size_t)(length_of(i) + step) * row,
                               found + (size_t)i * row, row);
    }
    for (int32_t i = 0; i < SEQUENCES; i++) {
        tested->free_sequence(sequences[i]);
        free(ids[i]);
        free(expected[i]);
    }
    free(found);
    tested->free_context(context);
}

static void steps_of_many(void **state) {
    (void)state;
    char *directory;
    harness h = open_many_heads(&directory);
    check_steps(&h, NULL);
    if (tested->create_pool) {
        myelin_plugin_pool *pool = harness_pool(&h, PAGES_EACH * SEQUENCES);
        check_steps(&h, pool);
        tested->free_pool(pool);
    }
    close_wide(&h, directory);
}

/* usage: test_native_wide [KERNELS|PLUGIN], the best of this processor when not named */
int main(int argc, char **argv) {
    tested = argc > 1 ? harness_plugin(argv[1]) : mln_native_plugin();
    if (!tested)
        return 77; /* this processor has no such kernels */
    const struct CMUnitTest tests[] = {cmocka_unit_test(chunks_of_dense),
                                       cmocka_unit_test(chunks_of_4_bits),
                                       cmocka_unit_test(prompts_in_large_blocks),
                                       cmocka_unit_test(long_contexts),
                                       cmocka_unit_test(greedy),
                                       cmocka_unit_test(steps_of_many)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
