/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/first_token.h"

#include <errno.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>

#include "support/measure.h"

typedef struct measured {
    double first; /* 0: none has come */
    int32_t cached;
    sem_t ended;
} measured;

void require_ok(myelin_status status, const myelin_error *error) {
    if (status == MYELIN_OK)
        return;
    fprintf(stderr, "%s: %s\n", program_invocation_short_name, error->message);
    exit(1);
}

static bool note_piece(void *user, const myelin_piece *piece) {
    measured *m = user;
    (void)piece;
    m->first = m->first == 0 ? now_ms() : m->first;
    return true;
}

static bool note_end(void *user, void *tag, myelin_result *result, const myelin_error *error) {
    measured *m = user;
    (void)tag;
    if (error)
        require_ok(error->status, error);
    m->cached = result->cached_tokens;
    sem_post(&m->ended);
    return true;
}

double first_token_ms(myelin_serving *serving, const int32_t *ids, size_t count, int32_t *cached) {
    measured m = {0};
    myelin_error error = {0};
    myelin_generation_options options;
    myelin_generation_options_init(&options);
    options.max_new_tokens = 4;
    options.sync = MYELIN_SYNC_TOKEN;
    myelin_request request = {.prompt_ids = ids, .num_prompt_ids = count, .options = &options};
    myelin_submission submission;
    myelin_submission_init(&submission);
    submission.request = &request;
    submission.emit = note_piece;
    submission.done = note_end;
    submission.user = &m;
    sem_init(&m.ended, 0, 0);
    double begun = now_ms();
    require_ok(myelin_serving_submit(serving, &submission, NULL, &error), &error);
    while (sem_wait(&m.ended) != 0)
        ;
    sem_destroy(&m.ended);
    if (cached)
        *cached = m.cached;
    return m.first - begun;
}
