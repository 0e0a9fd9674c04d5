/* SPDX-License-Identifier: Apache-2.0 */
/* Sessions, and the whole-text calls made of them. */
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "engine/job.h"

myelin_status myelin_session_open(myelin_session **out, myelin_model *model, int32_t max_len,
                                  myelin_error *error) {
    *out = NULL;
    if (max_len < 1 || max_len > MLN_CONFIG_MAX_POSITIONS)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "max_len: expected 1 to %d, found %d", MLN_CONFIG_MAX_POSITIONS,
                        (int)max_len);
    myelin_session *session = mln_calloc(1, sizeof *session);
    if (!session)
        return mln_fail_memory(error, sizeof *session, "a session");
    session->model = model;
    myelin_status status = mln_sequence_create(&session->sequence, model->model, max_len, error);
    if (status == MYELIN_OK)
        status = mln_decoder_create(&session->decoder, model->model, 1, max_len, error);
    if (status != MYELIN_OK) {
        myelin_session_close(session);
        return status;
    }
    *out = session;
    return MYELIN_OK;
}

void myelin_session_close(myelin_session *session) {
    if (!session)
        return;
    mln_decoder_free(session->decoder);
    mln_sequence_free(session->sequence);
    free(session);
}

myelin_status myelin_session_append(myelin_session *session, const int32_t *ids, size_t count,
                                    myelin_error *error) {
    session->form = (mln_turn_form){0};
    return mln_sequence_append(session->sequence, ids, count, error);
}

myelin_status myelin_session_append_text(myelin_session *session, const char *text, size_t length,
                                         bool parse_special, myelin_error *error) {
    mln_ids ids = {0};
    myelin_status status = mln_prompt_ids(session->model, text, length, parse_special, &ids, error);
    if (status == MYELIN_OK)
        status = myelin_session_append(session, ids.data, ids.count, error);
    mln_ids_free(&ids);
    return status;
}

myelin_status myelin_session_set(myelin_session *session, const int32_t *ids, size_t count,
                                 myelin_error *error) {
    session->form = (mln_turn_form){0};
    return mln_sequence_set(session->sequence, ids, count, error);
}

myelin_status myelin_session_set_chat(myelin_session *session, const char *messages, size_t length,
                                      const myelin_chat_options *chat, myelin_error *error) {
    mln_ids ids = {0};
    mln_turn_form form;
    myelin_status status = mln_chat_ids(session->model, messages, length, chat, &ids, &form, error);
    if (status == MYELIN_OK)
        status = mln_sequence_set(session->sequence, ids.data, ids.count, error);
    if (status == MYELIN_OK)
        session->form = form;
    mln_ids_free(&ids);
    return status;
}

void myelin_session_truncate(myelin_session *session, size_t count) {
    if (count < (size_t)session->sequence->count)
        mln_sequence_truncate(session->sequence, (int32_t)count);
}

const int32_t *myelin_session_tokens(const myelin_session *session, size_t *count) {
    *count = (size_t)session->sequence->count;
    return session->sequence->ids;
}

uint64_t mln_session_bytes(const myelin_plugin *plugin, const myelin_config *config,
                           int32_t max_len) {
    if (max_len < 1 || max_len > MLN_CONFIG_MAX_POSITIONS)
        return 0;
    uint64_t sequence = mln_sequence_bytes(plugin, config, max_len), bytes;
    bool fits = mln_add(sequence, mln_decoder_bytes(plugin, config, 1, max_len), &bytes) &&
                mln_add(bytes, sizeof(struct myelin_session), &bytes);
    return fits ? bytes : UINT64_MAX;
}

/* Runs a job on the session's sequence to its end. */
static myelin_status run_job(myelin_session *session, mln_job *job, myelin_error *error) {
    myelin_status status = MYELIN_OK;
    while (status == MYELIN_OK) {
        status = mln_job_poll(job, error);
        if (status != MYELIN_OK || job->ended)
            break;
        status = mln_decoder_step(session->decoder, &session->sequence, 1, error);
        if (status == MYELIN_OK)
            status = mln_job_advance(job, error);
    }
    return status;
}

static myelin_status generate(myelin_session *session, myelin_emit emit, void *user,
                              const myelin_generation_options *resolved, myelin_result *result,
                              myelin_error *error) {
    mln_job job;
    myelin_status status = MYELIN_OK;
    if (resolved->speculate)
        status = mln_decoder_allow_drafts(session->decoder, MLN_LOOKUP_MOST, error);
    if (status == MYELIN_OK)
        status = mln_job_begin(&job, session->model, session->sequence, &session->form, resolved,
                               emit, user, error);
    if (status != MYELIN_OK)
        return status;
    session->form = (mln_turn_form){0};
    status = run_job(session, &job, error);
    if (status == MYELIN_OK)
        return mln_job_end(&job, result, error);
    (void)mln_job_end(&job, NULL, NULL);
    return status;
}

myelin_status myelin_session_generate(myelin_session *session, myelin_emit emit, void *user,
                                      const myelin_generation_options *options,
                                      myelin_result *result, myelin_error *error) {
    if (result)
        *result = (myelin_result){0};
    myelin_generation_options resolved;
    myelin_status status =
        mln_generation_options_resolve(&resolved, options, session->model, error);
    if (status != MYELIN_OK)
        return status;
    return generate(session, emit, user, &resolved, result, error);
}

myelin_status myelin_complete(myelin_model *model, const myelin_request *request, myelin_emit emit,
                              void *user, myelin_result *result, myelin_error *error) {
    if (result)
        *result = (myelin_result){0};
    myelin_generation_options resolved;
    mln_ids ids = {0};
    mln_turn_form form;
    int32_t max_len = 0;
    myelin_session *session = NULL;
    myelin_status status =
        mln_generation_options_resolve(&resolved, request->options, model, error);
    if (status == MYELIN_OK)
        status = mln_request_ids(model, request, resolved.parse_special, &ids, &form, error);
    if (status == MYELIN_OK)
        status = mln_cache_length(&resolved, ids.count, &max_len, error);
    if (status == MYELIN_OK)
        status = myelin_session_open(&session, model, max_len, error);
    if (status == MYELIN_OK)
        status = myelin_session_append(session, ids.data, ids.count, error);
    mln_ids_free(&ids);
    if (status == MYELIN_OK) {
        session->form = form;
        status = generate(session, emit, user, &resolved, result, error);
    }
    myelin_session_close(session);
    return status;
}

myelin_status myelin_stream(myelin_model *model, const char *prompt, myelin_emit emit, void *user,
                            const myelin_generation_options *options, myelin_result *result,
                            myelin_error *error) {
    myelin_request request = {
        .prompt = prompt, .prompt_length = strlen(prompt), .options = options};
    return myelin_complete(model, &request, emit, user, result, error);
}

myelin_status myelin_run(myelin_model *model, const char *prompt,
                         const myelin_generation_options *options, myelin_result *result,
                         myelin_error *error) {
    return myelin_stream(model, prompt, NULL, NULL, options, result, error);
}
