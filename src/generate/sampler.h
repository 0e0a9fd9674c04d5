/* SPDX-License-Identifier: Apache-2.0 */
/*
 * From logits to a token. The treatment and its order are transformers': repetition penalty (and,
 * beside it, OpenAI's presence and frequency penalties and bias), temperature, top_k, top_p, min_p.
 */
#ifndef MLN_GENERATE_SAMPLER_H
#define MLN_GENERATE_SAMPLER_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "myelin/status.h"

typedef struct mln_bias {
    int32_t id;
    float bias;
} mln_bias;

/* Meanings and neutral values as in myelin_generation_options; checked by the caller. */
typedef struct mln_sampling {
    bool sampled;
    double temperature;
    int32_t top_k;
    double top_p;
    double min_p;
    double repetition_penalty;
    double presence_penalty;
    double frequency_penalty;
    const mln_bias *bias; /* borrowed while the generation runs */
    size_t num_bias;
    uint64_t seed;
} mln_sampling;

/* The state of one sequence's sampling; all memory is taken when it is made. */
typedef struct mln_sampler mln_sampler;

uint64_t mln_sampler_bytes(int32_t vocab_size);
myelin_status mln_sampler_create(mln_sampler **sampler, int32_t vocab_size, myelin_error *error);
void mln_sampler_free(mln_sampler *sampler); /* accepts NULL */

/*
 * Begins a generation after `prompt` (which the repetition penalty counts, the other penalties do
 * not). *sampling is copied, its bias array borrowed.
 */
void mln_sampler_begin(mln_sampler *sampler, const mln_sampling *sampling, const int32_t *prompt,
                       size_t count);

/*
 * The only tokens that may be picked next: bit id % 32 of word id / 32. Borrowed until the next
 * pick(); NULL: all. The logits of others are -INFINITY before anything else happens to them.
 */
void mln_sampler_allow(mln_sampler *sampler, const uint32_t *mask);

/* Chooses the token for `position` (how many tokens stand before it). Logits are left as they are.
 */
int32_t mln_sampler_pick(mln_sampler *sampler, const float *logits, int32_t position);

/* The token was taken into the text: from now on penalties count it. */
void mln_sampler_accept(mln_sampler *sampler, int32_t id);

/* probs[vocab_size]: the distribution pick() draws from (greedy: all on one token). */
void mln_sampler_probs(mln_sampler *sampler, const float *logits, float *probs);

#endif
