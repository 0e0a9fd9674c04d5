/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One generation being run: a sequence, the text that comes of it, what the caller was handed and
 * the result being filled. Solo runs, sessions and batches all drive jobs.
 */
#ifndef MLN_ENGINE_JOB_H
#define MLN_ENGINE_JOB_H

#include "engine/held_text.h"
#include "engine/internal.h"
#include "engine/text_stream.h"
#include "engine/turn.h"

typedef struct mln_job {
    const myelin_model *model;
    mln_sequence *sequence; /* borrowed */
    myelin_generation_options options;
    myelin_emit emit; /* may be NULL */
    void *user;
    mln_bias *bias; /* the options' bias in the sampler's form */
    mln_text_stream stream;
    mln_turn_stream turn;     /* when the prompt is a conversation */
    size_t num_split;         /* bytes of the text that the turn has been given */
    mln_ids closing;          /* what closes a block of reasoning when its budget is spent */
    int32_t reasoning_tokens; /* so far */
    mln_held_text held;       /* when the options have a constraint */
    myelin_result result;
    size_t num_handed; /* tokens the caller has been handed */
    bool ended;
    bool warned;
    int64_t start_ns, first_ns, last_ns;
} mln_job;

/*
 * Begins generating after what the sequence holds, which leaves the text to come in `form`.
 * *options is resolved; what it points to outlives the job. Takes all memory the job needs, tool
 * calls apart. On failure nothing is left to free. A job must not move while it runs.
 */
myelin_status mln_job_begin(mln_job *job, const myelin_model *model, mln_sequence *sequence,
                            const mln_turn_form *form, const myelin_generation_options *options,
                            myelin_emit emit, void *user, myelin_error *error);

/* Asks options.cancelled; job->ended tells whether that ended it. */
myelin_status mln_job_poll(mln_job *job, myelin_error *error);
/* Takes what a step gave the sequence; job->ended tells whether that was the last. */
myelin_status mln_job_advance(mln_job *job, myelin_error *error);
/* Ends the job as cancelled: what is certain so far is its result. */
myelin_status mln_job_cancel(mln_job *job, myelin_error *error);

/* Moves the result out (or drops it, with NULL) and frees the rest. Empty after a failure. */
myelin_status mln_job_end(mln_job *job, myelin_result *result, myelin_error *error);

/*
 * The result of a generation after `count` tokens that was cancelled before it began: what a job
 * cancelled at once ends with.
 */
myelin_status mln_result_cancelled(myelin_result *result, const myelin_model *model,
                                   const mln_turn_form *form,
                                   const myelin_generation_options *options, int32_t count,
                                   myelin_error *error);

#endif
