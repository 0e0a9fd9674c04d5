/* SPDX-License-Identifier: Apache-2.0 */
#include "generate/sequence.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "base/error.h"
#include "base/memory.h"
#include "tensor/ops.h"

/* A plug-in's UINT64_MAX for "not countable" stays that. */
static uint64_t plus(uint64_t a, uint64_t b) {
    uint64_t sum;
    return mln_add(a, b, &sum) ? sum : UINT64_MAX;
}

uint64_t mln_sequence_bytes(const myelin_plugin *plugin, const myelin_config *config,
                            int32_t max_len) {
    uint64_t own = sizeof(mln_sequence) + mln_sampler_bytes(config->vocab_size) +
                   ((uint64_t)max_len + 1) * sizeof(int32_t) +
                   (uint64_t)config->vocab_size * sizeof(float);
    return plus(plugin->sequence_bytes(config, max_len), own);
}

/* The cache of a sequence: in pages of the pool, or with NULL memory of its own. */
static myelin_status create_cache(mln_sequence *s, myelin_plugin_pool *pool, myelin_error *error) {
    const myelin_plugin *plugin = s->model->plugin;
    char reason[256] = "";
    myelin_error_buffer buffer = {reason, sizeof reason};
    myelin_status status =
        pool ? plugin->create_paged_sequence(pool, s->max_len, &s->cache, &buffer)
             : plugin->create_sequence(s->model->weights, s->max_len, &s->cache, &buffer);
    status = mln_plugin_result(status, s->cache != NULL,
                               pool ? "create_paged_sequence" : "create_sequence", &buffer);
    if (status == MYELIN_OK)
        return MYELIN_OK;
    s->cache = NULL;
    return mln_fail(error, status, NULL, -1, "KV cache of %" PRId32 " tokens: %s", s->max_len,
                    reason);
}

myelin_status mln_sequence_create_paged(mln_sequence **out, const mln_model *model,
                                        myelin_plugin_pool *pool, int32_t max_len,
                                        myelin_error *error) {
    const myelin_config *config = &model->checkpoint->config.model;
    *out = NULL;
    mln_sequence *s = mln_calloc(1, sizeof *s);
    if (!s)
        return mln_fail_memory(error, sizeof *s, "a sequence");
    s->model = model;
    s->max_len = max_len;
    s->ids = mln_calloc((size_t)max_len + 1, sizeof *s->ids);
    s->logprobs = mln_calloc((size_t)config->vocab_size, sizeof *s->logprobs);
    myelin_status status = MYELIN_OK;
    if (!s->ids || !s->logprobs)
        status = mln_fail_memory(error, ((uint64_t)max_len + 1) * sizeof *s->ids, "token ids");
    if (status == MYELIN_OK)
        status = mln_sampler_create(&s->sampler, config->vocab_size, error);
    if (status == MYELIN_OK)
        status = create_cache(s, pool, error);
    if (status != MYELIN_OK) {
        mln_sequence_free(s);
        return status;
    }
    *out = s;
    return MYELIN_OK;
}

myelin_status mln_sequence_create(mln_sequence **out, const mln_model *model, int32_t max_len,
                                  myelin_error *error) {
    return mln_sequence_create_paged(out, model, NULL, max_len, error);
}

void mln_sequence_free(mln_sequence *s) {
    if (!s)
        return;
    s->model->plugin->free_sequence(s->cache);
    mln_sampler_free(s->sampler);
    free(s->ids);
    free(s->logprobs);
    free(s);
}

myelin_status mln_check_ids(const mln_model *model, const int32_t *ids, size_t count,
                            myelin_error *error) {
    int32_t vocab_size = model->checkpoint->config.model.vocab_size;
    for (size_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= vocab_size)
            return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                            "token id %" PRId32 " at index %zu: expected 0 to %" PRId32, ids[i], i,
                            vocab_size - 1);
    return MYELIN_OK;
}

/* Whether ids can stand in the sequence after the first `taken` of its tokens. */
static myelin_status check_ids(const mln_sequence *s, int32_t taken, const int32_t *ids,
                               size_t count, myelin_error *error) {
    myelin_status status = mln_check_ids(s->model, ids, count, error);
    if (status != MYELIN_OK)
        return status;
    /* With a token chosen after the cache was full, one more is taken than it holds. */
    size_t room = taken < s->max_len ? (size_t)(s->max_len - taken) : 0;
    if (count > room)
        return mln_fail(error, MYELIN_ERROR_CACHE_FULL, NULL, -1,
                        "%zu tokens do not fit: the KV cache holds %" PRId32 ", %" PRId32
                        " are taken",
                        count, s->max_len, taken);
    return MYELIN_OK;
}

/* Forgets what a chunk made beyond the tokens taken; the last of these is not in the cache then. */
static void drop_ready(mln_sequence *s) {
    if (s->num_ready > 0)
        s->model->plugin->truncate_sequence(s->cache, s->count - 1);
    s->num_ready = 0;
}

static void append(mln_sequence *s, const int32_t *ids, size_t count) {
    drop_ready(s);
    if (count)
        memcpy(s->ids + s->count, ids, count * sizeof *ids);
    s->count += (int32_t)count;
    s->phase = MLN_IDLE;
}

myelin_status mln_sequence_append(mln_sequence *s, const int32_t *ids, size_t count,
                                  myelin_error *error) {
    myelin_status status = check_ids(s, s->count, ids, count, error);
    if (status == MYELIN_OK)
        append(s, ids, count);
    return status;
}

myelin_status mln_sequence_set(mln_sequence *s, const int32_t *ids, size_t count,
                               myelin_error *error) {
    myelin_status status = check_ids(s, 0, ids, count, error);
    if (status != MYELIN_OK)
        return status;
    size_t common = 0;
    while (common < count && common < (size_t)s->count && s->ids[common] == ids[common])
        common++;
    mln_sequence_truncate(s, (int32_t)common);
    append(s, ids + common, count - common);
    return MYELIN_OK;
}

void mln_sequence_restart(mln_sequence *s, const int32_t *ids, int32_t count, int32_t max_len) {
    s->model->plugin->set_pages(s->cache, NULL, 0, 0);
    s->max_len = max_len;
    s->num_ready = 0;
    s->fresh = false;
    s->count = 0;
    append(s, ids, (size_t)count);
}

void mln_sequence_set_pages(mln_sequence *s, const int32_t *pages, int32_t count, int32_t length) {
    s->model->plugin->set_pages(s->cache, pages, count, length);
}

void mln_sequence_suspend(mln_sequence *s) {
    drop_ready(s);
    s->model->plugin->set_pages(s->cache, NULL, 0, 0);
    s->fresh = false;
    if (s->phase == MLN_GENERATING)
        s->phase = MLN_READING;
}

int32_t mln_sequence_cached(const mln_sequence *s) {
    /* The cache runs ahead of the tokens taken within a chunk. */
    return s->num_ready > 0 ? s->count - 1 : s->model->plugin->sequence_length(s->cache);
}

void mln_sequence_truncate(mln_sequence *s, int32_t count) {
    drop_ready(s);
    if (count >= s->count)
        return;
    s->count = count;
    if (mln_sequence_cached(s) > count)
        s->model->plugin->truncate_sequence(s->cache, count);
    s->phase = MLN_IDLE;
}

myelin_status mln_sequence_begin(mln_sequence *s, const mln_generation *generation,
                                 myelin_error *error) {
    if (s->count == 0)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "the prompt is empty: expected at least one token");
    if (s->count > s->max_len)
        return mln_fail(error, MYELIN_ERROR_CACHE_FULL, NULL, -1,
                        "the KV cache holds %" PRId32 " tokens and all are taken", s->max_len);
    drop_ready(s);
    /* The logits after the last token are not kept: it is read again when it had been read. */
    if (mln_sequence_cached(s) == s->count)
        s->model->plugin->truncate_sequence(s->cache, s->count - 1);
    s->generation = *generation;
    s->num_generated = 0;
    s->num_forced = 0;
    s->allowed = NULL;
    s->num_drafted = 0;
    mln_lookup_begin(&s->lookup, generation->speculate ? MLN_LOOKUP_MOST : 0);
    s->phase = MLN_READING;
    mln_sampler_begin(s->sampler, &generation->sampling, s->ids, (size_t)s->count);
    return MYELIN_OK;
}

void mln_sequence_force(mln_sequence *s, const int32_t *ids, int32_t count) {
    drop_ready(s);
    s->forced = ids;
    s->num_forced = count;
}

void mln_sequence_allow(mln_sequence *s, const uint32_t *mask) {
    drop_ready(s);
    s->allowed = mask;
}

/* True when `a` is the worse of two entries: the lower log-probability, the higher id among equals.
 */
static bool worse(float logprob_a, int32_t id_a, float logprob_b, int32_t id_b) {
    return logprob_a != logprob_b ? logprob_a < logprob_b : id_a > id_b;
}

void mln_top_of(const float *logprobs, int32_t vocab_size, mln_top *top) {
    int32_t filled = 0;
    for (int32_t id = 0; id < vocab_size; id++) {
        float x = logprobs[id];
        if (isnan(x) ||
            (filled == top->count &&
             (filled == 0 || worse(x, id, top->logprobs[filled - 1], top->ids[filled - 1]))))
            continue;
        int32_t i = filled < top->count ? filled++ : filled - 1;
        for (; i > 0 && worse(top->logprobs[i - 1], top->ids[i - 1], x, id); i--) {
            top->logprobs[i] = top->logprobs[i - 1];
            top->ids[i] = top->ids[i - 1];
        }
        top->logprobs[i] = x;
        top->ids[i] = id;
    }
    top->count = filled;
}

int32_t mln_step_tokens(const myelin_plugin *plugin) {
    bool asks = MYELIN_PLUGIN_REACHES(plugin, step_tokens) && plugin->step_tokens != 0;
    return asks ? plugin->step_tokens : MLN_STEP_TOKENS;
}

uint64_t mln_decoder_bytes(const myelin_plugin *plugin, const myelin_config *config,
                           int32_t num_sequences, int32_t max_len) {
    uint64_t each = (uint64_t)config->vocab_size * sizeof(float) + sizeof(myelin_span) +
                    sizeof(void *) + sizeof(myelin_draw) +
                    (2 + (uint64_t)MLN_MAX_CHUNK) * sizeof(int32_t);
    return plus(plugin->context_bytes(config, mln_step_tokens(plugin), max_len),
                sizeof(mln_decoder) + (uint64_t)num_sequences * each);
}

static myelin_status create_context(const mln_model *model, int32_t step_tokens, int32_t max_len,
                                    myelin_plugin_context **context, myelin_error *error) {
    char reason[256] = "";
    myelin_error_buffer buffer = {reason, sizeof reason};
    myelin_status status =
        model->plugin->create_context(model->weights, step_tokens, max_len, context, &buffer);
    status = mln_plugin_result(status, *context != NULL, "create_context", &buffer);
    if (status != MYELIN_OK)
        *context = NULL;
    if (status != MYELIN_OK)
        mln_fail(error, status, NULL, -1, "scratch memory for %" PRId32 " tokens: %s", max_len,
                 reason);
    return status;
}

myelin_status mln_decoder_create(mln_decoder **out, const mln_model *model, int32_t max_sequences,
                                 int32_t max_len, myelin_error *error) {
    return mln_decoder_create_wide(out, model, max_sequences, max_len, 0, error);
}

myelin_status mln_decoder_create_wide(mln_decoder **out, const mln_model *model,
                                      int32_t max_sequences, int32_t max_len, int32_t step_tokens,
                                      myelin_error *error) {
    const myelin_config *config = &model->checkpoint->config.model;
    size_t n = (size_t)max_sequences;
    step_tokens = step_tokens != 0 ? step_tokens : mln_step_tokens(model->plugin);
    step_tokens = step_tokens > max_sequences ? step_tokens : max_sequences;
    *out = NULL;
    mln_decoder *d = mln_calloc(1, sizeof *d);
    if (!d)
        return mln_fail_memory(error, sizeof *d, "a decoder");
    d->model = model;
    d->max_sequences = max_sequences;
    d->max_len = max_len;
    d->step_tokens = d->prompt_tokens = step_tokens;
    d->max_chunk = MLN_MAX_CHUNK;
    d->logits = mln_calloc(n * (size_t)config->vocab_size, sizeof *d->logits);
    d->spans = mln_calloc(n, sizeof *d->spans);
    d->owner = mln_calloc(n, sizeof *d->owner);
    d->caches = mln_calloc(n, sizeof *d->caches);
    d->draws = mln_calloc(n, sizeof *d->draws);
    d->last_ids = mln_calloc(n, sizeof *d->last_ids);
    d->chunk = mln_calloc(n, MLN_MAX_CHUNK * sizeof *d->chunk);
    myelin_status status = MYELIN_OK;
    if (!d->logits || !d->spans || !d->owner || !d->caches || !d->draws || !d->last_ids ||
        !d->chunk)
        status =
            mln_fail_memory(error, n * (uint64_t)config->vocab_size * sizeof *d->logits, "logits");
    if (status == MYELIN_OK)
        status = create_context(model, step_tokens, max_len, &d->context, error);
    if (status != MYELIN_OK) {
        mln_decoder_free(d);
        return status;
    }
    *out = d;
    return MYELIN_OK;
}

void mln_decoder_free(mln_decoder *d) {
    if (!d)
        return;
    d->model->plugin->free_context(d->context);
    free(d->logits);
    free(d->spans);
    free(d->owner);
    free(d->caches);
    free(d->draws);
    free(d->last_ids);
    free(d->chunk);
    free(d);
}

myelin_status mln_decoder_reserve(mln_decoder *d, int32_t max_len, myelin_error *error) {
    if (max_len <= d->max_len)
        return MYELIN_OK;
    myelin_plugin_context *context = NULL;
    myelin_status status = create_context(d->model, d->step_tokens, max_len, &context, error);
    if (status != MYELIN_OK)
        return status;
    d->model->plugin->free_context(d->context);
    d->context = context;
    d->max_len = max_len;
    return MYELIN_OK;
}

myelin_status mln_decoder_allow_drafts(mln_decoder *d, int32_t most, myelin_error *error) {
    size_t vocab_size = (size_t)d->model->checkpoint->config.model.vocab_size;
    most = most < MLN_LOOKUP_MOST ? most : MLN_LOOKUP_MOST;
    if (most <= d->max_draft)
        return MYELIN_OK;
    size_t rows = (size_t)d->max_sequences + (size_t)most;
    float *logits = mln_calloc(rows * vocab_size, sizeof *logits);
    if (!logits)
        return mln_fail_memory(error, rows * (uint64_t)vocab_size * sizeof *logits, "logits");
    free(d->logits);
    d->logits = logits;
    d->max_draft = most;
    return MYELIN_OK;
}

static bool is_running(const mln_sequence *s) {
    return s && (s->phase == MLN_READING || s->phase == MLN_GENERATING);
}

/* A token is a function of the logits before it and its position alone. */
static bool is_free_of_history(const mln_sequence *s) {
    const mln_sampling *p = &s->generation.sampling;
    return s->phase == MLN_GENERATING && s->num_forced == 0 && !s->allowed &&
           !s->generation.want_logprobs && p->repetition_penalty == 1 && p->presence_penalty == 0 &&
           p->frequency_penalty == 0;
}

static int32_t least(int32_t a, int32_t b) {
    return a < b ? a : b;
}

/* Writes a draft after the sequence's tokens, all but the last of which are in the cache. */
static int32_t draft(const mln_decoder *d, mln_sequence *s, int32_t room) {
    room = least(room, s->generation.max_new_tokens - s->num_generated - 1);
    room = least(room, s->max_len - s->count);
    if (d->max_draft == 0 || room < 1 || !is_free_of_history(s))
        return 0;
    return mln_lookup_draft(&s->lookup, s->ids, s->count, s->ids + s->count, room);
}

/*
 * Shares the step's tokens out: first one for each running sequence, so that none waits for the
 * prompts of others, then what is left to those with more to read, in order.
 */
static int32_t plan_spans(mln_decoder *d, mln_sequence *const *sequences, int32_t count) {
    int32_t num_spans = 0, left = d->step_tokens, row = 0;
    for (int32_t i = 0; i < count && num_spans < d->max_sequences && left > 0; i++) {
        if (!is_running(sequences[i]))
            continue;
        d->owner[num_spans] = i;
        d->spans[num_spans++].count = 1;
        left--;
    }
    d->num_spans = d->num_tokens = num_spans;
    left = d->prompt_tokens < left ? d->prompt_tokens : left;
    for (int32_t i = 0; i < num_spans; i++) {
        mln_sequence *s = sequences[d->owner[i]];
        myelin_span *span = &d->spans[i];
        int32_t cached = mln_sequence_cached(s), waiting = s->count - cached;
        int32_t more = waiting - 1 < left ? waiting - 1 : left;
        s->num_drafted = waiting == 1 ? draft(d, s, least(left, d->max_draft - (row - i))) : 0;
        more += s->num_drafted;
        span->count += more;
        d->num_tokens += more;
        left -= more;
        span->sequence = s->cache;
        span->ids = s->ids + cached;
        span->num_logits = span->count >= waiting ? 1 + s->num_drafted : 0;
        span->logits =
            d->logits + (size_t)row * (size_t)s->model->checkpoint->config.model.vocab_size;
        row += 1 + s->num_drafted;
    }
    return num_spans;
}

static bool is_stop(const mln_generation *g, int32_t id) {
    for (size_t i = 0; i < g->num_stop_ids; i++)
        if (g->stop_ids[i] == id)
            return true;
    return false;
}

/* Takes a token into the sequence and decides whether that was the end. */
static void take(mln_sequence *s, int32_t id) {
    const mln_generation *g = &s->generation;
    mln_sampler_accept(s->sampler, id);
    s->ids[s->count++] = id;
    s->num_generated++;
    s->fresh = true;
    if (is_stop(g, id))
        s->phase = MLN_STOPPED;
    else if (s->num_generated >= g->max_new_tokens || s->count > s->max_len)
        s->phase = MLN_EXHAUSTED;
    else
        s->phase = MLN_GENERATING;
    if (s->phase != MLN_GENERATING)
        drop_ready(s);
}

/* Chooses the next token from the logits after the last one. */
static void choose(mln_sequence *s, const float *logits) {
    int32_t id;
    if (s->num_forced > 0) {
        id = *s->forced++;
        s->num_forced--;
    } else {
        mln_sampler_allow(s->sampler, s->allowed);
        id = mln_sampler_pick(s->sampler, logits, s->count);
    }
    s->allowed = NULL;
    if (s->generation.want_logprobs)
        mln_log_softmax(s->logprobs, logits, s->model->checkpoint->config.model.vocab_size);
    take(s, id);
}

static void take_ready(mln_sequence *s) {
    int32_t id = s->ready[s->next_ready++];
    s->num_ready--;
    take(s, id);
}

/* Hands out one token each of those made before; false when there are none. */
static bool take_all_ready(mln_sequence *const *sequences, int32_t count) {
    bool any = false;
    for (int32_t i = 0; i < count; i++) {
        if (!sequences[i] || sequences[i]->num_ready == 0)
            continue;
        take_ready(sequences[i]);
        any = true;
    }
    return any;
}

/*
 * The next token is an argmax or a draw of the logits as they are, and nothing else is asked of
 * them: what a plug-in's decode_greedy() and decode_sample() stand for.
 */
static bool needs_no_host(const mln_sequence *s) {
    return is_free_of_history(s) && s->generation.sampling.num_bias == 0;
}

static bool any_sampled(const mln_decoder *d, mln_sequence *const *sequences, int32_t num_spans) {
    for (int32_t i = 0; i < num_spans; i++)
        if (sequences[d->owner[i]]->generation.sampling.sampled)
            return true;
    return false;
}

/* How many tokens the plug-in may choose by itself for every one of the spans; 0: none. */
static int32_t chunk_length(const mln_decoder *d, mln_sequence *const *sequences,
                            int32_t num_spans) {
    const myelin_plugin *plugin = d->model->plugin;
    bool offered = any_sampled(d, sequences, num_spans) ? MYELIN_PLUGIN_HAS(plugin, decode_sample)
                                                        : plugin->decode_greedy != NULL;
    if (!offered || d->model->fusion < MYELIN_FUSION_GREEDY)
        return 0;
    int32_t length = d->model->fusion >= MYELIN_FUSION_CHUNK ? d->max_chunk : 1;
    for (int32_t i = 0; i < num_spans; i++) {
        const mln_sequence *s = sequences[d->owner[i]];
        int32_t left = s->generation.max_new_tokens - s->num_generated;
        int32_t room = s->max_len - s->count + 1;
        int32_t wanted = s->generation.max_chunk > 1 ? s->generation.max_chunk : 1;
        if (!needs_no_host(s) || s->num_drafted > 0)
            return 0;
        if (d->max_draft > 0 && s->lookup.most > 0)
            wanted = 1; /* the step after may have a draft */
        length = left < length ? left : length;
        length = room < length ? room : length;
        length = wanted < length ? wanted : length;
    }
    return length;
}

static myelin_draw draw_of(const mln_sampling *p) {
    return (myelin_draw){.seed = p->seed,
                         .temperature = p->temperature,
                         .top_p = p->top_p,
                         .min_p = p->min_p,
                         .top_k = p->top_k,
                         .sampled = p->sampled};
}

/* The plug-in's tokens of a chunk, in d->chunk[num_spans][length]. */
static myelin_status make_chunk(mln_decoder *d, mln_sequence *const *sequences, int32_t num_spans,
                                int32_t length, myelin_error_buffer *buffer) {
    const myelin_plugin *plugin = d->model->plugin;
    bool sampled = any_sampled(d, sequences, num_spans);
    for (int32_t i = 0; i < num_spans; i++) {
        d->caches[i] = d->spans[i].sequence;
        d->draws[i] = draw_of(&sequences[d->owner[i]]->generation.sampling);
        d->last_ids[i] = d->spans[i].ids[0];
    }
    const char *call = sampled ? "decode_sample" : "decode_greedy";
    myelin_status status = sampled
                               ? plugin->decode_sample(d->context, d->caches, d->last_ids, d->draws,
                                                       num_spans, length, d->chunk, buffer)
                               : plugin->decode_greedy(d->context, d->caches, d->last_ids,
                                                       num_spans, length, d->chunk, buffer);
    status = mln_plugin_result(status, true, call, buffer);
    int32_t vocab_size = d->model->checkpoint->config.model.vocab_size;
    for (int32_t i = 0; status == MYELIN_OK && i < num_spans * length; i++)
        if (d->chunk[i] < 0 || d->chunk[i] >= vocab_size) {
            snprintf(buffer->text, buffer->size,
                     "%s gave token id %" PRId32 ": expected 0 to %" PRId32, call, d->chunk[i],
                     vocab_size - 1);
            status = MYELIN_ERROR_INTERNAL;
        }
    return status;
}

static myelin_status decode_chunk(mln_decoder *d, mln_sequence *const *sequences, int32_t num_spans,
                                  int32_t length, myelin_error_buffer *buffer) {
    myelin_status status = make_chunk(d, sequences, num_spans, length, buffer);
    for (int32_t i = 0; status == MYELIN_OK && i < num_spans; i++) {
        mln_sequence *s = sequences[d->owner[i]];
        memcpy(s->ready, d->chunk + (size_t)i * (size_t)length, (size_t)length * sizeof *s->ready);
        s->next_ready = 0;
        s->num_ready = length;
        take_ready(s);
    }
    return status;
}

/*
 * Chooses a token after each drafted one, until one is not what was drafted: the chosen ones are
 * those of steps without drafts, because logits do not depend on what is computed with them.
 */
static void choose_drafted(mln_sequence *s, const float *logits) {
    size_t vocab_size = (size_t)s->model->checkpoint->config.model.vocab_size;
    const int32_t *drafted = s->ids + s->count;
    int32_t accepted = 0;
    for (;; accepted++) {
        s->ready[accepted] = mln_sampler_pick(s->sampler, logits + (size_t)accepted * vocab_size,
                                              s->count + accepted);
        if (accepted == s->num_drafted || s->ready[accepted] != drafted[accepted])
            break;
    }
    mln_lookup_judge(&s->lookup, s->num_drafted, accepted);
    s->model->plugin->truncate_sequence(s->cache, s->count + accepted);
    s->num_drafted = 0;
    s->next_ready = 0;
    s->num_ready = accepted + 1;
    take_ready(s);
}

static myelin_status forward(mln_decoder *d, mln_sequence *const *sequences, int32_t num_spans,
                             myelin_error_buffer *buffer) {
    myelin_status status = d->model->plugin->forward(d->context, d->spans, num_spans, buffer);
    status = mln_plugin_result(status, true, "forward", buffer);
    for (int32_t i = 0; status == MYELIN_OK && i < num_spans; i++) {
        mln_sequence *s = sequences[d->owner[i]];
        if (s->num_drafted > 0)
            choose_drafted(s, d->spans[i].logits);
        else if (d->spans[i].num_logits)
            choose(s, d->spans[i].logits);
    }
    return status;
}

myelin_status mln_decoder_step(mln_decoder *d, mln_sequence *const *sequences, int32_t count,
                               myelin_error *error) {
    for (int32_t i = 0; i < count; i++)
        if (sequences[i])
            sequences[i]->fresh = false;
    d->num_spans = d->num_tokens = 0;
    if (take_all_ready(sequences, count))
        return MYELIN_OK;
    int32_t num_spans = plan_spans(d, sequences, count);
    if (num_spans == 0)
        return MYELIN_OK;
    char reason[256] = "";
    myelin_error_buffer buffer = {reason, sizeof reason};
    int32_t length = chunk_length(d, sequences, num_spans);
    myelin_status status = length > 0 ? decode_chunk(d, sequences, num_spans, length, &buffer)
                                      : forward(d, sequences, num_spans, &buffer);
    if (status != MYELIN_OK)
        return mln_fail(error, status, NULL, -1, "%s: %s", d->model->plugin->name, reason);
    return MYELIN_OK;
}
