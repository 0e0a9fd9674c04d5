/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <math.h>
#include <string.h>

#include "base/error.h"
#include "base/utf8.h"
#include "engine/internal.h"
#include "tensor/dtype.h"

enum { DEFAULT_MAX_NEW_TOKENS = 100, DEFAULT_MAX_LEN = 2048, DEFAULT_SYNC_TOKENS = 31 };
enum { DEFAULT_BATCH_SEQUENCES = 8, MAX_BATCH_SEQUENCES = 1024 };
enum { DEFAULT_SERVING_SEQUENCES = 16, DEFAULT_QUEUE = 1024, MAX_QUEUE = 1 << 20 };
enum { MAX_STEP_TOKENS = 1 << 16, MAX_PRIORITY = 100, MAX_TENSOR_PARALLEL = 64 };

void myelin_model_options_init(myelin_model_options *options) {
    *options = (myelin_model_options){.size = sizeof *options};
}

void myelin_batch_options_init(myelin_batch_options *options) {
    *options =
        (myelin_batch_options){.size = sizeof *options, .max_sequences = DEFAULT_BATCH_SEQUENCES};
}

void myelin_serving_options_init(myelin_serving_options *options) {
    *options = (myelin_serving_options){.size = sizeof *options,
                                        .max_sequences = DEFAULT_SERVING_SEQUENCES,
                                        .max_queue = DEFAULT_QUEUE,
                                        .prefix_cache = true};
}

void myelin_submission_init(myelin_submission *submission) {
    *submission = (myelin_submission){.size = sizeof *submission, .prefix_cache = true};
}

void myelin_quantize_options_init(myelin_quantize_options *options) {
    *options = (myelin_quantize_options){.size = sizeof *options, .bits = 4, .group_size = 64};
}

void myelin_generation_options_init(myelin_generation_options *options) {
    *options = (myelin_generation_options){.size = sizeof *options,
                                           .max_new_tokens = DEFAULT_MAX_NEW_TOKENS,
                                           .max_len = DEFAULT_MAX_LEN,
                                           .temperature = 1,
                                           .top_p = 1,
                                           .repetition_penalty = 1,
                                           .parse_special = true,
                                           .thinking_budget = -1};
}

void myelin_generation_options_from_model(myelin_generation_options *options,
                                          const myelin_model *model) {
    const mln_generation_config *config = &model->checkpoint->generation;
    myelin_generation_options_init(options);
    /* generation_config.json may say temperature 0 for greedy; sampling needs a positive one. */
    bool zero = config->has_temperature && config->temperature <= 0;
    options->sampler = config->do_sample && !zero ? MYELIN_SAMPLER_SAMPLED : MYELIN_SAMPLER_GREEDY;
    if (config->has_temperature && !zero)
        options->temperature = config->temperature;
    if (config->has_top_k)
        options->top_k = config->top_k;
    if (config->has_top_p && config->top_p > 0)
        options->top_p = config->top_p;
    if (config->has_min_p)
        options->min_p = config->min_p;
    if (config->has_repetition_penalty)
        options->repetition_penalty = config->repetition_penalty;
}

/*
 * Copies options of the caller (NULL: leaves the defaults) over *out. Their first member is the
 * size they had in the header the caller was compiled with.
 */
static myelin_status copy_options(void *out, size_t size, const void *options, const char *what,
                                  myelin_error *error) {
    if (!options)
        return MYELIN_OK;
    size_t found;
    memcpy(&found, options, sizeof found);
    if (found == 0 || found > size)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "%s.size: expected 1 to %zu, found %zu (call %s_init first)", what, size,
                        found, what);
    memcpy(out, options, found);
    return MYELIN_OK;
}

static myelin_status check_integer(const char *name, int64_t value, int64_t low, int64_t high,
                                   myelin_error *error) {
    if (value >= low && value <= high)
        return MYELIN_OK;
    return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                    "%s: expected %" PRId64 " to %" PRId64 ", found %" PRId64, name, low, high,
                    value);
}

/* Which end of a range belongs to it. */
typedef enum bounds { CLOSED, OPEN_LOW } bounds;

static myelin_status check_real(const char *name, double value, double low, double high,
                                bounds kind, myelin_error *error) {
    bool above = kind == OPEN_LOW ? value > low : value >= low;
    if (above && value <= high) /* false for NaN */
        return MYELIN_OK;
    return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                    "%s: expected a number %s %g and at most %g, found %g", name,
                    kind == OPEN_LOW ? "above" : "of at least", low, high, value);
}

myelin_status mln_model_options_resolve(myelin_model_options *out,
                                        const myelin_model_options *options, myelin_error *error) {
    myelin_model_options_init(out);
    myelin_status status = copy_options(out, sizeof *out, options, "myelin_model_options", error);
    if (status == MYELIN_OK)
        status = check_integer("threads", out->threads, 0, 1024, error);
    if (status == MYELIN_OK)
        status = check_integer("dtype", (int64_t)out->dtype, MYELIN_DTYPE_AUTO, MYELIN_DTYPE_BF16,
                               error);
    if (status == MYELIN_OK)
        status = check_integer("fusion", (int64_t)out->fusion, MYELIN_FUSION_AUTO,
                               MYELIN_FUSION_CHUNK, error);
    if (status == MYELIN_OK)
        status = check_integer("pack", (int64_t)out->pack, MYELIN_PACK_AUTO, MYELIN_PACK_LOSSLESS,
                               error);
    if (status == MYELIN_OK)
        status = check_integer("activations", (int64_t)out->activations, MYELIN_ACTIVATIONS_AUTO,
                               MYELIN_ACTIVATIONS_INT8, error);
    if (status == MYELIN_OK)
        status = check_integer("cache_type", (int64_t)out->cache_type, MYELIN_CACHE_AUTO,
                               MYELIN_CACHE_INT8, error);
    if (status == MYELIN_OK)
        status = check_integer("device", (int64_t)out->device, MYELIN_DEVICE_AUTO,
                               MYELIN_DEVICE_CUDA, error);
    if (status == MYELIN_OK)
        status =
            check_integer("tensor_parallel", out->tensor_parallel, 0, MAX_TENSOR_PARALLEL, error);
    if (status == MYELIN_OK && out->threads == 0)
        out->threads = mln_cpu_count();
    return status;
}

myelin_status mln_batch_options_resolve(myelin_batch_options *out,
                                        const myelin_batch_options *options, myelin_error *error) {
    myelin_batch_options_init(out);
    myelin_status status = copy_options(out, sizeof *out, options, "myelin_batch_options", error);
    if (status == MYELIN_OK)
        status = check_integer("max_sequences", out->max_sequences, 1, MAX_BATCH_SEQUENCES, error);
    return status;
}

myelin_status mln_serving_options_resolve(myelin_serving_options *out,
                                          const myelin_serving_options *options,
                                          myelin_error *error) {
    const double longest_ms = 60e3;
    myelin_serving_options_init(out);
    myelin_status status = copy_options(out, sizeof *out, options, "myelin_serving_options", error);
    if (status == MYELIN_OK)
        status = check_integer("max_sequences", out->max_sequences, 1, MAX_BATCH_SEQUENCES, error);
    if (status == MYELIN_OK)
        status = check_integer("max_queue", out->max_queue, 0, MAX_QUEUE, error);
    if (status == MYELIN_OK && out->step_tokens != 0)
        status = check_integer("step_tokens", out->step_tokens, out->max_sequences, MAX_STEP_TOKENS,
                               error);
    if (status == MYELIN_OK)
        status =
            check_real("batch_timeout_ms", out->batch_timeout_ms, 0, longest_ms, CLOSED, error);
    return status;
}

myelin_status mln_submission_resolve(myelin_submission *out, const myelin_submission *submission,
                                     myelin_error *error) {
    myelin_submission_init(out);
    myelin_status status = copy_options(out, sizeof *out, submission, "myelin_submission", error);
    if (status == MYELIN_OK)
        status = check_integer("priority", out->priority, -MAX_PRIORITY, MAX_PRIORITY, error);
    if (status == MYELIN_OK && !out->request)
        status = mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                          "request: expected a request, found NULL");
    return status;
}

static myelin_status check_quantize_options(const myelin_quantize_options *o, myelin_error *error) {
    if (o->bits != 4 && o->bits != 8)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1, "bits: expected 4 or 8, found %d",
                        (int)o->bits);
    if (o->group_size != 32 && o->group_size != 64 && o->group_size != 128)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "group_size: expected 32, 64 or 128, found %d", (int)o->group_size);
    if (o->scale_dtype != MYELIN_DTYPE_AUTO && o->scale_dtype != MYELIN_DTYPE_BF16 &&
        o->scale_dtype != MYELIN_DTYPE_F16)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "scale_dtype: expected auto, bf16 or f16, found %s",
                        mln_dtype_name((int32_t)o->scale_dtype));
    return MYELIN_OK;
}

myelin_status mln_quantize_options_resolve(myelin_quantize_options *out,
                                           const myelin_quantize_options *options,
                                           myelin_error *error) {
    myelin_quantize_options_init(out);
    myelin_status status =
        copy_options(out, sizeof *out, options, "myelin_quantize_options", error);
    return status == MYELIN_OK ? check_quantize_options(out, error) : status;
}

myelin_status mln_chat_options_resolve(myelin_chat_options *out, const myelin_chat_options *options,
                                       myelin_error *error) {
    myelin_chat_options_init(out);
    myelin_status status = copy_options(out, sizeof *out, options, "myelin_chat_options", error);
    if (status == MYELIN_OK)
        status = check_integer("thinking", (int64_t)out->thinking, MYELIN_THINKING_AUTO,
                               MYELIN_THINKING_OFF, error);
    return status;
}

static myelin_status check_sampling(const myelin_generation_options *o, myelin_error *error) {
    const double infinity = (double)INFINITY, largest = 1e6;
    myelin_status status = check_integer("sampler", (int64_t)o->sampler, MYELIN_SAMPLER_GREEDY,
                                         MYELIN_SAMPLER_SAMPLED, error);
    if (status == MYELIN_OK)
        status = check_real("temperature", o->temperature, 0, largest, OPEN_LOW, error);
    if (status == MYELIN_OK)
        status = check_integer("top_k", o->top_k, 0, INT32_MAX, error);
    if (status == MYELIN_OK)
        status = check_real("top_p", o->top_p, 0, 1, OPEN_LOW, error);
    if (status == MYELIN_OK)
        status = check_real("min_p", o->min_p, 0, 1, CLOSED, error);
    if (status == MYELIN_OK)
        status =
            check_real("repetition_penalty", o->repetition_penalty, 0, largest, OPEN_LOW, error);
    if (status == MYELIN_OK)
        status =
            check_real("presence_penalty", o->presence_penalty, -largest, largest, CLOSED, error);
    if (status == MYELIN_OK)
        status =
            check_real("frequency_penalty", o->frequency_penalty, -largest, largest, CLOSED, error);
    if (status == MYELIN_OK && o->num_logit_bias > 0 && !o->logit_bias)
        status = mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                          "logit_bias: expected an array of %zu, found NULL", o->num_logit_bias);
    for (size_t i = 0; status == MYELIN_OK && i < o->num_logit_bias; i++)
        status = check_real("logit_bias", (double)o->logit_bias[i].bias, -infinity, largest, CLOSED,
                            error);
    return status;
}

static myelin_status check_stop_string(const char *text, size_t index, myelin_error *error) {
    if (!text || !*text)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "stop string %zu is empty: expected at least one character", index);
    size_t length = strlen(text), valid = mln_utf8_valid_prefix(text, length);
    if (valid < length)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, (int64_t)valid,
                        "stop string %zu is not UTF-8", index);
    return MYELIN_OK;
}

static myelin_status check_stops(const myelin_generation_options *o, const myelin_model *model,
                                 myelin_error *error) {
    myelin_status status = check_integer("number of stop strings", (int64_t)o->num_stop_strings, 0,
                                         MYELIN_MAX_STOP_STRINGS, error);
    if (status == MYELIN_OK && o->stop_ids)
        status = check_integer("number of stop ids", (int64_t)o->num_stop_ids, 0,
                               MYELIN_MAX_STOP_IDS, error);
    if (status == MYELIN_OK && o->num_stop_strings > 0 && !model->tokenizer)
        status = mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                          "stop strings need a tokenizer, and the model has no tokenizer.json");
    if (status == MYELIN_OK && o->num_stop_strings > 0 && !o->stop_strings)
        status =
            mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                     "stop_strings: expected an array of %zu, found NULL", o->num_stop_strings);
    for (size_t i = 0; status == MYELIN_OK && i < o->num_stop_strings; i++)
        status = check_stop_string(o->stop_strings[i], i, error);
    for (size_t i = 0; status == MYELIN_OK && o->stop_ids && i < o->num_stop_ids; i++)
        status = check_integer("stop id", o->stop_ids[i], 0, INT32_MAX, error);
    return status;
}

myelin_status mln_generation_options_resolve(myelin_generation_options *out,
                                             const myelin_generation_options *options,
                                             const myelin_model *model, myelin_error *error) {
    const myelin_config *config = &model->checkpoint->config.model;
    myelin_generation_options_init(out);
    myelin_status status =
        copy_options(out, sizeof *out, options, "myelin_generation_options", error);
    if (status == MYELIN_OK)
        status = check_integer("max_new_tokens", out->max_new_tokens, 1, INT32_MAX, error);
    if (status == MYELIN_OK)
        status = check_integer("max_len", out->max_len, 1, MLN_CONFIG_MAX_POSITIONS, error);
    if (status == MYELIN_OK)
        status = check_sampling(out, error);
    for (size_t i = 0; status == MYELIN_OK && i < out->num_logit_bias; i++)
        status =
            check_integer("logit_bias id", out->logit_bias[i].id, 0, config->vocab_size - 1, error);
    if (status == MYELIN_OK)
        status = check_stops(out, model, error);
    if (status == MYELIN_OK)
        status =
            check_integer("sync", (int64_t)out->sync, MYELIN_SYNC_CHUNK, MYELIN_SYNC_END, error);
    if (status == MYELIN_OK)
        status = check_integer("thinking_budget", out->thinking_budget, -1, INT32_MAX, error);
    if (status == MYELIN_OK)
        status = check_integer("sync_tokens", out->sync_tokens, 0, INT32_MAX, error);
    if (status == MYELIN_OK)
        status = check_integer("stream_mode", (int64_t)out->stream_mode, MYELIN_STREAM_TOKEN,
                               MYELIN_STREAM_STABLE, error);
    if (status == MYELIN_OK)
        status =
            check_integer("top_logprobs", out->top_logprobs, 0, MYELIN_MAX_TOP_LOGPROBS, error);
    if (status != MYELIN_OK)
        return status;
    if (!out->stop_ids) {
        out->stop_ids = model->stop_ids;
        out->num_stop_ids = model->num_stop_ids;
    }
    if (out->top_logprobs > config->vocab_size)
        out->top_logprobs = config->vocab_size;
    if (out->sync_tokens == 0)
        out->sync_tokens =
            out->max_new_tokens < DEFAULT_SYNC_TOKENS ? out->max_new_tokens : DEFAULT_SYNC_TOKENS;
    return MYELIN_OK;
}

myelin_status mln_cache_length(const myelin_generation_options *options, size_t count,
                               int32_t *length, myelin_error *error) {
    if (count == 0)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "the prompt is empty: expected at least one token");
    if (count > (size_t)options->max_len)
        return mln_fail(error, MYELIN_ERROR_CACHE_FULL, NULL, -1,
                        "the prompt has %zu tokens, the KV cache (max_len) holds %" PRId32, count,
                        options->max_len);
    int64_t wanted = (int64_t)count + options->max_new_tokens - 1;
    *length = wanted < options->max_len ? (int32_t)wanted : options->max_len;
    return MYELIN_OK;
}
