/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tiny Qwen3 checkpoints for tests: deterministic pseudo-random weights, dense or quantised the MLX
 * way, in one file or in shards. A test makes one, tampers with it as it likes and writes it to a
 * directory. Written from the formats' descriptions, sharing nothing with the library, so that it
 * can serve as a reference. Any failure here ends the test program.
 */
#ifndef TESTS_SUPPORT_CHECKPOINT_BUILDER_H
#define TESTS_SUPPORT_CHECKPOINT_BUILDER_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { BUILDER_MAX_RANK = 4, BUILDER_NAME = 96 };

typedef struct checkpoint_spec {
    int vocab, hidden, intermediate, layers, heads, kv_heads, head_dim;
    bool tie;
    const char *dtype;    /* "F32", "F16", "BF16", or "mixed": the three in turn */
    int bits, group_size; /* 0: dense; else matrices are quantised, scales and biases in dtype */
    bool dense_embedding; /* with bits: embed_tokens and lm_head stay dense */
    bool no_prefix;       /* names without "model." */
    int shards;           /* 1: model.safetensors; more: an index */
    bool new_spelling;    /* rope_parameters and dtype instead of rope_theta and torch_dtype */
    uint64_t seed;
} checkpoint_spec;

typedef struct built_tensor {
    char name[BUILDER_NAME];
    const char *dtype; /* as safetensors spells it */
    int rank;
    int64_t shape[BUILDER_MAX_RANK];
    unsigned char *bytes;
    size_t size;
    int shard;
} built_tensor;

typedef struct built_checkpoint {
    checkpoint_spec spec;
    json_t *config;     /* becomes config.json; free to change */
    json_t *generation; /* becomes generation_config.json, or NULL; stop ids 1 and 2 */
    json_t *index;      /* NULL: made from the tensors when written; see builder_index() */
    built_tensor *tensors;
    size_t count, room;
} built_checkpoint;

/* 2 layers, hidden 64, 4 heads of 16, 2 KV heads, intermediate 96, vocab 80, tied, F32, one file.
 */
checkpoint_spec checkpoint_spec_default(void);

built_checkpoint *builder_make(const checkpoint_spec *spec);
void builder_free(built_checkpoint *built);

built_tensor *builder_find(built_checkpoint *built, const char *name); /* must exist */
/* Appends a tensor of zeros to shard 0. */
built_tensor *builder_add(built_checkpoint *built, const char *name, const char *dtype, int rank,
                          const int64_t *shape);
void builder_remove(built_checkpoint *built, const char *name);
/* Gives a tensor another dtype and shape, its elements becoming zeros. */
void builder_reshape(built_tensor *tensor, const char *dtype, int rank, const int64_t *shape);
/* The index as it would be written, owned by `built`, to be tampered with. */
json_t *builder_index(built_checkpoint *built);

/*
 * What a weight means, as float32 [elements]: stored values widened, or scale * q + bias. `module`
 * is the tensor's name without ".weight". Heap memory.
 */
float *builder_values(built_checkpoint *built, const char *module);

/* The JSON header of one shard, unpadded; heap memory. */
char *builder_header(const built_checkpoint *built, int shard);
/* The name of a shard's file: "model.safetensors" or "model-00001-of-00002.safetensors". */
const char *builder_shard_name(const built_checkpoint *built, int shard, char name[64]);

/* Writes config.json, generation_config.json if any, the tensors and, with shards, the index. */
void builder_write(built_checkpoint *built, const char *directory);
/* Makes and writes one to a new directory; heap memory, for temp_directory_remove(). */
char *builder_write_spec(const checkpoint_spec *spec);
/* Likewise a model with the head size and the 4-bit weights of published ones. */
char *builder_write_published(void);
/* Writes one safetensors file: 8 bytes of length, the header's text as it is, the data. */
void builder_write_safetensors(const char *directory, const char *name, const char *header,
                               const void *data, size_t size);

#endif
