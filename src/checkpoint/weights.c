/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/weights.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"

enum { NAME_ROOM = 96, SHAPE_TEXT = 192, NAME_SHOWN = 200 };

typedef enum dim { NO_DIM, VOCAB, HIDDEN, INTERMEDIATE, QUERY, KEY_VALUE, HEAD } dim;

static const char *const dim_names[] = {"",
                                        "vocab_size",
                                        "hidden_size",
                                        "intermediate_size",
                                        "num_attention_heads * head_dim",
                                        "num_key_value_heads * head_dim",
                                        "head_dim"};

/* A weight without its ".weight"; a matrix is [rows, columns], a norm [rows] and never quantised.
 */
typedef struct weight_spec {
    const char *module;
    dim rows, columns;
} weight_spec;

static const weight_spec embed_tokens = {"embed_tokens", VOCAB, HIDDEN};
static const weight_spec final_norm = {"norm", HIDDEN, NO_DIM};
static const weight_spec lm_head = {"lm_head", VOCAB, HIDDEN};
static const weight_spec layer_weights[] = {
    {"input_layernorm", HIDDEN, NO_DIM},     {"self_attn.q_proj", QUERY, HIDDEN},
    {"self_attn.k_proj", KEY_VALUE, HIDDEN}, {"self_attn.v_proj", KEY_VALUE, HIDDEN},
    {"self_attn.q_norm", HEAD, NO_DIM},      {"self_attn.k_norm", HEAD, NO_DIM},
    {"self_attn.o_proj", HIDDEN, QUERY},     {"post_attention_layernorm", HIDDEN, NO_DIM},
    {"mlp.gate_proj", INTERMEDIATE, HIDDEN}, {"mlp.up_proj", INTERMEDIATE, HIDDEN},
    {"mlp.down_proj", HIDDEN, INTERMEDIATE},
};
enum { PER_LAYER = sizeof layer_weights / sizeof *layer_weights };

typedef struct finder {
    mln_checkpoint *checkpoint;
    mln_tensor_directory *directory;
    const char *where; /* the directory, to name it in errors */
    const char *prefix;
    myelin_error *error;
} finder;

static int64_t extent(const myelin_config *c, dim d) {
    switch (d) {
    case VOCAB:
        return c->vocab_size;
    case HIDDEN:
        return c->hidden_size;
    case INTERMEDIATE:
        return c->intermediate_size;
    case QUERY:
        return (int64_t)c->num_attention_heads * c->head_dim;
    case KEY_VALUE:
        return (int64_t)c->num_key_value_heads * c->head_dim;
    case HEAD:
        return c->head_dim;
    case NO_DIM:
        break;
    }
    return 1;
}

size_t mln_weights_count(const myelin_config *config) {
    return (size_t)config->num_hidden_layers * PER_LAYER + (config->tie_word_embeddings ? 2 : 3);
}

void mln_weights_name(const myelin_config *config, size_t index, mln_weight_name *name) {
    size_t in_layers = (size_t)config->num_hidden_layers * PER_LAYER;
    const weight_spec *spec = &embed_tokens;
    const char *prefix = "model.";
    char layer[40] = "";
    if (index > in_layers + 1) {
        spec = &lm_head;
        prefix = "";
    } else if (index == in_layers + 1) {
        spec = &final_norm;
    } else if (index > 0) {
        spec = &layer_weights[(index - 1) % PER_LAYER];
        snprintf(layer, sizeof layer, "layers.%zu.", (index - 1) / PER_LAYER);
    }
    snprintf(name->module, sizeof name->module, "%s%s%s", prefix, layer, spec->module);
    name->rank = spec->columns == NO_DIM ? 1 : 2;
    name->shape[0] = extent(config, spec->rows);
    name->shape[1] = extent(config, spec->columns);
}

static int32_t float_dtype(mln_file_dtype dtype) {
    return dtype == MLN_FILE_F32    ? MYELIN_DTYPE_F32
           : dtype == MLN_FILE_F16  ? MYELIN_DTYPE_F16
           : dtype == MLN_FILE_BF16 ? MYELIN_DTYPE_BF16
                                    : MYELIN_DTYPE_AUTO;
}

/* "[2, 3]" */
static const char *shape_text(char text[SHAPE_TEXT], const int64_t *shape, int32_t rank) {
    size_t used = (size_t)snprintf(text, SHAPE_TEXT, "[");
    for (int32_t i = 0; i < rank; i++)
        used +=
            (size_t)snprintf(text + used, SHAPE_TEXT - used, "%s%" PRId64, i ? ", " : "", shape[i]);
    snprintf(text + used, SHAPE_TEXT - used, "]");
    return text;
}

static const char *path_of(const finder *f, const mln_tensor_place *place) {
    return f->checkpoint->shards[place->shard].file.path;
}

/* The tensor called module + suffix; NULL when there is none. It counts as used from now on. */
static mln_tensor_place *take(const finder *f, const char *module, const char *suffix) {
    char name[NAME_ROOM + 16];
    snprintf(name, sizeof name, "%s%s", module, suffix);
    mln_tensor_place *place = mln_tensor_directory_find(f->directory, name);
    if (place)
        place->used = true;
    return place;
}

static myelin_status missing(const finder *f, const char *module, const char *suffix,
                             const char *why) {
    return mln_fail(f->error, MYELIN_ERROR_FORMAT, f->where, -1, "tensor \"%s%s\" is missing%s",
                    module, suffix, why);
}

/* `note` explains where the expected shape comes from. */
static myelin_status check_shape(const finder *f, const mln_tensor_place *place, int32_t rank,
                                 const int64_t *shape, const char *note) {
    const mln_file_tensor *t = place->tensor;
    if (t->rank == rank && memcmp(t->shape, shape, (size_t)rank * sizeof *shape) == 0)
        return MYELIN_OK;
    char expected[SHAPE_TEXT], found[SHAPE_TEXT];
    return mln_fail(f->error, MYELIN_ERROR_FORMAT, path_of(f, place), -1,
                    "tensor \"%.*s\": expected shape %s (%s), found %s", NAME_SHOWN, t->name,
                    shape_text(expected, shape, rank), note, shape_text(found, t->shape, t->rank));
}

static myelin_status wrong_dtype(const finder *f, const mln_tensor_place *place,
                                 const char *expected) {
    return mln_fail(f->error, MYELIN_ERROR_UNSUPPORTED, path_of(f, place), -1,
                    "tensor \"%.*s\": expected %s, found %s", NAME_SHOWN, place->tensor->name,
                    expected, mln_file_dtype_name(place->tensor->dtype));
}

static void add_part(mln_weight *weight, int part, const mln_tensor_place *place) {
    weight->shard[part] = place->shard;
    weight->source[part] = place->tensor;
}

static myelin_status find_dense(const finder *f, mln_weight *weight, const weight_spec *spec,
                                const mln_tensor_place *place, const char *module) {
    char note[96];
    snprintf(note, sizeof note, "%s%s%s", dim_names[spec->rows], spec->columns ? ", " : "",
             dim_names[spec->columns]);
    weight->tensor.dtype = float_dtype(place->tensor->dtype);
    if (weight->tensor.dtype == MYELIN_DTYPE_AUTO && place->tensor->dtype == MLN_FILE_U32)
        return missing(f, module, ".scales", ", but the weight beside it is packed (U32)");
    if (weight->tensor.dtype == MYELIN_DTYPE_AUTO)
        return wrong_dtype(f, place, "F32, F16 or BF16");
    add_part(weight, 0, place);
    return check_shape(f, place, weight->tensor.rank, weight->tensor.shape, note);
}

/* The scales or the biases: one number for each group of a row. */
static myelin_status find_group_part(const finder *f, mln_weight *weight, int part,
                                     const mln_tensor_place *place) {
    const myelin_tensor *t = &weight->tensor;
    char note[64];
    snprintf(note, sizeof note, "groups of %" PRId32, t->group_size);
    if (float_dtype(place->tensor->dtype) == MYELIN_DTYPE_AUTO)
        return wrong_dtype(f, place, "F32, F16 or BF16");
    if (part == 2 && float_dtype(place->tensor->dtype) != t->scale_dtype)
        return wrong_dtype(f, place, "the dtype of the scales");
    add_part(weight, part, place);
    return check_shape(f, place, 2, (int64_t[]){t->shape[0], t->shape[1] / t->group_size}, note);
}

static myelin_status find_affine(const finder *f, mln_weight *weight, const char *module,
                                 int32_t bits, int32_t group_size) {
    const mln_tensor_place *packed = take(f, module, ".weight");
    const mln_tensor_place *scales = take(f, module, ".scales");
    const mln_tensor_place *biases = take(f, module, ".biases");
    if (!packed || !scales || !biases)
        return missing(f, module,
                       !packed   ? ".weight"
                       : !scales ? ".scales"
                                 : ".biases",
                       ": it is quantised");
    myelin_tensor *t = &weight->tensor;
    if (t->shape[1] % group_size != 0)
        return mln_fail(f->error, MYELIN_ERROR_FORMAT, path_of(f, packed), -1,
                        "tensor \"%s.weight\": %" PRId64
                        " columns are not a multiple of group_size (%" PRId32 ")",
                        module, t->shape[1], group_size);
    if (packed->tensor->dtype != MLN_FILE_U32)
        return wrong_dtype(f, packed, "U32 (it has scales)");
    t->dtype = MYELIN_DTYPE_AFFINE;
    t->bits = bits;
    t->group_size = group_size;
    t->scale_dtype = float_dtype(scales->tensor->dtype);
    add_part(weight, 0, packed);
    char note[64];
    snprintf(note, sizeof note, "%" PRId32 " bits for %" PRId64 " columns", bits, t->shape[1]);
    myelin_status status =
        check_shape(f, packed, 2, (int64_t[]){t->shape[0], t->shape[1] * bits / 32}, note);
    if (status == MYELIN_OK)
        status = find_group_part(f, weight, 1, scales);
    if (status == MYELIN_OK)
        status = find_group_part(f, weight, 2, biases);
    return status;
}

/*
 * The `quantization` section's own entry for the module decides; without one, whether scales lie
 * beside the weight. Then the section's bits and group_size must fit the shapes: guessing others
 * from the shapes, as mlx-lm does since 0.32, would hide a damaged config.
 */
static myelin_status find_matrix(const finder *f, mln_weight *weight, const weight_spec *spec,
                                 const char *module) {
    const mln_model_config *config = &f->checkpoint->config;
    const mln_quantization_override *own = mln_config_override(config, module);
    mln_tensor_place *scales = own ? NULL : take(f, module, ".scales");
    if (own && own->bits)
        return find_affine(f, weight, module, own->bits, own->group_size);
    if (scales && config->model.quantization_bits == 0)
        return mln_fail(f->error, MYELIN_ERROR_FORMAT, path_of(f, scales), -1,
                        "tensor \"%s.scales\" has no meaning without a `quantization` section in "
                        "config.json",
                        module);
    if (scales)
        return find_affine(f, weight, module, config->model.quantization_bits,
                           config->model.quantization_group_size);
    const mln_tensor_place *place = take(f, module, ".weight");
    if (!place)
        return missing(f, module, ".weight", "");
    return find_dense(f, weight, spec, place, module);
}

/* `canonical` is the name the model knows the weight's module by, `module` the files' name. */
static myelin_status find_weight(const finder *f, const weight_spec *spec, const char *canonical,
                                 const char *module) {
    mln_checkpoint *c = f->checkpoint;
    mln_weight *weight = &c->weights[c->num_weights];
    char name[NAME_ROOM + 16];
    snprintf(name, sizeof name, "%s.weight", canonical);
    weight->name = mln_strndup(name, strlen(name));
    if (!weight->name)
        return mln_fail_memory(f->error, strlen(name), "a weight's name");
    c->num_weights++;
    myelin_tensor *t = &weight->tensor;
    t->rank = spec->columns == NO_DIM ? 1 : 2;
    t->shape[0] = extent(&c->config.model, spec->rows);
    t->stride[0] = 1;
    if (t->rank == 2) {
        t->shape[1] = extent(&c->config.model, spec->columns);
        t->stride[0] = t->shape[1];
        t->stride[1] = 1;
        return find_matrix(f, weight, spec, module);
    }
    const mln_tensor_place *place = take(f, module, ".weight");
    return place ? find_dense(f, weight, spec, place, module) : missing(f, module, ".weight", "");
}

/* A weight of the body, whose name has the prefix (and a layer's number unless it is negative). */
static myelin_status find_body(const finder *f, const weight_spec *spec, int32_t layer) {
    char number[24] = "", canonical[NAME_ROOM], module[NAME_ROOM];
    if (layer >= 0)
        snprintf(number, sizeof number, "layers.%" PRId32 ".", layer);
    snprintf(canonical, sizeof canonical, "model.%s%s", number, spec->module);
    snprintf(module, sizeof module, "%s%s%s", f->prefix, number, spec->module);
    return find_weight(f, spec, canonical, module);
}

static bool ends_with(const char *text, const char *suffix) {
    size_t length = strlen(text), tail = strlen(suffix);
    return length >= tail && strcmp(text + length - tail, suffix) == 0;
}

/* Leftovers: some are harmless by convention, any other is a model we do not know. */
static myelin_status check_leftovers(const finder *f) {
    mln_checkpoint *c = f->checkpoint;
    for (size_t i = 0; i < f->directory->count; i++) {
        const mln_tensor_place *place = &f->directory->places[i];
        if (place->used)
            continue;
        const char *name = place->tensor->name;
        bool harmless = mln_tensor_is_empty(place->tensor) ||
                        ends_with(name, ".rotary_emb.inv_freq") ||
                        (c->config.model.tie_word_embeddings && strncmp(name, "lm_head.", 8) == 0);
        char shape[SHAPE_TEXT];
        if (!harmless)
            return mln_fail(f->error, MYELIN_ERROR_FORMAT, path_of(f, place), -1,
                            "tensor \"%.*s\" (%s %s) is not part of a Qwen3 model of this config",
                            NAME_SHOWN, name, mln_file_dtype_name(place->tensor->dtype),
                            shape_text(shape, place->tensor->shape, place->tensor->rank));
        c->num_ignored++;
    }
    return MYELIN_OK;
}

myelin_status mln_weights_find(mln_checkpoint *checkpoint, mln_tensor_directory *directory,
                               myelin_error *error) {
    finder f = {checkpoint, directory, checkpoint->directory, "model.", error};
    const myelin_config *config = &checkpoint->config.model;
    /* The Qwen3-Embedding checkpoints are published without the prefix. */
    if (mln_tensor_directory_find(directory, "embed_tokens.weight") &&
        !mln_tensor_directory_find(directory, "model.embed_tokens.weight"))
        f.prefix = "";
    size_t count = (size_t)config->num_hidden_layers * PER_LAYER + 3;
    checkpoint->weights = mln_calloc(count, sizeof *checkpoint->weights);
    if (!checkpoint->weights)
        return mln_fail_memory(error, count * sizeof *checkpoint->weights, "the list of weights");
    myelin_status status = find_body(&f, &embed_tokens, -1);
    for (int32_t layer = 0; layer < config->num_hidden_layers; layer++)
        for (size_t i = 0; status == MYELIN_OK && i < PER_LAYER; i++)
            status = find_body(&f, &layer_weights[i], layer);
    if (status == MYELIN_OK)
        status = find_body(&f, &final_norm, -1);
    if (status == MYELIN_OK && !config->tie_word_embeddings)
        status = find_weight(&f, &lm_head, lm_head.module, lm_head.module);
    return status == MYELIN_OK ? check_leftovers(&f) : status;
}
