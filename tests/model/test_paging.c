/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Sequences in pages of a pool give the bits of sequences that have their memory to themselves,
 * whatever the pages and whoever shares them. forward_hidden(), which works on both.
 */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "model/composed_internal.h"
#include "model/harness.h"
#include "support/checkpoint_builder.h"
#include "support/temp_directory.h"
#include "tensor/ops.h"

/* Two splits of the native kernels and a bit, the last of six pages begun. */
enum { PAGE = MYELIN_PAGE_POSITIONS, TOKENS = 5 * PAGE + 10, PAGES = 9, MAX_LEN = 6 * PAGE };

/* What is tested: the composed plug-in, or what the command line names. */
static const char *model_directory = MYELIN_TEST_DATA "/models/untied-f16";
static const myelin_plugin *tested;
static bool built_in = true; /* refuses what the host should have checked */

static const int32_t shuffled[] = {5, 0, 7, 2, 8, 1};

typedef struct fixture {
    harness h;
    int32_t *ids, *others;
    float *logits; /* [TOKENS, vocab] of ids in a plain sequence */
    myelin_plugin_pool *pool;
    myelin_plugin_context *context;
    float *found; /* [TOKENS, vocab] */
} fixture;

/* Every page of the pool filled with what none of the tests wants to see. */
static void soil(fixture *f) {
    int32_t pages[PAGES];
    for (int32_t i = 0; i < PAGES; i++)
        pages[i] = i;
    myelin_plugin_sequence *sequence = harness_paged_sequence(&f->h, f->pool, PAGES * PAGE);
    myelin_plugin_context *context = harness_context(&f->h, PAGE, PAGES * PAGE);
    int32_t *ids = random_ids(PAGES * PAGE, f->h.vocab, 77);
    tested->set_pages(sequence, pages, PAGES, 0);
    harness_append(&f->h, context, sequence, ids, PAGES * PAGE, PAGE, NULL);
    free(ids);
    tested->free_context(context);
    tested->free_sequence(sequence);
}

static int set_up(void **state) {
    fixture *f = malloc(sizeof *f);
    f->h = harness_open_with(tested, MYELIN_FUSION_AUTO, model_directory, 2, MYELIN_DTYPE_AUTO);
    f->ids = random_ids(TOKENS, f->h.vocab, 1);
    f->others = random_ids(TOKENS, f->h.vocab, 2);
    f->logits = harness_logits(&f->h, f->ids, TOKENS);
    f->found = malloc((size_t)TOKENS * (size_t)f->h.vocab * sizeof(float));
    f->pool = harness_pool(&f->h, PAGES);
    f->context = harness_context(&f->h, TOKENS, MAX_LEN);
    soil(f);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    tested->free_context(f->context);
    tested->free_pool(f->pool);
    harness_close(&f->h);
    free(f->ids);
    free(f->others);
    free(f->logits);
    free(f->found);
    free(f);
    return 0;
}

static myelin_plugin_sequence *paged(const fixture *f) {
    return harness_paged_sequence(&f->h, f->pool, MAX_LEN);
}

/* Appends ids[count] as harness_append() does, in pages that the sequence is given as it grows. */
static void append(const fixture *f, myelin_plugin_sequence *sequence, const int32_t *pages,
                   const int32_t *ids, int32_t count, int32_t chunk, float *logits) {
    for (int32_t at = 0; at < count; at += chunk) {
        int32_t length = tested->sequence_length(sequence);
        int32_t n = count - at < chunk ? count - at : chunk;
        tested->set_pages(sequence, pages, (length + n + PAGE - 1) / PAGE, length);
        assert_int_equal(tested->sequence_length(sequence), length);
        harness_append(&f->h, f->context, sequence, ids + at, n, n,
                       logits ? logits + (int64_t)at * f->h.vocab : NULL);
    }
}

/* Logits `first` to TOKENS - 1 of found are those of the plain sequence. */
static void check_from(const fixture *f, int32_t first) {
    size_t vocab = (size_t)f->h.vocab, at = (size_t)first * vocab;
    assert_same_floats(f->logits + at, f->found + at, (size_t)(TOKENS - first) * vocab);
}

static void any_pages(void **state) {
    fixture *f = *state;
    static const int32_t tables[][6] = {{0, 1, 2, 3, 4, 5}, {8, 7, 6, 5, 4, 3}, {5, 0, 7, 2, 8, 1}};
    const int32_t chunks[] = {1, 7, 31, PAGE, 100, TOKENS};
    for (size_t t = 0; t < 3; t++)
        for (size_t c = 0; c < 6; c++) {
            myelin_plugin_sequence *sequence = paged(f);
            assert_int_equal(tested->sequence_length(sequence), 0);
            append(f, sequence, tables[t], f->ids, TOKENS, chunks[c], f->found);
            assert_int_equal(tested->sequence_length(sequence), TOKENS);
            check_from(f, 0);
            tested->free_sequence(sequence);
        }
}

/* A long prompt in odd pieces, then a token at a time. */
static void prefill_and_decode(void **state) {
    fixture *f = *state;
    enum { PROMPT = 4 * PAGE - 3 };
    myelin_plugin_sequence *sequence = paged(f);
    append(f, sequence, shuffled, f->ids, PROMPT, 53, f->found);
    append(f, sequence, shuffled, f->ids + PROMPT, TOKENS - PROMPT, 1,
           f->found + (int64_t)PROMPT * f->h.vocab);
    check_from(f, 0);
    tested->free_sequence(sequence);
}

static void truncate_and_redo(void **state) {
    fixture *f = *state;
    const int32_t lengths[] = {2 * PAGE - 1, 2 * PAGE, 2 * PAGE + 1, 0, TOKENS - 1};
    static const int32_t elsewhere[] = {5, 0, 3, 6, 4, 2}; /* the first two are kept */
    myelin_plugin_sequence *sequence = paged(f);
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        int32_t keep = lengths[i];
        tested->set_pages(sequence, shuffled, 6, 0);
        append(f, sequence, shuffled, f->ids, keep, TOKENS, NULL);
        append(f, sequence, shuffled, f->others, TOKENS - keep, 100, NULL);
        tested->truncate_sequence(sequence, keep);
        assert_int_equal(tested->sequence_length(sequence), keep);
        append(f, sequence, keep > 2 * PAGE ? shuffled : elsewhere, f->ids + keep, TOKENS - keep,
               60, f->found + (int64_t)keep * f->h.vocab);
        check_from(f, keep);
    }
    tested->free_sequence(sequence);
}

/* Plain and paged sequences in one call, each at another position. */
static void any_company(void **state) {
    fixture *f = *state;
    enum { COUNT = 5, STEP = 9 };
    static const int32_t pages[COUNT][2] = {{4, 1}, {0, 7}, {2}, {8, 3}, {6}};
    const int32_t pasts[COUNT] = {60, 100, 3, 119, 40};
    size_t vocab = (size_t)f->h.vocab;
    myelin_span spans[COUNT + 1];
    for (int32_t i = 0; i <= COUNT; i++) {
        int32_t past = i < COUNT ? pasts[i] : 70;
        myelin_plugin_sequence *sequence = i < COUNT ? paged(f) : harness_sequence(&f->h, MAX_LEN);
        if (i < COUNT) {
            append(f, sequence, pages[i], f->ids, past, 33, NULL);
            tested->set_pages(sequence, pages[i], (past + STEP + PAGE - 1) / PAGE, past);
        } else {
            harness_append(&f->h, f->context, sequence, f->ids, past, 33, NULL);
        }
        spans[i] = (myelin_span){.sequence = sequence,
                                 .ids = f->ids + past,
                                 .count = 1 + i * 2 % STEP,
                                 .num_logits = 1 + i * 2 % STEP,
                                 .logits = f->found + (size_t)(i * STEP) * vocab};
    }
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    assert_int_equal(tested->forward(f->context, spans, COUNT + 1, &error), MYELIN_OK);
    for (int32_t i = 0; i <= COUNT; i++) {
        size_t past = (size_t)(spans[i].ids - f->ids);
        assert_same_floats(f->logits + past * vocab, spans[i].logits,
                           (size_t)spans[i].count * vocab);
        tested->free_sequence(spans[i].sequence);
    }
}

/* Two sequences with the same two full pages, and a third page one copied from the other. */
static void shared_prefix(void **state) {
    fixture *f = *state;
    enum { SHARED = 2 * PAGE + 20, GROWN = SHARED + PAGE + 7 };
    static const int32_t first[] = {3, 6, 0, 7}, second[] = {3, 6, 8, 1};
    size_t vocab = (size_t)f->h.vocab;
    int32_t *ids = malloc(GROWN * sizeof *ids);
    memcpy(ids, f->ids, SHARED * sizeof *ids);
    memcpy(ids + SHARED, f->others, (GROWN - SHARED) * sizeof *ids);
    float *expected = harness_logits(&f->h, ids, GROWN);
    myelin_plugin_sequence *a = paged(f), *b = paged(f);
    append(f, a, first, f->ids, SHARED + 11, 50, NULL); /* some that b must not see */
    tested->copy_page(f->pool, second[2], first[2]);
    tested->set_pages(b, second, 3, SHARED);
    assert_int_equal(tested->sequence_length(b), SHARED);
    for (int32_t at = SHARED; at < GROWN; at += 5) { /* both grow, in turn */
        int32_t n = GROWN - at < 5 ? GROWN - at : 5;
        append(f, b, second, ids + at, n, 3, f->found + (size_t)at * vocab);
        append(f, a, first, f->ids + at + 11, n, 2, NULL);
    }
    size_t grown = (GROWN - SHARED) * vocab;
    assert_same_floats(expected + SHARED * vocab, f->found + SHARED * vocab, grown);
    /* the one copied from is as it was: */
    tested->truncate_sequence(a, SHARED - 3);
    append(f, a, first, f->ids + SHARED - 3, 40, 40, f->found);
    assert_same_floats(f->logits + (SHARED - 3) * vocab, f->found, 40 * vocab);
    tested->free_sequence(a);
    tested->free_sequence(b);
    free(expected);
    free(ids);
}

static void greedy_chunks(void **state) {
    fixture *f = *state;
    enum { COUNT = 4, STEPS = 30 };
    static const int32_t pages[COUNT][2] = {{8, 1}, {0, 6}, {2, 5}, {7, 3}};
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    myelin_plugin_sequence *sequences[COUNT], *plain[COUNT];
    int32_t last[COUNT], expected[COUNT * STEPS], found[COUNT * STEPS];
    if (!tested->decode_greedy)
        skip();
    for (int32_t i = 0; i < COUNT; i++) {
        int32_t past = 20 + i * 15; /* some cross into their second page, one begins there */
        sequences[i] = paged(f);
        plain[i] = harness_sequence(&f->h, MAX_LEN);
        append(f, sequences[i], pages[i], f->ids, past, 19, NULL);
        harness_append(&f->h, f->context, plain[i], f->ids, past, past, NULL);
        tested->set_pages(sequences[i], pages[i], 2, past);
        last[i] = f->others[i];
    }
    assert_int_equal(tested->decode_greedy(f->context, plain, last, COUNT, STEPS, expected, &error),
                     MYELIN_OK);
    assert_int_equal(
        tested->decode_greedy(f->context, sequences, last, COUNT, STEPS, found, &error), MYELIN_OK);
    assert_memory_equal(expected, found, sizeof found);
    for (int32_t i = 0; i < COUNT; i++) {
        assert_int_equal(tested->sequence_length(sequences[i]), 20 + i * 15 + STEPS);
        tested->free_sequence(sequences[i]);
        tested->free_sequence(plain[i]);
    }
}

/* More positions than there are pages for, and pages that are not there. */
static void no_room(void **state) {
    fixture *f = *state;
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    const int32_t wrong[][2] = {{3, PAGES}, {3, -1}, {3, INT32_MAX}};
    if (!built_in)
        skip();
    for (size_t i = 0; i < 4; i++) {
        myelin_plugin_sequence *sequence = paged(f);
        tested->set_pages(sequence, i < 3 ? wrong[i] : shuffled, i < 3 ? 2 : 1, 0);
        harness_append(&f->h, f->context, sequence, f->ids, PAGE - 1, PAGE, NULL);
        myelin_span span = {.sequence = sequence, .ids = f->ids, .count = 2};
        int32_t out[2];
        assert_int_equal(tested->forward(f->context, &span, 1, &error), MYELIN_ERROR_ARGUMENT);
        assert_string_equal(text, "positions of a sequence must be 0 to 64, found 65");
        assert_int_equal(tested->decode_greedy(f->context, &sequence, f->ids, 1, 2, out, &error),
                         MYELIN_ERROR_ARGUMENT);
        assert_int_equal(tested->sequence_length(sequence), PAGE - 1);
        span.count = 1;
        assert_int_equal(tested->forward(f->context, &span, 1, &error), MYELIN_OK);
        tested->free_sequence(sequence);
    }
    myelin_plugin_pool *pool;
    myelin_plugin_sequence *sequence;
    assert_int_equal(tested->create_pool(f->h.model->weights, 0, &pool, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_null(pool);
    assert_int_equal(tested->create_paged_sequence(f->pool, 0, &sequence, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_null(sequence);
}

/* Every allocation failing in turn; and none where there is to be none. */
static void failing_memory(void **state) {
    fixture *f = *state;
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    myelin_plugin_pool *pool = NULL;
    myelin_plugin_sequence *sequence = NULL;
    for (uint64_t n = 1; !pool; n++) {
        mln_fail_allocation(n, true);
        myelin_status status = tested->create_pool(f->h.model->weights, 3, &pool, &error);
        mln_fail_allocation(0, false);
        assert_int_equal(status, pool ? MYELIN_OK : MYELIN_ERROR_MEMORY);
        assert_true(pool || strlen(text) > 0);
        assert_true(!built_in || (pool != NULL) == (n == 3)); /* the object and the pages */
    }
    for (uint64_t n = 1; !sequence; n++) {
        mln_fail_allocation(n, true);
        myelin_status status = tested->create_paged_sequence(pool, MAX_LEN, &sequence, &error);
        mln_fail_allocation(0, false);
        assert_int_equal(status, sequence ? MYELIN_OK : MYELIN_ERROR_MEMORY);
        assert_true(!built_in || (sequence != NULL) == (n == 2));
    }
    float *hidden = malloc((size_t)f->h.checkpoint->config.model.hidden_size * sizeof *hidden);
    myelin_span span = {.sequence = sequence, .ids = f->ids, .count = 70};
    mln_fail_allocation(1, true);
    tested->set_pages(sequence, (const int32_t[]){2, 0}, 2, 0);
    assert_int_equal(tested->forward_hidden(f->context, &span, 1, hidden, &error), MYELIN_OK);
    tested->copy_page(pool, 1, 0);
    tested->set_pages(sequence, (const int32_t[]){2, 1}, 2, 70);
    tested->truncate_sequence(sequence, 65);
    assert_int_equal(mln_fail_allocation(0, false), 0);
    free(hidden);
    tested->free_sequence(sequence);
    tested->free_pool(pool);
}

static void announced_bytes(void **state) {
    fixture *f = *state;
    myelin_config config = f->h.model->config;
    uint64_t page = tested->page_bytes(&config);
    uint64_t least = 2 * (uint64_t)config.num_hidden_layers * (uint64_t)config.num_key_value_heads *
                     (uint64_t)config.head_dim * PAGE;
    assert_true(page >= least && page <= 8 * least); /* of 1 to 4 bytes, D rounded up at most */
    if (built_in) { /* a plain sequence's memory, without its page table's entry */
        uint64_t two = tested->sequence_bytes(&config, 2 * PAGE);
        assert_int_equal(page + sizeof(int32_t), two - tested->sequence_bytes(&config, PAGE));
    }
    config.num_hidden_layers = config.num_key_value_heads = config.head_dim = INT32_MAX;
    assert_true(tested->page_bytes(&config) == UINT64_MAX);
    tested->free_pool(NULL);
}

/* --- forward_hidden --- */

/* hidden[H] of ids[count] in a new sequence, in calls of `chunk` tokens; heap memory. */
static float *hidden_of(const harness *h, myelin_plugin_sequence *sequence, const int32_t *ids,
                        int32_t count, int32_t chunk) {
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    float *hidden = malloc((size_t)h->checkpoint->config.model.hidden_size * sizeof *hidden);
    myelin_plugin_context *context = harness_context(h, chunk, count);
    assert_non_null(hidden);
    for (int32_t at = 0; at < count; at += chunk) {
        myelin_span span = {.sequence = sequence, .ids = ids + at};
        span.count = count - at < chunk ? count - at : chunk;
        if (h->plugin->forward_hidden(context, &span, 1, hidden, &error) != MYELIN_OK)
            fail_msg("%s", text);
    }
    assert_int_equal(h->plugin->sequence_length(sequence), count);
    h->plugin->free_context(context);
    h->plugin->free_sequence(sequence);
    return hidden;
}

/* The composed path's LM head makes of its hidden state the logits that forward() gives. */
static void hidden_makes_logits(const harness *oracle, const float *hidden, const int32_t *ids,
                                int32_t count) {
    float *logits = harness_logits(oracle, ids, count);
    const myelin_plugin_model *weights = oracle->model->weights;
    int64_t vocab = oracle->vocab;
    float *made = malloc((size_t)vocab * sizeof *made);
    mln_linear(&weights->host, made, hidden, &weights->weights.lm_head, 1);
    assert_same_floats(logits + (count - 1) * vocab, made, (size_t)vocab);
    free(made);
    free(logits);
}

static void hidden_state(void **state) {
    fixture *f = *state;
    enum { COUNT = 3 * PAGE + 5 };
    size_t size = (size_t)f->h.checkpoint->config.model.hidden_size;
    harness oracle = harness_open(model_directory, 2, MYELIN_DTYPE_AUTO);
    float *expected = hidden_of(&oracle, harness_sequence(&oracle, COUNT), f->ids, COUNT, COUNT);
    hidden_makes_logits(&oracle, expected, f->ids, COUNT);
    float *plain = hidden_of(&f->h, harness_sequence(&f->h, COUNT), f->ids, COUNT, COUNT);
    myelin_plugin_sequence *sequence = paged(f);
    tested->set_pages(sequence, shuffled, 4, 0);
    float *found = hidden_of(&f->h, sequence, f->ids, COUNT, 50);
    assert_same_floats(plain, found, size);
    double apart = 0, length = 0;
    for (size_t i = 0; i < size; i++) {
        double a = (double)expected[i], b = (double)found[i];
        apart += (a - b) * (a - b);
        length += a * a;
    }
    /* 1e-3 in single precision, 1e-2 with activations or a cache in 16 bits, 2e-2 in bytes */
    double most = f->h.model->config.torch_dtype == MYELIN_DTYPE_F32 ? 1e-3
                  : harness_activations == MYELIN_ACTIVATIONS_INT8   ? 2e-2
                                                                     : 1e-2;
    printf("hidden state: relative difference %.2e\n", sqrt(apart / length));
    assert_true(length > 0 && sqrt(apart / length) <= most);
    free(expected);
    free(plain);
    free(found);
    harness_close(&oracle);
}

/* Several spans in one call, each its own hidden state; wishes for logits are refused. */
static void hidden_states_of_spans(void **state) {
    fixture *f = *state;
    enum { COUNT = 3 };
    const int32_t counts[COUNT] = {70, 1, 20};
    size_t size = (size_t)f->h.checkpoint->config.model.hidden_size;
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    float *found = malloc(COUNT * size * sizeof *found);
    myelin_span spans[COUNT];
    for (int32_t i = 0; i < COUNT; i++)
        spans[i] = (myelin_span){.sequence = harness_sequence(&f->h, MAX_LEN),
                                 .ids = f->ids + i,
                                 .count = counts[i],
                                 .num_logits = i == 2 && built_in ? 1 : 0,
                                 .logits = f->found};
    if (built_in) {
        assert_int_equal(tested->forward_hidden(f->context, spans, COUNT, found, &error),
                         MYELIN_ERROR_ARGUMENT);
        assert_string_equal(text, "num_logits must be 0 to 0, found 1");
        assert_int_equal(tested->sequence_length(spans[0].sequence), 0);
        spans[2].num_logits = 0;
    }
    assert_int_equal(tested->forward_hidden(f->context, spans, COUNT, found, &error), MYELIN_OK);
    for (int32_t i = 0; i < COUNT; i++) {
        float *alone =
            hidden_of(&f->h, harness_sequence(&f->h, MAX_LEN), spans[i].ids, counts[i], counts[i]);
        assert_same_floats(alone, found + (size_t)i * size, size);
        assert_int_equal(tested->sequence_length(spans[i].sequence), counts[i]);
        free(alone);
        tested->free_sequence(spans[i].sequence);
    }
    free(found);
}

/* usage: test_model_paging [KERNELS|PLUGIN [MODEL [CACHE]]], "built" for a model built here */
int main(int argc, char **argv) {
    tested = argc > 1 ? harness_plugin(argv[1]) : mln_composed_plugin();
    if (!tested)
        return 77; /* this processor has no such kernels */
    harness_cache_type = harness_cache_named(argc > 3 ? argv[3] : NULL);
    built_in = argc < 2 || !strchr(argv[1], '/');
    char *built = argc > 2 && !strcmp(argv[2], "built") ? builder_write_published() : NULL;
    if (argc > 2)
        model_directory = built ? built : argv[2];
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_pages),
        cmocka_unit_test(prefill_and_decode),
        cmocka_unit_test(truncate_and_redo),
        cmocka_unit_test(any_company),
        cmocka_unit_test(shared_prefix),
        cmocka_unit_test(greedy_chunks),
        cmocka_unit_test(no_room),
        cmocka_unit_test(failing_memory),
        cmocka_unit_test(announced_bytes),
        cmocka_unit_test(hidden_state),
        cmocka_unit_test(hidden_states_of_spans),
    };
    int failed = cmocka_run_group_tests(tests, set_up, tear_down);
    temp_directory_remove(built);
    return failed;
}
