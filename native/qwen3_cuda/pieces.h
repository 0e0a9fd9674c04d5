/* SPDX-License-Identifier: Apache-2.0 */
/* When attend_pieces.cu attends, as functions the host can test. */
#ifndef MLN_CUDA_PIECES_H
#define MLN_CUDA_PIECES_H

#include <stdbool.h>
#include <stdint.h>

enum {
    MLN_PIECE_WARPS = 4,
    MLN_PIECE_ROWS = 16,    /* queries of a warp */
    MLN_PIECE_BLOCKS = 200, /* fewer leave an H100 idle: other kernels cut work finer */
    MLN_PIECE_LONG = 64,    /* splits of a long sequence */
    MLN_PIECE_MANY_BLOCKS = 1000,
    MLN_GROUP_BLOCKS = 32, /* of warp groups: as few are faster than those of other kernels */
    MLN_GROUP_TOKENS = 32,
    MLN_GROUP_ROOM = 96 << 10 /* bytes, of keys and values, then of rows that are converted */
};

/* Neighbouring tokens of a piece at most. */
static inline int32_t mln_piece_tokens(int32_t heads, int32_t kv_heads) {
    return MLN_PIECE_WARPS * (MLN_PIECE_ROWS / (heads / kv_heads));
}

/* Whether so many tokens in so many pieces, the longest of them of `splits` splits, are enough. */
static inline bool mln_pieces_suffice(int32_t kv_heads, int32_t tokens, int32_t pieces,
                                      int32_t splits) {
    int64_t blocks = (int64_t)pieces * kv_heads;
    if (blocks < MLN_PIECE_BLOCKS)
        return false;
    /* single tokens of long sequences: the longest of a few would have to be waited for */
    return tokens >= 4 * pieces || splits <= MLN_PIECE_LONG || blocks >= MLN_PIECE_MANY_BLOCKS;
}

/* Whether they are for warp groups: fewer pieces, but of prompts. */
static inline bool mln_groups_suffice(int32_t kv_heads, int32_t tokens, int32_t pieces) {
    return tokens > MLN_GROUP_TOKENS && tokens >= 4 * pieces &&
           (int64_t)pieces * kv_heads >= MLN_GROUP_BLOCKS;
}

/* Whether what warp groups have attended to can be converted there, a row of floats at least. */
static inline bool mln_groups_convert(int32_t heads, int32_t head_dim) {
    return (int64_t)heads * head_dim * 4 <= MLN_GROUP_ROOM;
}

#endif
