/* SPDX-License-Identifier: Apache-2.0 */
/*
 * The matrix product. Rows of the weight are taken a few at a time, converted to float32 a stretch
 * of columns at a time, and each stretch is multiplied with many rows of x before the next is
 * converted; the lanes of the dot products wait in between. Which rows are done together changes
 * nothing in the order of any one dot product.
 */
#include <string.h>

#include "tensor/dot.h"
#include "tensor/dtype.h"
#include "tensor/ops.h"

enum {
    STRETCH = 512, /* columns; a multiple of MLN_DOT_LANES and of every AFFINE group size */
    TILE_ROWS = 2 * MLN_DOT_TILE,    /* of the weight */
    TILE_TOKENS = 16 * MLN_DOT_TILE, /* rows of x */
    PIECE_PRODUCTS = 1 << 17         /* below this a piece is not worth waking a thread */
};

typedef struct linear_job {
    float *out;     /* [tokens, n] */
    const float *x; /* [tokens, k] */
    const myelin_tensor *weight;
    int64_t tokens, n, k;
    int64_t piece_rows;
} linear_job;

static int64_t min_i64(int64_t a, int64_t b) {
    return a < b ? a : b;
}

/*
 * Weight rows [row, row + rows), columns [column, column + count) as float32: into `room` [rows,
 * STRETCH], or where they are when they are float32 already. *stride: floats from row to row.
 */
static const float *weight_stretch(const myelin_tensor *weight, int64_t row, int64_t rows,
                                   int64_t column, int64_t count, float *room, int64_t *stride) {
    if (weight->dtype == MYELIN_DTYPE_F32) {
        *stride = weight->stride[0];
        return (const float *)weight->data + row * weight->stride[0] + column;
    }
    *stride = STRETCH;
    for (int64_t r = 0; r < rows; r++)
        mln_row_to_f32(room + r * STRETCH, weight, row + r, column, count);
    return room;
}

/* out[token .. token + tokens, row .. row + rows), at most a tile of them. */
static void linear_tile(const linear_job *job, int64_t token, int64_t tokens, int64_t row,
                        int64_t rows) {
    mln_lanes lanes[TILE_ROWS * TILE_TOKENS]; /* [rows, tokens] */
    _Alignas(64) float room[TILE_ROWS * STRETCH];
    memset(lanes, 0, (size_t)(rows * tokens) * sizeof *lanes);
    for (int64_t column = 0; column < job->k; column += STRETCH) {
        int64_t count = min_i64(STRETCH, job->k - column);
        int64_t stride;
        const float *w = weight_stretch(job->weight, row, rows, column, count, room, &stride);
        const float *x = job->x + token * job->k + column;
        for (int64_t r = 0; r < rows; r++)
            mln_dot_stretches(lanes + r * tokens, w + r * stride, x, job->k, count, tokens);
    }
    for (int64_t t = 0; t < tokens; t++)
        for (int64_t r = 0; r < rows; r++)
            job->out[(token + t) * job->n + row + r] = mln_dot_total(&lanes[r * tokens + t]);
}

/* Piece `index`: piece_rows rows of the weight with every row of x. */
static void linear_piece(void *context, int64_t index) {
    const linear_job *job = context;
    int64_t begin = index * job->piece_rows;
    int64_t end = min_i64(begin + job->piece_rows, job->n);
    for (int64_t token = 0; token < job->tokens; token += TILE_TOKENS) {
        int64_t tokens = min_i64(TILE_TOKENS, job->tokens - token);
        /* With one token, reading is the work, and one stream is twice as fast as six. */
        int64_t tile_rows = tokens == 1 ? 1 : TILE_ROWS;
        for (int64_t row = begin; row < end; row += tile_rows)
            linear_tile(job, token, tokens, row, min_i64(tile_rows, end - row));
    }
}

void mln_linear(const myelin_host *host, float *out, const float *x, const myelin_tensor *weight,
                int64_t rows) {
    int64_t n = weight->shape[0], k = weight->shape[1];
    if (rows <= 0 || n <= 0)
        return;
    int64_t tiles = (n + TILE_ROWS - 1) / TILE_ROWS;
    int64_t tile_products = TILE_ROWS * min_i64(k, PIECE_PRODUCTS) * min_i64(rows, PIECE_PRODUCTS);
    int64_t piece_tiles = min_i64(tiles, 1 + PIECE_PRODUCTS / (tile_products + 1));
    linear_job job = {out, x, weight, rows, n, k, piece_tiles * TILE_ROWS};
    host->parallel_for(host->self, (tiles + piece_tiles - 1) / piece_tiles, linear_piece, &job);
}
