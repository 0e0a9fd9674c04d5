/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Same input, same logits, to the last bit: however the tokens are split into calls, whatever else
 * is in the call, with any number of threads, after taking back and doing again.
 */
#include <pthread.h>
#include <stdlib.h>
#include <string.h>

#include "model/harness.h"
#include "support/checkpoint_builder.h"
#include "support/temp_directory.h"
#include "tensor/ops.h"

enum { TOKENS = 100, MAX_LEN = 160 };

/* What is tested: the composed plug-in, or what the command line names. */
static const char *model_directory = MYELIN_TEST_DATA "/models/untied-f16";
static const myelin_plugin *tested;

static harness open_tested(int32_t threads) {
    return harness_open_with(tested, MYELIN_FUSION_AUTO, model_directory, threads,
                             MYELIN_DTYPE_AUTO);
}

typedef struct fixture {
    harness h;
    int32_t *ids;
    float *logits; /* [TOKENS, vocab] of ids in one call */
} fixture;

static int set_up(void **state) {
    fixture *f = malloc(sizeof *f);
    f->h = open_tested(2);
    f->ids = random_ids(TOKENS, f->h.vocab, 1);
    f->logits = harness_logits(&f->h, f->ids, TOKENS);
    *state = f;
    return 0;
}

static int tear_down(void **state) {
    fixture *f = *state;
    harness_close(&f->h);
    free(f->ids);
    free(f->logits);
    free(f);
    return 0;
}

static size_t all_logits(const fixture *f) {
    return (size_t)TOKENS * (size_t)f->h.vocab;
}

static void any_chunks(void **state) {
    fixture *f = *state;
    const int32_t chunks[] = {1, 7, 64, TOKENS};
    float *found = malloc(all_logits(f) * sizeof *found);
    myelin_plugin_context *context = harness_context(&f->h, TOKENS, MAX_LEN);
    for (int i = 0; i < 4; i++) {
        myelin_plugin_sequence *sequence = harness_sequence(&f->h, TOKENS + i);
        harness_append(&f->h, context, sequence, f->ids, TOKENS, chunks[i], found);
        assert_int_equal(f->h.plugin->sequence_length(sequence), TOKENS);
        assert_same_floats(f->logits, found, all_logits(f));
        f->h.plugin->free_sequence(sequence);
    }
    f->h.plugin->free_context(context);
    free(found);
}

static void any_threads(void **state) {
    fixture *f = *state;
    for (int32_t threads = 1; threads <= 5; threads += 2) {
        harness h = open_tested(threads);
        float *found = harness_logits(&h, f->ids, TOKENS);
        assert_same_floats(f->logits, found, all_logits(f));
        free(found);
        harness_close(&h);
    }
}

/* Twenty sequences in one call, each at another position and with other wishes for logits. */
static void any_company(void **state) {
    fixture *f = *state;
    enum { COUNT = 20, STEP = 5 };
    const myelin_plugin *plugin = f->h.plugin;
    size_t vocab = (size_t)f->h.vocab;
    myelin_plugin_context *context = harness_context(&f->h, COUNT * STEP, MAX_LEN);
    myelin_span spans[COUNT];
    float *found = malloc(COUNT * STEP * vocab * sizeof *found);
    for (int32_t i = 0; i < COUNT; i++) {
        int32_t past = i * 3;
        myelin_plugin_sequence *sequence = harness_sequence(&f->h, past + STEP);
        harness_append(&f->h, context, sequence, f->ids, past, STEP, NULL);
        spans[i] = (myelin_span){.sequence = sequence,
                                 .ids = f->ids + past,
                                 .count = 1 + i % STEP,
                                 .num_logits = i % (2 + i % STEP),
                                 .logits = found + (size_t)(i * STEP) * vocab};
    }
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    assert_int_equal(plugin->forward(context, spans, COUNT, &error), MYELIN_OK);
    for (int32_t i = 0; i < COUNT; i++) {
        int32_t first = i * 3 + spans[i].count - spans[i].num_logits;
        assert_int_equal(plugin->sequence_length(spans[i].sequence), i * 3 + spans[i].count);
        assert_same_floats(f->logits + (size_t)first * vocab, spans[i].logits,
                           (size_t)spans[i].num_logits * vocab);
        plugin->free_sequence(spans[i].sequence);
    }
    plugin->free_context(context);
    free(found);
}

static void truncate_and_redo(void **state) {
    fixture *f = *state;
    const myelin_plugin *plugin = f->h.plugin;
    myelin_plugin_context *context = harness_context(&f->h, TOKENS, MAX_LEN);
    myelin_plugin_sequence *sequence = harness_sequence(&f->h, TOKENS);
    int32_t *others = random_ids(TOKENS, f->h.vocab, 99);
    float *found = malloc(all_logits(f) * sizeof *found);
    size_t vocab = (size_t)f->h.vocab;
    harness_append(&f->h, context, sequence, f->ids, 40, TOKENS, NULL);
    harness_append(&f->h, context, sequence, others, 50, TOKENS, NULL);
    plugin->truncate_sequence(sequence, 40);
    assert_int_equal(plugin->sequence_length(sequence), 40);
    harness_append(&f->h, context, sequence, f->ids + 40, TOKENS - 40, TOKENS, found);
    assert_same_floats(f->logits + 40 * vocab, found, (TOKENS - 40) * vocab);
    plugin->truncate_sequence(sequence, 0);
    harness_append(&f->h, context, sequence, f->ids, TOKENS, TOKENS, found);
    assert_same_floats(f->logits, found, all_logits(f));
    free(others);
    free(found);
    plugin->free_sequence(sequence);
    plugin->free_context(context);
}

/* Chunked decode of several sequences against one call of forward() a token. */
static void greedy_chunks(void **state) {
    fixture *f = *state;
    enum { COUNT = 19, LONGEST = 31 };
    const myelin_plugin *plugin = f->h.plugin;
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    myelin_plugin_context *context = harness_context(&f->h, TOKENS, MAX_LEN);
    myelin_plugin_sequence *sequences[COUNT];
    int32_t last[COUNT], expected[COUNT][LONGEST], found[COUNT * LONGEST];
    float *logits = malloc((size_t)f->h.vocab * sizeof *logits);
    for (int32_t i = 0; i < COUNT; i++) {
        sequences[i] = harness_sequence(&f->h, MAX_LEN);
        harness_append(&f->h, context, sequences[i], f->ids, i * 4, TOKENS, NULL);
        int32_t id = last[i] = f->ids[i * 4];
        for (int32_t step = 0; step < LONGEST; step++) {
            harness_append(&f->h, context, sequences[i], &id, 1, 1, logits);
            id = expected[i][step] = mln_argmax(logits, f->h.vocab);
        }
    }
    const int32_t steps[] = {1, 5, LONGEST};
    for (int s = 0; s < 3; s++) {
        for (int32_t i = 0; i < COUNT; i++)
            plugin->truncate_sequence(sequences[i], i * 4);
        assert_int_equal(
            plugin->decode_greedy(context, sequences, last, COUNT, steps[s], found, &error),
            MYELIN_OK);
        for (int32_t i = 0; i < COUNT; i++) {
            assert_int_equal(plugin->sequence_length(sequences[i]), i * 4 + steps[s]);
            assert_memory_equal(found + i * steps[s], expected[i],
                                (size_t)steps[s] * sizeof *found);
        }
    }
    for (int32_t i = 0; i < COUNT; i++)
        plugin->free_sequence(sequences[i]);
    plugin->free_context(context);
    free(logits);
}

static void *run_alone(void *argument) {
    fixture *f = argument;
    for (int i = 0; i < 3; i++) {
        float *found = harness_logits(&f->h, f->ids, TOKENS);
        bool same = memcmp(found, f->logits, all_logits(f) * sizeof *found) == 0;
        free(found);
        if (!same)
            return f;
    }
    return NULL;
}

/* Contexts of one model, each on a thread of its own, at the same time. */
static void threads_share_a_model(void **state) {
    enum { THREADS = 3 };
    pthread_t threads[THREADS];
    for (int i = 0; i < THREADS; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, run_alone, *state), 0);
    for (int i = 0; i < THREADS; i++) {
        void *failed;
        pthread_join(threads[i], &failed);
        assert_null(failed);
    }
}

/* usage: test_model_invariance [KERNELS|PLUGIN [MODEL [CACHE]]], "built" for a model built here */
int main(int argc, char **argv) {
    tested = argc > 1 ? harness_plugin(argv[1]) : mln_composed_plugin();
    if (!tested)
        return 77; /* this processor has no such kernels */
    harness_cache_type = harness_cache_named(argc > 3 ? argv[3] : NULL);
    if (argc > 2)
        model_directory = argv[2];
    char *built = argc > 2 && !strcmp(argv[2], "built") ? builder_write_published() : NULL;
    if (built)
        model_directory = built;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_chunks),    cmocka_unit_test(any_threads),
        cmocka_unit_test(any_company),   cmocka_unit_test(truncate_and_redo),
        cmocka_unit_test(greedy_chunks), cmocka_unit_test(threads_share_a_model),
    };
    int failed = cmocka_run_group_tests(tests, set_up, tear_down);
    temp_directory_remove(built);
    return failed;
}
