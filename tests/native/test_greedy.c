/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Chunks of greedy tokens of one sequence, which the top rung may compute otherwise than the one
 * below: the same ids and, seen through the logits after them, the same keys and values to the last
 * bit, in plain sequences and in pages.
 */
#include <stdlib.h>
#include <string.h>

#include "model/harness.h"
#include "native/native.h"
#include "support/checkpoint_builder.h"
#include "support/temp_directory.h"

enum { MAX_PROMPT = 1250, MAX_STEPS = 320, MAX_LEN = MAX_PROMPT + MAX_STEPS, PAGES = 32 };

static const myelin_plugin *tested;

typedef struct greedy_case {
    checkpoint_spec spec;
    int32_t prompt, steps;
} greedy_case;

/* What a decoding leaves: its ids, and the logits of the token after them. */
typedef struct outcome {
    int32_t ids[MAX_STEPS];
    float *logits;
} outcome;

/* Calls of as many steps as `calls` says in turn. */
static outcome decode(const harness *h, myelin_plugin_sequence *sequence, const int32_t *prompt,
                      const greedy_case *c, const int32_t calls[3]) {
    outcome found = {.logits = calloc((size_t)h->vocab, sizeof *found.logits)};
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    myelin_plugin_context *context = harness_context(h, 64, MAX_LEN);
    harness_append(h, context, sequence, prompt, c->prompt - 1, 64, NULL);
    int32_t id = prompt[c->prompt - 1];
    for (int32_t done = 0, turn = 0; done < c->steps; turn++) {
        int32_t count = calls[turn % 3] < c->steps - done ? calls[turn % 3] : c->steps - done;
        if (h->plugin->decode_greedy(context, &sequence, &id, 1, count, found.ids + done, &error) !=
            MYELIN_OK)
            fail_msg("%s", text);
        done += count;
        id = found.ids[done - 1];
    }
    harness_append(h, context, sequence, &id, 1, 1, found.logits);
    h->plugin->free_context(context);
    return found;
}

static void check_same(const harness *h, const greedy_case *c, outcome *expected, outcome found) {
    assert_memory_equal(expected->ids, found.ids, (size_t)c->steps * sizeof *found.ids);
    assert_same_floats(expected->logits, found.logits, (size_t)h->vocab);
    free(found.logits);
}

static void check_plain(const harness *h, const int32_t *prompt, const greedy_case *c,
                        outcome *expected) {
    static const int32_t calls[][3] = {{1, 1, 1}, {7, 64, 2}, {MAX_STEPS, 1, 1}};
    for (int i = 0; i < 3; i++) {
        myelin_plugin_sequence *sequence = harness_sequence(h, MAX_LEN - i);
        check_same(h, c, expected, decode(h, sequence, prompt, c, calls[i]));
        h->plugin->free_sequence(sequence);
    }
}

static void check_pages(const harness *h, const int32_t *prompt, const greedy_case *c,
                        outcome *expected) {
    int32_t pages[PAGES], calls[3] = {31, 5, 100};
    for (int32_t i = 0; i < PAGES; i++)
        pages[i] = (i * 13 + 5) % PAGES;
    myelin_plugin_pool *pool = harness_pool(h, PAGES);
    myelin_plugin_sequence *sequence = harness_paged_sequence(h, pool, MAX_LEN);
    int32_t used = (c->prompt + c->steps + MYELIN_PAGE_POSITIONS) / MYELIN_PAGE_POSITIONS;
    h->plugin->set_pages(sequence, pages, used, 0);
    check_same(h, c, expected, decode(h, sequence, prompt, c, calls));
    h->plugin->free_sequence(sequence);
    h->plugin->free_pool(pool);
}

static void check_case(const greedy_case *c) {
    static const int32_t calls[3] = {32, 32, 32};
    char *directory = builder_write_spec(&c->spec);
    harness below =
        harness_open_with(tested, MYELIN_FUSION_GREEDY, directory, 2, MYELIN_DTYPE_AUTO);
    harness top = harness_open_with(tested, MYELIN_FUSION_CHUNK, directory, 2, MYELIN_DTYPE_AUTO);
    int32_t *prompt = random_ids(c->prompt, below.vocab, 11);
    myelin_plugin_sequence *sequence = harness_sequence(&below, MAX_LEN);
    outcome expected = decode(&below, sequence, prompt, c, calls);
    tested->free_sequence(sequence);
    check_plain(&top, prompt, c, &expected);
    if (tested->create_pool)
        check_pages(&top, prompt, c, &expected);
    free(expected.logits);
    free(prompt);
    harness_close(&below);
    harness_close(&top);
    temp_directory_remove(directory);
}

/* The published head size, in several ratios of heads, with every kind of weight. */
static checkpoint_spec spec_of(int heads, int kv_heads, const char *dtype, int bits, int group) {
    return (checkpoint_spec){.vocab = 90,
                             .hidden = 64,
                             .intermediate = 96,
                             .layers = 2,
                             .heads = heads,
                             .kv_heads = kv_heads,
                             .head_dim = 128,
                             .tie = heads != 8,
                             .dtype = dtype,
                             .bits = bits,
                             .group_size = group,
                             .shards = 1,
                             .seed = (uint64_t)(heads + bits)};
}

/* From the first position on, into a fifth split. */
static void kinds(void **state) {
    (void)state;
    const checkpoint_spec specs[] = {
        spec_of(4, 2, "BF16", 0, 0),  spec_of(8, 1, "F16", 0, 0),   spec_of(3, 3, "BF16", 0, 0),
        spec_of(16, 1, "F16", 4, 32), spec_of(4, 2, "BF16", 4, 64), spec_of(5, 1, "F16", 8, 32),
        spec_of(8, 2, "BF16", 8, 64),
    };
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        greedy_case c = {specs[i], 1, i == 0 || i == 4 ? 300 : 70};
        if (c.spec.bits)
            c.spec.intermediate = 128;
        check_case(&c);
    }
}

/* Rows that no unit divides, and layers with other weights than the head. */
static void odd(void **state) {
    (void)state;
    greedy_case c = {spec_of(6, 2, "BF16", 0, 0), 60, 12};
    c.spec.hidden = 76;
    c.spec.intermediate = 100;
    c.spec.vocab = 83;
    check_case(&c);
    c.spec = spec_of(4, 2, "BF16", 4, 64);
    c.spec.intermediate = 128;
    c.spec.dense_embedding = true;
    check_case(&c);
}

/* More tiles than blocks, rows longer than a slot. */
static void wide(void **state) {
    (void)state;
    if (is_sanitized())
        skip();
    for (int bits = 0; bits <= 4; bits += 4) {
        greedy_case c = {spec_of(8, 4, "BF16", bits, 64), 40, 30};
        c.spec.hidden = 640;
        c.spec.intermediate = 7168;
        c.spec.vocab = 30000;
        c.spec.layers = 1;
        check_case(&c);
    }
}

/* Rows of published lengths, whose parts are a few units. */
static void published(void **state) {
    (void)state;
    if (is_sanitized())
        skip();
    const checkpoint_spec specs[] = {spec_of(16, 8, "BF16", 0, 0), spec_of(16, 8, "BF16", 4, 64),
                                     spec_of(16, 8, "F16", 4, 32), spec_of(16, 8, "BF16", 8, 64)};
    for (size_t i = 0; i < sizeof specs / sizeof *specs; i++) {
        greedy_case c = {specs[i], 1, 100};
        c.spec.hidden = 1024;
        c.spec.intermediate = 3072;
        check_case(&c);
    }
}

/* A shape for which the CUDA plug-in has a kernel of its own: heads of a few tiles a block, into a
 * seventh split. */
static void known(void **state) {
    (void)state;
    if (is_sanitized())
        skip();
    greedy_case c = {spec_of(16, 8, "BF16", 4, 64), 1, 200};
    c.spec.hidden = 1024;
    c.spec.intermediate = 3072;
    c.spec.layers = 3;
    c.spec.vocab = 9001;
    check_case(&c);
    c.prompt = 300;
    c.steps = 100;
    c.spec.vocab = 20000;
    check_case(&c);
}

/* More splits than blocks. */
static void far(void **state) {
    (void)state;
    if (is_sanitized())
        skip();
    greedy_case c = {spec_of(8, 8, "BF16", 0, 0), MAX_PROMPT, 40};
    c.spec.layers = 1;
    check_case(&c);
}

/* usage: test_native_greedy [KERNELS|PLUGIN], the best of this processor when not named */
int main(int argc, char **argv) {
    tested = argc > 1 ? harness_plugin(argv[1]) : mln_native_plugin();
    if (!tested || !tested->decode_greedy)
        return 77; /* this processor has no such kernels */
    const struct CMUnitTest tests[] = {cmocka_unit_test(kinds), cmocka_unit_test(odd),
                                       cmocka_unit_test(wide),  cmocka_unit_test(published),
                                       cmocka_unit_test(known), cmocka_unit_test(far)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
