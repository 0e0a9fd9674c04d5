/* SPDX-License-Identifier: Apache-2.0 */
/* Rotary embedding: rope_theta, rope_scaling and rope_parameters of config.json. */
#ifndef MLN_CHECKPOINT_ROPE_CONFIG_H
#define MLN_CHECKPOINT_ROPE_CONFIG_H

#include "checkpoint/json_fields.h"
#include "myelin/config.h"

/* Fills *rope from config.json's root; max_position_embeddings is what the same file says. */
myelin_status mln_rope_parse(myelin_rope_config *rope, const mln_fields *root,
                             int32_t max_position_embeddings);

#endif
