/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/clock.h"
#include "base/error.h"
#include "engine/internal.h"
#include "native/native.h"

const char *myelin_version(void) {
#define TEXT_OF(x) #x
#define TEXT(x)    TEXT_OF(x)
    return TEXT(MYELIN_VERSION_MAJOR) "." TEXT(MYELIN_VERSION_MINOR) "." TEXT(MYELIN_VERSION_PATCH);
#undef TEXT
#undef TEXT_OF
}

void myelin_free(void *memory) {
    free(memory);
}

const myelin_plugin *mln_default_plugin(void) {
    return mln_native_plugin();
}

void mln_warn_of_positions(const myelin_model *model, size_t count) {
    int32_t limit = model->checkpoint->config.model.max_position_embeddings;
    if (!model->warning || count <= (size_t)limit)
        return;
    char message[160];
    snprintf(message, sizeof message,
             "the sequence has passed max_position_embeddings (%" PRId32
             "): later tokens are computed, but the model was not trained for such positions",
             limit);
    model->warning(model->user, message);
}

static void add_stop_ids(myelin_model *model, const int32_t *ids, int32_t count) {
    for (int32_t i = 0; i < count; i++) {
        bool known = false;
        for (size_t k = 0; k < model->num_stop_ids; k++)
            known = known || model->stop_ids[k] == ids[i];
        if (!known)
            model->stop_ids[model->num_stop_ids++] = ids[i];
    }
}

/*
 * Reading tokenizer.json, a fifth of a second of one thread, goes on while the weights are loaded.
 * Not from their beginning, when a plug-in may time what it can do and needs the processors: the
 * reports of progress, which go_on() takes in the user's place, say when. If it fails, they answer
 * that the weights need not be waited for.
 */
enum { FIRST_SHARE = 8 }; /* one in so many bytes of the weights is read before */

typedef struct tokenizer_job {
    const char *directory;
    myelin_tokenizer *tokenizer; /* NULL when the directory has none */
    myelin_error error;
    _Atomic int status;
    enum { TOKENIZER_WAITS, TOKENIZER_IN_THREAD, TOKENIZER_READ, TOKENIZER_REFUSED } state;
    pthread_t thread;
    bool (*progress)(void *user, uint64_t done, uint64_t total);
    void *user;
} tokenizer_job;

/* A directory without tokenizer.json is fine: then only token ids go in and out. */
static myelin_status open_tokenizer(tokenizer_job *job) {
    char *path = mln_path_join(job->directory, "tokenizer.json");
    if (!path)
        return mln_fail_memory(&job->error, strlen(job->directory), "a path");
    bool present = mln_path_exists(path);
    free(path);
    return present ? myelin_tokenizer_open(&job->tokenizer, job->directory, &job->error)
                   : MYELIN_OK;
}

static void *run_tokenizer(void *argument) {
    tokenizer_job *job = argument;
    atomic_store(&job->status, (int)open_tokenizer(job));
    return NULL;
}

static bool go_on(void *user, uint64_t done, uint64_t total) {
    tokenizer_job *job = user;
    if (job->state == TOKENIZER_WAITS && done >= total / FIRST_SHARE)
        job->state = pthread_create(&job->thread, NULL, run_tokenizer, job) == 0
                         ? TOKENIZER_IN_THREAD
                         : TOKENIZER_REFUSED;
    if (atomic_load(&job->status) != MYELIN_OK)
        return false;
    return !job->progress || job->progress(job->user, done, total);
}

/* What no thread has begun is read now, if it is wanted still. */
static void end_tokenizer(tokenizer_job *job, bool wanted) {
    if (job->state == TOKENIZER_IN_THREAD)
        pthread_join(job->thread, NULL);
    else if (job->state != TOKENIZER_READ && wanted)
        run_tokenizer(job);
    job->state = TOKENIZER_READ;
}

/* A chat template that cannot be used matters only to who wants to chat: then it is the reason. */
static myelin_status open_template(myelin_model *model, const char *directory, bool wanted,
                                   myelin_error *error) {
    myelin_status status =
        myelin_chat_template_open(&model->chat_template, directory, &model->chat_error);
    if (status == MYELIN_OK || !wanted)
        return MYELIN_OK;
    if (error)
        *error = model->chat_error;
    return status;
}

/* Loads the weights of the checkpoint that is open. */
static myelin_status load(myelin_model *model, const myelin_model_options *options,
                          myelin_error *error) {
    myelin_status status = mln_plugin_choose(&model->plugin, model->checkpoint, options, error);
    if (status != MYELIN_OK)
        return status;
    mln_model_options load = {.plugin = model->plugin.plugin,
                              .dtype = (int32_t)options->dtype,
                              .fusion = (int32_t)options->fusion,
                              .pack = (int32_t)options->pack,
                              .cache_type = (int32_t)options->cache_type,
                              .shortlist = options->shortlist,
                              .activations = (int32_t)options->activations,
                              .tensor_parallel = options->tensor_parallel,
                              .threads = options->threads,
                              .progress = options->progress,
                              .user = options->user};
    status = mln_model_load(&model->model, model->checkpoint, &load, error);
    if (status != MYELIN_OK)
        return status;
    add_stop_ids(model, model->checkpoint->generation.stop_ids,
                 model->checkpoint->generation.num_stop_ids);
    add_stop_ids(model, model->checkpoint->config.stop_ids, model->checkpoint->config.num_stop_ids);
    return MYELIN_OK;
}

static myelin_status open_directory(myelin_model *model, const char *directory,
                                    const myelin_model_options *options, myelin_error *error) {
    myelin_status status = mln_checkpoint_open(&model->checkpoint, directory, error);
    if (status != MYELIN_OK)
        return status;
    tokenizer_job job = {
        .directory = directory, .progress = options->progress, .user = options->user};
    myelin_model_options watched = *options;
    watched.progress = go_on;
    watched.user = &job;
    if (options->threads == 1) /* who wants one thread gets no second one */
        end_tokenizer(&job, true);
    if (atomic_load(&job.status) == MYELIN_OK)
        status = open_template(model, directory, options->chat, error);
    if (status == MYELIN_OK && atomic_load(&job.status) == MYELIN_OK)
        status = load(model, &watched, error);
    end_tokenizer(&job, status == MYELIN_OK);
    model->tokenizer = job.tokenizer;
    if (atomic_load(&job.status) == MYELIN_OK)
        return status;
    if (error) /* what came of the weights then is no matter */
        *error = job.error;
    return (myelin_status)atomic_load(&job.status);
}

static myelin_status open_synthetic(myelin_model *model, const mln_synthetic_spec *spec,
                                    const myelin_model_options *options, myelin_error *error) {
    mln_fail(&model->chat_error, MYELIN_ERROR_NOT_FOUND, NULL, -1,
             "a synthetic model has no chat template");
    if (options->chat)
        return mln_fail(error, MYELIN_ERROR_NOT_FOUND, NULL, -1, "%s", model->chat_error.message);
    myelin_status status = mln_synthetic_open(&model->checkpoint, spec, error);
    return status == MYELIN_OK ? load(model, options, error) : status;
}

/* Opens a directory, or with NULL what the spec says. */
static myelin_status open_model(myelin_model **out, const char *directory,
                                const mln_synthetic_spec *spec, const myelin_model_options *options,
                                myelin_error *error) {
    int64_t start = mln_clock_ns();
    *out = NULL;
    myelin_model_options resolved;
    myelin_status status = mln_model_options_resolve(&resolved, options, error);
    if (status != MYELIN_OK)
        return status;
    myelin_model *model = mln_calloc(1, sizeof *model);
    if (!model)
        return mln_fail_memory(error, sizeof *model, "a model");
    model->warning = resolved.warning;
    model->user = resolved.user;
    status = directory ? open_directory(model, directory, &resolved, error)
                       : open_synthetic(model, spec, &resolved, error);
    if (status != MYELIN_OK) {
        myelin_model_close(model);
        return status;
    }
    model->load_ms = mln_ms_between(start, mln_clock_ns());
    *out = model;
    return MYELIN_OK;
}

myelin_status myelin_model_open(myelin_model **out, const char *directory,
                                const myelin_model_options *options, myelin_error *error) {
    return open_model(out, directory, NULL, options, error);
}

myelin_status myelin_model_open_synthetic(myelin_model **out, const char *shape, int32_t bits,
                                          const myelin_model_options *options,
                                          myelin_error *error) {
    mln_synthetic_spec spec = {.shape = shape, .bits = bits, .group_size = 64};
    return open_model(out, NULL, &spec, options, error);
}

void myelin_model_close(myelin_model *model) {
    if (!model)
        return;
    mln_model_free(model->model);
    mln_plugin_close(&model->plugin);
    myelin_chat_template_close(model->chat_template);
    myelin_tokenizer_close(model->tokenizer);
    mln_checkpoint_free(model->checkpoint);
    free(model);
}

const myelin_config *myelin_model_config(const myelin_model *model) {
    return &model->checkpoint->config.model;
}

const myelin_tokenizer *myelin_model_tokenizer(const myelin_model *model) {
    return model->tokenizer;
}

const myelin_chat_template *myelin_model_chat_template(const myelin_model *model) {
    return model->chat_template;
}

static myelin_activations activations_of(const myelin_model *model) {
    if (model->model->plugin != mln_native_plugin())
        return MYELIN_ACTIVATIONS_F32;
    return mln_native_activations(model->model->weights);
}

void myelin_model_get_info(const myelin_model *model, myelin_model_info *info) {
    myelin_model_info full = {.size = info->size,
                              .plugin = model->model->plugin->name,
                              .threads = mln_pool_threads(model->model->pool),
                              .weight_bytes = model->model->weight_bytes,
                              .load_ms = model->load_ms,
                              .max_fusion = (myelin_fusion)model->plugin.plugin->max_fusion,
                              .step_tokens = mln_step_tokens(model->model->plugin)};
    const myelin_plugin *plugin = model->model->plugin;
    if (MYELIN_PLUGIN_HAS(plugin, weight_bytes)) {
        int32_t pack = MYELIN_PACK_AUTO;
        full.held_bytes = plugin->weight_bytes(model->model->weights, &pack);
        full.pack = pack == MYELIN_PACK_LOSSLESS ? MYELIN_PACK_LOSSLESS : MYELIN_PACK_NONE;
    }
    full.activations = activations_of(model);
    memcpy(info, &full, info->size < sizeof full ? info->size : sizeof full);
}

double myelin_model_peak(const myelin_model *model) {
    mln_native_rates rates;
    bool codes = model->checkpoint->config.model.quantization_bits != 0;
    if (model->model->plugin != mln_native_plugin() ||
        mln_native_peak(mln_pool_threads(model->model->pool), &rates, NULL) != MYELIN_OK)
        return 0;
    myelin_activations activations = activations_of(model);
    if (codes)
        return activations == MYELIN_ACTIVATIONS_INT8 ? rates.bytes : rates.codes;
    return activations == MYELIN_ACTIVATIONS_BF16     ? rates.pieces[1]
           : activations == MYELIN_ACTIVATIONS_BF16X2 ? rates.pieces[2]
                                                      : rates.dense;
}

uint64_t myelin_model_session_bytes(const myelin_model *model, int32_t max_len) {
    return mln_session_bytes(model->model->plugin, &model->model->config, max_len);
}
