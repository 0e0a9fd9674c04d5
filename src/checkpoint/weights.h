/* SPDX-License-Identifier: Apache-2.0 */
/* Which weights a Qwen3 model has, under which names and in which shapes. */
#ifndef MLN_CHECKPOINT_WEIGHTS_H
#define MLN_CHECKPOINT_WEIGHTS_H

#include "checkpoint/tensor_directory.h"

enum { MLN_WEIGHT_NAME_ROOM = 96 };

typedef struct mln_weight_name {
    char module[MLN_WEIGHT_NAME_ROOM]; /* "model.layers.0.self_attn.q_proj" */
    int32_t rank;                      /* 1 or 2 */
    int64_t shape[2];
} mln_weight_name;

/* How many weights a model of that config has, and the index-th of them. */
size_t mln_weights_count(const myelin_config *config);
void mln_weights_name(const myelin_config *config, size_t index, mln_weight_name *name);

/*
 * Finds every weight the config asks for and checks that nothing else lies in the files. Fills
 * weights, num_weights and num_ignored; what it has filled when it fails is freed by
 * mln_checkpoint_free(), too.
 */
myelin_status mln_weights_find(mln_checkpoint *checkpoint, mln_tensor_directory *directory,
                               myelin_error *error);

#endif
