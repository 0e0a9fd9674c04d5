/* SPDX-License-Identifier: Apache-2.0 */
#include "shard.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "tiles.h"

static myelin_status fail(myelin_error_buffer *error, myelin_status status, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static myelin_status fail(myelin_error_buffer *error, myelin_status status, const char *format,
                          ...) {
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(error->text, error->size, format, arguments);
    va_end(arguments);
    return status;
}

/* --- what can be cut --- */

/* Columns of codes are cut between groups, which share a scale. */
static myelin_status check_groups(const myelin_tensor *tensor, const char *name, int32_t layer,
                                  int32_t ranks, myelin_error_buffer *error) {
    int64_t each = tensor->shape[1] / ranks;
    if (tensor->dtype != MYELIN_DTYPE_AFFINE || each % tensor->group_size == 0)
        return MYELIN_OK;
    return fail(error, MYELIN_ERROR_UNSUPPORTED,
                "%s of layer %" PRId32 ": expected groups of %" PRId32
                " columns to divide the %" PRId64 " columns of each of %" PRId32 " devices",
                name, layer, tensor->group_size, each, ranks);
}

myelin_status mln_shard_check(const myelin_config *config, const myelin_weights *weights,
                              int32_t ranks, myelin_error_buffer *error) {
    if (ranks < 1 || ranks > MLN_SHARD_MAX_RANKS)
        return fail(error, MYELIN_ERROR_ARGUMENT, "devices: expected 1 to %d, found %" PRId32,
                    MLN_SHARD_MAX_RANKS, ranks);
    const struct {
        const char *name;
        int32_t value;
    } sizes[] = {{"num_key_value_heads", config->num_key_value_heads},
                 {"num_attention_heads", config->num_attention_heads},
                 {"intermediate_size", config->intermediate_size}};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        if (sizes[i].value % ranks != 0)
            return fail(error, MYELIN_ERROR_UNSUPPORTED,
                        "%s is %" PRId32 ": expected what %" PRId32 " devices divide",
                        sizes[i].name, sizes[i].value, ranks);
    if (config->vocab_size <= (ranks - 1) * MLN_TILE_ROWS)
        return fail(error, MYELIN_ERROR_UNSUPPORTED,
                    "vocab_size is %" PRId32 ": expected more than %" PRId32 " for %" PRId32
                    " devices",
                    config->vocab_size, (ranks - 1) * MLN_TILE_ROWS, ranks);
    for (int32_t i = 0; i < weights->num_layers; i++) {
        const myelin_layer_weights *layer = &weights->layers[i];
        myelin_status status = check_groups(&layer->o_proj, "o_proj", i, ranks, error);
        if (status == MYELIN_OK)
            status = check_groups(&layer->down_proj, "down_proj", i, ranks, error);
        if (status != MYELIN_OK)
            return status;
    }
    return MYELIN_OK;
}

/* --- the parts --- */

static mln_shard_part equal_part(const mln_shard *shard, int32_t cut, int64_t size) {
    int64_t each = size / shard->ranks;
    return (mln_shard_part){cut, each * shard->rank, each};
}

/* The tensors of a layer, in the order of the struct, and how each is cut. */
enum { LAYER_TENSORS = sizeof(myelin_layer_weights) / sizeof(myelin_tensor) };
static const uint8_t layer_cuts[LAYER_TENSORS] = {
    MLN_SHARD_WHOLE,   /* input_layernorm */
    MLN_SHARD_ROWS,    /* q_proj */
    MLN_SHARD_ROWS,    /* k_proj */
    MLN_SHARD_ROWS,    /* v_proj */
    MLN_SHARD_WHOLE,   /* q_norm */
    MLN_SHARD_WHOLE,   /* k_norm */
    MLN_SHARD_COLUMNS, /* o_proj */
    MLN_SHARD_WHOLE,   /* post_attention_layernorm */
    MLN_SHARD_ROWS,    /* gate_proj */
    MLN_SHARD_ROWS,    /* up_proj */
    MLN_SHARD_COLUMNS  /* down_proj */
};

static mln_shard_part layer_part(const mln_shard *shard, const myelin_tensor *whole, int index) {
    int32_t cut = layer_cuts[index];
    if (cut == MLN_SHARD_WHOLE)
        return (mln_shard_part){cut, 0, whole->shape[0]};
    return equal_part(shard, cut, whole->shape[cut == MLN_SHARD_COLUMNS]);
}

static void cut_tensor(myelin_tensor *tensor, mln_shard_part part) {
    if (part.cut == MLN_SHARD_WHOLE)
        return;
    tensor->shape[part.cut == MLN_SHARD_COLUMNS] = part.count;
    tensor->stride[0] = tensor->shape[1];
}

static mln_shard_part head_part(const mln_shard *shard) {
    if (shard->config.tie_word_embeddings)
        return (mln_shard_part){MLN_SHARD_WHOLE, 0, shard->whole->lm_head.shape[0]};
    return (mln_shard_part){MLN_SHARD_ROWS, shard->first_id, shard->num_ids};
}

/* Tensor `index` of a layer: the struct is an array of them. */
static myelin_tensor *tensor_of(myelin_layer_weights *layer, int index) {
    return (myelin_tensor *)(void *)layer + index;
}

myelin_status mln_shard_open(mln_shard *shard, const myelin_config *config,
                             const myelin_weights *weights, const myelin_host *host, int32_t rank,
                             int32_t ranks, myelin_error_buffer *error) {
    *shard = (mln_shard){.whole = weights,
                         .host = host,
                         .rank = rank,
                         .ranks = ranks,
                         .config = *config,
                         .weights = *weights};
    size_t layers = (size_t)weights->num_layers;
    shard->layers = calloc(layers, sizeof *shard->layers);
    if (!shard->layers)
        return fail(error, MYELIN_ERROR_MEMORY, "could not allocate a description of weights");
    shard->config.num_attention_heads /= ranks;
    shard->config.num_key_value_heads /= ranks;
    shard->config.intermediate_size /= ranks;
    shard->first_id = mln_tile_first_row(config->vocab_size, rank, ranks);
    shard->num_ids = mln_tile_first_row(config->vocab_size, rank + 1, ranks) - shard->first_id;
    memcpy(shard->layers, weights->layers, layers * sizeof *shard->layers);
    for (size_t l = 0; l < layers; l++)
        for (int i = 0; i < LAYER_TENSORS; i++) {
            myelin_tensor *tensor = tensor_of(&shard->layers[l], i);
            cut_tensor(tensor, layer_part(shard, tensor, i));
        }
    shard->weights.layers = shard->layers;
    cut_tensor(&shard->weights.lm_head, head_part(shard));
    return MYELIN_OK;
}

void mln_shard_close(mln_shard *shard) {
    free(shard->layers);
    shard->layers = NULL;
}

/* --- reading --- */

const myelin_tensor *mln_shard_source(const mln_shard *shard, const myelin_tensor *tensor,
                                      mln_shard_part *part) {
    const myelin_weights *own = &shard->weights, *whole = shard->whole;
    *part = (mln_shard_part){MLN_SHARD_WHOLE, 0, tensor->shape[0]};
    if (tensor == &own->embed_tokens)
        return &whole->embed_tokens;
    if (tensor == &own->norm)
        return &whole->norm;
    if (tensor == &own->lm_head) {
        *part = head_part(shard);
        return &whole->lm_head;
    }
    uintptr_t first = (uintptr_t)shard->layers, address = (uintptr_t)tensor;
    uint64_t tensors = (uint64_t)own->num_layers * LAYER_TENSORS;
    if (address < first || (address - first) % sizeof *tensor != 0 ||
        (address - first) / sizeof *tensor >= tensors)
        return NULL;
    size_t index = (address - first) / sizeof *tensor;
    const myelin_tensor *source = (const myelin_tensor *)(const void *)whole->layers + index;
    *part = layer_part(shard, source, (int)(index % LAYER_TENSORS));
    return source;
}

/* Bytes of so many columns of one part of a matrix. */
static int64_t column_bytes(const myelin_tensor *tensor, myelin_tensor_part part, int64_t columns) {
    if (tensor->dtype != MYELIN_DTYPE_AFFINE)
        return columns * (tensor->dtype == MYELIN_DTYPE_F32 ? 4 : 2);
    if (part == MYELIN_PART_DATA)
        return columns * tensor->bits / 8;
    return columns / tensor->group_size * (tensor->scale_dtype == MYELIN_DTYPE_F32 ? 4 : 2);
}

/* Whole rows, as many as a buffer holds at a time, of which some columns are kept. */
static myelin_status read_columns(const mln_shard *shard, const myelin_tensor *source,
                                  mln_shard_part cut, myelin_tensor_part part, int64_t row,
                                  int64_t count, unsigned char *to, myelin_error_buffer *error) {
    _Alignas(64) unsigned char rows[MLN_SHARD_MAX_ROW_BYTES];
    int64_t pitch = column_bytes(source, part, source->shape[1]);
    int64_t from = column_bytes(source, part, cut.first);
    int64_t bytes = column_bytes(source, part, cut.count);
    int64_t step = pitch > 0 ? (int64_t)sizeof rows / pitch : 0;
    if (step == 0)
        return fail(error, MYELIN_ERROR_UNSUPPORTED,
                    "rows of %" PRId64 " bytes: expected at most %d to cut columns from", pitch,
                    MLN_SHARD_MAX_ROW_BYTES);
    for (int64_t at = 0; at < count; at += step) {
        int64_t some = count - at < step ? count - at : step;
        myelin_status status =
            shard->host->read(shard->host->self, source, part, row + at, some, rows, error);
        if (status != MYELIN_OK)
            return status;
        for (int64_t i = 0; i < some; i++)
            memcpy(to + (at + i) * bytes, rows + i * pitch + from, (size_t)bytes);
    }
    return MYELIN_OK;
}

myelin_status mln_shard_read(void *self, const myelin_tensor *tensor, myelin_tensor_part part,
                             int64_t row, int64_t count, void *dst, myelin_error_buffer *error) {
    const mln_shard *shard = self;
    mln_shard_part cut;
    const myelin_tensor *source = mln_shard_source(shard, tensor, &cut);
    if (!source)
        return fail(error, MYELIN_ERROR_ARGUMENT, "a tensor that is none of the rank's");
    if (cut.cut == MLN_SHARD_COLUMNS)
        return read_columns(shard, source, cut, part, row, count, dst, error);
    if (row < 0 || count < 0 || row > cut.count || count > cut.count - row)
        return fail(error, MYELIN_ERROR_ARGUMENT,
                    "rows %" PRId64 " to %" PRId64 " of a rank's %" PRId64, row, row + count,
                    cut.count);
    return shard->host->read(shard->host->self, source, part, cut.first + row, count, dst, error);
}
