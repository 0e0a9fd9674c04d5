/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MLN_GENERATE_EMBED_H
#define MLN_GENERATE_EMBED_H

#include "generate/sequence.h"

/*
 * embedding[hidden_size]: the final norm's output at the last of ids[count], made of length 1.
 * count is at least 1; MYELIN_ERROR_UNSUPPORTED when the model's plug-in has no forward_hidden().
 */
myelin_status mln_embed(const mln_model *model, const int32_t *ids, int32_t count, float *embedding,
                        myelin_error *error);

#endif
