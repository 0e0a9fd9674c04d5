/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Ways to decode against each other, in turns within each round, so that what else the machine does
 * falls on all of them: the median time of a token, and the median of the rounds' ratios to the
 * first way's.
 *   measure_decode SHAPE BITS THREADS DEPTH SEQUENCES ROUNDS WAY...
 * BITS is 16, 4 or 8. A WAY is "plain", or options joined by commas: f32, f16, int8 (the cache's
 * type), shortlist, packed. Each has a model of its own with made-up weights. The cache is filled
 * to DEPTH tokens with copies of one page, which takes as long to read as others.
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/synthetic.h"
#include "model/model.h"
#include "native/native.h"
#include "support/measure.h"

enum { MAX_WAYS = 6, MAX_ROUNDS = 99, MAX_SEQUENCES = 16, STEPS = 12 };

typedef struct way {
    const char *name;
    mln_checkpoint *checkpoint;
    mln_model *model;
    myelin_plugin_pool *pool;
    myelin_plugin_sequence *sequences[MAX_SEQUENCES];
    myelin_plugin_context *context;
    int32_t *pages; /* [sequences][pages of one] */
    double ms[MAX_ROUNDS], ratios[MAX_ROUNDS];
} way;

static int32_t num_threads, depth, num_sequences, num_pages; /* pages of one sequence */

static void check(myelin_status status, const char *reason) {
    if (status == MYELIN_OK)
        return;
    fprintf(stderr, "measure_decode: %s\n", reason);
    exit(1);
}

static void set_option(mln_model_options *options, const char *name) {
    static const char *const caches[] = {"plain", "f32", "f16", "int8"};
    for (int32_t type = 0; type <= MYELIN_CACHE_INT8; type++)
        if (!strcmp(name, caches[type])) {
            options->cache_type = type;
            return;
        }
    if (!strcmp(name, "shortlist"))
        options->shortlist = true;
    else if (!strcmp(name, "packed"))
        options->pack = MYELIN_PACK_LOSSLESS;
    else
        check(MYELIN_ERROR_ARGUMENT, name);
}

static void open_model(way *w, const mln_synthetic_spec *spec) {
    mln_model_options options = {.plugin = mln_native_plugin(), .threads = num_threads};
    myelin_error error = {0};
    char names[64], *rest = names;
    snprintf(names, sizeof names, "%s", w->name);
    for (char *name; (name = strsep(&rest, ",")) != NULL;)
        set_option(&options, name);
    check(mln_synthetic_open(&w->checkpoint, spec, &error), error.message);
    check(mln_model_load(&w->model, w->checkpoint, &options, &error), error.message);
}

/* Every sequence as after `depth` tokens: pages of its own, all copies of the first that was read.
 */
static void fill(way *w) {
    const myelin_plugin *plugin = w->model->plugin;
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    int32_t ids[MYELIN_PAGE_POSITIONS], all = num_pages * num_sequences;
    for (int32_t i = 0; i < MYELIN_PAGE_POSITIONS; i++)
        ids[i] = 1000 + 7 * i;
    check(plugin->create_pool(w->model->weights, all, &w->pool, &error), text);
    check(plugin->create_context(w->model->weights, 2 * MYELIN_PAGE_POSITIONS,
                                 num_pages * MYELIN_PAGE_POSITIONS, &w->context, &error),
          text);
    w->pages = calloc((size_t)all, sizeof *w->pages);
    for (int32_t i = 0; i < all; i++)
        w->pages[i] = i;
    for (int32_t s = 0; s < num_sequences; s++) {
        check(plugin->create_paged_sequence(w->pool, num_pages * MYELIN_PAGE_POSITIONS,
                                            &w->sequences[s], &error),
              text);
        plugin->set_pages(w->sequences[s], w->pages + s * num_pages, num_pages, 0);
    }
    myelin_span span = {.sequence = w->sequences[0], .ids = ids, .count = MYELIN_PAGE_POSITIONS};
    check(plugin->forward(w->context, &span, 1, &error), text);
    for (int32_t i = 1; i < all; i++)
        plugin->copy_page(w->pool, i, 0);
}

/* Milliseconds; with one thread of processor time, which other programs lengthen less. */
/* Milliseconds a step of all sequences. */
static double decode(way *w) {
    const myelin_plugin *plugin = w->model->plugin;
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    int32_t ids[MAX_SEQUENCES], out[MAX_SEQUENCES * STEPS];
    for (int32_t s = 0; s < num_sequences; s++) {
        plugin->set_pages(w->sequences[s], w->pages + s * num_pages, num_pages, depth);
        ids[s] = 500 + s;
    }
    double start = now_ms();
    check(plugin->decode_greedy(w->context, w->sequences, ids, num_sequences, STEPS, out, &error),
          text);
    return (now_ms() - start) / STEPS;
}

int main(int argc, char **argv) {
    static way ways[MAX_WAYS];
    long numbers[5];
    if (argc < 8 || argc - 7 > MAX_WAYS) {
        fprintf(stderr, "usage: measure_decode SHAPE BITS THREADS DEPTH SEQUENCES ROUNDS WAY...\n");
        return 2;
    }
    for (int i = 0; i < 5; i++)
        numbers[i] = strtol(argv[2 + i], NULL, 10);
    mln_synthetic_spec spec = {
        .shape = argv[1], .bits = numbers[0] == 16 ? 0 : (int32_t)numbers[0], .group_size = 64};
    num_threads = (int32_t)numbers[1];
    depth = (int32_t)numbers[2];
    num_sequences = numbers[3] < MAX_SEQUENCES ? (int32_t)numbers[3] : MAX_SEQUENCES;
    num_pages = (depth + STEPS) / MYELIN_PAGE_POSITIONS + 1;
    int32_t count = argc - 7, rounds = numbers[4] < MAX_ROUNDS ? (int32_t)numbers[4] : MAX_ROUNDS;
    for (int32_t i = 0; i < count; i++) {
        ways[i].name = argv[7 + i];
        open_model(&ways[i], &spec);
        fill(&ways[i]);
        decode(&ways[i]);
    }
    for (int32_t round = 0; round < rounds; round++) {
        for (int32_t i = 0; i < count; i++) { /* there and back, for what changes meanwhile */
            way *w = &ways[round % 2 ? count - 1 - i : i];
            w->ms[round] = decode(w);
        }
        for (int32_t i = 0; i < count; i++)
            ways[i].ratios[round] = ways[0].ms[round] / ways[i].ms[round];
    }
    for (int32_t i = 0; i < count; i++)
        printf("%-16s %8.2f ms a step, %6.1f tokens/s, %.3f of the first's speed\n", ways[i].name,
               median(ways[i].ms, rounds), 1e3 * num_sequences / ways[i].ms[rounds / 2],
               median(ways[i].ratios, rounds));
    return 0;
}
