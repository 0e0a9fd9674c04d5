/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How weights lie in device memory for the tensor cores, as functions the host can test.
 *
 * A tile is 16 rows of a matrix, a unit 64 columns of a tile; the units of a tile follow each
 * other, tiles too. A unit holds what the 32 lanes of a warp need for four products of 16 x 16
 * weights with 16 x 8 activations (mma.m16n8k16), each lane's bytes in vectors of 16, neighbours
 * side by side: dense   4 vectors a lane, one for each product: binary16 8 bits  2 vectors, codes
 *   4 bits  1 vector, codes
 * and for codes after them, for every 64 or 32 columns, scale and bias of the 16 rows in binary16.
 * Each row is multiplied by a power of two that puts its largest weight near 2^14, so that bfloat16
 * fits binary16: exact down to 2^-31 of the row's largest, within 2^-39 of it below.
 */
#ifndef MLN_CUDA_TILES_H
#define MLN_CUDA_TILES_H

#include <stdint.h>

#ifdef __CUDACC__
#define MLN_TILE_FN __host__ __device__ static constexpr inline
#else
#define MLN_TILE_FN static inline
#endif

enum {
    MLN_TILE_ROWS = 16,
    MLN_UNIT_COLUMNS = 64,
    MLN_TOKEN_TILE = 8,          /* tokens of one product */
    MLN_TOKEN_UNIT_BYTES = 1024, /* 8 tokens, 64 columns, binary16 */
    MLN_SCALE_BYTES = 64,        /* scales and biases of a tile's rows */
    MLN_WGMMA_TOKENS = 64,       /* tokens whose units lie together for warp groups */
    MLN_TILE_SPLITS = 8          /* parts of a row whose sums are added in order */
};

/* How the bytes of a unit are to be read. */
typedef enum mln_tile_code {
    MLN_TILE_NONE,    /* not in tiles */
    MLN_TILE_DENSE,   /* binary16 */
    MLN_TILE_Q8,      /* one scale a unit */
    MLN_TILE_Q8_PAIR, /* two */
    MLN_TILE_Q4,
    MLN_TILE_Q4_PAIR
} mln_tile_code;

MLN_TILE_FN int mln_tile_sets(int code) {
    return code == MLN_TILE_DENSE                                 ? 0
           : code == MLN_TILE_Q8_PAIR || code == MLN_TILE_Q4_PAIR ? 2
                                                                  : 1;
}

/* Bytes of a unit's weights or codes. */
MLN_TILE_FN int mln_unit_codes(int code) {
    return code == MLN_TILE_DENSE                            ? 2048
           : code == MLN_TILE_Q8 || code == MLN_TILE_Q8_PAIR ? 1024
                                                             : 512;
}

MLN_TILE_FN int mln_unit_bytes(int code) {
    return mln_unit_codes(code) + mln_tile_sets(code) * MLN_SCALE_BYTES;
}

/* The lane that has column c (0 .. 63) of row `slot` (0 .. 15). */
MLN_TILE_FN int mln_tile_lane(int slot, int c) {
    return slot % 8 * 4 + c % 8 / 2;
}

/* Where in a unit the weight of (slot, c) lies: bytes; of 4 bits the lower half for c % 16 < 8. */
MLN_TILE_FN int mln_tile_offset(int code, int slot, int c) {
    int lane = mln_tile_lane(slot, c), step = c / 16, upper = c % 16 / 8, odd = c % 2;
    int low_row = slot / 8;
    switch (code) {
    case MLN_TILE_DENSE:
        return step * 512 + lane * 16 + (low_row + 2 * upper) * 4 + odd * 2;
    case MLN_TILE_Q8:
    case MLN_TILE_Q8_PAIR:
        return step / 2 * 512 + lane * 16 + (step % 2 * 2 + upper) * 4 + odd * 2 + low_row;
    default:
        return lane * 16 + step * 4 + odd * 2 + low_row;
    }
}

/* Where in a unit scale and bias of a row lie: bytes. */
MLN_TILE_FN int mln_tile_scale_offset(int code, int slot, int set) {
    return mln_unit_codes(code) + set * MLN_SCALE_BYTES + slot % 8 * 8 + slot / 8 * 4;
}

/* Activations: where in a unit of 8 tokens column c of a token (0 .. 7) lies: bytes. */
MLN_TILE_FN int mln_token_offset(int token, int c) {
    return c / 32 * 512 + (token * 4 + c % 8 / 2) * 16 + c / 16 % 2 * 8 + c % 16 / 8 * 4 +
           c % 2 * 2;
}

/* Likewise of a single token: 128 bytes a unit. */
MLN_TILE_FN int mln_single_offset(int c) {
    return c / 32 * 64 + c % 8 / 2 * 16 + c / 16 % 2 * 8 + c % 16 / 8 * 4 + c % 2 * 2;
}

/*
 * For warp groups: where the units of 64 tokens begin, MLN_WGMMA_TOKENS / 8 groups of
 * MLN_TOKEN_UNIT_BYTES each, and where in a group column c of a token (0 .. 7) lies: bytes.
 */
MLN_TILE_FN int64_t mln_wgmma_units(int64_t token, int64_t units) {
    return token / MLN_WGMMA_TOKENS * units * (MLN_WGMMA_TOKENS / MLN_TOKEN_TILE) *
           MLN_TOKEN_UNIT_BYTES;
}

MLN_TILE_FN int mln_wgmma_offset(int token, int c) {
    return token * 128 + (c / 8 ^ token) * 16 + c % 8 * 2;
}

/* First row of rank `rank` of `ranks` that share a matrix in whole tiles; `rows` for the one after
 * the last. */
MLN_TILE_FN int mln_tile_first_row(int rows, int rank, int ranks) {
    int64_t tiles = ((int64_t)rows + MLN_TILE_ROWS - 1) / MLN_TILE_ROWS;
    int64_t first = tiles * rank / ranks * MLN_TILE_ROWS;
    return first < rows ? (int)first : rows;
}

/* First unit of part `split` of a row of `units`. */
MLN_TILE_FN int mln_split_begin(int units, int split) {
    return units * split / MLN_TILE_SPLITS;
}

#endif
