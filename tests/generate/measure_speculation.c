/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What --speculate brings: the answer of each case generated with drafts and without, in turns, and
 * the median of the rounds' ratios. bench/speculate makes the cases and reads the result.
 *   measure_speculation MODEL [BITS [THREADS [ROUNDS]]] < CASES
 * A case is a line: its name, the numbers of prompt and of answer tokens, and all their ids.
 * MODEL is a directory, which answers as it does, or a published shape ("qwen3-0.6b") with made-up
 * weights. The latter computes every pass in full, and then the next token of the case is made its
 * choice: the costs are real, and drafts are as right or wrong as they are for that text.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "checkpoint/synthetic.h"
#include "generate/sequence.h"
#include "native/native.h"
#include "support/measure.h"

enum { MAX_IDS = 1 << 14, MAX_ROUNDS = 99 };

typedef struct text_case {
    char name[64];
    int32_t num_prompt, count; /* of ids: the prompt's, and all */
    int32_t ids[MAX_IDS];
} text_case;

static text_case now; /* the case being measured */
static int32_t vocab; /* of the model */
static int32_t num_threads;
static int32_t num_passes; /* forward passes of the run */

static void check(myelin_status status, const myelin_error *error) {
    if (status == MYELIN_OK)
        return;
    fprintf(stderr, "measure_speculation: %s\n", error->message);
    exit(1);
}

/* --- a model that says what the case says --- */

static int32_t scripted(int32_t position) {
    return position < now.count ? now.ids[position] : 0;
}

static myelin_status forward_scripted(myelin_plugin_context *context, const myelin_span *spans,
                                      int32_t num_spans, myelin_error_buffer *error) {
    const myelin_plugin *inner = mln_native_plugin();
    myelin_status status = inner->forward(context, spans, num_spans, error);
    num_passes++;
    for (int32_t s = 0; s < num_spans && status == MYELIN_OK; s++) {
        int32_t end = inner->sequence_length(spans[s].sequence);
        for (int32_t i = 0; i < spans[s].num_logits; i++) {
            float *logits = spans[s].logits + (int64_t)i * vocab;
            logits[scripted(end - spans[s].num_logits + i + 1)] = 1e30f;
        }
    }
    return status;
}

/* One token a call, so that the cache holds the case's tokens. */
static myelin_status decode_scripted(myelin_plugin_context *context,
                                     myelin_plugin_sequence *const *sequences, const int32_t *ids,
                                     int32_t num_sequences, int32_t steps, int32_t *out_ids,
                                     myelin_error_buffer *error) {
    const myelin_plugin *inner = mln_native_plugin();
    int32_t id = ids[0];
    for (int32_t step = 0; step < steps; step++) {
        myelin_status status =
            inner->decode_greedy(context, sequences, &id, num_sequences, 1, &out_ids[step], error);
        if (status != MYELIN_OK)
            return status;
        num_passes++;
        id = out_ids[step] = scripted(inner->sequence_length(sequences[0]));
    }
    return MYELIN_OK;
}

/* --- the model as it is, its passes counted --- */

static myelin_status forward_counted(myelin_plugin_context *context, const myelin_span *spans,
                                     int32_t num_spans, myelin_error_buffer *error) {
    num_passes++;
    return mln_native_plugin()->forward(context, spans, num_spans, error);
}

static myelin_status decode_counted(myelin_plugin_context *context,
                                    myelin_plugin_sequence *const *sequences, const int32_t *ids,
                                    int32_t num_sequences, int32_t steps, int32_t *out_ids,
                                    myelin_error_buffer *error) {
    num_passes += steps;
    return mln_native_plugin()->decode_greedy(context, sequences, ids, num_sequences, steps,
                                              out_ids, error);
}

/* --- measuring --- */

/* Milliseconds; with one thread of processor time, which other programs lengthen less. */
typedef struct run {
    double ms; /* of each token after the first */
    int32_t passes, tokens;
    int32_t ids[MAX_IDS];
} run;

/* The case's answer, or as many tokens of the model's own. */
static void generate(mln_sequence *s, mln_decoder *d, bool speculate, run *r) {
    mln_generation g = {.sampling = {.temperature = 1, .top_p = 1, .repetition_penalty = 1},
                        .max_new_tokens = now.count - now.num_prompt,
                        .max_chunk = MLN_MAX_CHUNK - 1,
                        .speculate = speculate};
    myelin_error error = {0};
    check(mln_sequence_set(s, now.ids, (size_t)now.num_prompt, &error), &error);
    check(mln_sequence_begin(s, &g, &error), &error);
    while (s->phase == MLN_READING)
        check(mln_decoder_step(d, &s, 1, &error), &error);
    num_passes = 0;
    double start = now_ms();
    while (s->phase == MLN_GENERATING)
        check(mln_decoder_step(d, &s, 1, &error), &error);
    r->tokens = s->num_generated - 1;
    r->ms = (now_ms() - start) / r->tokens;
    r->passes = num_passes;
    memcpy(r->ids, s->ids, (size_t)s->count * sizeof *s->ids);
}

static void measure(const mln_model *model, int32_t rounds) {
    static run off, on;
    double offs[MAX_ROUNDS], ons[MAX_ROUNDS], ratios[MAX_ROUNDS];
    myelin_error error = {0};
    mln_sequence *s;
    mln_decoder *d, *drafting;
    check(mln_sequence_create(&s, model, now.count, &error), &error);
    check(mln_decoder_create(&d, model, 1, now.count, &error), &error);
    check(mln_decoder_create(&drafting, model, 1, now.count, &error), &error);
    check(mln_decoder_allow_drafts(drafting, MLN_LOOKUP_MOST, &error), &error);
    for (int32_t i = -1; i < rounds; i++) { /* the first warms up */
        bool first = i % 2 == 0;
        generate(s, first ? drafting : d, first, first ? &on : &off);
        generate(s, first ? d : drafting, !first, first ? &off : &on);
        if (off.tokens != on.tokens ||
            memcmp(off.ids, on.ids, (size_t)(now.num_prompt + on.tokens + 1) * sizeof *on.ids)) {
            fprintf(stderr, "measure_speculation: %s: other tokens with drafts\n", now.name);
            exit(1);
        }
        if (i < 0)
            continue;
        offs[i] = off.ms;
        ons[i] = on.ms;
        ratios[i] = off.ms / on.ms;
    }
    printf("%s %" PRId32 " %" PRId32 " %.3f %.3f %.3f\n", now.name, on.tokens, on.passes,
           median(offs, rounds), median(ons, rounds), median(ratios, rounds));
    fflush(stdout);
    mln_decoder_free(d);
    mln_decoder_free(drafting);
    mln_sequence_free(s);
}

static bool read_case(void) {
    int32_t answer;
    if (scanf("%63s %" SCNd32 " %" SCNd32, now.name, &now.num_prompt, &answer) != 3)
        return false;
    if (now.num_prompt < 1 || answer < 2 || now.num_prompt > MAX_IDS || answer > MAX_IDS ||
        now.num_prompt + answer > MAX_IDS)
        return false;
    now.count = now.num_prompt + answer;
    for (int32_t i = 0; i < now.count; i++)
        if (scanf("%" SCNd32, &now.ids[i]) != 1 || now.ids[i] < 0 || now.ids[i] >= vocab)
            return false;
    return true;
}

static int32_t number(int argc, char **argv, int at, int32_t otherwise) {
    return argc > at ? (int32_t)strtol(argv[at], NULL, 10) : otherwise;
}

int main(int argc, char **argv) {
    myelin_plugin plugin = *mln_native_plugin();
    mln_checkpoint *checkpoint;
    mln_model *model;
    myelin_error error = {0};
    if (argc < 2) {
        fprintf(stderr, "usage: measure_speculation MODEL [BITS [THREADS [ROUNDS]]] < CASES\n");
        return 2;
    }
    bool synthetic = !strncmp(argv[1], "qwen3-", 6);
    mln_synthetic_spec spec = {
        .shape = argv[1], .bits = number(argc, argv, 2, 0), .group_size = 64};
    int32_t rounds = number(argc, argv, 4, 5);
    if (synthetic)
        check(mln_synthetic_open(&checkpoint, &spec, &error), &error);
    else
        check(mln_checkpoint_open(&checkpoint, argv[1], &error), &error);
    plugin.forward = synthetic ? forward_scripted : forward_counted;
    plugin.decode_greedy = synthetic ? decode_scripted : decode_counted;
    num_threads = number(argc, argv, 3, 2);
    mln_model_options options = {.plugin = &plugin, .threads = num_threads};
    check(mln_model_load(&model, checkpoint, &options, &error), &error);
    vocab = model->config.vocab_size;
    while (read_case())
        measure(model, rounds < 1 ? 1 : rounds > MAX_ROUNDS ? MAX_ROUNDS : rounds);
    mln_model_free(model);
    mln_checkpoint_free(checkpoint);
    return feof(stdin) ? 0 : 1;
}
