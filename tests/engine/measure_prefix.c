/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much sooner the first token comes when a prompt's beginning was read before: the median of
 * some requests with a prefix of 1,000 tokens, uncached and cached.
 *   measure_prefix [SHAPE [BITS]]     default: qwen3-0.6b 4
 */
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>

#include "myelin/myelin.h"
#include "support/measure.h"

enum { PREFIX = 1000, QUESTION = 10, ROUNDS = 3 };

typedef struct measured {
    double begin, first;
    int32_t cached;
    sem_t ended;
} measured;

static bool note_piece(void *user, const myelin_piece *piece) {
    measured *m = user;
    (void)piece;
    if (m->first < m->begin)
        m->first = now_ms();
    return true;
}

static bool note_end(void *user, void *tag, myelin_result *result, const myelin_error *error) {
    measured *m = user;
    (void)tag;
    if (error) {
        fprintf(stderr, "measure_prefix: %s\n", error->message);
        exit(1);
    }
    m->cached = result->cached_tokens;
    sem_post(&m->ended);
    return true;
}

/* Time to the first token of a prompt: the prefix of kind `kind`, then a question. */
static double time_to_first(myelin_serving *serving, int32_t kind, int32_t question,
                            int32_t *cached) {
    int32_t ids[PREFIX + QUESTION];
    measured m = {0};
    myelin_error error = {0};
    myelin_generation_options options;
    myelin_generation_options_init(&options);
    options.max_new_tokens = 4;
    options.sync = MYELIN_SYNC_TOKEN;
    for (int32_t i = 0; i < PREFIX + QUESTION; i++)
        ids[i] = i < PREFIX ? (kind * 7919 + i * 31) % 100000 : 100000 + question * QUESTION + i;
    myelin_request request = {
        .prompt_ids = ids, .num_prompt_ids = PREFIX + QUESTION, .options = &options};
    myelin_submission submission;
    myelin_submission_init(&submission);
    submission.request = &request;
    submission.emit = note_piece;
    submission.done = note_end;
    submission.user = &m;
    sem_init(&m.ended, 0, 0);
    m.begin = now_ms();
    if (myelin_serving_submit(serving, &submission, NULL, &error) != MYELIN_OK) {
        fprintf(stderr, "measure_prefix: %s\n", error.message);
        exit(1);
    }
    while (sem_wait(&m.ended) != 0)
        ;
    sem_destroy(&m.ended);
    *cached = m.cached;
    return m.first - m.begin;
}

int main(int argc, char **argv) {
    myelin_model *model;
    myelin_serving *serving;
    myelin_error error = {0};
    const char *shape = argc > 1 ? argv[1] : "qwen3-0.6b";
    int32_t bits = argc > 2 ? (int32_t)strtol(argv[2], NULL, 10) : 4;
    if (myelin_model_open_synthetic(&model, shape, bits, NULL, &error) != MYELIN_OK ||
        myelin_serving_start(&serving, model, NULL, &error) != MYELIN_OK) {
        fprintf(stderr, "measure_prefix: %s\n", error.message);
        return 1;
    }
    double uncached[ROUNDS], cached[ROUNDS];
    int32_t tokens[2] = {0};
    for (int32_t i = 0; i < ROUNDS; i++) {
        uncached[i] = time_to_first(serving, i, 0, &tokens[0]);
        cached[i] = time_to_first(serving, i, 1, &tokens[1]);
    }
    double first = median(uncached, ROUNDS), second = median(cached, ROUNDS);
    printf("%s, %d bits: first token after %.1f ms with %d tokens cached, %.1f ms with %d: "
           "1/%.1f\n",
           shape, (int)bits, first, (int)tokens[0], second, (int)tokens[1], first / second);
    myelin_serving_free(serving);
    myelin_model_close(model);
    return 0;
}
