/* SPDX-License-Identifier: Apache-2.0 */
/* Which weights a Qwen3 model has, under which names and in which shapes. */
#ifndef MLN_CHECKPOINT_WEIGHTS_H
#define MLN_CHECKPOINT_WEIGHTS_H

#include "checkpoint/tensor_directory.h"

/*
 * Finds every weight the config asks for and checks that nothing else lies in the files. Fills
 * weights, num_weights and num_ignored; what it has filled when it fails is freed by
 * mln_checkpoint_free(), too.
 */
myelin_status mln_weights_find(mln_checkpoint *checkpoint, mln_tensor_directory *directory,
                               myelin_error *error);

#endif
