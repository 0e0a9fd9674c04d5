/* SPDX-License-Identifier: Apache-2.0 */
/*
 * What a program waits for that has just been started: opening a model, the first token of a
 * 16-token prompt in a session, then of two more prompts on a serving, whose memory is new to the
 * first of them. Peak memory beside what weights, keys and values take.
 *   measure_open [MODEL [THREADS [MAX_LEN]]]     default: qwen3-0.6b 2 4096
 * MODEL is a directory, or the name of a shape whose weights are made up.
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

#include "engine/first_token.h"
#include "support/measure.h"

enum { PROMPT = 16, SERVED_PROMPT = 128, MB = 1000 * 1000 };

static void fill(int32_t *ids, int32_t count, int32_t first) {
    for (int32_t i = 0; i < count; i++)
        ids[i] = (first + i * 31) % 100000;
}

static uint64_t peak_bytes(void) {
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (uint64_t)usage.ru_maxrss * 1024;
}

static myelin_model *open_model(const char *name, int32_t threads) {
    myelin_model *model;
    myelin_error error = {0};
    myelin_model_options options;
    myelin_model_options_init(&options);
    options.threads = threads;
    require_ok(strchr(name, '/') ? myelin_model_open(&model, name, &options, &error)
                                 : myelin_model_open_synthetic(&model, name, 0, &options, &error),
               &error);
    return model;
}

/* One token of a session that has room for max_len; how much that added to the peak. */
static double session_first(myelin_model *model, int32_t max_len) {
    int32_t ids[PROMPT];
    myelin_session *session;
    myelin_result result = {0};
    myelin_error error = {0};
    myelin_generation_options options;
    myelin_generation_options_init(&options);
    options.max_new_tokens = 1;
    fill(ids, PROMPT, 1);
    double begun = now_ms();
    require_ok(myelin_session_open(&session, model, max_len, &error), &error);
    require_ok(myelin_session_append(session, ids, PROMPT, &error), &error);
    require_ok(myelin_session_generate(session, NULL, NULL, &options, &result, &error), &error);
    double taken = now_ms() - begun;
    myelin_result_clear(&result);
    myelin_session_close(session);
    return taken;
}

static double served_first(myelin_serving *serving, int32_t first_id) {
    int32_t ids[SERVED_PROMPT];
    fill(ids, SERVED_PROMPT, first_id);
    return first_token_ms(serving, ids, SERVED_PROMPT, NULL);
}

int main(int argc, char **argv) {
    const char *name = argc > 1 ? argv[1] : "qwen3-0.6b";
    int32_t threads = argc > 2 ? (int32_t)strtol(argv[2], NULL, 10) : 2;
    int32_t max_len = argc > 3 ? (int32_t)strtol(argv[3], NULL, 10) : 4096;
    double begun = now_ms();
    myelin_model *model = open_model(name, threads);
    double opened = now_ms() - begun, first = session_first(model, max_len);
    myelin_model_info info = {.size = sizeof info};
    myelin_model_get_info(model, &info);
    uint64_t weights = info.held_bytes ? info.held_bytes : info.weight_bytes;
    printf("%s, %d threads: open %.0f ms, first of %d tokens %.0f ms, together %.0f ms\n", name,
           (int)threads, opened, PROMPT, first, opened + first);
    printf("peak %" PRIu64 " MB: weights %" PRIu64 " MB, session of %d tokens at most %" PRIu64
           " MB\n",
           peak_bytes() / MB, weights / MB, (int)max_len,
           myelin_model_session_bytes(model, max_len) / MB);
    myelin_serving *serving;
    myelin_error error = {0};
    require_ok(myelin_serving_start(&serving, model, NULL, &error), &error);
    double cold = served_first(serving, 2), warm = served_first(serving, 50000);
    printf("serving, first of %d tokens: %.0f ms, the next time %.0f ms; peak %" PRIu64 " MB\n",
           SERVED_PROMPT, cold, warm, peak_bytes() / MB);
    myelin_serving_free(serving);
    myelin_model_close(model);
    return 0;
}
