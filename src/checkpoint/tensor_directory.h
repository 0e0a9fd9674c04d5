/* SPDX-License-Identifier: Apache-2.0 */
/* Every tensor of every shard by name, and which of them the model has taken. */
#ifndef MLN_CHECKPOINT_TENSOR_DIRECTORY_H
#define MLN_CHECKPOINT_TENSOR_DIRECTORY_H

#include "checkpoint/checkpoint.h"
#include "checkpoint/shard_index.h"

typedef struct mln_tensor_place {
    const mln_file_tensor *tensor;
    int32_t shard;
    bool used;
} mln_tensor_place;

typedef struct mln_tensor_directory {
    mln_tensor_place *places; /* sorted by name */
    size_t count;
    const mln_shard *shards;
    size_t num_shards;
} mln_tensor_directory;

/* Gathers the tensors; the shards must outlive the directory. Free after success only. */
myelin_status mln_tensor_directory_make(mln_tensor_directory *directory, const mln_shard *shards,
                                        size_t num_shards, myelin_error *error);
void mln_tensor_directory_free(mln_tensor_directory *directory);

/* Every tensor lies in the one shard the index lists it for. `file` is the index. */
myelin_status mln_tensor_directory_check(const mln_tensor_directory *directory,
                                         const mln_shard_index *index, const char *file,
                                         myelin_error *error);

mln_tensor_place *mln_tensor_directory_find(const mln_tensor_directory *directory,
                                            const char *name);

/* True for tensors that may lie in a file though no model needs them: without elements, rank 0. */
bool mln_tensor_is_empty(const mln_file_tensor *tensor);

#endif
