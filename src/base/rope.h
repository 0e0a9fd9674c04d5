/* SPDX-License-Identifier: Apache-2.0 */
/* The angles of the rotary embedding, plain and YaRN. */
#ifndef MLN_BASE_ROPE_H
#define MLN_BASE_ROPE_H

#include <stdint.h>

#include "myelin/config.h"

/*
 * inv_freq[head_dim / 2], in float32 with the roundings of transformers' float32 computation, so
 * that angles at far positions agree with it: plain 1 / theta^(2i/D); YaRN interpolates between
 * that and 1/factor of it (see myelin_rope_config).
 */
void mln_rope_inv_freq(float *inv_freq, const myelin_rope_config *rope, int32_t head_dim);

/* cos, sin [head_dim / 2] of one position, attention_factor multiplied in. */
void mln_rope_angles(float *cos, float *sin, const float *inv_freq, const myelin_rope_config *rope,
                     int32_t head_dim, int32_t position);

#endif
