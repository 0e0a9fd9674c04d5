/* SPDX-License-Identifier: Apache-2.0 */
/* Loading the weights of the composed plug-in: one region, read in pieces by many threads. */
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/available.h"
#include "base/checked.h"
#include "base/rope.h"
#include "model/composed_internal.h"
#include "tensor/dtype.h"

/* Bytes read at once: large enough for the disk, small enough to share among threads. */
#define PIECE_BYTES (UINT64_C(4) << 20)

/* One part of one tensor: where it goes, and how it is cut up. */
typedef struct tensor_part {
    const myelin_tensor *source; /* in the description: what host->read() knows it by */
    void **target;               /* the pointer to set in the model's copy */
    myelin_tensor_part part;
    int64_t rows;
    uint64_t row_bytes;
    uint64_t offset; /* in the region */
    int64_t piece_rows;
    int64_t first_piece;
} tensor_part;

/* A myelin_layer_weights is LAYER_TENSORS tensors and nothing else. */
enum { LAYER_TENSORS = sizeof(myelin_layer_weights) / sizeof(myelin_tensor), MAX_PARTS = 3 };

typedef struct load_plan {
    tensor_part *parts;
    int64_t num_parts;
    int64_t num_pieces;
    uint64_t bytes; /* of the region */
} load_plan;

_Static_assert(sizeof(myelin_layer_weights) % sizeof(myelin_tensor) == 0, "only tensors");

/* One load in progress. */
typedef struct load_job {
    const myelin_host *host;
    const load_plan *plan;
    unsigned char *base;
    _Atomic int status; /* of the first piece that failed; the others then stop */
    myelin_error_buffer *error;
} load_job;

static myelin_status add_part(load_plan *out, const myelin_tensor *source, void **target,
                              myelin_tensor_part part, int64_t rows, uint64_t row_bytes) {
    uint64_t bytes, end;
    if (!mln_mul((uint64_t)rows, row_bytes, &bytes) ||
        !mln_add(bytes, MYELIN_TENSOR_ALIGNMENT - 1, &bytes) || !mln_add(out->bytes, bytes, &end))
        return MYELIN_ERROR_MEMORY;
    tensor_part *added = &out->parts[out->num_parts++];
    *added = (tensor_part){source, target, part, rows, row_bytes, out->bytes, 0, out->num_pieces};
    added->piece_rows = row_bytes < PIECE_BYTES ? (int64_t)(PIECE_BYTES / row_bytes) : 1;
    out->num_pieces += (rows + added->piece_rows - 1) / added->piece_rows;
    out->bytes = end & ~(uint64_t)(MYELIN_TENSOR_ALIGNMENT - 1);
    return MYELIN_OK;
}

/* The parts of one tensor; `target` is the model's copy of the description's `source`. */
static myelin_status add_tensor(load_plan *out, const myelin_tensor *source,
                                myelin_tensor *target) {
    *target = *source;
    int64_t rows = source->shape[0];
    uint64_t columns = source->rank > 1 ? (uint64_t)source->shape[1] : 1;
    if (source->dtype != MYELIN_DTYPE_AFFINE)
        return add_part(out, source, &target->data, MYELIN_PART_DATA, rows,
                        columns * mln_dtype_size(source->dtype));
    uint64_t packed = columns * (uint64_t)source->bits / 8;
    uint64_t groups = columns / (uint64_t)source->group_size * mln_dtype_size(source->scale_dtype);
    myelin_status status = add_part(out, source, &target->data, MYELIN_PART_DATA, rows, packed);
    if (status == MYELIN_OK)
        status = add_part(out, source, &target->scales, MYELIN_PART_SCALES, rows, groups);
    if (status == MYELIN_OK)
        status = add_part(out, source, &target->biases, MYELIN_PART_BIASES, rows, groups);
    return status;
}

/* Every tensor in the order the forward pass reads them. */
static myelin_status lay_out(load_plan *out, const myelin_weights *source,
                             myelin_plugin_model *model) {
    myelin_weights *target = &model->weights;
    *target = (myelin_weights){.num_layers = source->num_layers, .layers = model->layers};
    myelin_status status = add_tensor(out, &source->embed_tokens, &target->embed_tokens);
    for (int32_t l = 0; l < source->num_layers; l++) {
        const myelin_tensor *from = (const myelin_tensor *)&source->layers[l];
        myelin_tensor *to = (myelin_tensor *)&model->layers[l];
        for (int i = 0; i < LAYER_TENSORS && status == MYELIN_OK; i++)
            status = add_tensor(out, from + i, to + i);
    }
    if (status == MYELIN_OK)
        status = add_tensor(out, &source->norm, &target->norm);
    if (status == MYELIN_OK && !model->config.tie_word_embeddings)
        status = add_tensor(out, &source->lm_head, &target->lm_head);
    return status;
}

/* The part that piece `index` belongs to: the last that begins at or before it. */
static const tensor_part *part_of(const load_plan *plan, int64_t index) {
    int64_t low = 0, high = plan->num_parts;
    while (high - low > 1) {
        int64_t middle = low + (high - low) / 2;
        if (plan->parts[middle].first_piece <= index)
            low = middle;
        else
            high = middle;
    }
    return &plan->parts[low];
}

static void load_piece(void *context, int64_t index) {
    load_job *job = context;
    if (atomic_load_explicit(&job->status, memory_order_relaxed) != MYELIN_OK)
        return;
    const tensor_part *part = part_of(job->plan, index);
    int64_t row = (index - part->first_piece) * part->piece_rows;
    int64_t count = part->rows - row < part->piece_rows ? part->rows - row : part->piece_rows;
    unsigned char *dst = job->base + part->offset + (uint64_t)row * part->row_bytes;
    char text[MYELIN_ERROR_MESSAGE_SIZE] = "";
    myelin_error_buffer error = {text, sizeof text};
    myelin_status status =
        job->host->read(job->host->self, part->source, part->part, row, count, dst, &error);
    int none = MYELIN_OK;
    if (status != MYELIN_OK && atomic_compare_exchange_strong(&job->status, &none, (int)status))
        snprintf(job->error->text, job->error->size, "%s", text);
}

static myelin_status read_weights(myelin_plugin_model *model, const load_plan *plan,
                                  myelin_error_buffer *error) {
    load_job job = {&model->host, plan, model->region.base, MYELIN_OK, error};
    model->host.parallel_for(model->host.self, plan->num_pieces, load_piece, &job);
    if (job.status != MYELIN_OK)
        return (myelin_status)job.status;
    for (int64_t i = 0; i < plan->num_parts; i++)
        *plan->parts[i].target = model->region.base + plan->parts[i].offset;
    if (model->config.tie_word_embeddings)
        model->weights.lm_head = model->weights.embed_tokens;
    return MYELIN_OK;
}

static mln_sizes sizes_of(const myelin_config *config) {
    return (mln_sizes){
        .hidden = config->hidden_size,
        .intermediate = config->intermediate_size,
        .vocab = config->vocab_size,
        .layers = config->num_hidden_layers,
        .heads = config->num_attention_heads,
        .kv_heads = config->num_key_value_heads,
        .head_dim = config->head_dim,
        .q_width = (int64_t)config->num_attention_heads * config->head_dim,
        .kv_width = (int64_t)config->num_key_value_heads * config->head_dim,
    };
}

static myelin_status fill_model(myelin_plugin_model *model, const myelin_weights *weights,
                                load_plan *plan, myelin_error_buffer *buffer) {
    myelin_error error = {0};
    size_t layers = (size_t)weights->num_layers;
    size_t max_parts = (layers * LAYER_TENSORS + 3) * MAX_PARTS;
    model->layers = mln_calloc(layers, sizeof *model->layers);
    model->inv_freq = mln_alloc((size_t)model->sizes.head_dim / 2, sizeof *model->inv_freq);
    plan->parts = mln_alloc(max_parts, sizeof *plan->parts);
    if (!model->layers || !model->inv_freq || !plan->parts) {
        mln_fail_memory(&error, max_parts * sizeof *plan->parts, "the table of weights");
        return mln_plugin_fail(buffer, &error);
    }
    mln_rope_inv_freq(model->inv_freq, &model->config.rope, model->config.head_dim);
    myelin_status status = lay_out(plan, weights, model);
    if (status != MYELIN_OK) {
        mln_fail_memory(&error, UINT64_MAX, "the weights");
        return mln_plugin_fail(buffer, &error);
    }
    status = mln_memory_check(plan->bytes, "the weights", &error);
    if (status == MYELIN_OK)
        status = mln_region_map(&model->region, plan->bytes, "the weights", &error);
    if (status != MYELIN_OK)
        return mln_plugin_fail(buffer, &error);
    return read_weights(model, plan, buffer);
}

myelin_status mln_composed_load(const myelin_model_description *description,
                                const myelin_host *host, myelin_plugin_model **out,
                                myelin_error_buffer *buffer) {
    *out = NULL;
    myelin_plugin_model *model = mln_calloc(1, sizeof *model);
    if (!model) {
        myelin_error error = {0};
        mln_fail_memory(&error, sizeof *model, "a model");
        return mln_plugin_fail(buffer, &error);
    }
    model->config = *description->config;
    model->sizes = sizes_of(&model->config);
    model->host = *host;
    load_plan plan = {0};
    myelin_status status = fill_model(model, description->weights, &plan, buffer);
    free(plan.parts);
    if (status != MYELIN_OK) {
        mln_composed_free_model(model);
        return status;
    }
    *out = model;
    return MYELIN_OK;
}

void mln_composed_free_model(myelin_plugin_model *model) {
    if (!model)
        return;
    mln_region_unmap(&model->region);
    free(model->inv_freq);
    free(model->layers);
    free(model);
}
