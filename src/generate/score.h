/* SPDX-License-Identifier: Apache-2.0 */
#ifndef MLN_GENERATE_SCORE_H
#define MLN_GENERATE_SCORE_H

#include "generate/sequence.h"

/*
 * logprobs[i], i < count - 1: natural log-probability of ids[i + 1] after ids[0 .. i]; *top (its
 * count may be 0): the most likely tokens after the last one. count is at least 1.
 */
myelin_status mln_score(const mln_model *model, const int32_t *ids, int32_t count, float *logprobs,
                        mln_top *top, myelin_error *error);

#endif
