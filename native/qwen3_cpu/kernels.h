/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The kernels of the CPU plug-in: one table for each instruction set, all compiled from kernels.inc
 * and the files it includes, chosen when a model is loaded.
 *
 * Weights lie in panels of 32 rows, two tiles of 16, in the order they are read: one sequential
 * stream feeds the memory system better than several (docs/PERFORMANCE.md). K is the number of
 * columns, G = K / group:
 *   F32    float    [K][32]
 *   F16    binary16 [K][32]
 *   BF16   bfloat16 [ceil(K / 2)][32][2]   pairs of columns; an odd last one is paired with zeros
 *   BF16P  the same numbers, packed without loss: a mln_cpu_packed_head, then, if it says packed,
 *          [ceil(K / 4)] of { codes [64], lower bytes [2][64] } and escapes; else a BF16 panel.
 *          Byte 16q + 8t + 2r + j of lower bytes [h] is that of row 16t + 4q + r in column
 *          4i + 2h + j; the code of its upper byte is in the low (h = 0) or high half of the
 *          same byte of the codes
 *   Q4, Q8 [G] of { scales [32], biases [32] (of scale_dtype), codes }
 *          Q4 codes [group / 4][64] bytes: byte 4r + j holds column 4i + j of row r in its low and
 *                                          of row 16 + r in its high half
 *          Q8 codes [group / 4][2][64] bytes: byte 4r + j of tile t is column 4i + j of row 16t + r
 *
 * Every output is accumulated in one order, whatever the number of tokens computed at once: columns
 * ascending in one accumulator (dense and packed), or an exact integer sum for each group, groups
 * ascending (Q4, Q8). These sums are the same with all sets of kernels. Those of activations cut
 * in pieces are as the instructions add: piece by piece pairs of columns, or 32 of them at once
 * (tile_amx.h); what is infinite may then be NaN.
 */
#ifndef MLN_CPU_KERNELS_H
#define MLN_CPU_KERNELS_H

#include <stddef.h>
#include <stdint.h>

typedef enum mln_cpu_kind {
    MLN_CPU_F32,
    MLN_CPU_F16,
    MLN_CPU_BF16,
    MLN_CPU_BF16P,
    MLN_CPU_Q4,
    MLN_CPU_Q8,
    MLN_CPU_KINDS
} mln_cpu_kind;

/* How far ahead of its use the kernels have the processor fetch what they read of a panel. */
typedef enum mln_cpu_fetch {
    MLN_CPU_FETCH_NONE, /* its own prefetching does better alone */
    MLN_CPU_FETCH_NEAR, /* 4 KiB, into the first cache */
    MLN_CPU_FETCH_FAR,  /* and 16 KiB, into the second */
    MLN_CPU_FETCH_CLOSE /* 1 KiB, and 4 into the second; of BF16 768 bytes alone */
} mln_cpu_fetch;

enum {
    MLN_CPU_PANEL = 32,       /* rows of a panel */
    MLN_CPU_BLOCK = 48,       /* most tokens whose activations are packed together */
    MLN_CPU_SLACK = 1024,     /* bytes of a block behind them that some kernels read */
    MLN_CPU_PACKED = 128,     /* columns that are packed alone */
    MLN_CPU_LANES = 16,       /* of the vectors all kernels are written in */
    MLN_CPU_SPLIT = 256,      /* keys attended to before a partial result is merged */
    MLN_CPU_PAGE = 64,        /* positions of a page, MYELIN_PAGE_POSITIONS; divides a split */
    MLN_CPU_ATTEND_ROWS = 192 /* most query rows attended with at once */
};

/* A weight matrix [rows, columns] in panels; rows past the end of the last one are zeros. */
typedef struct mln_cpu_matrix {
    int32_t kind;        /* a mln_cpu_kind */
    int32_t group;       /* Q4, Q8: columns of a group, 32, 64 or 128 */
    int32_t scale_dtype; /* Q4, Q8: a myelin_dtype */
    int32_t fetch[3];    /* a mln_cpu_fetch: for one token, for two, and for more */
    int32_t pieces;      /* BF16, BF16P: bfloat16 numbers whose sum stands for an activation; 0:
                            activations are floats. At most most_pieces.
                            Q4, Q8: 1: activations are bytes, where least_bytes says so; 0: 16 bits
                            in two bytes */
    int64_t rows, columns;
    int64_t panels;
    int64_t panel_bytes;
    int64_t between;     /* bytes of another matrix that lie between a panel and the next */
    unsigned char *data; /* [panels][panel_bytes + between], 64-byte aligned */
    uint64_t *starts;    /* BF16P: [panels] where each begins in data; panel_bytes is the most */
} mln_cpu_matrix;

/* Where a panel lies. */
static inline unsigned char *mln_cpu_panel_at(const mln_cpu_matrix *m, int64_t panel) {
    return m->data +
           (m->starts ? (int64_t)m->starts[panel] : panel * (m->panel_bytes + m->between));
}

/* What a BF16P panel begins with. */
typedef struct mln_cpu_packed_head {
    uint8_t upper[16]; /* the upper byte each code stands for: sign and 7 bits of the exponent */
    uint32_t packed;   /* 0: a BF16 panel follows */
    uint32_t escapes;  /* without the last one, which is of no step */
    uint64_t bytes;    /* of the panel, this head included, in whole 64s */
    uint64_t reserved[4];
} mln_cpu_packed_head;

/* A weight whose upper byte has no code. They lie in the order of their steps. */
typedef struct mln_cpu_escape {
    uint32_t step;  /* pair of columns; UINT32_MAX after the last */
    uint16_t at;    /* 2 * row + column of the pair */
    uint16_t value; /* bfloat16 */
} mln_cpu_escape;

enum { MLN_CPU_PACKED_STEP = 192 }; /* bytes of four columns */

/* The code of an upper byte, if one stands for it: its sign and the lowest bits of its exponent. */
static inline uint8_t mln_cpu_code_of(unsigned upper) {
    return (uint8_t)((upper >> 4 & 8) | (upper & 7));
}

/* pack.c: what each code is best to stand for, by every `every`-th pair of columns of a BF16 panel.
 */
void mln_cpu_choose_upper(uint8_t upper[16], const unsigned char *dense, int64_t pairs,
                          int64_t every);

/* What a cache holds of each number: a float, a binary16, or a code of -127 to 127. */
typedef enum mln_cpu_cell {
    MLN_CPU_CELL_F32,
    MLN_CPU_CELL_F16,
    MLN_CPU_CELL_I8,
    MLN_CPU_CELLS
} mln_cpu_cell;

/*
 * The keys and values of one kv head of one layer, as the cache holds them, width = head_dim
 * rounded up to MLN_CPU_LANES:
 *   keys   [slots / 16][width][16]  a block of 16 slots beside each other
 *   values [slots][width]
 *   scales [slots]                  I8 only: a number is its code times its slot's scale
 * Position p lies in slot pages[p / 64] * 64 + p % 64; the caches of other heads and layers lie
 * between one page's slots and the next one's.
 */
typedef struct mln_cpu_kv {
    unsigned char *keys;
    unsigned char *values;
    float *key_scales, *value_scales;
    const int32_t *pages;
} mln_cpu_kv;

static inline int64_t mln_cpu_cell_bytes(mln_cpu_cell cell) {
    return cell == MLN_CPU_CELL_F32 ? 4 : cell == MLN_CPU_CELL_F16 ? 2 : 1;
}
/* Of what is kept of a slot's keys, or its values: `width` cells, and their scale. */
static inline int64_t mln_cpu_slot_bytes(mln_cpu_cell cell, int64_t width) {
    int64_t scale = cell == MLN_CPU_CELL_I8 ? (int64_t)sizeof(float) : 0;
    return width * mln_cpu_cell_bytes(cell) + scale;
}

/* The slot that holds a position. */
static inline int32_t mln_cpu_slot(const int32_t *pages, int32_t position) {
    return pages[position / MLN_CPU_PAGE] * MLN_CPU_PAGE + position % MLN_CPU_PAGE;
}

/* One call of attend(): rows of queries over the positions of one kv head. */
typedef struct mln_cpu_attention {
    mln_cpu_kv kv;
    int32_t rows;     /* 1 to MLN_CPU_ATTEND_ROWS */
    int32_t head_dim; /* D */
    int32_t width;    /* D rounded up to MLN_CPU_LANES */
    int32_t reserved;
    const int32_t
        *limits;    /* [rows] positions row r sees: 0 .. limits[r]-1, ascending, at least 1 */
    const float *q; /* [width / 16][rows][16] scaled by 1 / sqrt(D) */
    float *out;     /* [rows][width] */
    float *scratch; /* [mln_cpu_attend_scratch(width)] */
    const unsigned char *next; /* the kernels' own */
} mln_cpu_attention;

/* Floats of what `rows` make of a split. */
static inline int64_t mln_cpu_part_size(int64_t rows, int64_t width) {
    return rows * (width + 2);
}

/* Floats of a split's keys, or its values, where they are made floats for many rows. */
static inline int64_t mln_cpu_wide_size(int64_t width) {
    return MLN_CPU_SPLIT * (width + MLN_CPU_LANES);
}

/* Floats of a call's scratch memory: those of a split, scores of rows and a part of theirs. */
static inline int64_t mln_cpu_attend_scratch(int64_t width) {
    return 2 * mln_cpu_wide_size(width) + MLN_CPU_ATTEND_ROWS * MLN_CPU_SPLIT +
           mln_cpu_part_size(MLN_CPU_ATTEND_ROWS, width);
}

typedef struct mln_cpu_kernels {
    const char *name;
    int32_t block;                /* tokens whose activations are packed together */
    int32_t together;             /* bytes of panels that meet a block of many one after the other,
                                     so that it comes from the nearest caches; 0: one panel */
    int32_t most_pieces;          /* bfloat16 numbers that activations can be cut in; with two of
                                     them products are faster than with floats */
    int32_t least_bytes;          /* of an activation that meets codes: 1 or 2 */
    int32_t fetch[MLN_CPU_KINDS]; /* what is best for a token or two, but see mln_cpu_set_fetch() */

    /* Bytes that `count` tokens' activations take packed for a matrix. */
    size_t (*packed_bytes)(const mln_cpu_matrix *weight, int32_t count);
    /* Non-zero for kinds (and groups) whose activations are packed alike. */
    int32_t (*pack_format)(const mln_cpu_matrix *weight);
    /* Packs columns first .. last-1 of x[columns] as token `index` of a block of `count`; both are
     * multiples of MLN_CPU_PACKED or the end. */
    void (*pack)(void *block, const mln_cpu_matrix *weight, const float *x, int32_t index,
                 int32_t count, int64_t first, int64_t last);
    /* out[count, 32] = the block's tokens times the rows of panel `panel`. */
    void (*panel)(float *out, const mln_cpu_matrix *weight, int64_t panel, const void *block,
                  int32_t count);

    /* out[count][0 .. valid-1], rows `stride` apart, = tile [count, 32], or += it. */
    void (*put)(float *out, int64_t stride, const float *tile, int32_t count, int64_t valid,
                int32_t add);

    /* out[n] = x / sqrt(mean(x^2) + eps) * weight; out may be x. */
    void (*rms_norm)(float *out, const float *x, const float *weight, int64_t n, float eps);
    /* out[n] = silu(gate) * up */
    void (*silu_mul)(float *out, const float *gate, const float *up, int64_t n);

    /* out[n] = rms_norm of x, its halves rotated by cos, sin [n / 2]; out may be x. */
    void (*norm_rotate)(float *out, const float *x, const float *weight, const float *cos,
                        const float *sin, int64_t n, float eps);
    /* A query [n] times the scale into its place among an attention's: sixteens `stride` apart. */
    void (*store_query)(float *to, int64_t stride, const float *query, int64_t n, float scale);
    /* Writes a key or value [D] into a slot of a cache of such cells. */
    void (*store_key)(const mln_cpu_kv *kv, const float *key, int32_t slot, int32_t head_dim,
                      int32_t width, mln_cpu_cell cell);
    void (*store_value)(const mln_cpu_kv *kv, const float *value, int32_t slot, int32_t head_dim,
                        int32_t width, mln_cpu_cell cell);
    void (*attend[MLN_CPU_CELLS])(const mln_cpu_attention *attention); /* by the cache's cells */
    /* The same in pieces: every split of MLN_CPU_SPLIT positions to a part, and all parts, which
     * lie one behind the other, to attention->out. */
    void (*attend_split[MLN_CPU_CELLS])(float *part, const mln_cpu_attention *attention,
                                        int32_t split);
    void (*attend_merge)(const mln_cpu_attention *attention, const float *parts);

    /*
     * The products and sums of a tile, as fast as they go with everything in registers or beside
     * them, `rounds` times; how many of weights times activations that was. `sink` [PANEL] is
     * written to. Dense weights, and codes times activations of so many bytes.
     */
    double (*spin_dense)(float *sink, int64_t rounds);
    double (*spin_codes)(float *sink, int64_t rounds, int32_t bytes);
    /* Of bfloat16 weights and activations cut in pieces; NULL where they never are. */
    double (*spin_pieces)(float *sink, int64_t rounds, int32_t pieces);

    /* Panel `panel` of a dense matrix from its rows [32][K] as they are stored in files. */
    void (*interleave)(unsigned char *panel, const void *rows, const mln_cpu_matrix *weight);
    /*
     * A BF16P panel from a BF16 one, in at most its bytes and a head's; dense where packing would
     * not make it smaller. Returns its bytes.
     */
    size_t (*pack_weights)(unsigned char *panel, const unsigned char *dense, int64_t columns);
} mln_cpu_kernels;

/* The fastest table this processor can run; `wanted` names another, or is NULL. */
const mln_cpu_kernels *mln_cpu_choose(const char *wanted);

/* Sets how far ahead this processor is to fetch a matrix of its kind; CLOSE, if that was seen to be
 * faster for one token. */
void mln_cpu_set_fetch(mln_cpu_matrix *matrix, const mln_cpu_kernels *kernels, bool close);

#endif
