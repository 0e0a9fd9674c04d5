/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Attention of so many tokens at once that the NVIDIA plug-in takes them by the piece
 * (attend_pieces.cu): the bits of a few tokens at a time, and of one sequence alone, in plain
 * sequences and in pages. Whether there are enough is the plug-in's own rule.
 */
#include <stdlib.h>
#include <string.h>

#include "model/harness.h"
#include "native/native.h"
#include "qwen3_cuda/pieces.h"
#include "support/checkpoint_builder.h"
#include "support/temp_directory.h"

enum { VOCAB = 90, FEW = 7, STEPS = 3, MAX_LEN = 512, PAGE = MYELIN_PAGE_POSITIONS };

static const myelin_plugin *tested;
static size_t num_shapes = 1; /* of those below; all of them with a plug-in that is given */

typedef struct shape {
    int32_t heads, kv_heads;
} shape;

/* Query heads that fill a product's 16 rows, and that do not; the last are too many for
 * mln_groups_convert(). */
static const shape shapes[] = {{64, 32}, {32, 32}, {96, 32}, {128, 8}, {112, 16}, {208, 26}};

static harness open_shape(shape s, char **directory) {
    checkpoint_spec spec = checkpoint_spec_default();
    spec.vocab = VOCAB;
    spec.layers = 2;
    spec.heads = s.heads;
    spec.kv_heads = s.kv_heads;
    spec.head_dim = 128;
    spec.dtype = "BF16";
    *directory = builder_write_spec(&spec);
    return harness_open_with(tested, MYELIN_FUSION_AUTO, *directory, 2, MYELIN_DTYPE_AUTO);
}

static void with_each_shape(void (*check)(const harness *h, shape s)) {
    if (is_sanitized())
        skip();
    for (size_t i = 0; i < num_shapes; i++) {
        char *directory;
        harness h = open_shape(shapes[i], &directory);
        check(&h, shapes[i]);
        harness_close(&h);
        temp_directory_remove(directory);
    }
}

static int32_t splits_of(int32_t positions) {
    return (positions + PAGE - 1) / PAGE;
}

/* Whether `count` neighbouring tokens up to `length` positions are taken by the piece. */
static bool suffice(shape s, int32_t count, int32_t length) {
    int32_t most = mln_piece_tokens(s.heads, s.kv_heads);
    return mln_pieces_suffice(s.kv_heads, count, (count + most - 1) / most, splits_of(length));
}

/* The least number of tokens that suffice, and some more that fill no piece. */
static int32_t enough(shape s) {
    int32_t count = 1;
    while (!suffice(s, count, MAX_LEN))
        count++;
    return count + 5;
}

/* A sequence, in pages of `pool` from `first` on in descending order when there is one. */
static myelin_plugin_sequence *make_sequence(const harness *h, myelin_plugin_pool *pool,
                                             int32_t first, int32_t max_len) {
    if (!pool)
        return harness_sequence(h, max_len);
    myelin_plugin_sequence *sequence = harness_paged_sequence(h, pool, max_len);
    int32_t pages[MAX_LEN / PAGE], count = splits_of(max_len);
    for (int32_t i = 0; i < count; i++)
        pages[i] = first + count - 1 - i;
    tested->set_pages(sequence, pages, count, 0);
    return sequence;
}

/* --- prompts --- */

/* The logits of a prompt whose first `before` tokens are there; in calls of `chunk` tokens. */
static void read_prompt(const harness *h, myelin_plugin_pool *pool, const int32_t *ids,
                        int32_t before, int32_t count, int32_t chunk, float *logits) {
    myelin_plugin_context *context = harness_context(h, count, MAX_LEN);
    myelin_plugin_sequence *sequence = make_sequence(h, pool, 0, before + count);
    if (before > 0)
        harness_append(h, context, sequence, ids, before, FEW, NULL);
    harness_append(h, context, sequence, ids + before, count, chunk, logits);
    tested->free_sequence(sequence);
    tested->free_context(context);
}

/* A few tokens at a time against all at once, plain and in pages. */
static void check_prompt(const harness *h, shape s, int32_t before) {
    int32_t count = enough(s), length = before + count;
    assert_true(length <= MAX_LEN && suffice(s, count, length) && !suffice(s, FEW, length));
    size_t values = (size_t)count * VOCAB;
    int32_t *ids = random_ids(length, VOCAB, 21);
    float *expected = malloc(values * sizeof *expected), *found = malloc(values * sizeof *found);
    assert_true(expected && found);
    read_prompt(h, NULL, ids, before, count, FEW, expected);
    read_prompt(h, NULL, ids, before, count, count, found);
    assert_same_floats(expected, found, values);
    if (tested->create_pool) {
        myelin_plugin_pool *pool = harness_pool(h, splits_of(length));
        memset(found, 0, values * sizeof *found);
        read_prompt(h, pool, ids, before, count, count, found);
        assert_same_floats(expected, found, values);
        tested->free_pool(pool);
    }
    free(found);
    free(expected);
    free(ids);
}

static void check_prompts(const harness *h, shape s) {
    check_prompt(h, s, 0);
    check_prompt(h, s, 61); /* not from a split's first position on */
}

static void prompts(void **state) {
    (void)state;
    with_each_shape(check_prompts);
}

/* --- sequences side by side --- */

enum { MOST_SEQUENCES = 64 };

/* Sequence i has read so many tokens before; the longest are in their fifth split. */
static int32_t length_of(int32_t i) {
    return 1 + i * 37 % 270;
}

static void read_each(const harness *h, myelin_plugin_context *context,
                      myelin_plugin_sequence **sequences, const int32_t *ids, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        tested->truncate_sequence(sequences[i], 0);
        harness_append(h, context, sequences[i], ids + i, length_of(i), FEW, NULL);
    }
}

/* One token of each: logits[count, VOCAB]; then STEPS greedy ones. */
static void decode(myelin_plugin_context *context, myelin_plugin_sequence **sequences,
                   const int32_t *ids, int32_t count, float *logits, int32_t *out) {
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    myelin_span spans[MOST_SEQUENCES];
    for (int32_t i = 0; i < count; i++)
        spans[i] = (myelin_span){sequences[i], ids + i, 1, 1, logits + i * VOCAB};
    if (tested->forward(context, spans, count, &error) != MYELIN_OK)
        fail_msg("%s", text);
    if (tested->decode_greedy &&
        tested->decode_greedy(context, sequences, ids, count, STEPS, out, &error) != MYELIN_OK)
        fail_msg("%s", text);
}

static void compare_with_alone(const harness *h, shape s, bool paged) {
    int32_t count = 1, pages = splits_of(MAX_LEN);
    while (!mln_pieces_suffice(s.kv_heads, count, count, pages))
        count++;
    assert_true(count > 1 && count <= MOST_SEQUENCES);
    float together[MOST_SEQUENCES * VOCAB], alone[VOCAB];
    int32_t found[MOST_SEQUENCES * STEPS] = {0}, expected[STEPS] = {0};
    int32_t *ids = random_ids(MAX_LEN + count, VOCAB, 4);
    myelin_plugin_context *context = harness_context(h, count, MAX_LEN);
    myelin_plugin_pool *pool = paged ? harness_pool(h, count * pages) : NULL;
    myelin_plugin_sequence *sequences[MOST_SEQUENCES];
    for (int32_t i = 0; i < count; i++)
        sequences[i] = make_sequence(h, pool, i * pages, MAX_LEN);
    read_each(h, context, sequences, ids, count);
    decode(context, sequences, ids, count, together, found);
    read_each(h, context, sequences, ids, count);
    for (int32_t i = 0; i < count; i++) {
        decode(context, sequences + i, ids + i, 1, alone, expected);
        assert_same_floats(alone, together + i * VOCAB, VOCAB);
        assert_memory_equal(expected, found + i * STEPS, sizeof expected);
    }
    for (int32_t i = 0; i < count; i++)
        tested->free_sequence(sequences[i]);
    if (pool)
        tested->free_pool(pool);
    tested->free_context(context);
    free(ids);
}

static void check_side_by_side(const harness *h, shape s) {
    compare_with_alone(h, s, false);
    if (tested->create_pool)
        compare_with_alone(h, s, true);
}

static void side_by_side(void **state) {
    (void)state;
    with_each_shape(check_side_by_side);
}

/* usage: test_native_pieces [KERNELS|PLUGIN], the best of this processor when not named */
int main(int argc, char **argv) {
    tested = argc > 1 ? harness_plugin(argv[1]) : mln_native_plugin();
    if (!tested)
        return 77; /* this processor has no such kernels */
    if (argc > 1)
        num_shapes = sizeof shapes / sizeof *shapes;
    const struct CMUnitTest tests[] = {cmocka_unit_test(prompts), cmocka_unit_test(side_by_side)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
