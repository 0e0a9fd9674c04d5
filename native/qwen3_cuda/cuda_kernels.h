/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels of the NVIDIA plug-in as the host side in C sees them: one function that launches
 * each. Activations are float between kernels; every output is summed in one order, whatever the
 * number of rows: tiles.cu and linear.cu say in which.
 */
#ifndef MLN_CUDA_KERNELS_H
#define MLN_CUDA_KERNELS_H

#include <cuda_runtime_api.h>
#include <stdint.h>
#include <vector_types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef enum mln_cuda_kind {
    MLN_CUDA_F32,
    MLN_CUDA_F16,
    MLN_CUDA_BF16,
    MLN_CUDA_Q4,
    MLN_CUDA_Q8
} mln_cuda_kind;

enum {
    MLN_CUDA_SPLIT = 64,     /* keys a block attends to; splits lie at fixed positions */
    MLN_CUDA_MAX_GROUP = 16, /* query heads of one kv head */
    MLN_CUDA_MAX_HEAD_DIM = 256,
    MLN_CUDA_WARPS = 4,  /* of a block of linear() */
    MLN_CUDA_CHECKS = 6, /* kinds of operands of wgmma_check() */
    MLN_CUDA_PEERS = 8,  /* devices that write to each other's memory */
    MLN_CUDA_MAX_SMEM = 200 << 10
};

/* A weight matrix in device memory: rows of `pitch` bytes, a multiple of 16, zeros at the end. */
typedef struct mln_cuda_matrix {
    int32_t kind;        /* a mln_cuda_kind */
    int32_t group;       /* Q4, Q8 */
    int32_t scale_dtype; /* Q4, Q8: a myelin_dtype */
    int32_t tile_code;   /* a mln_tile_code; the rest is as it says in tiles.h, or else in rows */
    int64_t rows, columns;
    int64_t pitch; /* bytes of a row as it is read */
    unsigned char *data;
    void *scales, *biases; /* Q4, Q8, not in tiles: [rows, columns / group] */
    int32_t paired;        /* tiles of 8 rows of gate_proj and 8 of up_proj, `rows` of each */
    int32_t units;         /* 64 columns each, of a row in tiles */
    int64_t tiles;
    float *row_scales; /* [tiles, 16] what undoes the power of two of each row */
    int32_t wgmma;     /* many tokens are multiplied by warp groups */
    /* Packed. */
    int32_t escape_room; /* of a part of a tile */
    uint32_t *lifts;     /* [tiles, 8] powers of two of rows r and r + 8, binary16 */
    uint32_t *escapes;   /* [tiles, MLN_TILE_SPLITS, escape_room], then NO_ESCAPE */
} mln_cuda_matrix;

/* A row of the call: a token of some sequence. In device memory. */
typedef struct mln_cuda_row {
    unsigned char *cache; /* [layers, 2 (keys, values), kv_heads, capacity, D], or with pages
                             [pages, layers, 2, kv_heads, SPLIT, D] */
    const int32_t *pages; /* where the splits are; NULL: one after the other */
    int32_t capacity;
    int32_t position;
    int32_t id;
    int32_t step; /* of decode_greedy() */
} mln_cuda_row;

typedef enum mln_cuda_epilogue {
    MLN_CUDA_STORE, /* out[t, row] = y */
    MLN_CUDA_ADD,   /* out[t, row] += y */
    MLN_CUDA_GATED, /* out[t, row] = silu(y) * y', y' the product with the second matrix */
    MLN_CUDA_GATE,  /* out[t, row] = silu(y) * out[t, row] */
    MLN_CUDA_ARGMAX /* best[t, block] = the largest y of the block and its row */
} mln_cuda_epilogue;

/* How activations of several tokens lie in `fragments`. */
typedef enum mln_cuda_form {
    MLN_CUDA_FORM_NONE, /* they are read as they are */
    MLN_CUDA_FORM_MMA,
    MLN_CUDA_FORM_WGMMA
} mln_cuda_form;

/* The largest logit so far, the lowest id among equals. */
typedef struct mln_cuda_best {
    float value;
    int32_t id; /* INT32_MAX: none, all were NaN */
} mln_cuda_best;

typedef struct mln_cuda_linear {
    mln_cuda_matrix weight;
    mln_cuda_matrix second; /* GATED: up_proj; else unused */
    const float *x;         /* [tokens, columns], rows x_stride apart */
    const int32_t *order;   /* token t reads row order[t] of x; NULL: t */
    const float *norm;      /* RMS norm of x with these weights first; NULL: none */
    float *out;             /* [tokens, out_stride] */
    mln_cuda_best *best;
    unsigned char *fragments; /* scratch of several tokens: mln_cuda_fragment_bytes() */
    float *factors;           /* likewise, [tokens] */
    int64_t x_stride, out_stride;
    int32_t tokens;
    int32_t epilogue;
    float eps;
    int32_t converted; /* fragments and factors of x are there already */
    int32_t wait;      /* a programmatic dependency: begins before the kernel before it has ended */
} mln_cuda_linear;

typedef struct mln_cuda_attention {
    const mln_cuda_row *rows;
    float *qkv;                   /* [tokens, Q + 2 K] */
    void *queries;                /* [tokens, Q] prepared, binary16; unless `own` */
    float *attended;              /* [tokens, Q] */
    float *partial;               /* [tokens, heads, max_splits, D + 2] values, maximum, sum */
    const float *q_norm, *k_norm; /* [D] */
    const float2 *angles;         /* [tokens, D / 2] cosine and sine of each token's position */
    int32_t *done;                /* [tokens, kv_heads] zeros: splits, or heads, that have ended */
    float eps;
    int32_t layer, layers, heads, kv_heads, head_dim;
    int32_t tokens, max_splits, half_cache;
    const int2 *pieces; /* [num_pieces] first and number of neighbours of one sequence */
    int32_t num_pieces; /* 0: attends another way */
    int32_t early;      /* may begin before the kernel before it has ended */
    int32_t in_rows;    /* all splits of a query at once: attends_rows() */
    int32_t singles;    /* likewise, of one token each: attends_singles() */
    int32_t form; /* of singles and warp groups: a mln_cuda_form; what is attended is put there, */
    unsigned char *fragments; /* too, for a product with it */
    float *factors;
    int32_t own;   /* each row is its sequence's only one: keys are prepared as they are needed */
    int32_t wgmma; /* pieces are attended to by warp groups */
} mln_cuda_attention;

/* Rows of weights on their way into tiles. In device memory. */
typedef struct mln_cuda_repack {
    mln_cuda_matrix to;
    const unsigned char *data;   /* [count, pitch] */
    const void *scales, *biases; /* [count, columns / group] */
    int64_t first, count;        /* rows */
    int32_t half;                /* of a pair: 0 gate_proj, 1 up_proj */
    int32_t *full;               /* packed: set where a list of escapes had no room for one */
} mln_cuda_repack;

/* Blocks of a linear() of `tokens` with the ARGMAX epilogue: entries of `best` for each token. */
int32_t mln_cuda_argmax_blocks(const mln_cuda_matrix *weight, int32_t tokens);

/* The same for matrices in tiles; called by linear(). */
int32_t mln_cuda_tiled_argmax_blocks(const mln_cuda_matrix *weight, int32_t tokens);
cudaError_t mln_cuda_tiled_launch(const mln_cuda_linear *linear, cudaStream_t stream);
/* By warp groups, on compute capability 9.0: more than a few tokens, `fragments` in their form. */
int32_t mln_cuda_wgmma_argmax_blocks(const mln_cuda_matrix *weight);
cudaError_t mln_cuda_wgmma_launch(const mln_cuda_linear *linear, cudaStream_t stream);
cudaError_t mln_cuda_prepare_wgmma(void);
/* Adds to different[CHECKS] how many of 20,480 sums a block differ from those of mma. */
cudaError_t mln_cuda_wgmma_check(uint32_t seed, int32_t blocks, int32_t *different,
                                 cudaStream_t stream);
cudaError_t mln_cuda_repack_launch(const mln_cuda_repack *repack, cudaStream_t stream);
cudaError_t mln_cuda_prepare_tiles(void);
/* The mln_cuda_form that linear() wants. */
int mln_cuda_fragment_form(const mln_cuda_matrix *weight, int32_t tokens);
/* Bytes of `fragments` for rows of so many columns. */
int64_t mln_cuda_fragment_bytes(int64_t columns, int32_t tokens);

cudaError_t mln_cuda_linear_launch(const mln_cuda_linear *linear, cudaStream_t stream);
/* out[t] = row rows[t].id of the embedding */
cudaError_t mln_cuda_embed_launch(float *out, const mln_cuda_matrix *weight,
                                  const mln_cuda_row *rows, int32_t tokens, cudaStream_t stream);
/* x[columns] = norm(x) * weight */
cudaError_t mln_cuda_norm_launch(float *x, const float *weight, int32_t columns, float eps,
                                 cudaStream_t stream);
/* Norm and rotation of queries and keys; keys and values into the cache. Before attend, unless
 * `own`. */
cudaError_t mln_cuda_prepare_launch(const mln_cuda_attention *attention, cudaStream_t stream);
cudaError_t mln_cuda_attend_launch(const mln_cuda_attention *attention, cudaStream_t stream);
/* On tensor cores: whether it can be, and whether by queries rather than splits. */
int mln_cuda_attends_in_tiles(int half_cache, int32_t head_dim);
int mln_cuda_attends_rows(int half_cache, int32_t head_dim, int32_t heads, int32_t kv_heads,
                          int32_t tokens, int32_t splits);
cudaError_t mln_cuda_attend_tiles_launch(const mln_cuda_attention *attention, cudaStream_t stream);
/* By pieces of at most so many neighbouring tokens: whether there are enough of them. */
int mln_cuda_attends_pieces(int half_cache, int32_t head_dim, int32_t kv_heads, int32_t tokens,
                            int32_t pieces, int32_t splits, int32_t wgmma);
int32_t mln_cuda_piece_tokens(int32_t heads, int32_t kv_heads);
cudaError_t mln_cuda_prepare_pieces(void);
cudaError_t mln_cuda_attend_pieces_launch(const mln_cuda_attention *attention, cudaStream_t stream);
/* The same by warp groups. */
cudaError_t mln_cuda_prepare_groups(void);
cudaError_t mln_cuda_attend_groups_launch(const mln_cuda_attention *attention, cudaStream_t stream);
/* One token each of many sequences, `own`: whether there are enough of them. */
int mln_cuda_attends_singles(int half_cache, int32_t head_dim, int32_t heads, int32_t kv_heads,
                             int32_t tokens, int32_t splits);
cudaError_t mln_cuda_prepare_singles(void);
cudaError_t mln_cuda_attend_singles_launch(const mln_cuda_attention *attention,
                                           cudaStream_t stream);
/* angles[tokens, half] of the rows' positions, times `scale`. */
cudaError_t mln_cuda_angles_launch(float2 *angles, const mln_cuda_row *rows, const float *inv_freq,
                                   float scale, int32_t half, int32_t tokens, cudaStream_t stream);
/* rows[t].id = the best of best[t, blocks]; out_ids[t * steps + rows[t].step]; on to the next
 * position. */
cudaError_t mln_cuda_pick_launch(const mln_cuda_best *best, int32_t blocks, mln_cuda_row *rows,
                                 int32_t *out_ids, const int32_t *steps, int32_t tokens,
                                 cudaStream_t stream);
/* What several devices have put together (join.cu): residual[i] += parts[0][i] + parts[1][i] ... */
cudaError_t mln_cuda_add_parts_launch(float *residual, const float *parts, int64_t count,
                                      int32_t ranks, cudaStream_t stream);
/*
 * The same where devices write to each other's memory: each part goes to all others' inboxes in
 * words of a float and a tag, so that nothing else has to be waited for. All devices launch it.
 */
typedef struct mln_cuda_exchange {
    float *residual;                   /* [count] */
    const float *part;                 /* [count], this rank's */
    uint64_t *inboxes[MLN_CUDA_PEERS]; /* each rank's: [2, ranks, room] words, at first zeros */
    uint32_t *state;        /* [2] exchanges so far, blocks of this one that have ended */
    volatile int32_t *stop; /* host memory; not 0: nobody waits any more */
    int64_t count, room;
    int32_t rank, ranks;
    int32_t early; /* may begin before the kernel before it has ended */
} mln_cuda_exchange;

cudaError_t mln_cuda_exchange_launch(const mln_cuda_exchange *exchange, cudaStream_t stream);
/* to[t] = the best of best[t, blocks], first_id added to its id */
cudaError_t mln_cuda_own_best_launch(mln_cuda_best *to, const mln_cuda_best *best, int32_t blocks,
                                     int32_t first_id, int32_t tokens, cudaStream_t stream);
/* to[t, ranks] = from[ranks, t] */
cudaError_t mln_cuda_by_token_launch(mln_cuda_best *to, const mln_cuda_best *from, int32_t tokens,
                                     int32_t ranks, cudaStream_t stream);
/* logits[t, vocab] from parts[ranks, t, most] */
cudaError_t mln_cuda_place_logits_launch(float *logits, const float *parts, int32_t tokens,
                                         int32_t vocab, int32_t most, int32_t ranks,
                                         cudaStream_t stream);
/* Lets the linear() kernels use as much shared memory as they may ask for; once per device. */
cudaError_t mln_cuda_prepare_device(void);

#ifdef __cplusplus
}
#endif
#endif
