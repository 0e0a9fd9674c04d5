/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Qwen3 once more, straight from the formulas in double precision, one position after the other,
 * without a cache. Shares nothing with the library: it is what the composed pass is compared with.
 */
#ifndef TESTS_MODEL_REFERENCE_H
#define TESTS_MODEL_REFERENCE_H

#include <stdint.h>

#include "support/checkpoint_builder.h"

/* Logits [count, vocab] of a prompt, plain RoPE of base 1e6, eps 1e-6; heap memory. */
double *reference_logits(built_checkpoint *built, const int32_t *ids, int count);
/* What it makes them of, the final norm's output [count, hidden]; heap memory. */
double *reference_hidden(built_checkpoint *built, const int32_t *ids, int count);

#endif
