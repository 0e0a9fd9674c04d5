/* SPDX-License-Identifier: Apache-2.0 */
#include "checkpoint/synthetic.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/error.h"
#include "checkpoint/checkpoint.h"
#include "checkpoint/tensor_directory.h"
#include "checkpoint/weights.h"

/*
 * Content is laid in blocks of 512 bytes, each a stretch of a table beginning where a hash of the
 * block's place says. Making a model then costs a copy of its bytes.
 */
enum { BLOCK = 512, TABLE = 1 << 17, NAME_ROOM = 128, CONFIG_ROOM = 1024 };

typedef enum content { NORMAL, NORMS, CODES, SCALES, BIASES, NUM_CONTENTS } content;

struct mln_synthetic {
    int32_t bits;
    _Alignas(64) unsigned char table[NUM_CONTENTS][TABLE + BLOCK];
};

/* Shapes as in the config.json files of Qwen/Qwen3-0.6B and its siblings. */
static const struct shape {
    const char *name;
    int hidden, intermediate, layers, heads;
    bool tied;
} shapes[] = {
    {"qwen3-0.6b", 1024, 3072, 28, 16, true},  {"qwen3-1.7b", 2048, 6144, 28, 16, true},
    {"qwen3-4b", 2560, 9728, 36, 32, true},    {"qwen3-8b", 4096, 12288, 36, 32, false},
    {"qwen3-14b", 5120, 17408, 40, 40, false}, {"qwen3-32b", 5120, 25600, 64, 64, false},
};

/* A well-mixed function of x (Steele et al., "Fast Splittable Pseudorandom Number Generators"). */
static uint64_t mix(uint64_t x) {
    x += 0x9e3779b97f4a7c15u;
    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9u;
    x = (x ^ x >> 27) * 0x94d049bb133111ebu;
    return x ^ x >> 31;
}

/* Sum of twelve uniform numbers less six: nearly normal, in integer steps and so the same anywhere.
 */
static float normal(uint64_t *state) {
    int64_t sum = 0;
    for (int i = 0; i < 3; i++) {
        uint64_t bits = mix((*state)++);
        for (int k = 0; k < 4; k++)
            sum += (int64_t)(bits >> 16 * k & 0xFFFF);
    }
    return (float)(sum - 6 * 65536) / 65536.0f;
}

/* bfloat16 rounded to nearest even; finite values only. */
static uint16_t bf16(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return (uint16_t)((bits + 0x7FFF + (bits >> 16 & 1)) >> 16);
}

static float from_bf16(uint16_t value) {
    uint32_t bits = (uint32_t)value << 16;
    float wide;
    memcpy(&wide, &bits, sizeof wide);
    return wide;
}

static void fill_tables(mln_synthetic *s) {
    const float deviation = 0.02f;
    uint64_t state = 1;
    uint16_t *tables[NUM_CONTENTS];
    for (int c = 0; c < NUM_CONTENTS; c++)
        tables[c] = (uint16_t *)(void *)s->table[c];
    /* Uniform codes of n bits have a deviation of 2^n / sqrt(12). */
    float step = s->bits ? deviation * 3.4641016f / (float)(1 << s->bits) : 0;
    for (size_t i = 0; i < (TABLE + BLOCK) / sizeof(uint16_t); i++) {
        tables[NORMAL][i] = bf16(deviation * normal(&state));
        tables[NORMS][i] = bf16(1 + 0.1f * normal(&state));
        tables[CODES][i] = (uint16_t)mix(state++);
        tables[SCALES][i] = bf16(step * (1 + 0.05f * normal(&state)));
        /* Exact: a power of two times the scale. */
        tables[BIASES][i] = bf16(-from_bf16(tables[SCALES][i]) * (float)(1 << s->bits >> 1));
    }
}

void mln_synthetic_read(const mln_synthetic *s, const mln_weight *weight, int part, uint64_t offset,
                        void *dst, uint64_t length) {
    bool affine = weight->tensor.dtype == MYELIN_DTYPE_AFFINE;
    content kind = weight->tensor.rank == 1 ? NORMS
                   : !affine                ? NORMAL
                   : part == 0              ? CODES
                   : part == 1              ? SCALES
                                            : BIASES;
    /* Biases go with their scales, so they take the place of these. */
    uint64_t place = weight->source[part == 2 ? 1 : part]->offset + offset;
    unsigned char *to = dst;
    while (length > 0) {
        uint64_t within = place % BLOCK, n = BLOCK - within < length ? BLOCK - within : length;
        uint64_t from = mix(place / BLOCK) % (TABLE / 16) * 16; /* whole elements of any dtype */
        memcpy(to, s->table[kind] + from + within, n);
        to += n;
        place += n;
        length -= n;
    }
}

void mln_synthetic_free(mln_synthetic *synthetic) {
    free(synthetic);
}

static const struct shape *find_shape(const char *name) {
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes; i++)
        if (strcmp(shapes[i].name, name) == 0)
            return &shapes[i];
    return NULL;
}

static myelin_status make_config(mln_checkpoint *c, const mln_synthetic_spec *spec,
                                 const struct shape *shape, myelin_error *error) {
    char text[CONFIG_ROOM], quantization[128] = "";
    if (spec->bits)
        snprintf(quantization, sizeof quantization,
                 ", \"quantization\": {\"bits\": %" PRId32 ", \"group_size\": %" PRId32 "}",
                 spec->bits, spec->group_size);
    int length = snprintf(
        text, sizeof text,
        "{\"model_type\": \"qwen3\", \"architectures\": [\"Qwen3ForCausalLM\"], "
        "\"vocab_size\": 151936, \"hidden_size\": %d, \"intermediate_size\": %d, "
        "\"num_hidden_layers\": %d, \"num_attention_heads\": %d, \"num_key_value_heads\": 8, "
        "\"head_dim\": 128, \"hidden_act\": \"silu\", \"rms_norm_eps\": 1e-6, "
        "\"rope_theta\": 1000000, \"max_position_embeddings\": 40960, "
        "\"attention_bias\": false, \"tie_word_embeddings\": %s, \"torch_dtype\": \"bfloat16\"%s}",
        shape->hidden, shape->intermediate, shape->layers, shape->heads,
        shape->tied ? "true" : "false", quantization);
    return mln_config_parse(&c->config, text, (size_t)length, shape->name, error);
}

/* One tensor of the file that is not there, beginning on a block. */
static bool add_tensor(mln_shard *shard, const char *module, const char *suffix,
                       mln_file_dtype dtype, uint64_t size, const int64_t *extents, int32_t rank) {
    mln_safetensors *header = &shard->header;
    char name[NAME_ROOM];
    int length = snprintf(name, sizeof name, "%s%s", module, suffix);
    mln_file_tensor *t = &header->tensors[header->count++];
    *t = (mln_file_tensor){.name = mln_arena_strndup(&header->arena, name, (size_t)length),
                           .dtype = dtype,
                           .rank = rank,
                           .offset = shard->file.size,
                           .size = size * (uint64_t)extents[0]};
    memcpy(t->shape, extents, (size_t)rank * sizeof *extents);
    if (rank == 2)
        t->size *= (uint64_t)extents[1];
    shard->file.size += (t->size + BLOCK - 1) / BLOCK * BLOCK;
    return t->name != NULL;
}

static bool add_weight(mln_shard *shard, const mln_weight_name *weight,
                       const mln_synthetic_spec *spec) {
    const int64_t *shape = weight->shape;
    if (weight->rank == 1 || spec->bits == 0)
        return add_tensor(shard, weight->module, ".weight", MLN_FILE_BF16, sizeof(uint16_t), shape,
                          weight->rank);
    const int64_t packed[] = {shape[0], shape[1] * spec->bits / 32};
    const int64_t groups[] = {shape[0], shape[1] / spec->group_size};
    return add_tensor(shard, weight->module, ".weight", MLN_FILE_U32, sizeof(uint32_t), packed,
                      2) &&
           add_tensor(shard, weight->module, ".scales", MLN_FILE_BF16, sizeof(uint16_t), groups,
                      2) &&
           add_tensor(shard, weight->module, ".biases", MLN_FILE_BF16, sizeof(uint16_t), groups, 2);
}

static int by_name(const void *a, const void *b) {
    return strcmp(((const mln_file_tensor *)a)->name, ((const mln_file_tensor *)b)->name);
}

static myelin_status make_shard(mln_checkpoint *c, const mln_synthetic_spec *spec,
                                myelin_error *error) {
    size_t count = mln_weights_count(&c->config.model);
    c->shards = mln_calloc(1, sizeof *c->shards);
    if (!c->shards)
        return mln_fail_memory(error, sizeof *c->shards, "a shard");
    mln_shard *shard = c->shards;
    c->num_shards = 1;
    shard->file = (mln_file){.fd = -1, .path = mln_strndup(spec->shape, strlen(spec->shape))};
    shard->header.tensors = mln_calloc(3 * count, sizeof *shard->header.tensors);
    bool fits = shard->file.path && shard->header.tensors;
    for (size_t i = 0; fits && i < count; i++) {
        mln_weight_name weight;
        mln_weights_name(&c->config.model, i, &weight);
        fits = add_weight(shard, &weight, spec);
    }
    if (!fits)
        return mln_fail_memory(error, count * sizeof *shard->header.tensors, "a shard");
    qsort(shard->header.tensors, shard->header.count, sizeof *shard->header.tensors, by_name);
    return MYELIN_OK;
}

static myelin_status find_weights(mln_checkpoint *c, myelin_error *error) {
    mln_tensor_directory directory;
    myelin_status status = mln_tensor_directory_make(&directory, c->shards, c->num_shards, error);
    if (status != MYELIN_OK)
        return status;
    status = mln_weights_find(c, &directory, error);
    mln_tensor_directory_free(&directory);
    return status;
}

static myelin_status check_spec(const mln_synthetic_spec *spec, const struct shape *shape,
                                myelin_error *error) {
    if (!shape)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "shape: expected qwen3-0.6b, qwen3-1.7b, qwen3-4b, qwen3-8b, qwen3-14b or "
                        "qwen3-32b, found \"%.40s\"",
                        spec->shape);
    if (spec->bits != 0 && spec->bits != 4 && spec->bits != 8)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "bits: expected 0 (dense), 4 or 8, found %" PRId32, spec->bits);
    int32_t group = spec->group_size;
    if (spec->bits && group != 32 && group != 64 && group != 128)
        return mln_fail(error, MYELIN_ERROR_ARGUMENT, NULL, -1,
                        "group_size: expected 32, 64 or 128, found %" PRId32, group);
    return MYELIN_OK;
}

myelin_status mln_synthetic_open(mln_checkpoint **out, const mln_synthetic_spec *spec,
                                 myelin_error *error) {
    *out = NULL;
    const struct shape *shape = find_shape(spec->shape);
    myelin_status status = check_spec(spec, shape, error);
    if (status != MYELIN_OK)
        return status;
    mln_checkpoint *c = mln_calloc(1, sizeof *c);
    if (!c)
        return mln_fail_memory(error, sizeof *c, "a checkpoint");
    c->synthetic = mln_calloc(1, sizeof *c->synthetic);
    c->directory = mln_strndup(shape->name, strlen(shape->name));
    if (!c->synthetic || !c->directory) {
        mln_checkpoint_free(c);
        return mln_fail_memory(error, sizeof *c->synthetic, "a checkpoint");
    }
    c->synthetic->bits = spec->bits;
    fill_tables(c->synthetic);
    status = make_config(c, spec, shape, error);
    if (status == MYELIN_OK)
        status = make_shard(c, spec, error);
    if (status == MYELIN_OK)
        status = find_weights(c, error);
    if (status != MYELIN_OK) {
        mln_checkpoint_free(c);
        return status;
    }
    *out = c;
    return MYELIN_OK;
}
