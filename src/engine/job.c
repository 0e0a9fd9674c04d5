/* SPDX-License-Identifier: Apache-2.0 */
#include "engine/job.h"

#include <stdlib.h>

#include "base/clock.h"
#include "base/error.h"

const char *myelin_finish_reason_text(myelin_finish_reason reason) {
    switch (reason) {
    case MYELIN_FINISH_STOP:
        return "stop";
    case MYELIN_FINISH_LENGTH:
        return "length";
    case MYELIN_FINISH_CANCELLED:
        return "cancelled";
    }
    return "unknown";
}

void myelin_result_clear(myelin_result *result) {
    free(result->text);
    free(result->token_ids);
    free(result->logprobs);
    free(result->top_ids);
    free(result->top_logprobs);
    mln_turn_clear(result->turn);
    *result = (myelin_result){0};
}

/* The turn's memory, and what would close its reasoning. */
static myelin_status begin_turn(mln_job *job, const mln_turn_form *form, myelin_error *error) {
    static const char closing[] = "\n</think>\n\n";
    const myelin_generation_options *o = &job->options;
    if (!form->is_turn || !job->model->tokenizer)
        return MYELIN_OK;
    myelin_status status = mln_turn_begin(&job->turn, form, o->stream_mode == MYELIN_STREAM_STABLE,
                                          job->stream.text.capacity, error);
    if (status == MYELIN_OK && o->thinking_budget >= 0)
        status =
            mln_prompt_ids(job->model, closing, sizeof closing - 1, true, &job->closing, error);
    return status;
}

/* Closes the reasoning when its budget is spent; that it is open is known from whole tokens. */
static void keep_budget(mln_job *job) {
    bool spent = job->closing.count > 0 && mln_turn_is_reasoning(&job->turn) &&
                 job->reasoning_tokens == job->options.thinking_budget;
    if (!spent || job->sequence->num_forced > 0)
        return;
    mln_sequence_force(job->sequence, job->closing.data, (int32_t)job->closing.count);
}

/* Says what the next token is chosen among; *ended: the text is whole and nothing may follow. */
static myelin_status hold(mln_job *job, bool *ended, myelin_error *error) {
    *ended = false;
    if (!job->held.state || job->sequence->num_forced > 0)
        return MYELIN_OK;
    mln_sequence_allow(job->sequence, mln_held_mask(&job->held));
    *ended = job->held.ended;
    if (job->held.ended && !mln_constraint_complete(job->held.state))
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "stop_ids: expected tokens that the constraint can do without, found all "
                        "that may come next");
    return MYELIN_OK;
}

/* Gives the turn the text that has become certain. */
static myelin_status split_text(mln_job *job, myelin_error *error) {
    if (!job->turn.active)
        return MYELIN_OK;
    size_t end = mln_text_stream_certain(&job->stream), begin = job->num_split;
    job->reasoning_tokens += mln_turn_is_reasoning(&job->turn);
    job->num_split = end > begin ? end : begin;
    myelin_status status = MYELIN_OK;
    if (end > begin)
        status = mln_turn_push(&job->turn, job->stream.text.data + begin, end - begin, error);
    if (status == MYELIN_OK && job->stream.finished)
        status = mln_turn_finish(&job->turn, error);
    return status;
}

/* Arrays for the most tokens this job can make. */
static myelin_status allocate(mln_job *job, int32_t most, myelin_error *error) {
    const myelin_generation_options *o = &job->options;
    myelin_result *r = &job->result;
    size_t n = (size_t)most, top = o->logprobs ? (size_t)o->top_logprobs : 0;
    bool ok = (r->token_ids = mln_alloc(n, sizeof *r->token_ids)) != NULL;
    if (ok && o->logprobs)
        ok = (r->logprobs = mln_alloc(n, sizeof *r->logprobs)) != NULL;
    if (ok && top)
        ok = (r->top_ids = mln_alloc(n * top, sizeof *r->top_ids)) != NULL &&
             (r->top_logprobs = mln_alloc(n * top, sizeof *r->top_logprobs)) != NULL;
    if (ok && o->num_logit_bias)
        ok = (job->bias = mln_alloc(o->num_logit_bias, sizeof *job->bias)) != NULL;
    if (!ok)
        return mln_fail_memory(error, n * (1 + top) * sizeof(float), "a result");
    for (size_t i = 0; i < o->num_logit_bias; i++)
        job->bias[i] = (mln_bias){o->logit_bias[i].id, o->logit_bias[i].bias};
    r->num_top = (int32_t)top;
    if (!job->model->tokenizer)
        return MYELIN_OK;
    return mln_text_stream_begin(
        &job->stream, job->model->tokenizer->tokens, job->model->tokenizer->longest_token, most,
        o->stop_strings, o->num_stop_strings, o->stream_mode == MYELIN_STREAM_STABLE, error);
}

/* Tokens may be made at once as far as they are handed over at once. */
static int32_t chunk_of(const myelin_generation_options *options) {
    switch (options->sync) {
    case MYELIN_SYNC_TOKEN:
        return 1;
    case MYELIN_SYNC_CHUNK:
        return options->sync_tokens;
    case MYELIN_SYNC_END:
        return MLN_MAX_CHUNK;
    }
    return 1;
}

static myelin_status begin_sequence(mln_job *job, myelin_error *error) {
    const myelin_generation_options *o = &job->options;
    mln_generation generation = {.sampling = {.sampled = o->sampler == MYELIN_SAMPLER_SAMPLED,
                                              .temperature = o->temperature,
                                              .top_k = o->top_k,
                                              .top_p = o->top_p,
                                              .min_p = o->min_p,
                                              .repetition_penalty = o->repetition_penalty,
                                              .presence_penalty = o->presence_penalty,
                                              .frequency_penalty = o->frequency_penalty,
                                              .bias = job->bias,
                                              .num_bias = o->num_logit_bias,
                                              .seed = o->seed},
                                 .max_new_tokens = o->max_new_tokens,
                                 .stop_ids = o->stop_ids,
                                 .num_stop_ids = o->num_stop_ids,
                                 .max_chunk = chunk_of(o),
                                 .want_logprobs = o->logprobs,
                                 .speculate = o->speculate};
    return mln_sequence_begin(job->sequence, &generation, error);
}

myelin_status mln_job_begin(mln_job *job, const myelin_model *model, mln_sequence *sequence,
                            const mln_turn_form *form, const myelin_generation_options *options,
                            myelin_emit emit, void *user, myelin_error *error) {
    *job = (mln_job){.model = model,
                     .sequence = sequence,
                     .options = *options,
                     .emit = emit,
                     .user = user,
                     .start_ns = mln_clock_ns()};
    int32_t room = sequence->max_len - sequence->count + 1;
    int32_t most = options->max_new_tokens < room ? options->max_new_tokens : room;
    myelin_status status = allocate(job, most > 0 ? most : 1, error);
    if (status == MYELIN_OK)
        status = begin_turn(job, form, error);
    if (status == MYELIN_OK)
        status = mln_held_begin(&job->held, options, form,
                                model->checkpoint->config.model.vocab_size, error);
    if (status == MYELIN_OK)
        status = begin_sequence(job, error);
    if (status != MYELIN_OK) {
        (void)mln_job_end(job, NULL, NULL);
        return status;
    }
    job->result.input_tokens = sequence->count;
    job->result.cached_tokens = mln_sequence_cached(sequence);
    if (job->turn.active)
        keep_budget(job);
    bool ended; /* no grammar has a text without bytes, so not yet */
    status = hold(job, &ended, error);
    if (status != MYELIN_OK)
        (void)mln_job_end(job, NULL, NULL);
    return status;
}

/* Hands over what has come since the last time. A caller that has had enough cancels the job. */
static void hand_over(mln_job *job) {
    const myelin_result *r = &job->result;
    myelin_piece piece = {.token_ids = r->token_ids + job->num_handed,
                          .num_tokens = r->num_tokens - job->num_handed,
                          .num_top = r->num_top};
    if (!job->emit)
        return;
    if (r->logprobs)
        piece.logprobs = r->logprobs + job->num_handed;
    if (r->top_ids) {
        piece.top_ids = r->top_ids + job->num_handed * (size_t)r->num_top;
        piece.top_logprobs = r->top_logprobs + job->num_handed * (size_t)r->num_top;
    }
    if (job->model->tokenizer)
        piece.text_length = mln_text_stream_release(&job->stream, &piece.text);
    if (job->turn.active)
        piece.num_events = mln_turn_release(&job->turn, job->ended, &piece.events);
    job->num_handed = job->result.num_tokens;
    if (piece.num_tokens == 0 && piece.text_length == 0 && piece.num_events == 0)
        return;
    /* A piece is a string of its own: its last byte may be in the middle of the stream's text. */
    char *end = piece.text ? job->stream.text.data + job->stream.released : NULL;
    char kept = end ? *end : '\0';
    if (end)
        *end = '\0';
    bool go_on = job->emit(job->user, &piece);
    if (end)
        *end = kept;
    if (go_on || job->ended)
        return;
    job->ended = true;
    job->result.finish_reason = MYELIN_FINISH_CANCELLED;
    /* Text that was held back was never handed over, so it is not part of the result. */
    job->stream.text.length = job->stream.released;
    job->stream.finished = true;
    if (job->turn.active)
        mln_turn_cut(&job->turn);
}

static myelin_status end_with(mln_job *job, myelin_finish_reason reason, myelin_error *error) {
    bool stopped = false;
    if (job->model->tokenizer) /* it cannot fail: its memory is there already */
        (void)mln_text_stream_finish(&job->stream, &stopped, NULL);
    myelin_status status = split_text(job, error);
    job->ended = true;
    job->result.finish_reason =
        stopped && reason == MYELIN_FINISH_LENGTH ? MYELIN_FINISH_STOP : reason;
    if (status == MYELIN_OK)
        hand_over(job);
    return status;
}

myelin_status mln_job_cancel(mln_job *job, myelin_error *error) {
    return job->ended ? MYELIN_OK : end_with(job, MYELIN_FINISH_CANCELLED, error);
}

myelin_status mln_job_poll(mln_job *job, myelin_error *error) {
    if (!job->ended && job->options.cancelled && job->options.cancelled(job->options.cancel_user))
        return mln_job_cancel(job, error);
    return MYELIN_OK;
}

static void record_token(mln_job *job, int32_t id) {
    const mln_sequence *s = job->sequence;
    myelin_result *r = &job->result;
    size_t n = r->num_tokens++;
    r->token_ids[n] = id;
    if (!r->logprobs)
        return;
    r->logprobs[n] = s->logprobs[id];
    if (r->num_top == 0)
        return;
    size_t row = n * (size_t)r->num_top;
    mln_top top = {r->num_top, r->top_ids + row, r->top_logprobs + row};
    mln_top_of(s->logprobs, job->model->checkpoint->config.model.vocab_size, &top);
    for (int32_t i = top.count; i < r->num_top; i++) { /* NaN logits: fewer than asked for */
        r->top_ids[row + (size_t)i] = -1;
        r->top_logprobs[row + (size_t)i] = 0;
    }
}

/* Says once that the sequence has left the positions the model was made for. */
static void warn_of_positions(mln_job *job) {
    int32_t limit = job->model->checkpoint->config.model.max_position_embeddings;
    if (job->warned || job->sequence->count <= limit)
        return;
    job->warned = true;
    mln_warn_of_positions(job->model, (size_t)job->sequence->count);
}

/* True when it is time to hand over under the options' sync; the first token goes out at once. */
static bool is_due(const mln_job *job) {
    size_t waiting = job->result.num_tokens - job->num_handed;
    switch (job->options.sync) {
    case MYELIN_SYNC_TOKEN:
        return true;
    case MYELIN_SYNC_CHUNK:
        return job->result.num_tokens == 1 || waiting >= (size_t)job->options.sync_tokens;
    case MYELIN_SYNC_END:
        return false;
    }
    return false;
}

myelin_status mln_job_advance(mln_job *job, myelin_error *error) {
    mln_sequence *s = job->sequence;
    if (job->ended || !s->fresh)
        return MYELIN_OK;
    job->last_ns = mln_clock_ns();
    if (job->result.num_tokens == 0)
        job->first_ns = job->last_ns;
    int32_t id = s->ids[s->count - 1];
    record_token(job, id);
    warn_of_positions(job);
    if (s->phase == MLN_STOPPED)
        return end_with(job, MYELIN_FINISH_STOP, error);
    bool stopped = false;
    if (job->model->tokenizer && id < mln_tokenizer_size(job->stream.tokenizer)) {
        myelin_status status = mln_text_stream_push(&job->stream, id, &stopped, error);
        if (status != MYELIN_OK)
            return status;
    }
    if (stopped)
        return end_with(job, MYELIN_FINISH_STOP, error);
    if (s->phase == MLN_EXHAUSTED)
        return end_with(job, MYELIN_FINISH_LENGTH, error);
    myelin_status status = split_text(job, error);
    if (status != MYELIN_OK)
        return status;
    mln_held_accept(&job->held, id);
    if (job->turn.active)
        keep_budget(job);
    bool ended; /* and there are no stop tokens that could say so */
    status = hold(job, &ended, error);
    if (status == MYELIN_OK && ended)
        return end_with(job, MYELIN_FINISH_STOP, error);
    if (status != MYELIN_OK)
        return status;
    if (is_due(job))
        hand_over(job);
    return MYELIN_OK;
}

myelin_status mln_result_cancelled(myelin_result *result, const myelin_model *model,
                                   const mln_turn_form *form,
                                   const myelin_generation_options *options, int32_t count,
                                   myelin_error *error) {
    mln_job job = {.model = model, .options = *options, .start_ns = mln_clock_ns()};
    myelin_status status = allocate(&job, 1, error);
    if (status == MYELIN_OK)
        status = begin_turn(&job, form, error);
    job.result.input_tokens = count;
    if (status == MYELIN_OK)
        status = mln_job_cancel(&job, error);
    if (status == MYELIN_OK)
        return mln_job_end(&job, result, error);
    (void)mln_job_end(&job, NULL, NULL);
    return status;
}

static void fill_timing(mln_job *job) {
    myelin_result *r = &job->result;
    r->total_ms = mln_ms_between(job->start_ns, mln_clock_ns());
    if (r->num_tokens > 0)
        r->prefill_ms = mln_ms_between(job->start_ns, job->first_ns);
    if (r->num_tokens > 1)
        r->per_token_ms = mln_ms_between(job->first_ns, job->last_ns) / (double)(r->num_tokens - 1);
}

myelin_status mln_job_end(mln_job *job, myelin_result *result, myelin_error *error) {
    myelin_status status = MYELIN_OK;
    if (result && job->turn.active)
        status = mln_turn_take(&job->turn, &job->result.turn, error);
    free(job->bias);
    mln_ids_free(&job->closing);
    mln_held_free(&job->held);
    mln_turn_free(&job->turn);
    if (result && status == MYELIN_OK) {
        fill_timing(job);
        job->result.reasoning_tokens = job->reasoning_tokens;
        *result = job->result;
        if (job->stream.text.data) { /* the stream's text becomes the result's */
            job->stream.text.data[job->stream.text.length] = '\0';
            result->text = job->stream.text.data;
            result->text_length = job->stream.text.length;
            job->stream.text = (mln_buffer){0};
        }
    } else {
        myelin_result_clear(&job->result);
    }
    mln_text_stream_free(&job->stream);
    *job = (mln_job){0};
    return status;
}
