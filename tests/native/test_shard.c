/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Tensor parallelism without a device: what each rank reads of a model, that all of it is read, and
 * that the sums of the ranks' products are those of the whole.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka wants some of these */
#include <cmocka.h>

#include "qwen3_cuda/shard.h"
#include "qwen3_cuda/tiles.h"

enum {
    LAYERS = 2,
    LAYER_TENSORS = sizeof(myelin_layer_weights) / sizeof(myelin_tensor),
    HIDDEN = 40,
    HEADS = 16,
    KV_HEADS = 8,
    HEAD_DIM = 16,
    INTERMEDIATE = 1024,
    VOCAB = 150,
    Q = HEADS * HEAD_DIM,
    K = KV_HEADS * HEAD_DIM,
    MOST_ROW = 4 * INTERMEDIATE
};

/* A model whose tensors are known by their number, and what was read of it. */
typedef struct whole_model {
    myelin_config config;
    myelin_weights weights;
    myelin_layer_weights layers[LAYERS];
    myelin_host host;
    int fail_at; /* calls of read() until one fails; 0: none does */
    int calls;
} whole_model;

static myelin_tensor tensor(int32_t dtype, int64_t rows, int64_t columns) {
    myelin_tensor t = {.dtype = dtype, .rank = columns ? 2 : 1, .shape = {rows, columns}};
    t.stride[0] = columns ? columns : 1;
    t.stride[1] = columns ? 1 : 0;
    if (dtype == MYELIN_DTYPE_AFFINE) {
        t.bits = 4;
        t.group_size = 32;
        t.scale_dtype = MYELIN_DTYPE_BF16;
    }
    return t;
}

/* Bytes of a row of one part. */
static int64_t row_bytes(const myelin_tensor *t, myelin_tensor_part part) {
    int64_t columns = t->rank == 1 ? 1 : t->shape[1];
    if (t->dtype == MYELIN_DTYPE_AFFINE)
        return part == MYELIN_PART_DATA ? columns * t->bits / 8 : columns / t->group_size * 2;
    return columns * (t->dtype == MYELIN_DTYPE_F32 ? 4 : 2);
}

static int number_of(const whole_model *model, const myelin_tensor *t) {
    if (t == &model->weights.embed_tokens)
        return 0;
    if (t == &model->weights.norm)
        return 1;
    if (t == &model->weights.lm_head)
        return 2;
    ptrdiff_t index = t - &model->layers[0].input_layernorm;
    assert_in_range(index, 0, LAYERS * LAYER_TENSORS - 1);
    return 3 + (int)index;
}

static unsigned char byte_at(int number, int part, int64_t row, int64_t at) {
    uint32_t x = (uint32_t)(number * 31 + part) * 2654435761u + (uint32_t)(row * 4099 + at);
    x = (x ^ x >> 15) * 2246822519u;
    return (unsigned char)(x >> 13);
}

/* A small whole number for each weight, where floats are wanted. */
static float weight_at(int number, int64_t row, int64_t column) {
    return (float)(byte_at(number, 9, row, column) % 5) - 2.0f;
}

static myelin_status read_whole(void *self, const myelin_tensor *t, myelin_tensor_part part,
                                int64_t row, int64_t count, void *dst, myelin_error_buffer *error) {
    whole_model *model = self;
    int number = number_of(model, t);
    if (++model->calls == model->fail_at) {
        snprintf(error->text, error->size, "no more");
        return MYELIN_ERROR_IO;
    }
    assert_in_range(row, 0, t->shape[0]);
    assert_in_range(count, 0, t->shape[0] - row);
    int64_t bytes = row_bytes(t, part);
    for (int64_t i = 0; i < count; i++)
        for (int64_t b = 0; b < bytes; b++)
            ((unsigned char *)dst)[i * bytes + b] = byte_at(number, (int)part, row + i, b);
    if (t->dtype == MYELIN_DTYPE_F32 && t->rank == 2)
        for (int64_t i = 0; i < count; i++)
            for (int64_t c = 0; c < t->shape[1]; c++)
                ((float *)dst)[i * t->shape[1] + c] = weight_at(number, row + i, c);
    return MYELIN_OK;
}

static void make_model(whole_model *model, int32_t dtype, bool tied) {
    *model = (whole_model){
        .config = {.vocab_size = VOCAB,
                   .hidden_size = HIDDEN,
                   .intermediate_size = INTERMEDIATE,
                   .num_hidden_layers = LAYERS,
                   .num_attention_heads = HEADS,
                   .num_key_value_heads = KV_HEADS,
                   .head_dim = HEAD_DIM,
                   .tie_word_embeddings = tied},
        .weights = {.embed_tokens = tensor(MYELIN_DTYPE_BF16, VOCAB, HIDDEN),
                    .norm = tensor(MYELIN_DTYPE_F32, HIDDEN, 0),
                    .lm_head = tensor(MYELIN_DTYPE_BF16, VOCAB, HIDDEN),
                    .num_layers = LAYERS},
        .host = {.struct_size = sizeof(myelin_host), .num_threads = 1, .read = read_whole}};
    for (int l = 0; l < LAYERS; l++) {
        /* inputs of 40 columns are no whole groups of codes */
        int32_t in = dtype == MYELIN_DTYPE_AFFINE ? MYELIN_DTYPE_BF16 : dtype;
        model->layers[l] =
            (myelin_layer_weights){.input_layernorm = tensor(MYELIN_DTYPE_F32, HIDDEN, 0),
                                   .q_proj = tensor(in, Q, HIDDEN),
                                   .k_proj = tensor(in, K, HIDDEN),
                                   .v_proj = tensor(in, K, HIDDEN),
                                   .q_norm = tensor(MYELIN_DTYPE_F32, HEAD_DIM, 0),
                                   .k_norm = tensor(MYELIN_DTYPE_F32, HEAD_DIM, 0),
                                   .o_proj = tensor(dtype, HIDDEN, Q),
                                   .post_attention_layernorm = tensor(MYELIN_DTYPE_F32, HIDDEN, 0),
                                   .gate_proj = tensor(in, INTERMEDIATE, HIDDEN),
                                   .up_proj = tensor(in, INTERMEDIATE, HIDDEN),
                                   .down_proj = tensor(dtype, HIDDEN, INTERMEDIATE)};
    }
    model->weights.layers = model->layers;
    model->host.self = model;
}

static mln_shard open_shard(whole_model *model, int32_t rank, int32_t ranks) {
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    mln_shard shard;
    if (mln_shard_check(&model->config, &model->weights, ranks, &error) != MYELIN_OK)
        fail_msg("%s", text);
    assert_int_equal(
        mln_shard_open(&shard, &model->config, &model->weights, &model->host, rank, ranks, &error),
        MYELIN_OK);
    return shard;
}

static const myelin_tensor *own_tensor(const mln_shard *shard, int number) {
    return number == 0   ? &shard->weights.embed_tokens
           : number == 1 ? &shard->weights.norm
           : number == 2 ? &shard->weights.lm_head
                         : &shard->layers[0].input_layernorm + (number - 3);
}

/* --- which part is whose --- */

/* The first row or column of rank's part of a tensor, and how many; by the heads' numbers. */
static void expected_part(int number, bool tied, int rank, int ranks, int64_t *row, int64_t *rows,
                          int64_t *column, int64_t *columns) {
    static const int64_t shapes[LAYER_TENSORS][2] = {{HIDDEN, 1},
                                                     {Q, HIDDEN},
                                                     {K, HIDDEN},
                                                     {K, HIDDEN},
                                                     {HEAD_DIM, 1},
                                                     {HEAD_DIM, 1},
                                                     {HIDDEN, Q},
                                                     {HIDDEN, 1},
                                                     {INTERMEDIATE, HIDDEN},
                                                     {INTERMEDIATE, HIDDEN},
                                                     {HIDDEN, INTERMEDIATE}};
    int index = number < 3 ? -1 : (number - 3) % LAYER_TENSORS;
    *row = *column = 0;
    *rows = index >= 0 ? shapes[index][0] : number == 1 ? HIDDEN : VOCAB;
    *columns = index >= 0 ? shapes[index][1] : number == 1 ? 1 : HIDDEN;
    if (index == 1 || index == 2 || index == 3) {
        int64_t heads = (index == 1 ? HEADS : KV_HEADS) / ranks;
        *row = rank * heads * HEAD_DIM;
        *rows = heads * HEAD_DIM;
    } else if (index == 6) {
        *column = rank * (HEADS / ranks) * HEAD_DIM;
        *columns = HEADS / ranks * HEAD_DIM;
    } else if (index == 8 || index == 9) {
        *row = rank * (INTERMEDIATE / ranks);
        *rows = INTERMEDIATE / ranks;
    } else if (index == 10) {
        *column = rank * (INTERMEDIATE / ranks);
        *columns = INTERMEDIATE / ranks;
    } else if (number == 2 && !tied) {
        *row = mln_tile_first_row(VOCAB, rank, ranks);
        *rows = mln_tile_first_row(VOCAB, rank + 1, ranks) - *row;
    }
}

static void check_tensor(whole_model *model, mln_shard *shard, int number) {
    static unsigned char found[INTERMEDIATE * MOST_ROW];
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    const myelin_tensor *own = own_tensor(shard, number);
    int64_t row, rows, column, columns;
    bool tied = model->config.tie_word_embeddings;
    expected_part(number, tied, shard->rank, shard->ranks, &row, &rows, &column, &columns);
    assert_int_equal(own->shape[0], rows);
    if (own->rank == 2)
        assert_int_equal(own->shape[1], columns);
    int parts = own->dtype == MYELIN_DTYPE_AFFINE ? 3 : 1;
    for (int part = 0; part < parts; part++) {
        int64_t bytes = row_bytes(own, (myelin_tensor_part)part);
        int64_t skipped = columns > 0 ? column * bytes / columns : 0;
        for (int64_t at = 0; at < rows; at += 7) { /* in runs that end anywhere */
            int64_t count = rows - at < 7 ? rows - at : 7;
            myelin_status status = mln_shard_read(shard, own, (myelin_tensor_part)part, at, count,
                                                  found + at * bytes, &error);
            if (status != MYELIN_OK)
                fail_msg("tensor %d: %s", number, text);
        }
        for (int64_t r = 0; r < rows; r++)
            for (int64_t b = 0; b < bytes; b++)
                if (found[r * bytes + b] != byte_at(number, part, row + r, skipped + b))
                    fail_msg("tensor %d, part %d, rank %d of %d: byte %d of row %d", number, part,
                             (int)shard->rank, (int)shard->ranks, (int)b, (int)r);
    }
}

static void parts(void **state) {
    (void)state;
    static const int32_t dtypes[] = {MYELIN_DTYPE_BF16, MYELIN_DTYPE_F16, MYELIN_DTYPE_AFFINE};
    static whole_model model;
    for (int ranks = 1; ranks <= KV_HEADS; ranks *= 2)
        for (int i = 0; i < 3; i++)
            for (int rank = 0; rank < ranks; rank++) {
                if (dtypes[i] == MYELIN_DTYPE_AFFINE && Q / ranks % 32 != 0)
                    continue;
                make_model(&model, dtypes[i], i == 1);
                mln_shard shard = open_shard(&model, rank, ranks);
                for (int number = 0; number < 3 + LAYERS * LAYER_TENSORS; number++)
                    check_tensor(&model, &shard, number);
                assert_int_equal(shard.config.num_attention_heads * ranks, HEADS);
                assert_int_equal(shard.config.num_key_value_heads * ranks, KV_HEADS);
                assert_int_equal(shard.config.intermediate_size * ranks, INTERMEDIATE);
                assert_int_equal(shard.config.vocab_size, VOCAB);
                mln_shard_close(&shard);
            }
}

static void vocabulary(void **state) {
    (void)state;
    static const int sizes[] = {17, 80, 150, 151936, 151669};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
        for (int ranks = 1; ranks <= 8; ranks++) {
            if (sizes[i] <= (ranks - 1) * MLN_TILE_ROWS)
                continue;
            assert_int_equal(mln_tile_first_row(sizes[i], 0, ranks), 0);
            assert_int_equal(mln_tile_first_row(sizes[i], ranks, ranks), sizes[i]);
            for (int r = 0; r < ranks; r++) {
                int first = mln_tile_first_row(sizes[i], r, ranks);
                assert_int_equal(first % MLN_TILE_ROWS, 0);
                assert_true(mln_tile_first_row(sizes[i], r + 1, ranks) > first);
            }
        }
}

/* --- sums --- */

/* Floats of one tensor of a rank, or with the shard of one rank of the whole. */
static float *read_floats(mln_shard *shard, int number) {
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    const myelin_tensor *own = own_tensor(shard, number);
    float *values = malloc((size_t)(own->shape[0] * own->shape[1]) * sizeof *values);
    assert_non_null(values);
    assert_int_equal(mln_shard_read(shard, own, MYELIN_PART_DATA, 0, own->shape[0], values, &error),
                     MYELIN_OK);
    return values;
}

/* y[rows] = w x */
static void multiply(mln_shard *shard, int number, const float *x, float *y) {
    const myelin_tensor *own = own_tensor(shard, number);
    float *w = read_floats(shard, number);
    for (int64_t r = 0; r < own->shape[0]; r++) {
        y[r] = 0;
        for (int64_t c = 0; c < own->shape[1]; c++)
            y[r] += w[r * own->shape[1] + c] * x[c];
    }
    free(w);
}

/*
 * A layer of sorts: each head attends to its own value alone, the MLP multiplies without silu. All
 * numbers are whole and small, so that every order of adding gives the same.
 */
static void run_layer(mln_shard *shard, const float *x, float *attention, float *mlp) {
    enum { Q_PROJ = 4, K_PROJ, V_PROJ, O_PROJ = 9, GATE_PROJ = 11, UP_PROJ, DOWN_PROJ };
    static float q[Q], k[K], v[K], attended[Q], gate[INTERMEDIATE], up[INTERMEDIATE];
    multiply(shard, Q_PROJ, x, q);
    multiply(shard, K_PROJ, x, k);
    multiply(shard, V_PROJ, x, v);
    int32_t heads = shard->config.num_attention_heads;
    int32_t group = heads / shard->config.num_key_value_heads;
    for (int h = 0; h < heads; h++)
        for (int d = 0; d < HEAD_DIM; d++) {
            int at = h / group * HEAD_DIM + d;
            attended[h * HEAD_DIM + d] = (float)((int)(q[h * HEAD_DIM + d] + k[at]) % 3) + v[at];
        }
    multiply(shard, O_PROJ, attended, attention);
    multiply(shard, GATE_PROJ, x, gate);
    multiply(shard, UP_PROJ, x, up);
    for (int i = 0; i < shard->config.intermediate_size; i++)
        gate[i] = (float)((int)gate[i] % 5) * up[i];
    multiply(shard, DOWN_PROJ, gate, mlp);
}

static void sums(void **state) {
    (void)state;
    static whole_model model;
    float x[HIDDEN], attention[HIDDEN], mlp[HIDDEN], part[2][HIDDEN], sum[2][HIDDEN];
    make_model(&model, MYELIN_DTYPE_F32, true);
    for (int i = 0; i < HIDDEN; i++)
        x[i] = (float)(i % 7 - 3);
    mln_shard whole = open_shard(&model, 0, 1);
    run_layer(&whole, x, attention, mlp);
    mln_shard_close(&whole);
    for (int ranks = 2; ranks <= KV_HEADS; ranks *= 2) {
        memset(sum, 0, sizeof sum);
        for (int r = 0; r < ranks; r++) {
            mln_shard shard = open_shard(&model, r, ranks);
            run_layer(&shard, x, part[0], part[1]);
            mln_shard_close(&shard);
            for (int i = 0; i < HIDDEN; i++) {
                sum[0][i] += part[0][i];
                sum[1][i] += part[1][i];
            }
        }
        for (int i = 0; i < HIDDEN; i++) {
            assert_true(sum[0][i] == attention[i]);
            assert_true(sum[1][i] == mlp[i]);
        }
    }
}

/* --- refusals --- */

static void refused(whole_model *model, int32_t ranks, const char *reason) {
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    assert_int_not_equal(mln_shard_check(&model->config, &model->weights, ranks, &error),
                         MYELIN_OK);
    if (!strstr(text, reason))
        fail_msg("expected \"%s\", found \"%s\"", reason, text);
}

static void refusals(void **state) {
    (void)state;
    static whole_model model;
    make_model(&model, MYELIN_DTYPE_BF16, true);
    refused(&model, 0, "devices: expected 1 to 64, found 0");
    refused(&model, 65, "devices: expected 1 to 64, found 65");
    refused(&model, 3, "num_key_value_heads is 8: expected what 3 devices divide");
    refused(&model, 16, "num_key_value_heads is 8");
    model.config.intermediate_size = INTERMEDIATE - 2;
    refused(&model, 4, "intermediate_size is 1022: expected what 4 devices divide");
    make_model(&model, MYELIN_DTYPE_BF16, true);
    model.config.vocab_size = 48;
    refused(&model, 4, "vocab_size is 48: expected more than 48 for 4 devices");
    make_model(&model, MYELIN_DTYPE_AFFINE, true);
    model.layers[1].down_proj.group_size = 256;
    refused(&model, 8, "down_proj of layer 1: expected groups of 256 columns to divide the 128");
    model.layers[0].o_proj.group_size = 64;
    refused(&model, 8, "o_proj of layer 0: expected groups of 64 columns to divide the 32");
}

static void bad_reads(void **state) {
    (void)state;
    static whole_model model;
    static unsigned char to[HIDDEN * MOST_ROW];
    char text[256] = "";
    myelin_error_buffer error = {text, sizeof text};
    make_model(&model, MYELIN_DTYPE_BF16, false);
    mln_shard shard = open_shard(&model, 1, 2);
    myelin_tensor other = model.layers[0].q_proj;
    const myelin_tensor *q = &shard.layers[0].q_proj;
    assert_int_equal(mln_shard_read(&shard, &other, MYELIN_PART_DATA, 0, 1, to, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_int_equal(mln_shard_read(&shard, q, MYELIN_PART_DATA, Q / 2 - 1, 2, to, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_int_equal(mln_shard_read(&shard, q, MYELIN_PART_DATA, -1, 1, to, &error),
                     MYELIN_ERROR_ARGUMENT);
    assert_int_equal(model.calls, 0);
    const myelin_tensor *cuts[] = {q, &shard.layers[1].down_proj, &shard.weights.lm_head};
    for (size_t i = 0; i < sizeof cuts / sizeof *cuts; i++) { /* what fails below fails here */
        model.calls = 0;
        model.fail_at = 1;
        assert_int_equal(mln_shard_read(&shard, cuts[i], MYELIN_PART_DATA, 0, 8, to, &error),
                         MYELIN_ERROR_IO);
        assert_string_equal(text, "no more");
    }
    mln_shard_close(&shard);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(parts), cmocka_unit_test(vocabulary),
                                       cmocka_unit_test(sums), cmocka_unit_test(refusals),
                                       cmocka_unit_test(bad_reads)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
