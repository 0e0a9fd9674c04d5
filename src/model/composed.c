/* SPDX-License-Identifier: Apache-2.0 */
/* The composed plug-in's contexts, its calls, and the table of them. */
#include "model/composed.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/checked.h"
#include "model/composed_internal.h"
#include "tensor/ops.h"

myelin_status mln_plugin_fail(myelin_error_buffer *buffer, const myelin_error *error) {
    snprintf(buffer->text, buffer->size, "%s", error->message);
    return error->status;
}

myelin_status mln_plugin_fail_argument(myelin_error_buffer *buffer, const char *what, int64_t least,
                                       int64_t most, int64_t found) {
    snprintf(buffer->text, buffer->size, "%s must be %" PRId64 " to %" PRId64 ", found %" PRId64,
             what, least, most, found);
    return MYELIN_ERROR_ARGUMENT;
}

static myelin_status probe(const myelin_model_description *description,
                           myelin_error_buffer *error) {
    if (description->struct_size < sizeof *description)
        return mln_plugin_fail_argument(error, "struct_size", sizeof *description, UINT32_MAX,
                                        description->struct_size);
    return MYELIN_OK;
}

/* --- contexts --- */

/* Cuts a region into arrays, or with base NULL only adds up what they take. */
typedef struct carver {
    unsigned char *base;
    uint64_t used;
    bool overflow;
} carver;

static void *carve(carver *from, int64_t rows, int64_t columns, size_t size) {
    void *array = from->base ? from->base + from->used : NULL;
    uint64_t bytes;
    if (!mln_mul((uint64_t)rows, (uint64_t)columns, &bytes) || !mln_mul(bytes, size, &bytes) ||
        !mln_add(bytes, MYELIN_TENSOR_ALIGNMENT - 1, &bytes) ||
        !mln_add(from->used, bytes & ~(uint64_t)(MYELIN_TENSOR_ALIGNMENT - 1), &from->used))
        from->overflow = true;
    return array;
}

/* Points every array of the context into the carver's region. */
static void carve_context(carver *from, myelin_plugin_context *context, const myelin_config *config,
                          int32_t max_tokens, int32_t max_len) {
    int64_t rows = max_tokens, head_rows = rows < MLN_HEAD_ROWS ? rows : MLN_HEAD_ROWS;
    int64_t hidden = config->hidden_size, half = config->head_dim / 2;
    int64_t q_width = (int64_t)config->num_attention_heads * config->head_dim;
    int64_t kv_width = (int64_t)config->num_key_value_heads * config->head_dim;
    context->residual = carve(from, rows, hidden, sizeof(float));
    context->normed = carve(from, rows, hidden, sizeof(float));
    context->update = carve(from, rows, hidden, sizeof(float));
    context->q = carve(from, rows, q_width, sizeof(float));
    context->k = carve(from, rows, kv_width, sizeof(float));
    context->v = carve(from, rows, kv_width, sizeof(float));
    context->attended = carve(from, rows, q_width, sizeof(float));
    context->gate = carve(from, rows, config->intermediate_size, sizeof(float));
    context->up = carve(from, rows, config->intermediate_size, sizeof(float));
    context->cos = carve(from, rows, half, sizeof(float));
    context->sin = carve(from, rows, half, sizeof(float));
    context->scores = carve(from, config->num_attention_heads, max_len, sizeof(float));
    context->wanted = carve(from, head_rows, hidden, sizeof(float));
    context->logits = carve(from, head_rows, config->vocab_size, sizeof(float));
    context->ids = carve(from, rows, 1, sizeof(int32_t));
    context->spans = carve(from, rows, 1, sizeof(myelin_span));
}

/* Bytes of the arrays; UINT64_MAX when that overflows. */
static uint64_t scratch_bytes(const myelin_config *config, int32_t max_tokens, int32_t max_len) {
    carver counter = {0};
    myelin_plugin_context none;
    carve_context(&counter, &none, config, max_tokens, max_len);
    return counter.overflow ? UINT64_MAX : counter.used;
}

static uint64_t context_bytes(const myelin_config *config, int32_t max_tokens, int32_t max_len) {
    if (max_tokens < 1 || max_len < 1)
        return 0;
    uint64_t bytes;
    bool fits =
        mln_add(scratch_bytes(config, max_tokens, max_len), sizeof(myelin_plugin_context), &bytes);
    return fits ? bytes : UINT64_MAX;
}

static myelin_status create_context(const myelin_plugin_model *model, int32_t max_tokens,
                                    int32_t max_len, myelin_plugin_context **out,
                                    myelin_error_buffer *buffer) {
    *out = NULL;
    if (max_tokens < 1)
        return mln_plugin_fail_argument(buffer, "max_tokens", 1, INT32_MAX, max_tokens);
    if (max_len < 1)
        return mln_plugin_fail_argument(buffer, "max_len", 1, INT32_MAX, max_len);
    myelin_error error = {0};
    myelin_plugin_context *context = mln_calloc(1, sizeof *context);
    if (!context) {
        mln_fail_memory(&error, sizeof *context, "scratch memory");
        return mln_plugin_fail(buffer, &error);
    }
    uint64_t bytes = scratch_bytes(&model->config, max_tokens, max_len);
    if (mln_region_map(&context->region, bytes, "scratch memory", &error) != MYELIN_OK) {
        free(context);
        return mln_plugin_fail(buffer, &error);
    }
    context->model = model;
    context->max_tokens = max_tokens;
    context->max_len = max_len;
    carver from = {context->region.base, 0, false};
    carve_context(&from, context, &model->config, max_tokens, max_len);
    *out = context;
    return MYELIN_OK;
}

static void free_context(myelin_plugin_context *context) {
    if (!context)
        return;
    mln_region_unmap(&context->region);
    free(context);
}

/* --- calls --- */

/* Whether `count` tokens can be appended to the sequence in this context. */
static myelin_status check_room(const myelin_plugin_context *context,
                                const myelin_plugin_sequence *sequence, int64_t count,
                                myelin_error_buffer *error) {
    int32_t most = sequence->capacity < context->max_len ? sequence->capacity : context->max_len;
    if (sequence->length + count > most)
        return mln_plugin_fail_argument(error, "positions of a sequence", 0, most,
                                        sequence->length + count);
    return MYELIN_OK;
}

static myelin_status check_ids(const myelin_plugin_context *context, const int32_t *ids,
                               int64_t count, myelin_error_buffer *error) {
    int32_t vocab = context->model->config.vocab_size;
    for (int64_t i = 0; i < count; i++)
        if (ids[i] < 0 || ids[i] >= vocab)
            return mln_plugin_fail_argument(error, "a token id", 0, vocab - 1, ids[i]);
    return MYELIN_OK;
}

/* The host has checked all this; a mistake there is a message instead of a crash. */
static myelin_status check_spans(const myelin_plugin_context *context, const myelin_span *spans,
                                 int32_t num_spans, myelin_error_buffer *error) {
    int64_t rows = 0;
    for (int32_t s = 0; s < num_spans; s++) {
        const myelin_span *span = &spans[s];
        if (span->count < 1)
            return mln_plugin_fail_argument(error, "tokens of a span", 1, context->max_tokens,
                                            span->count);
        if (span->num_logits < 0 || span->num_logits > span->count)
            return mln_plugin_fail_argument(error, "num_logits", 0, span->count, span->num_logits);
        rows += span->count;
        if (rows > context->max_tokens)
            return mln_plugin_fail_argument(error, "tokens of a call", 1, context->max_tokens,
                                            rows);
        myelin_status status = check_room(context, span->sequence, span->count, error);
        if (status == MYELIN_OK)
            status = check_ids(context, span->ids, span->count, error);
        if (status != MYELIN_OK)
            return status;
    }
    return MYELIN_OK;
}

/* Rows of the residual stream whose logits are wanted, and where they go. */
typedef struct wanted_rows {
    int64_t rows[MLN_HEAD_ROWS];
    float *targets[MLN_HEAD_ROWS];
    int64_t count;
} wanted_rows;

static void flush_head(myelin_plugin_context *context, wanted_rows *wanted) {
    int64_t vocab = context->model->sizes.vocab;
    if (wanted->count == 0)
        return;
    mln_forward_head(context, wanted->rows, wanted->count);
    for (int64_t i = 0; i < wanted->count; i++)
        memcpy(wanted->targets[i], context->logits + i * vocab, (size_t)vocab * sizeof(float));
    wanted->count = 0;
}

/* Computes the logits the spans want, MLN_HEAD_ROWS rows at a time whichever spans they are of. */
static void write_logits(myelin_plugin_context *context, const myelin_span *spans,
                         int32_t num_spans) {
    int64_t vocab = context->model->sizes.vocab, end = 0;
    wanted_rows wanted = {.count = 0};
    for (int32_t s = 0; s < num_spans; s++) {
        end += spans[s].count;
        for (int32_t i = 0; i < spans[s].num_logits; i++) {
            wanted.rows[wanted.count] = end - spans[s].num_logits + i;
            wanted.targets[wanted.count++] = spans[s].logits + i * vocab;
            if (wanted.count == MLN_HEAD_ROWS)
                flush_head(context, &wanted);
        }
    }
    flush_head(context, &wanted);
}

static myelin_status forward(myelin_plugin_context *context, const myelin_span *spans,
                             int32_t num_spans, myelin_error_buffer *error) {
    myelin_status status = check_spans(context, spans, num_spans, error);
    if (status != MYELIN_OK)
        return status;
    mln_forward_layers(context, spans, num_spans);
    write_logits(context, spans, num_spans);
    for (int32_t s = 0; s < num_spans; s++)
        spans[s].sequence->length += spans[s].count;
    return MYELIN_OK;
}

static myelin_status forward_hidden(myelin_plugin_context *context, const myelin_span *spans,
                                    int32_t num_spans, float *hidden, myelin_error_buffer *error) {
    myelin_status status = check_spans(context, spans, num_spans, error);
    for (int32_t s = 0; s < num_spans && status == MYELIN_OK; s++)
        if (spans[s].num_logits != 0)
            status = mln_plugin_fail_argument(error, "num_logits", 0, 0, spans[s].num_logits);
    if (status != MYELIN_OK)
        return status;
    mln_forward_layers(context, spans, num_spans);
    int64_t end = 0;
    for (int32_t s = 0; s < num_spans; s++) {
        end += spans[s].count;
        mln_forward_norm(context, end - 1, hidden + s * context->model->sizes.hidden);
        spans[s].sequence->length += spans[s].count;
    }
    return MYELIN_OK;
}

/* One greedy token for each of `count` sequences: context->ids in, appended, and ids out. */
static void greedy_step(myelin_plugin_context *context, int32_t count) {
    int64_t vocab = context->model->sizes.vocab;
    mln_forward_layers(context, context->spans, count);
    for (int32_t first = 0; first < count; first += MLN_HEAD_ROWS) {
        int64_t rows[MLN_HEAD_ROWS];
        int32_t num_rows = count - first < MLN_HEAD_ROWS ? count - first : MLN_HEAD_ROWS;
        for (int32_t i = 0; i < num_rows; i++)
            rows[i] = first + i;
        mln_forward_head(context, rows, num_rows);
        for (int32_t i = 0; i < num_rows; i++)
            context->ids[first + i] = mln_argmax(context->logits + i * vocab, vocab);
    }
    for (int32_t s = 0; s < count; s++)
        context->spans[s].sequence->length++;
}

static myelin_status decode_greedy(myelin_plugin_context *context,
                                   myelin_plugin_sequence *const *sequences, const int32_t *ids,
                                   int32_t num_sequences, int32_t steps, int32_t *out_ids,
                                   myelin_error_buffer *error) {
    if (num_sequences < 0 || num_sequences > context->max_tokens)
        return mln_plugin_fail_argument(error, "num_sequences", 0, context->max_tokens,
                                        num_sequences);
    if (steps < 1)
        return mln_plugin_fail_argument(error, "steps", 1, INT32_MAX, steps);
    myelin_status status = check_ids(context, ids, num_sequences, error);
    for (int32_t s = 0; s < num_sequences && status == MYELIN_OK; s++)
        status = check_room(context, sequences[s], steps, error);
    if (status != MYELIN_OK)
        return status;
    for (int32_t s = 0; s < num_sequences; s++) {
        context->ids[s] = ids[s];
        context->spans[s] =
            (myelin_span){.sequence = sequences[s], .ids = &context->ids[s], .count = 1};
    }
    for (int32_t step = 0; step < steps; step++) {
        greedy_step(context, num_sequences);
        for (int32_t s = 0; s < num_sequences; s++)
            out_ids[(int64_t)s * steps + step] = context->ids[s];
    }
    return MYELIN_OK;
}

static const myelin_plugin composed = {
    .magic = MYELIN_PLUGIN_MAGIC,
    .abi_version = MYELIN_PLUGIN_ABI_VERSION,
    .struct_size = sizeof(myelin_plugin),
    .max_fusion = MYELIN_FUSION_COMPOSED,
    .name = "composed",
    .probe = probe,
    .load = mln_composed_load,
    .free_model = mln_composed_free_model,
    .sequence_bytes = mln_composed_sequence_bytes,
    .create_sequence = mln_composed_create_sequence,
    .free_sequence = mln_composed_free_sequence,
    .sequence_length = mln_composed_sequence_length,
    .truncate_sequence = mln_composed_truncate_sequence,
    .context_bytes = context_bytes,
    .create_context = create_context,
    .free_context = free_context,
    .forward = forward,
    .decode_greedy = decode_greedy,
    .forward_hidden = forward_hidden,
    .page_bytes = mln_composed_page_bytes,
    .create_pool = mln_composed_create_pool,
    .free_pool = mln_composed_free_pool,
    .create_paged_sequence = mln_composed_create_paged_sequence,
    .set_pages = mln_composed_set_pages,
    .copy_page = mln_composed_copy_page,
    .cache_types = 1u << MYELIN_CACHE_F32 | 1u << MYELIN_CACHE_F16 | 1u << MYELIN_CACHE_INT8,
};

const myelin_plugin *mln_composed_plugin(void) {
    return &composed;
}
