/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How much sooner the first token comes when a prompt's beginning was read before: the median of
 * some requests with a prefix of 1,000 tokens, uncached and cached.
 *   measure_prefix [SHAPE [BITS]]     default: qwen3-0.6b 4
 */
#include <stdio.h>
#include <stdlib.h>

#include "engine/first_token.h"
#include "support/measure.h"

enum { PREFIX = 1000, QUESTION = 10, ROUNDS = 3 };

/* Time to the first token of a prompt: the prefix of kind `kind`, then a question. */
static double time_to_first(myelin_serving *serving, int32_t kind, int32_t question,
                            int32_t *cached) {
    int32_t ids[PREFIX + QUESTION];
    for (int32_t i = 0; i < PREFIX + QUESTION; i++)
        ids[i] = i < PREFIX ? (kind * 7919 + i * 31) % 100000 : 100000 + question * QUESTION + i;
    return first_token_ms(serving, ids, PREFIX + QUESTION, cached);
}

int main(int argc, char **argv) {
    myelin_model *model;
    myelin_serving *serving;
    myelin_error error = {0};
    const char *shape = argc > 1 ? argv[1] : "qwen3-0.6b";
    int32_t bits = argc > 2 ? (int32_t)strtol(argv[2], NULL, 10) : 4;
    require_ok(myelin_model_open_synthetic(&model, shape, bits, NULL, &error), &error);
    require_ok(myelin_serving_start(&serving, model, NULL, &error), &error);
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
