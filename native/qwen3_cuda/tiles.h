/* SPDX-License-Identifier: Apache-2.0 */
/*
 * How weights lie in device memory for the tensor cores, as functions the host can test.
 *
 * A tile is 16 rows of a matrix, a unit 64 columns of a tile; the units of a tile follow each
 * other, tiles too. A unit holds what the 32 lanes of a warp need for four products of 16 x 16
 * weights with 16 x 8 activations (mma.m16n8k16), each lane's bytes in vectors of 16, neighbours
 * side by side:
 *   dense   4 vectors a lane, one for each product: binary16
 *   packed  3 vectors: 12 bits a weight
 *   8 bits  2 vectors, codes
 *   4 bits  1 vector, codes
 * and for codes after them, for every 64 or 32 columns, scale and bias of the 16 rows in binary16.
 * Each row is multiplied by a power of two that puts its largest weight near 2^14, so that bfloat16
 * fits binary16: exact down to 2^-31 of the row's largest, within 2^-39 of it below.
 *
 * A code in the lowest bits of a binary16 is a subnormal number, 2^-24 times itself, and is
 * multiplied as that, which spares making another number of it. So scales lie there times 2^24, and
 * a row's power of two puts the largest of them near 2^14: the largest weights then are near 2^-2
 * (8 bits) or 2^-6 (4 bits), and those below 2^-14 are within 2^-25.
 *
 * Packed weights are the same binary16 numbers without the bits that bfloat16 leaves empty: a sign,
 * 4 bits of exponent, 7 of the mantissa, to be multiplied by a power of two of the row (its lift).
 * The few numbers that this cannot say are escapes, in a list for each part of a tile's row.
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
    MLN_CODE_SHIFT = 24,         /* scales lie there times 2 to this */
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
    MLN_TILE_Q4_PAIR,
    MLN_TILE_PACKED /* what DENSE has, in 12 bits */
} mln_tile_code;

MLN_TILE_FN int mln_tile_sets(int code) {
    return code == MLN_TILE_DENSE || code == MLN_TILE_PACKED      ? 0
           : code == MLN_TILE_Q8_PAIR || code == MLN_TILE_Q4_PAIR ? 2
                                                                  : 1;
}

/* Bytes of a unit's weights or codes. */
MLN_TILE_FN int mln_unit_codes(int code) {
    return code == MLN_TILE_DENSE                            ? 2048
           : code == MLN_TILE_PACKED                         ? 1536
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

/* The part that a unit is in. */
MLN_TILE_FN int mln_split_of(int units, int unit) {
    int split = 0;
    while (mln_split_begin(units, split + 1) <= unit)
        split++;
    return split;
}

/* --- packed weights --- */

enum {
    MLN_PACKED_MOST_UNITS = 504, /* of a row: 63 a part */
    MLN_PACKED_LIFTS = 15,       /* powers of two of a row: 2^0 to 2^14 */
    MLN_PACKED_EXPONENTS = 15,   /* that are told apart below a row's highest; and 0 */
    MLN_PACKED_MOST_ESCAPES = 32 /* of a part: one a lane */
};
#define MLN_PACKED_FIELDS 0xbff8bff8u /* bits of two numbers before the lift; the others are 0 */
#define MLN_NO_ESCAPE     0xffffffffu

/* A number of binary16 without its lift as a field, which has bits of FIELDS only; -1: an escape.
 */
MLN_TILE_FN int mln_pack_half(unsigned half, int lift) {
    int sign = (int)(half & 0x8000u), exponent = (int)(half >> 10 & 31u);
    unsigned mantissa = half & 1023u;
    if (exponent == 31 || exponent > lift + MLN_PACKED_EXPONENTS)
        return -1;
    if (exponent > lift)
        return mantissa & 7u ? -1 : sign | (exponent - lift) << 10 | (int)mantissa;
    /* exponent 0: so many times the smallest that a field can have, eight times binary16's */
    unsigned significand = exponent > 0 ? mantissa | 1024u : mantissa;
    int shift = lift + 4 - (exponent > 0 ? exponent : 1);
    unsigned times = significand >> shift;
    return times << shift == significand ? sign | (int)(times << 3) : -1;
}

MLN_TILE_FN uint32_t mln_rotate(uint32_t word, int left) {
    return word << left | word >> (32 - left);
}

/* Four registers, each of two fields, as three words: the first three lie as they are, the fourth
 * in the bits that they leave. */
MLN_TILE_FN void mln_pack_words(uint32_t words[3], const uint32_t registers[4]) {
    uint32_t last = registers[3];
    words[0] = registers[0] | mln_rotate(last & 0x00e800e8u, 32 - 5);
    words[1] = registers[1] | mln_rotate(last & 0x1d001d00u, 32 - 10);
    words[2] = registers[2] | mln_rotate(last & 0xa000a000u, 32 - 15) |
               mln_rotate(last & 0x00100010u, 32 - 3) | mln_rotate(last & 0x02000200u, 32 - 7);
}

/* The fourth register of three words. */
MLN_TILE_FN uint32_t mln_unpack_last(uint32_t a, uint32_t b, uint32_t c) {
    return (mln_rotate(a, 5) & 0x00e800e8u) | (mln_rotate(b, 10) & 0x1d001d00u) |
           (mln_rotate(c, 15) & 0xa000a000u) | (mln_rotate(c, 3) & 0x00100010u) |
           (mln_rotate(c, 7) & 0x02000200u);
}

/*
 * Three words have a lane's weights of one row in 32 columns: in register 0 those of columns 2 q
 * and 2 q + 1 (lane 4 g + q), in the others of 8, 16 and 24 columns on. Word `index` of columns 0
 * to 31 (half 0) or 32 to 63 of row `slot` lies so many bytes into its unit.
 */
MLN_TILE_FN int mln_packed_offset(int slot, int half, int q, int index) {
    int word = half * 6 + slot / 8 * 3 + index;
    return word / 4 * 512 + (slot % 8 * 4 + q) * 16 + word % 4 * 4;
}

/* Escapes that a part of a tile has room for. */
MLN_TILE_FN int mln_escape_room(int units) {
    int longest = (units + MLN_TILE_SPLITS - 1) / MLN_TILE_SPLITS;
    return longest <= 2 ? 8 : longest <= 8 ? 16 : MLN_PACKED_MOST_ESCAPES;
}

/* An escape: the unit of the part, 6 bits; lane, product, register of the fragment, which half of
 * it; the number. */
MLN_TILE_FN uint32_t mln_escape(int unit, int slot, int c, unsigned half) {
    int place =
        mln_tile_lane(slot, c) << 5 | c / 16 << 3 | (slot / 8 + c % 16 / 8 * 2) << 1 | c % 2;
    return (uint32_t)unit << 26 | (uint32_t)place << 16 | half;
}

#endif
