/* SPDX-License-Identifier: Apache-2.0 */
/* Many requests through a few slots: a request joins as soon as another has ended. */
#include <stdlib.h>

#include "base/error.h"
#include "engine/job.h"

typedef struct slot {
    mln_job job;
    void *tag;
} slot;

typedef struct batch {
    myelin_model *model;
    mln_decoder *decoder;
    int32_t num_slots;
    slot *slots;              /* [num_slots] */
    mln_sequence **sequences; /* [num_slots]; NULL: the slot is free */
    myelin_next_request next;
    myelin_request_done done;
    void *user;
    bool drained; /* next() has no more */
    bool stopped; /* done() said to stop */
} batch;

/* Reports one request's end; result is cleared unless the callback took it over. */
static void report(batch *b, void *tag, myelin_result *result, const myelin_error *error) {
    if (!b->done(b->user, tag, result, error))
        b->stopped = true;
    if (result)
        myelin_result_clear(result);
}

static void free_slot(batch *b, int32_t i) {
    mln_sequence_free(b->sequences[i]);
    b->sequences[i] = NULL;
}

static myelin_status start_ids(batch *b, int32_t i, const mln_ids *ids, const mln_turn_form *form,
                               const myelin_generation_options *resolved, myelin_error *error) {
    int32_t max_len = 0;
    mln_sequence *sequence = NULL;
    myelin_status status = mln_cache_length(resolved, ids->count, &max_len, error);
    if (status == MYELIN_OK)
        status = mln_decoder_reserve(b->decoder, max_len, error);
    if (status == MYELIN_OK)
        status = mln_sequence_create(&sequence, b->model->model, max_len, error);
    if (status == MYELIN_OK)
        status = mln_sequence_append(sequence, ids->data, ids->count, error);
    if (status == MYELIN_OK)
        status =
            mln_job_begin(&b->slots[i].job, b->model, sequence, form, resolved, NULL, NULL, error);
    if (status != MYELIN_OK)
        mln_sequence_free(sequence);
    else
        b->sequences[i] = sequence;
    return status;
}

static myelin_status start(batch *b, int32_t i, const myelin_request *request,
                           myelin_error *error) {
    myelin_generation_options resolved;
    myelin_status status =
        mln_generation_options_resolve(&resolved, request->options, b->model, error);
    if (status != MYELIN_OK)
        return status;
    b->slots[i].tag = request->tag;
    mln_ids ids = {0};
    mln_turn_form form;
    status = mln_request_ids(b->model, request, resolved.parse_special, &ids, &form, error);
    if (status == MYELIN_OK)
        status = start_ids(b, i, &ids, &form, &resolved, error);
    mln_ids_free(&ids);
    return status;
}

/* Fills the free slots with new requests; those that cannot begin are reported at once. */
static void admit(batch *b) {
    for (int32_t i = 0; i < b->num_slots; i++) {
        while (!b->sequences[i] && !b->drained && !b->stopped) {
            myelin_request request = {0};
            if (!b->next(b->user, &request)) {
                b->drained = true;
                break;
            }
            myelin_error error = {0};
            if (start(b, i, &request, &error) != MYELIN_OK)
                report(b, request.tag, NULL, &error);
        }
    }
}

static void finish(batch *b, int32_t i) {
    myelin_result result = {0};
    myelin_error error = {0};
    myelin_status status = mln_job_end(&b->slots[i].job, &result, &error);
    free_slot(b, i);
    if (status == MYELIN_OK)
        report(b, b->slots[i].tag, &result, NULL);
    else
        report(b, b->slots[i].tag, NULL, &error);
}

static void fail(batch *b, int32_t i, const myelin_error *error) {
    (void)mln_job_end(&b->slots[i].job, NULL, NULL);
    free_slot(b, i);
    report(b, b->slots[i].tag, NULL, error);
}

/* Ends what has ended; returns how many sequences still run. */
static int32_t collect(batch *b, bool after_step) {
    int32_t running = 0;
    for (int32_t i = 0; i < b->num_slots; i++) {
        if (!b->sequences[i])
            continue;
        mln_job *job = &b->slots[i].job;
        myelin_error error = {0};
        myelin_status status = after_step ? mln_job_advance(job, &error) : MYELIN_OK;
        if (status == MYELIN_OK)
            status = b->stopped ? mln_job_cancel(job, &error) : mln_job_poll(job, &error);
        if (status != MYELIN_OK)
            fail(b, i, &error);
        else if (job->ended)
            finish(b, i);
        else
            running++;
    }
    return running;
}

static myelin_status run(batch *b, myelin_error *error) {
    for (;;) {
        admit(b);
        if (collect(b, false) == 0) {
            if (b->drained || b->stopped)
                return MYELIN_OK;
            continue;
        }
        myelin_error step_error = {0};
        myelin_status status =
            mln_decoder_step(b->decoder, b->sequences, b->num_slots, &step_error);
        if (status != MYELIN_OK) {
            for (int32_t i = 0; i < b->num_slots; i++)
                if (b->sequences[i])
                    fail(b, i, &step_error);
            if (error)
                *error = step_error;
            return status;
        }
        collect(b, true);
    }
}

myelin_status myelin_batch_run(myelin_model *model, const myelin_batch_options *options,
                               myelin_next_request next, myelin_request_done done, void *user,
                               myelin_error *error) {
    myelin_batch_options resolved;
    myelin_status status = mln_batch_options_resolve(&resolved, options, error);
    if (status != MYELIN_OK)
        return status;
    batch b = {.model = model,
               .num_slots = resolved.max_sequences,
               .next = next,
               .done = done,
               .user = user};
    b.slots = mln_calloc((size_t)b.num_slots, sizeof *b.slots);
    b.sequences = mln_calloc((size_t)b.num_slots, sizeof *b.sequences);
    if (!b.slots || !b.sequences)
        status = mln_fail_memory(error, (uint64_t)b.num_slots * sizeof *b.slots, "a batch");
    if (status == MYELIN_OK)
        status = mln_decoder_create(&b.decoder, model->model, b.num_slots, 1, error);
    if (status == MYELIN_OK)
        status = run(&b, error);
    mln_decoder_free(b.decoder);
    free(b.sequences);
    free(b.slots);
    return status;
}
