/* SPDX-License-Identifier: Apache-2.0 */
/* model.safetensors.index.json: which file holds which tensor. */
#ifndef MLN_CHECKPOINT_SHARD_INDEX_H
#define MLN_CHECKPOINT_SHARD_INDEX_H

#include "base/memory.h"
#include "myelin/status.h"

/* Cap on the index, in bytes; a safetensors header may be as large. */
#define MLN_SHARD_INDEX_MAX_FILE UINT64_C(100000000)

typedef struct mln_index_entry {
    const char *tensor; /* owned by the index's arena */
    const char *file;   /* likewise */
    int32_t shard;      /* index into files */
} mln_index_entry;

typedef struct mln_shard_index {
    mln_arena arena;
    mln_index_entry *entries; /* sorted by tensor */
    size_t count;
    const char **files; /* distinct plain file names, sorted */
    size_t num_files;
} mln_shard_index;

/* Free after success only. */
myelin_status mln_shard_index_parse(mln_shard_index *index, const char *json, size_t length,
                                    const char *file, myelin_error *error);
void mln_shard_index_free(mln_shard_index *index);

#endif
