/* SPDX-License-Identifier: Apache-2.0 */
/*
 * One kernel that stays on the device for a chunk of greedy tokens of one sequence: what it is
 * given, and how its work is dealt to blocks.
 *
 * Weights do not wait for anything: a warp of each block copies what the block will need, in the
 * order in which it will need it, into a ring in shared memory. Activations pass from block to
 * block as floats in device memory, words that are empty until they are written: whoever needs one
 * looks until it is there. There is no barrier of all blocks.
 *
 * Every layer of every token is a round. Words lie there `rounds` times over, one time more than
 * there are layers, and rounds take turns with them; all are empty when the kernel begins. Who
 * writes a word then empties that of the round before, so that it is empty when its turn comes
 * again.
 *
 * Nobody is in need of what is emptied: all that is computed of a product's outputs, or of a
 * head's, is waited for by all that comes after it, so whoever writes in a round has what all
 * readers of the round before made of what they had read.
 *
 * Nobody looks before it is seen to be empty: between lies the end of a token, where each block
 * posts its best logit and waits for those of all the others. What a word of round q lies in was
 * emptied `rounds` - 1 rounds before, as many as there are layers, and so in the token before at
 * the latest. There all threads of the block have met, attending ones too, before one of them
 * passes a fence and posts the block's best; who looks for that of another block passes one then,
 * before the block's threads meet and go on. So of each two blocks what one has emptied in a token
 * comes before what the other looks at in the next one. Within a token words of a round are used
 * once, and need no order.
 *
 * Two kinds are there for few rounds. Parts of attention (partial) would take too much memory:
 * threads that attend pass a fence each round. A word that is looked at in round q was emptied in
 * round q - 3 and written again, behind the fence, in round q - 2, when who looks at it now has
 * read it and passed the next fence. Only in a token's first round others may look than before;
 * then the end of the token lies between. The best logits' rounds are tokens: what is emptied in
 * one is looked at two tokens later, and the end of the token between them is enough.
 */
#ifndef MLN_CUDA_PERSIST_H
#define MLN_CUDA_PERSIST_H

#include "cuda_kernels.h"
#include "deal.h"

enum {
    MLN_PERSIST_TOGETHER = 4,    /* most tiles of a block that are summed side by side */
    MLN_PERSIST_SLOTS = 16,      /* most of a warp's ring */
    MLN_PERSIST_GROUP = 8,       /* most query heads of a kv head */
    MLN_PERSIST_BLOCKS = 256,    /* most blocks */
    MLN_PERSIST_STEPS = 64,      /* most tokens of a launch */
    MLN_PERSIST_FEW_ROUNDS = 4,  /* of partial and best, that are there at once */
    MLN_PERSIST_EMPTY = 0xff,    /* each byte of a word that is not written: a NaN */
    MLN_PERSIST_STATE = 4,       /* words behind a split's values: largest score, sum of weights */
    MLN_PERSIST_MAX_UNITS = 1024 /* of a row */
};

/* The products of a layer in their order, and that of the head. */
enum {
    MLN_PERSIST_QKV,
    MLN_PERSIST_O,
    MLN_PERSIST_GATED,
    MLN_PERSIST_DOWN,
    MLN_PERSIST_HEAD,
    MLN_PERSIST_PRODUCTS
};

typedef struct mln_persist_product {
    int32_t tiles, units;
    int32_t rows, columns;
    int32_t together; /* tiles summed side by side */
    int32_t at_once;  /* units of each in a slot */
    int32_t own;      /* whether each of them has a slot of its own */
    int32_t from;     /* where in a round's words its activations are, */
    int32_t before;   /* what its sums are added to, if they are, */
    int32_t to;       /* and where they go */
} mln_persist_product;

/* In device memory, one for each layer, and one with the head as its only product. */
typedef struct mln_persist_layer {
    const unsigned char *data[4];
    const float *row_scales[4];
    const float *norms[2];
    const float *q_norm, *k_norm;
    int32_t first[4]; /* the block of tile 0; the next tile is the next block's */
} mln_persist_layer;

/* What blocks tell each other of one kind. */
typedef struct mln_persist_words {
    float *all;
    int64_t each; /* words of a round */
} mln_persist_words;

typedef struct mln_cuda_persist {
    mln_persist_product products[MLN_PERSIST_PRODUCTS];
    const mln_persist_layer *layers; /* [num_layers + 1] */
    mln_cuda_matrix embedding;
    const float *inv_freq;
    float rope_scale, eps;
    int32_t num_layers, hidden, heads, kv_heads, max_splits;
    int32_t round_words;           /* of the next five kinds together */
    mln_persist_words residual[2]; /* [H]: after attention, after the MLP */
    mln_persist_words qkv, attended, gated;
    mln_persist_words partial; /* [heads, max_splits, D + MLN_PERSIST_STATE], of few rounds */
    mln_persist_words best;    /* [blocks, 2]: value and id; a token is a round, of few */
    int64_t words_bytes;       /* of all of them, which begin with residual[0] */
    int32_t *out_ids;          /* [STEPS], and whether somebody waited in vain */
    mln_cuda_row row;
    int32_t steps;
    int32_t tile_code, blocks;
    int32_t rounds; /* that are there at once: num_layers + 1 */
    int32_t slots;  /* of a warp's ring */
    int32_t at_row, at_norm, at_embedded, at_layers, shared_bytes;
} mln_cuda_persist;

#ifdef __cplusplus
extern "C" {
#endif

/*
 * Blocks that are sure to run at once, and the shared memory each may have beside what it always
 * has. No blocks: the device does not promise it, or has no copies that arrive at barriers.
 */
cudaError_t mln_cuda_persist_room(int32_t tile_code, int32_t *blocks, int32_t *bytes);
cudaError_t mln_cuda_persist_launch(const mln_cuda_persist *persist, cudaStream_t stream);

#ifdef __cplusplus
}
#endif
#endif
