/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Which part of every weight each of several devices has (tensor parallelism), as functions that
 * need no device. Rank r of R has
 *   whole    the embedding and the norms
 *   rows     of q_proj, k_proj and v_proj those of its heads, of gate_proj and up_proj its share,
 *            of lm_head a run of whole tiles of the vocabulary
 *   columns  of o_proj and down_proj those that the rows above make
 * so that what o_proj and down_proj give on all ranks, added, is what one device would have.
 * A rank's part looks like a model of its own: fewer heads, a narrower MLP, fewer logits.
 */
#ifndef MLN_CUDA_SHARD_H
#define MLN_CUDA_SHARD_H

#include <stdint.h>

#include "myelin/plugin.h"

enum { MLN_SHARD_MAX_RANKS = 64, MLN_SHARD_MAX_ROW_BYTES = 1 << 17 };

typedef enum mln_shard_cut { MLN_SHARD_WHOLE, MLN_SHARD_ROWS, MLN_SHARD_COLUMNS } mln_shard_cut;

/* Rows or columns first .. first + count - 1 of a tensor; of a whole one its rows. */
typedef struct mln_shard_part {
    int32_t cut; /* a mln_shard_cut */
    int64_t first, count;
} mln_shard_part;

/* A rank's part of a model that is described but not read. */
typedef struct mln_shard {
    const myelin_weights *whole; /* borrowed, as is the host */
    const myelin_host *host;
    int32_t rank, ranks;
    int32_t first_id, num_ids; /* the tokens whose logits it makes */
    myelin_config config;      /* its own: the numbers of heads and intermediate_size */
    myelin_weights weights;    /* shapes of its part; embed_tokens has all of the vocabulary, and so
                                  has lm_head where the embeddings are tied */
    myelin_layer_weights *layers;
} mln_shard;

/* Whether a model can be cut for so many ranks; the message says what does not divide. */
myelin_status mln_shard_check(const myelin_config *config, const myelin_weights *weights,
                              int32_t ranks, myelin_error_buffer *error);

/* What was checked, for one rank. The weights and the host (which may be NULL until something is
 * to be read) must outlive it. */
myelin_status mln_shard_open(mln_shard *shard, const myelin_config *config,
                             const myelin_weights *weights, const myelin_host *host, int32_t rank,
                             int32_t ranks, myelin_error_buffer *error);
void mln_shard_close(mln_shard *shard);

/*
 * The tensor of the whole model that one of the shard's is a part of, and which part: NULL when
 * `tensor` is none of shard->weights.
 */
const myelin_tensor *mln_shard_source(const mln_shard *shard, const myelin_tensor *tensor,
                                      mln_shard_part *part);

/* host->read() of the rank's part; `self` is the shard. Any number of threads may call it. */
myelin_status mln_shard_read(void *self, const myelin_tensor *tensor, myelin_tensor_part part,
                             int64_t row, int64_t count, void *dst, myelin_error_buffer *error);

#endif
