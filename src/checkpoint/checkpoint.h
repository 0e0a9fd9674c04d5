/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A checkpoint directory, opened and checked: config, generation config, and where every tensor the
 * model needs lies. No weight is read until mln_checkpoint_read().
 */
#ifndef MLN_CHECKPOINT_CHECKPOINT_H
#define MLN_CHECKPOINT_CHECKPOINT_H

#include "checkpoint/config.h"
#include "checkpoint/safetensors.h"
#include "checkpoint/synthetic.h"
#include "myelin/tensor.h"

enum { MLN_CHECKPOINT_MAX_SHARDS = 4096 };

/*
 * One weight of the model: its description (data NULL) as it lies in the file, and where the bytes
 * are. For an AFFINE tensor `weight`, `scales` and `biases` are three tensors of the files;
 * otherwise the last two are NULL.
 */
typedef struct mln_weight {
    char *name;           /* "model.layers.0.self_attn.q_proj.weight" */
    myelin_tensor tensor; /* dtype as in the file, rank, shape, stride; data NULL */
    int32_t shard[3];     /* of weight, scales, biases */
    const mln_file_tensor *source[3];
} mln_weight;

typedef struct mln_shard {
    mln_file file;
    mln_safetensors header;
} mln_shard;

/* Immutable once open; any number of threads may read from it. */
typedef struct mln_checkpoint {
    char *directory;
    mln_model_config config;
    mln_generation_config generation;
    mln_shard *shards;
    size_t num_shards;
    mln_weight *weights; /* in the model's order: embed_tokens, layers, norm, lm_head if untied */
    size_t num_weights;
    mln_synthetic *synthetic; /* not NULL: there are no files, this makes the bytes */
    size_t num_ignored; /* tensors of the files the model has no use for, but that are allowed */
} mln_checkpoint;

/*
 * Opens `directory`: config.json (required), generation_config.json (optional), and
 * model.safetensors or model.safetensors.index.json with its shards. On success every tensor a
 * Qwen3 model of this config needs is there, in its shape and a dtype that can be computed with.
 *
 * A tensor the model does not need is an error that names it, except: lm_head.* when the embedding
 * is tied, *.rotary_emb.inv_freq, and tensors without elements or of rank 0.
 */
myelin_status mln_checkpoint_open(mln_checkpoint **checkpoint, const char *directory,
                                  myelin_error *error);
void mln_checkpoint_free(mln_checkpoint *checkpoint); /* accepts NULL */

/* The weight of that name, or NULL. */
const mln_weight *mln_checkpoint_find(const mln_checkpoint *checkpoint, const char *name);

/*
 * Reads `length` bytes beginning `offset` bytes into one part (0 weight, 1 scales, 2 biases) of a
 * weight, as they lie in the file.
 */
myelin_status mln_checkpoint_read(const mln_checkpoint *checkpoint, const mln_weight *weight,
                                  int part, uint64_t offset, void *dst, uint64_t length,
                                  myelin_error *error);

#endif
