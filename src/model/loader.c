/* SPDX-License-Identifier: Apache-2.0 */
#include "model/loader.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "base/memory.h"
#include "tensor/dtype.h"

enum {
    GLOBAL_TENSORS = 3, /* outside of the layers */
    LAYER_TENSORS = sizeof(myelin_layer_weights) / sizeof(myelin_tensor),
    NAME_SIZE = 96,
    BOUNCE = 4096 /* elements converted at once, on the stack */
};

/* The tensors of a layer, in the order of myelin_layer_weights. */
static const char *const layer_names[LAYER_TENSORS] = {
    "input_layernorm",  "self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj",
    "self_attn.q_norm", "self_attn.k_norm", "self_attn.o_proj", "post_attention_layernorm",
    "mlp.gate_proj",    "mlp.up_proj",      "mlp.down_proj",
};

myelin_tensor mln_cast_description(const mln_weight *weight, int32_t dtype) {
    myelin_tensor tensor = weight->tensor;
    if (tensor.dtype != MYELIN_DTYPE_AFFINE && dtype != MYELIN_DTYPE_AUTO)
        tensor.dtype = dtype;
    return tensor;
}

/* Bytes of one row of one part; rows of a vector are its elements. 0: there is no such part. */
static uint64_t row_bytes(const myelin_tensor *tensor, myelin_tensor_part part) {
    uint64_t columns = tensor->rank > 1 ? (uint64_t)tensor->shape[1] : 1;
    if (tensor->dtype != MYELIN_DTYPE_AFFINE)
        return part == MYELIN_PART_DATA ? columns * mln_dtype_size(tensor->dtype) : 0;
    if (part == MYELIN_PART_DATA)
        return columns * (uint64_t)tensor->bits / 8;
    return columns / (uint64_t)tensor->group_size * mln_dtype_size(tensor->scale_dtype);
}

uint64_t mln_tensor_bytes(const myelin_tensor *tensor) {
    uint64_t row = row_bytes(tensor, MYELIN_PART_DATA);
    if (tensor->dtype == MYELIN_DTYPE_AFFINE)
        row += 2 * row_bytes(tensor, MYELIN_PART_SCALES);
    return (uint64_t)tensor->shape[0] * row;
}

/* Looks up one weight and describes it. */
static myelin_status describe(mln_loader *loader, myelin_tensor *tensor, const mln_weight **source,
                              const char *name, int32_t dtype, myelin_error *error) {
    *source = mln_checkpoint_find(loader->checkpoint, name);
    if (!*source)
        return mln_fail(error, MYELIN_ERROR_INTERNAL, NULL, -1,
                        "the opened checkpoint has no weight \"%s\"", name);
    *tensor = mln_cast_description(*source, dtype);
    loader->total += mln_tensor_bytes(tensor);
    return MYELIN_OK;
}

static myelin_status describe_layer(mln_loader *loader, int32_t layer, int32_t dtype,
                                    myelin_error *error) {
    myelin_tensor *tensors = (myelin_tensor *)&loader->layers[layer];
    const mln_weight **sources = loader->sources + GLOBAL_TENSORS + (int64_t)layer * LAYER_TENSORS;
    for (int i = 0; i < LAYER_TENSORS; i++) {
        char name[NAME_SIZE];
        snprintf(name, sizeof name, "model.layers.%" PRId32 ".%s.weight", layer, layer_names[i]);
        myelin_status status = describe(loader, &tensors[i], &sources[i], name, dtype, error);
        if (status != MYELIN_OK)
            return status;
    }
    return MYELIN_OK;
}

static myelin_status describe_all(mln_loader *loader, int32_t dtype, myelin_error *error) {
    myelin_weights *weights = &loader->description;
    const mln_weight **sources = loader->sources;
    myelin_status status = describe(loader, &weights->embed_tokens, &sources[0],
                                    "model.embed_tokens.weight", dtype, error);
    for (int32_t l = 0; l < weights->num_layers && status == MYELIN_OK; l++)
        status = describe_layer(loader, l, dtype, error);
    if (status == MYELIN_OK)
        status = describe(loader, &weights->norm, &sources[1], "model.norm.weight", dtype, error);
    if (status != MYELIN_OK)
        return status;
    if (!loader->checkpoint->config.model.tie_word_embeddings)
        return describe(loader, &weights->lm_head, &sources[2], "lm_head.weight", dtype, error);
    weights->lm_head = weights->embed_tokens;
    sources[2] = sources[0];
    return MYELIN_OK;
}

myelin_config mln_stored_config(const mln_checkpoint *checkpoint, int32_t dtype) {
    myelin_config config = checkpoint->config.model;
    const mln_weight *weight =
        mln_checkpoint_find(checkpoint, "model.layers.0.self_attn.k_proj.weight");
    if (weight) {
        myelin_tensor k_proj = mln_cast_description(weight, dtype);
        config.torch_dtype =
            k_proj.dtype == MYELIN_DTYPE_AFFINE ? k_proj.scale_dtype : k_proj.dtype;
    }
    return config;
}

myelin_status mln_loader_create(mln_loader **out, const mln_checkpoint *checkpoint,
                                const mln_model_options *options, myelin_error *error) {
    *out = NULL;
    mln_loader *loader = mln_calloc(1, sizeof *loader);
    if (!loader)
        return mln_fail_memory(error, sizeof *loader, "a loader");
    pthread_mutex_init(&loader->lock, NULL);
    loader->checkpoint = checkpoint;
    loader->progress = options->progress;
    loader->user = options->user;
    size_t layers = (size_t)checkpoint->config.model.num_hidden_layers;
    size_t tensors = GLOBAL_TENSORS + layers * LAYER_TENSORS;
    loader->layers = mln_calloc(layers, sizeof *loader->layers);
    loader->sources = mln_calloc(tensors, sizeof *loader->sources);
    myelin_status status;
    if (!loader->layers || !loader->sources) {
        status = mln_fail_memory(error, tensors * sizeof(myelin_tensor), "the table of weights");
    } else {
        loader->description.num_layers = (int32_t)layers;
        loader->description.layers = loader->layers;
        status = describe_all(loader, options->dtype, error);
    }
    if (status != MYELIN_OK) {
        mln_loader_free(loader);
        return status;
    }
    *out = loader;
    return MYELIN_OK;
}

void mln_loader_free(mln_loader *loader) {
    if (!loader)
        return;
    pthread_mutex_destroy(&loader->lock);
    free(loader->sources);
    free(loader->layers);
    free(loader);
}

/* The weight a tensor of the description stands for, or NULL: the address tells which it is. */
static const mln_weight *source_of(const mln_loader *loader, const myelin_tensor *tensor) {
    const myelin_weights *weights = &loader->description;
    if (tensor == &weights->embed_tokens)
        return loader->sources[0];
    if (tensor == &weights->norm)
        return loader->sources[1];
    if (tensor == &weights->lm_head)
        return loader->sources[2];
    uintptr_t first = (uintptr_t)loader->layers, address = (uintptr_t)tensor;
    uint64_t tensors = (uint64_t)weights->num_layers * LAYER_TENSORS;
    if (address < first || (address - first) % sizeof(myelin_tensor) != 0 ||
        (address - first) / sizeof(myelin_tensor) >= tensors)
        return NULL;
    return loader->sources[GLOBAL_TENSORS + (address - first) / sizeof(myelin_tensor)];
}

/* Reads `count` elements from element `first` on, a bounce buffer at a time, and converts them. */
static myelin_status read_cast(const mln_loader *loader, const mln_weight *weight, int32_t dtype,
                               uint64_t first, uint64_t count, void *dst, myelin_error *error) {
    _Alignas(64) unsigned char raw[BOUNCE * sizeof(float)];
    _Alignas(64) float wide[BOUNCE];
    int32_t from = weight->tensor.dtype;
    uint64_t from_size = mln_dtype_size(from), size = mln_dtype_size(dtype);
    for (uint64_t i = 0; i < count; i += BOUNCE) {
        size_t n = (size_t)(count - i < BOUNCE ? count - i : BOUNCE);
        myelin_status status = mln_checkpoint_read(
            loader->checkpoint, weight, 0, (first + i) * from_size, raw, n * from_size, error);
        if (status != MYELIN_OK)
            return status;
        mln_to_f32(wide, raw, from, n);
        mln_from_f32((char *)dst + i * size, dtype, wide, n);
    }
    return MYELIN_OK;
}

/* Counts the bytes and tells the user, one thread at a time. */
static myelin_status report(mln_loader *loader, uint64_t bytes, myelin_error *error) {
    pthread_mutex_lock(&loader->lock);
    loader->done += bytes;
    if (loader->done > loader->total) /* some plug-ins read rows more than once */
        loader->done = loader->total;
    if (!loader->cancelled && loader->progress)
        loader->cancelled = !loader->progress(loader->user, loader->done, loader->total);
    bool cancelled = loader->cancelled;
    pthread_mutex_unlock(&loader->lock);
    if (cancelled)
        return mln_fail(error, MYELIN_ERROR_CANCELLED, NULL, -1, "loading was cancelled");
    return MYELIN_OK;
}

static myelin_status read_rows(mln_loader *loader, const myelin_tensor *tensor,
                               myelin_tensor_part part, int64_t row, int64_t count, void *dst,
                               myelin_error *error) {
    const mln_weight *weight = source_of(loader, tensor);
    if (!weight)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "a plug-in asked for a tensor that is not of the description");
    uint64_t bytes = row_bytes(tensor, part);
    if (part < MYELIN_PART_DATA || part > MYELIN_PART_BIASES || bytes == 0)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1, "%s has no part %d", weight->name,
                        (int)part);
    if (row < 0 || count < 0 || row > tensor->shape[0] || count > tensor->shape[0] - row)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "%s has %" PRId64 " rows, but %" PRId64 " from row %" PRId64
                        " were asked for",
                        weight->name, tensor->shape[0], count, row);
    myelin_status status;
    if (tensor->dtype == weight->tensor.dtype) {
        status = mln_checkpoint_read(loader->checkpoint, weight, (int)part, (uint64_t)row * bytes,
                                     dst, (uint64_t)count * bytes, error);
    } else {
        uint64_t columns = bytes / mln_dtype_size(tensor->dtype);
        status = read_cast(loader, weight, tensor->dtype, (uint64_t)row * columns,
                           (uint64_t)count * columns, dst, error);
    }
    return status == MYELIN_OK ? report(loader, (uint64_t)count * bytes, error) : status;
}

myelin_status mln_loader_read(mln_loader *loader, const myelin_tensor *tensor,
                              myelin_tensor_part part, int64_t row, int64_t count, void *dst,
                              myelin_error_buffer *buffer) {
    myelin_error error = {0};
    myelin_status status = read_rows(loader, tensor, part, row, count, dst, &error);
    if (status == MYELIN_OK)
        return MYELIN_OK;
    snprintf(buffer->text, buffer->size, "%s", error.message);
    pthread_mutex_lock(&loader->lock);
    if (loader->first_error.status == MYELIN_OK)
        loader->first_error = error; /* with file and offset, which the boundary cannot carry */
    pthread_mutex_unlock(&loader->lock);
    return status;
}
